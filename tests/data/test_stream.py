import contextlib
import io
import itertools
import tarfile
import threading
import tracemalloc
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from picture_files import encoded
from PIL import Image
from tar_files import flip, special, write_tar

from diptych.data.decoding.decode import decode, fit
from diptych.data.decoding.pixels import BadPicture, PixelFormat
from diptych.data.sources.shards import count, find_shards
from diptych.data.stores.digests import digests_of
from diptych.data.stream import StreamLoader, _Walk
from diptych.errors import DataError

SIZE = 4
SIZES = (23, 17, 30, 11, 19)
"""Pictures in each shard: as uneven as shards are."""


def picture(number):
    """A PNG of one colour that tells its number."""
    return encoded("PNG", picture=Image.new("RGB", (SIZE, SIZE), (number % 256, number // 256, 7)))


def name(number):
    return f"{number:05d}.png"


@pytest.fixture
def shards(tmp_path):
    """Five shards of a hundred numbered pictures, with classes beside them."""
    first = 0
    for place, size in enumerate(SIZES):
        content = {}
        for number in range(first, first + size):
            content |= {name(number): picture(number), f"{number:05d}.cls": b"3"}
        write_tar(tmp_path / f"{place}.tar", content)
        first += size
    return find_shards(f"{tmp_path}/{{0..4}}.tar")


@pytest.fixture
def damaged(shards, tmp_path):
    """The same with pictures that cannot be read and shards that end early."""
    content = {name(number): picture(number) for number in range(200, 220)}
    content |= {name(number): b"no picture" for number in (203, 204, 211)}
    content[name(206)] = b""
    write_tar(tmp_path / "5.tar", content)
    flip(tmp_path / "2.tar", place_of(tmp_path / "2.tar", name(60)) - 512)
    with open(tmp_path / "3.tar", "r+b") as file:
        file.truncate(4000)
    return [*shards, str(tmp_path / "5.tar"), str(tmp_path / "gone.tar")]


def place_of(path, member):
    with tarfile.open(path) as archive:
        return archive.getmember(member).offset_data


def stream(shards, pictures=100, batch_size=8, *, size=SIZE, wanted=None, on_bad=None, **options):
    options = {"seed": 1, "buffer": 16, "threads": 2, "max_bad": 1.0} | options
    return StreamLoader(
        shards,
        pictures,
        batch_size,
        size=size,
        wanted=wanted or PixelFormat(),
        on_bad=on_bad or (lambda bad: pytest.fail(str(bad))),
        **options,
    )


def numbers(batch):
    return (batch.images[:, 0, 0, 0].int() + 256 * batch.images[:, 1, 0, 0].int()).tolist()


def epoch(loader, epoch=0, first_step=0):
    return [numbers(batch) for batch in loader.epoch(epoch, first_step)]


def test_each_picture_at_most_once_and_as_it_is(shards):
    seen = []
    loader = stream(shards, count(shards), on_seen=seen.append)
    batches = list(loader.epoch(0))
    assert loader.steps_per_epoch == len(batches) == 12
    for step, batch in enumerate(batches):
        assert batch.images.shape == (8, 3, SIZE, SIZE) and batch.images.dtype == torch.uint8
        assert batch.indices.tolist() == list(range(8 * step, 8 * step + 8))
        assert (batch.images[:, 2] == 7).all()
        assert (seen[step] == digests_of(batch.images.numpy())).all()
    met = sum(map(numbers, batches), [])
    assert len(met) == len(set(met)) == 96 and set(met) <= set(range(100))


def test_pictures_are_brought_to_one_size_and_kind(tmp_path):
    large = encoded("PNG", 5)
    write_tar(tmp_path / "a.tar", {"1.png": large, "2.png": large})
    (batch,) = stream([str(tmp_path / "a.tar")], 2, 2, size=12, wanted=PixelFormat(channels=1)).epoch(0)
    assert batch.images.shape == (2, 1, 12, 12)
    (batch,) = stream([str(tmp_path / "a.tar")], 2, 2, size=12).epoch(0)
    assert (batch.images[0].numpy() == fit(decode(large, "1.png", 12), 12)).all()
    (batch,) = stream([str(tmp_path / "a.tar")], 2, 2, wanted=PixelFormat(depth="uint16")).epoch(0)
    assert batch.images.dtype == torch.uint16


def test_the_order_is_a_function_of_seed_and_epoch(shards):
    orders = [epoch(stream(shards, seed=seed), number) for seed, number in ((1, 0), (1, 1), (2, 0))]
    assert orders[0] != orders[1] and orders[0] != orders[2] and orders[1] != orders[2]
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    assert epoch(stream(shards), 0) == orders[0]
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_order_does_not_depend_on_threads(shards):
    assert epoch(stream(shards, threads=1)) == epoch(stream(shards, threads=7))


def test_pictures_are_drawn_out_of_several_shards(shards):
    first = epoch(stream(shards, buffer=60))[0]
    assert first != sorted(first)
    bounds = np.cumsum(SIZES)
    assert len(set(np.searchsorted(bounds, first, side="right"))) > 1
    alone = sum(epoch(stream(shards, buffer=0)), [])
    assert sum(after == before + 1 for before, after in zip(alone, alone[1:], strict=False)) > 80


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("data", ["shards", "damaged"])
def test_going_on_in_the_middle_is_the_same_to_the_bit(request, data, world):
    paths, length = request.getfixturevalue(data), 144
    for rank in range(world):

        def run(first_step, rank=rank):
            bad, seen, batches = [], [], []
            loader = stream(paths, length, rank=rank, world=world, on_bad=bad.append, on_seen=seen.append)
            for batch in loader.epoch(3, first_step):
                batches.append((batch.images, batch.indices, seen[-1].tolist(), sorted(bad[:], key=str)))
            return batches, {one.name: str(one) for one in bad}

        whole, all_bad = run(0)
        assert len(whole) == 18
        for first_step in (1, 2, 5, 9, 13, 17):
            rest, rest_bad = run(first_step)
            assert len(rest) == 18 - first_step
            for (images, indices, digests, _), (again, indices_again, digests_again, _) in zip(
                whole[first_step:], rest, strict=True
            ):
                assert torch.equal(images, again) and torch.equal(indices, indices_again)
                assert digests == digests_again
            assert rest_bad.items() <= all_bad.items()
            told_before = {one.name for one in whole[first_step - 1][3]}
            assert all_bad.keys() - told_before <= rest_bad.keys()  # none is lost


def test_nothing_is_left_of_a_finished_epoch(shards):
    assert epoch(stream(shards), 0, 12) == []


def test_going_on_reads_headers_and_only_the_buffer(shards, monkeypatch):
    """Counts the bytes that a real file gives."""
    opened, given = open, []

    class Counting(io.FileIO):
        def readinto(self, into):
            got = super().readinto(into)
            given.append(got)
            return got

    def counting(path, mode="r", *rest, **options):
        if str(path).endswith(".tar"):
            return io.BufferedReader(Counting(path), 512)
        return opened(path, mode, *rest, **options)

    big = {f"{number:03d}.png": encoded("PNG", picture=noise(number)) for number in range(60)}
    path = write_tar(shards[0], big)
    monkeypatch.setattr("builtins.open", counting)
    loader = stream([path], 60, 4, buffer=4, threads=1)
    with contextlib.closing(loader.epoch(0, 14)) as batches:
        assert len(list(batches)) == 1
    assert sum(given) < 20 * len(big["000.png"])


def noise(number, side=64):
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8))


def test_two_processes_see_other_pictures(shards):
    shares = [epoch(stream(shards, rank=rank, world=2)) for rank in range(2)]
    seen = [set(sum(share, [])) for share in shares]
    assert all(len(share) == 12 and {len(batch) for batch in share} == {4} for share in shares)
    assert not seen[0] & seen[1]
    indices = [[batch.indices.tolist() for batch in stream(shards, rank=r, world=2).epoch(0)] for r in range(2)]
    assert sum((left + right for left, right in zip(*indices, strict=True)), []) == list(range(96))


def test_a_process_whose_shards_end_early_begins_again_in_another_order(shards):
    (share,) = [epoch(stream(shards[:1], 92, 23))]
    assert [sorted(batch) for batch in share] == [list(range(23))] * 4
    assert len({tuple(batch) for batch in share}) == 4


def test_every_round_has_an_order_of_its_own(shards):
    rounds = epoch(stream(shards, 400, 100, buffer=0))
    assert len({tuple(batch) for batch in rounds}) == 4 and {len(set(batch)) for batch in rounds} == {100}


def test_a_shard_that_vanishes_while_its_pictures_wait_in_the_buffer(shards):
    walk = _Walk(shards, 1, 0, 0, 1, 16, 1 << 20, Counter())
    list(itertools.islice(walk._samples, 5))
    for path in shards:
        Path(path).unlink()
    walk.skip(0)
    (sample, *_), _ = walk.take(1)
    with pytest.raises(BadPicture, match="[.]png: the shard cannot be opened"):
        sample.decode(SIZE, PixelFormat())
    walk.close()


def test_a_bad_picture_gives_its_place_to_the_next(tmp_path):
    content = {name(number): picture(number) for number in range(8)}
    content |= {name(2): b"no picture", name(3): b"", name(7): picture(7)[:45]}
    path = str(write_tar(tmp_path / "a.tar", content))
    bad, seen = [], []
    loader = stream([path], 8, 8, buffer=0, on_bad=bad.append, on_seen=seen.append)
    assert epoch(loader) == [[0, 1, 4, 4, 4, 5, 6, 0]]
    assert [one.name for one in bad] == [f"{path}/{name(number)}" for number in (2, 3, 7)]
    assert len(seen[0]) == 5  # of those that were read
    epoch(loader, 1)
    assert len(bad) == 3  # told once


def test_a_flipped_byte_inside_a_picture(tmp_path):
    content = {f"{number}.jpg": encoded("JPEG", number) for number in range(4)}
    path = write_tar(tmp_path / "a.tar", content)
    flip(path, place_of(path, "1.jpg"))  # of the magic number
    bad = []
    (batch,) = stream([str(path)], 4, 4, buffer=0, size=24, on_bad=bad.append).epoch(0)
    assert [one.name for one in bad] == [f"{path}/1.jpg"]
    assert torch.equal(batch.images[1], batch.images[2]) and not torch.equal(batch.images[2], batch.images[3])


def test_a_damaged_header_costs_the_rest_of_its_shard_and_is_told_once(shards):
    flip(Path(shards[0]), place_of(shards[0], name(5)) - 512)
    bad = []
    loader = stream(shards[:1], 8, 4, buffer=0, on_bad=bad.append)
    assert epoch(loader) == [[0, 1, 2, 3], [4, 0, 1, 2]]
    assert [(one.name, "damaged at byte" in one.reason) for one in bad] == [(shards[0], True)]


def test_shards_that_vanish_are_told_and_the_others_read(shards, tmp_path):
    (tmp_path / "0.tar").unlink()
    bad = []
    seen = sum(epoch(stream(shards, 80, on_bad=bad.append)), [])
    assert [one.name for one in bad] == [shards[0]] and "cannot be opened (No such file" in bad[0].reason
    assert min(seen) >= SIZES[0]


def test_no_shard_that_can_be_read(tmp_path):
    with pytest.raises(DataError, match="the 2 shards hold no pictures that can be read: .*tar: the shard cannot be"):
        epoch(stream([f"{tmp_path}/a.tar", f"{tmp_path}/b.tar"]))
    links = str(write_tar(tmp_path / "c.tar", {}, [special("1.png", tarfile.SYMTYPE, "x")]))
    with pytest.raises(DataError, match="no pictures that can be read: 1 left out .links"):
        epoch(stream([links]))


def test_no_picture_of_a_batch_that_can_be_read(tmp_path):
    path = str(write_tar(tmp_path / "a.tar", {name(number): b"x" for number in range(4)}))
    with pytest.raises(
        DataError, match="none of the 4 pictures of a batch can be read; the first, .*0000.*: not a pic"
    ):
        epoch(stream([path], 4, 4))


def test_too_many_bad_pictures_stop_the_run(tmp_path):
    content = {name(number): picture(number) if number % 10 else b"x" for number in range(100)}
    path = str(write_tar(tmp_path / "a.tar", content))
    bad = []
    assert len(epoch(stream([path], max_bad=0.2, on_bad=bad.append))) == 12
    batches = stream([path], max_bad=0.05, on_bad=bad.append).epoch(0)
    for _ in range(12):
        next(batches)
    with pytest.raises(
        DataError, match="of the 96 pictures read so far cannot be read, more than --max-bad 0.05 "
    ) as e:
        next(batches)
    assert str(e.value).count("a.tar/") in (9, 10) and "\n" not in str(e.value)
    with pytest.raises(DataError, match="of the 1000 pictures read so far"):  # within an epoch once it tells something
        epoch(stream([path], 10_000, 10, max_bad=0.05, on_bad=bad.append))
    assert len(epoch(stream([path], max_bad=0.05, on_bad=bad.append), 0, 10)) == 2  # too few to judge by


def test_links_and_devices_are_left_out_and_counted(tmp_path):
    extra = [special("1.png", tarfile.SYMTYPE, "x"), special("2.png", tarfile.CHRTYPE), special("/3.png", b"0")]
    path = str(write_tar(tmp_path / "a.tar", {name(number): picture(number) for number in range(4)}, extra))
    loader = stream([path], 4, 2)
    epoch(loader)
    assert loader.left_out == {"links or devices": 2, "absolute paths, or paths that climb out with ..": 1}


def test_out_of_memory_file_system(shards):
    files = fsspec.filesystem("memory")
    for place, path in enumerate(shards):
        with open(path, "rb") as file:
            files.pipe(f"/stream/{place}.tar", file.read())
    try:
        urls = find_shards("memory:///stream/*.tar")
        assert epoch(stream(urls), 1, 5) == epoch(stream(shards), 1, 5)
    finally:
        files.rm("/stream", recursive=True)


def test_the_buffer_is_bounded_by_bytes_and_its_order_stays_a_function_of_the_step(shards):
    walk = _Walk(shards, 1, 0, 0, 1, 50, 3000, Counter())
    walk.skip(10)
    for _ in range(25):
        walk.take(2)
        assert sum(len(sample.content) for sample in walk._waiting) <= 3000
        assert 10 < len(walk._waiting) < 50
    walk.close()
    small = {"buffer": 50, "buffer_bytes": 3000}
    assert epoch(stream(shards, **small)) != epoch(stream(shards, buffer=50))
    assert epoch(stream(shards, **small), 0, 7) == epoch(stream(shards, **small))[7:]


def test_memory_does_not_grow_with_the_shards(tmp_path):
    content = {f"{number:03d}.png": encoded("PNG", picture=noise(number, 32)) for number in range(40)}
    for number in range(12):
        write_tar(tmp_path / f"{number:02d}.tar", content)
    paths = find_shards(f"{tmp_path}/*.tar")

    def peak(pictures):
        loader = stream(paths, pictures, 8, buffer=20, size=32)
        tracemalloc.start()
        assert sum(1 for _ in loader.epoch(0)) == pictures // 8
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(40)
    assert peak(480) < 1.3 * peak(80)


def test_leaving_in_the_middle_stops_every_thread_and_closes_every_file(shards):
    before = set(threading.enumerate())
    batches = stream(shards).epoch(0)
    next(batches)
    assert set(threading.enumerate()) != before
    batches.close()
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize(
    ("pictures", "batch_size", "world", "message"),
    [
        (100, 12, 6, "5 shards cannot be shared by 6 processes, which read one each at least: start 5, or cut the"),
        (100, 1, 1, "too small for 1 process: .*type --batch-size 2 or more"),
        (100, 10, 4, "shared evenly by 4 processes; type --batch-size 8"),
        (100, 102, 2, "larger than the 100 pictures there are; type --batch-size 100 or less"),
    ],
)
def test_batches_that_cannot_be(shards, pictures, batch_size, world, message):
    with pytest.raises(DataError, match=message):
        stream(shards, pictures, batch_size, world=world)
