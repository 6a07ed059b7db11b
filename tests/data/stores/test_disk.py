import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from picture_files import encoded

from diptych.data.decoding.pixels import PixelFormat
from diptych.data.sources.folder import scan
from diptych.data.sources.source import Files
from diptych.data.stores.disk import build_disk_store, open_disk_store
from diptych.data.stores.memory import build_memory_store
from diptych.errors import DataError

RGB = PixelFormat()


def files(folder):
    listing = scan(folder)
    return Files("x", listing.entries, listing.load)


@pytest.fixture
def pictures(make_folder):
    return make_folder(*(f"{number}.png" for number in range(9)))


@pytest.fixture
def store(tmp_path, pictures):
    build_disk_store(tmp_path / "stores" / "mine", files(pictures), 8, RGB, pytest.fail)
    return tmp_path / "stores" / "mine"


def test_it_holds_what_memory_would(store, pictures):
    opened = open_disk_store(store, files(pictures), 8, RGB)
    whole = build_memory_store(files(pictures), 8, RGB, pytest.fail)
    chosen = torch.tensor([3, 0, 8, 3])
    assert torch.equal(opened.read(chosen), whole.read(chosen)) and len(opened) == 9
    assert np.array_equal(opened.digests, whole.digests)
    opened.read(chosen).zero_()
    assert torch.equal(opened.read(chosen), whole.read(chosen))


@pytest.mark.parametrize("wanted", [PixelFormat(channels=1, depth="uint16"), PixelFormat(channels=3, depth="uint16")])
def test_any_channels_and_depth(tmp_path, pictures, wanted):
    build_disk_store(tmp_path / "s", files(pictures), 8, wanted, pytest.fail)
    opened = open_disk_store(tmp_path / "s", files(pictures), 8, wanted)
    whole = build_memory_store(files(pictures), 8, wanted, pytest.fail)
    assert opened.read(torch.arange(9)).dtype == torch.uint16
    assert np.array_equal(opened.read(torch.arange(9)).numpy(), whole.images.numpy())


def test_bad_pictures_are_left_out_and_remembered(tmp_path, pictures):
    (pictures / "4.png").write_bytes(b"")
    bad = []
    build_disk_store(tmp_path / "s", files(pictures), 8, RGB, bad.append)
    opened = open_disk_store(tmp_path / "s", files(pictures), 8, RGB)
    assert [picture.name for picture in bad] == ["4.png"]
    assert [(picture.name, picture.reason) for picture in opened.bad] == [("4.png", "the file is empty")]
    assert opened.source_indices.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]


def test_nothing_is_left_where_no_picture_can_be_read(tmp_path, make_folder):
    folder = make_folder("a.png")
    (folder / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of the 1 pictures"):
        build_disk_store(tmp_path / "stores" / "s", files(folder), 8, RGB, lambda bad: None)
    assert not list((tmp_path / "stores").iterdir())


def test_another_size_kind_or_source_is_not_taken_for_it(store, pictures):
    source = files(pictures)
    assert open_disk_store(store, source, 16, RGB) is None
    assert open_disk_store(store, source, 8, PixelFormat(channels=1)) is None
    (pictures / "new.png").write_bytes(encoded("PNG", 77))
    assert open_disk_store(store, files(pictures), 8, RGB) is None
    assert open_disk_store(store.with_name("other"), source, 8, RGB) is None


def test_a_changed_source_is_built_again_in_its_place_and_an_open_one_goes_on(store, pictures):
    old = open_disk_store(store, files(pictures), 8, RGB)
    before = old.read(torch.arange(9)).clone()
    (pictures / "0.png").write_bytes(encoded("PNG", 77))
    source = files(pictures)
    build_disk_store(store, source, 8, RGB, pytest.fail)
    opened = open_disk_store(store, source, 8, RGB)
    assert not torch.equal(opened.read(torch.tensor([0])), before[:1])
    assert torch.equal(old.read(torch.arange(9)), before)
    assert [path.name for path in store.parent.iterdir()] == ["mine"]


@pytest.mark.parametrize("harm", ["flip", "cut", "card", "list", "no digests", "fewer indices"])
def test_a_damaged_store_is_not_opened(store, pictures, harm):
    path = store / "pixels.bin"
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[100] ^= 1
        path.write_bytes(content)
    elif harm == "cut":
        path.write_bytes(content[:-1])
    elif harm == "card":
        (store / "store.json").write_text((store / "store.json").read_text()[:-9])
    elif harm == "list":
        (store / "store.json").write_text("[]")
    elif harm == "no digests":
        (store / "digests.npy").unlink()
    else:
        np.save(store / "source_indices.npy", np.arange(3))
    assert open_disk_store(store, files(pictures), 8, RGB) is None


BUILD = """
import sys, time
from pathlib import Path
from diptych.data.stores.disk import build_disk_store
from diptych.data.sources.folder import scan
from diptych.data.decoding.pixels import PixelFormat
from diptych.data.sources.source import Files
listing = scan(Path(sys.argv[1]))

class Slow(Files):
    def read(self, index, size=None):
        time.sleep(0.2)
        return super().read(index, size)

source = Slow("x", listing.entries, listing.load)
build_disk_store(Path(sys.argv[2]), source, 8, PixelFormat(), print)
"""


def test_a_build_that_is_killed_leaves_no_store_and_the_next_one_clears_up(tmp_path, pictures):
    place = tmp_path / "stores" / "mine"
    process = subprocess.Popen([sys.executable, "-c", BUILD, str(pictures), str(place)])
    end = time.monotonic() + 60
    while not (left := list(tmp_path.glob("stores/.mine.*"))):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert open_disk_store(place, files(pictures), 8, RGB) is None and left[0].exists()
    build_disk_store(place, files(pictures), 8, RGB, pytest.fail)
    assert [path.name for path in place.parent.iterdir()] == ["mine"]


def test_the_work_of_another_build_that_goes_on_is_left_alone(tmp_path, pictures):
    (tmp_path / "stores").mkdir()
    theirs = tmp_path / "stores" / f".mine.{socket.gethostname()}.{os.getppid()}.tmp"
    theirs.mkdir()
    build_disk_store(tmp_path / "stores" / "mine", files(pictures), 8, RGB, pytest.fail)
    assert theirs.is_dir()
    shutil.rmtree(theirs)


MEMORY = """
import sys
from pathlib import Path
import numpy as np, torch
from diptych.data.stores.disk import build_disk_store, open_disk_store
from diptych.data.decoding.pixels import PixelFormat

SIZE, COUNT, LIMIT = 256, 1000, 10_000_000   # 197 MB of pictures: 20 times the limit

class Drawn:
    name, classes, fingerprint = "x", (), "f"
    def __len__(self): return COUNT
    def read(self, index, size=None): return np.full((3, SIZE, SIZE), index % 256, np.uint8)
    def name_of(self, index): return str(index)

def resident():
    fields = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(fields["VmRSS"].split()[0]) * 1024

place, source = Path(sys.argv[1]), Drawn()
torch.zeros(3).sum()
build_disk_store(place, source, SIZE, PixelFormat(), print)
store = open_disk_store(place, source, SIZE, PixelFormat(), LIMIT)
before, most = resident(), 0
for epoch in range(2):
    for batch in torch.randperm(COUNT).split(8):
        assert store.read(batch)[0, 0, 0, 0] == batch[0] % 256
        most = max(most, resident() - before)
print(most)
assert most <= LIMIT, most
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_a_store_twenty_times_larger_than_the_limit_stays_within_it(tmp_path):
    subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path / "s")], check=True, timeout=120)
    assert json.loads((tmp_path / "s" / "store.json").read_text())["pictures"] == 1000


TOGETHER = """
import sys
from pathlib import Path
from diptych.data.decoding.pixels import PixelFormat
from diptych.data.sources.folder import scan
from diptych.data.sources.source import Files
from diptych.data.stores.store import StoreConfig, open_store
listing = scan(Path(sys.argv[1]))
for turn in range(20):
    source = Files("x", listing.entries, listing.load)
    config = StoreConfig(store_dir=sys.argv[2])
    store = open_store("disk", source, 8, PixelFormat(), config, key=f"k{turn}", on_bad=print)
    assert len(store) == 9
"""


def test_runs_that_begin_together_build_one_store(tmp_path, pictures):
    words = [sys.executable, "-c", TOGETHER, str(pictures), str(tmp_path / "stores")]
    both = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert sorted(path.name for path in (tmp_path / "stores").glob("[!.]*")) == sorted(f"k{turn}" for turn in range(20))
