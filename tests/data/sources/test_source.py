import numpy as np
from picture_files import encoded, pixels

from diptych.data.sources.source import Arrays, Entry, Files, Subset, digest


def files(*entries):
    return Files("x", [Entry(*entry) for entry in entries], lambda name: encoded("PNG"), [0, 1], ("a", "b"))


def test_files_are_decoded_when_asked_for():
    source = files(("a/1.png", 10, 1), ("b/2.png", 20, 2))
    assert len(source) == 2 and source.name_of(1) == "b/2.png" and source.label(1) == 1
    assert np.array_equal(source.read(0).transpose(1, 2, 0), pixels())


def test_fingerprint_changes_with_name_size_and_stamp_only():
    first = files(("a", 10, 1), ("b", 20, 2))
    assert first.fingerprint == files(("a", 10, 1), ("b", 20, 2)).fingerprint
    others = [files(("c", 10, 1), ("b", 20, 2)), files(("a", 11, 1), ("b", 20, 2)), files(("a", 10, 3), ("b", 20, 2))]
    assert len({first.fingerprint, *(other.fingerprint for other in others)}) == 4
    assert len(first.fingerprint) == 64


def test_without_labels_there_are_no_classes():
    source = Files("x", [Entry("a", 1, 1)], lambda name: b"", None, ("a", "b"))
    assert source.classes == () and source.label(0) is None


def test_a_name_that_is_not_text_is_shown_as_well_as_can_be():
    source = Files("x", [Entry("caf\udce9.jpg", 1, 1)], lambda name: b"")
    assert source.name_of(0).encode() and len(source.fingerprint) == 64


def test_subset():
    images = np.arange(4 * 3 * 2 * 2, dtype=np.uint8).reshape(4, 3, 2, 2)
    source = Arrays("x", images, [0, 1, 0, 1], ("a", "b"))
    part = Subset(source, [3, 0])
    assert len(part) == 2 and part.label(0) == 1 and part.name_of(1) == "a/00000" and part.classes == ("a", "b")
    assert np.array_equal(part.read(0), images[3])
    fingerprints = {source.fingerprint, part.fingerprint, Subset(source, [0, 3]).fingerprint}
    assert len(fingerprints) == 3


def test_arrays_hand_out_copies():
    source = Arrays("x", np.zeros((1, 3, 2, 2), np.uint8), [0], ("a",))
    source.read(0)[:] = 7
    assert source.read(0).max() == 0


def test_digest_keeps_parts_apart():
    assert digest(["ab", "c"]) != digest(["a", "bc"])
