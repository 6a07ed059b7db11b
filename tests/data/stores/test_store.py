from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.data.decoding.pixels import PixelFormat
from diptych.data.sources.source import Arrays
from diptych.data.stores import store as stores
from diptych.data.stores.disk import DiskStore
from diptych.data.stores.lazy import LazyStore
from diptych.data.stores.memory import MemoryStore
from diptych.data.stores.store import StoreConfig, free_disk, open_store, parse_bytes, plan
from diptych.errors import ConfigError, DataError

RGB = PixelFormat()


class Many:
    """So many pictures that none is ever read."""

    name = "many"

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count


def choose(tmp_path, count=1000, size=100, processes=1, **settings):  # 30 MB
    settings = {"store_dir": str(tmp_path / "not" / "there")} | settings
    return plan(Many(count), size, RGB, StoreConfig(**settings), key="k", processes=processes)


def test_auto_takes_memory_then_disk_then_nothing(tmp_path):
    assert choose(tmp_path) == "memory"
    assert choose(tmp_path, memory_limit="30MB") == "memory"
    assert choose(tmp_path, memory_limit="29.9MB") == "disk"
    assert choose(tmp_path, memory_limit="30MB", processes=2) == "disk"
    assert choose(tmp_path, count=10**10, memory_limit="1GB") == "none"


def test_what_is_asked_for_is_taken_or_refused_with_the_way_on(tmp_path):
    assert choose(tmp_path, store="disk") == "disk" and choose(tmp_path, store="none") == "none"
    with pytest.raises(DataError, match=r"1000 pictures at 100 px need 30 MB.*10 MB may be used: type --store disk"):
        choose(tmp_path, store="memory", memory_limit="10MB")
    with pytest.raises(DataError, match=r"need 300 TB of disk, and .*there has .* free: type --store none, or --store"):
        choose(tmp_path, store="disk", count=10**10)
    assert not (tmp_path / "not").exists()


def test_a_store_that_is_there_needs_no_more_room_and_a_stale_one_does(tmp_path, monkeypatch):
    source = Arrays("x", np.zeros((3, 3, 8, 8), np.uint8), [0] * 3, ("a",))
    config = StoreConfig(store="disk", store_dir=str(tmp_path))
    open_store("disk", source, 8, RGB, config, key="k", on_bad=pytest.fail)
    monkeypatch.setattr(stores, "MIN_FREE", 10**18)
    assert plan(source, 8, RGB, config, key="k") == "disk"
    other = Arrays("x", np.ones((3, 3, 8, 8), np.uint8), [0] * 3, ("a",))
    with pytest.raises(DataError, match="--store none"):
        plan(other, 8, RGB, config, key="k")


def test_sixteen_bits_and_more_channels_need_more(tmp_path):
    config = StoreConfig(memory_limit="30MB")
    many = Many(1000)
    assert plan(many, 100, PixelFormat(channels=13), config, key="k") != "memory"
    assert plan(many, 100, PixelFormat(depth="uint16"), config, key="k") != "memory"
    assert plan(many, 100, PixelFormat(channels=1, depth="uint16"), config, key="k") == "memory"


@pytest.mark.parametrize(("place", "kind"), [("memory", MemoryStore), ("disk", DiskStore), ("none", LazyStore)])
def test_every_kind_hands_out_the_same_pictures(tmp_path, place, kind):
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
    source, config = Arrays("x", images, [0] * 6, ("a",)), StoreConfig(store_dir=str(tmp_path))
    for _ in range(2):  # the second time, the disk's is found
        store = open_store(place, source, 8, RGB, config, key="k", on_bad=pytest.fail)
        assert isinstance(store, kind) and store.source_indices.tolist() == list(range(6))
        assert np.array_equal(store.read(torch.tensor([5, 0])).numpy(), images[[5, 0]])
    assert (tmp_path / "k").is_dir() == (place == "disk")


def test_a_store_that_is_found_does_not_read_its_source(tmp_path):
    images = np.zeros((3, 3, 8, 8), np.uint8)
    config = StoreConfig(store_dir=str(tmp_path))

    class Once(Arrays):
        reads = 0

        def read(self, index, size=None):
            Once.reads += 1
            return super().read(index, size)

    for _ in range(2):
        open_store("disk", Once("x", images, [0] * 3, ("a",)), 8, RGB, config, key="k", on_bad=pytest.fail)
    assert Once.reads == 3


@pytest.mark.parametrize(
    ("text", "size"), [("8GB", 8e9), ("1.5 gb", 1.5e9), ("512MiB", 2**29), ("1000", 1000), ("2kB", 2000), (" 3 B ", 3)]
)
def test_sizes_as_people_write_them(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "8 apples", "-1GB", "1e9", "9" * 400 + "GB"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="--memory-limit cannot be .*8GB"):
        StoreConfig(memory_limit=text)


@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(ConfigError, match="--max-bad"):
        StoreConfig(max_bad=share)


def test_free_disk_of_a_folder_that_is_not_there_yet():
    assert free_disk(Path("/nowhere/at/all")) == free_disk(Path("/"))
