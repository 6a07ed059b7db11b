import numpy as np
import pytest

from diptych.data.stores.digests import MERGE, Met, digest, digests_of, read_digests, write_digests
from diptych.errors import RunFolderError
from diptych.runs import RunFolder


def numbers(*values):
    return np.array(values, np.uint64)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run")


def test_a_digest_depends_on_pixels_and_not_on_their_layout():
    picture = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    other = picture.copy()
    other[2, 3, 3] += 1
    assert digest(picture) == digest(np.asfortranarray(picture)) != digest(other)
    assert digests_of(np.stack([picture, other]))[1] == np.frombuffer(digest(other), np.uint64)[0]


def test_written_whole_they_come_back_and_damaged_ones_are_refused(run):
    write_digests(run, numbers(5, 1, 5))
    assert read_digests(run).tolist() == [5, 1, 5]
    run.pictures.write_bytes(b"letter")
    with pytest.raises(RunFolderError, match=r"cannot read .*pictures.npy.*--overwrite"):
        read_digests(run)
    run.pictures.unlink()
    with pytest.raises(RunFolderError, match=r"cannot read .*pictures.npy"):
        read_digests(run)


def test_those_met_one_by_one_are_written_once_each_and_by_every_process(run):
    first, second = Met(run.met(0)), Met(run.met(1))
    first.add(numbers(3, 1, 3))
    first.add(numbers(1, 2))
    second.add(numbers(9, 1))
    assert run.met(0).stat().st_size == 3 * 8
    assert sorted(read_digests(run).tolist()) == [1, 1, 2, 3, 9]


def test_what_was_met_before_a_kill_stays_and_a_hash_cut_short_is_left_out(run):
    Met(run.met(0)).add(numbers(3, 1))
    with open(run.met(0), "ab") as file:
        file.write(b"\1\2\3")
    assert sorted(read_digests(run).tolist()) == [1, 3]
    again = Met(run.met(0))
    again.add(numbers(1, 4))
    assert sorted(read_digests(run).tolist()) == [1, 3, 4]


def test_many_are_known_after_they_were_sorted_in(run):
    met = Met(run.met(0))
    every = np.random.default_rng(0).permutation(3 * MERGE).astype(np.uint64)
    for part in np.split(every, 6):
        met.add(part)
    met.add(every[:1000])
    assert np.array_equal(np.sort(read_digests(run)), np.arange(3 * MERGE))
