import numpy as np
import pytest
import torch
from picture_files import encoded

from diptych.data.decoding.pixels import BadPicture, PixelFormat
from diptych.data.loader import Loader
from diptych.data.sources.source import Entry, Files
from diptych.data.stores.lazy import LazyStore, replaced
from diptych.data.stores.memory import build_memory_store
from diptych.errors import DataError


def files(contents):
    entries = [Entry(f"{number:03d}.png", len(content), 0) for number, content in enumerate(contents)]
    return Files("x", entries, lambda name: contents[int(name[:3])])


def test_the_same_batches_as_from_memory():
    source = files([encoded("PNG", seed) for seed in range(11)])
    lazy = LazyStore(source, 8, PixelFormat(), pytest.fail)
    whole = build_memory_store(source, 8, PixelFormat(), pytest.fail)
    assert len(lazy) == 11 and lazy.source_indices.tolist() == list(range(11))
    for slow, fast in zip(Loader(lazy, 4, 0).epoch(3), Loader(whole, 4, 0).epoch(3), strict=True):
        assert torch.equal(slow.images, fast.images) and torch.equal(slow.indices, fast.indices)


def test_a_bad_picture_gives_its_place_to_the_next_good_one_of_the_batch_every_time():
    contents = [encoded("PNG", seed) for seed in range(5)]
    contents[1] = contents[3] = b"no picture"
    bad = []
    store = LazyStore(files(contents), 8, PixelFormat(), bad.append)
    for _ in range(2):
        found = store.read(torch.tensor([0, 1, 3, 2, 3]))
        good = store.read(torch.tensor([0, 2]))
        assert torch.equal(found, good[[0, 1, 1, 1, 0]])
    assert [picture.name for picture in bad] == ["001.png", "003.png", "003.png"] * 2


def test_pictures_that_are_read_are_handed_on():
    seen = []
    store = LazyStore(files([encoded("PNG", 1)] * 3), 8, PixelFormat(channels=1), pytest.fail, seen.append)
    found = store.read(torch.tensor([2, 0]))
    assert found.shape == (2, 1, 8, 8) and np.array_equal(seen[0], found.numpy())


def test_a_batch_without_a_single_good_picture_takes_the_next_one_there_is():
    contents = [encoded("PNG", 1), b"", b"x", b"", encoded("PNG", 2)]
    store = LazyStore(files(contents), 8, PixelFormat(), lambda bad: None)
    good = store.read(torch.tensor([0, 4]))
    assert torch.equal(store.read(torch.tensor([2, 1])), good[[1, 1]])
    assert torch.equal(store.read(torch.tensor([1, 3])), good[[1, 1]])


def test_pictures_of_which_none_can_be_read_stop():
    store = LazyStore(files([b"", b"x"]), 8, PixelFormat(), lambda bad: None)
    with pytest.raises(DataError, match="none of the 2 pictures of x can be read; the first, 000.png: .*empty"):
        store.read(torch.tensor([0, 1]))


def test_replacing_goes_round_the_end():
    bad = BadPicture("x", "y")
    assert [int(picture[0]) for picture in replaced([bad, np.array([1]), bad, np.array([3]), bad])] == [1, 1, 3, 3, 1]
