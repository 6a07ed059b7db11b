import numpy as np
import pytest
import torch
from picture_files import encoded, pixels

from diptych.data.decoding.decode import decode, fit
from diptych.data.decoding.pixels import PixelFormat
from diptych.data.sources.folder import scan
from diptych.data.sources.source import Arrays, Entry, Files
from diptych.data.stores.memory import build_memory_store
from diptych.data.stores.reading import CHUNK
from diptych.errors import DataError


def files(contents, labels=None):
    """A source whose pictures are the bytes given."""
    entries = [Entry(f"{number:03d}.jpg", len(content), 0) for number, content in enumerate(contents)]
    return Files("x", entries, lambda name: contents[int(name[:3])], labels, ("a", "b"))


def build_store(source, size, on_bad, on_progress=None, threads=None, wanted=None):
    return build_memory_store(source, size, wanted or PixelFormat(), on_bad, on_progress, threads)


def refuse(bad):
    raise AssertionError(bad)


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_every_picture_in_order_at_one_size(threads):
    contents = [encoded("PNG", seed) for seed in range(2 * CHUNK + 5)]
    told = []
    store = build_store(files(contents), 16, refuse, lambda *done: told.append(done), threads=threads)
    assert store.images.shape == (len(contents), 3, 16, 16) and store.images.dtype == torch.uint8
    assert store.source_indices.tolist() == list(range(len(contents))) and len(store) == len(contents)
    for index, content in enumerate(contents):
        assert np.array_equal(store.images[index].numpy(), fit(decode(content, "x"), 16))
    assert told[-1] == (len(contents), len(contents)) and told == sorted(told)


def test_bad_pictures_are_told_and_left_out(make_folder):
    whole = encoded("JPEG", 3)
    folder = make_folder("a.jpg", "f.jpg", "g.png")
    for name, content in {"b.jpg": whole[:500], "c.jpg": b"", "d.jpg": b"no picture"}.items():
        (folder / name).write_bytes(content)
    listing = scan(folder)
    source = Files("x", listing.entries, listing.load)
    bad = []
    store = build_store(source, 8, bad.append)
    assert [picture.name for picture in bad] == ["b.jpg", "c.jpg", "d.jpg"]
    assert "cut short" in bad[0].reason and "empty" in bad[1].reason and "not a picture" in bad[2].reason
    assert store.source_indices.tolist() == [0, 4, 5] and len(store) == 3
    assert np.array_equal(store.images[2].numpy(), fit(source.read(5), 8))


def test_a_file_that_vanishes_between_scan_and_read(make_folder):
    folder = make_folder("a.jpg", "b.jpg")
    listing = scan(folder)
    (folder / "a.jpg").unlink()
    bad = []
    assert len(build_store(Files("x", listing.entries, listing.load), 8, bad.append)) == 1
    assert bad[0].name == "a.jpg" and "No such file" in bad[0].reason


def test_none_can_be_read():
    with pytest.raises(
        DataError, match="none of the 2 pictures of x can be read; the first, 000.jpg: the file is empty"
    ):
        build_store(files([b"", b"text"]), 8, lambda bad: None)


def test_more_than_fits_into_memory_is_said_before_it_starts():
    with pytest.raises(DataError, match=r"900 pictures of x at 30000 px need 2.43 TB.*: add --limit \d+$"):
        build_store(files([b"never read"] * 900), 30_000, refuse)


def test_no_advice_that_would_leave_nothing():
    with pytest.raises(DataError) as caught:
        build_store(files([b"never read"]), 10_000_000, refuse)
    assert "--limit" not in str(caught.value) and "memory" in str(caught.value)


@pytest.mark.parametrize(
    ("depth", "kind"), [("uint8", torch.uint8), ("uint16", torch.uint16), ("float32", torch.float32)]
)
def test_any_channels_and_depth(depth, kind):
    values = np.arange(2 * 5 * 4 * 4).reshape(2, 5, 4, 4).astype(depth)
    source = Arrays("x", values, [0, 0], ("a",))
    store = build_store(source, 4, refuse, wanted=PixelFormat(channels=5, depth=depth))
    assert store.images.dtype == kind and np.array_equal(store.images.numpy(), values)
    assert np.array_equal(store.read(torch.tensor([1])).numpy(), values[1:])


def test_pictures_of_other_channels_are_told_with_the_flag_that_takes_them():
    bad = []
    source = Arrays("x", np.zeros((2, 5, 4, 4), np.uint8), [0, 0], ("a",))
    with pytest.raises(DataError, match="none of the 2 pictures .*5 channels.*--channels 5"):
        build_store(source, 4, bad.append)
    assert len(bad) == 2


def test_reading_gives_copies_in_the_order_asked_for():
    store = build_store(files([encoded("PNG", seed) for seed in range(3)]), 8, refuse)
    read = store.read(torch.tensor([2, 0]))
    assert torch.equal(read[0], store.images[2]) and torch.equal(read[1], store.images[0])
    read.zero_()
    assert store.images.any()


def test_a_digest_knows_a_picture_by_its_pixels_alone():
    one, two = encoded("PNG", 1), encoded("PNG", 2)
    first = build_store(files([one, two, one]), 8, refuse).digests
    second = build_store(files([two, one]), 8, refuse).digests
    assert first.shape == (3,) and first[0] == first[2] == second[1] != first[1] == second[0]


def test_an_error_that_is_not_the_pictures_comes_through():
    class Broken(Arrays):
        def read(self, index, size=None):
            raise RuntimeError("a mistake of ours")

    images = np.zeros((40, 3, 2, 2), np.uint8)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        build_store(Broken("x", images, [0] * 40, ("a",)), 8, refuse)


def test_pixels_of_the_right_size_are_kept_exactly():
    images = np.stack([pixels(seed, 16, 16).transpose(2, 0, 1) for seed in range(4)])
    store = build_store(Arrays("x", images, [0] * 4, ("a",)), 16, refuse)
    assert np.array_equal(store.images.numpy(), images)
