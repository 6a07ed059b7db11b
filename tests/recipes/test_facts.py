import os
import tarfile

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from diptych.data.decoding.pixels import PixelFormat
from diptych.errors import DataError
from diptych.hardware import native_bf16
from diptych.recipes.facts import SAMPLE, Facts, gather, machine


def picture(seed=0, height=20, width=30, gray=False):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 1 if gray else 3), dtype=np.uint8)
    return Image.fromarray(np.repeat(noise, 3 if gray else 1, axis=2))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "pictures").mkdir()
    return tmp_path / "pictures"


def fill(folder, pictures):
    for number, found in enumerate(pictures):
        found.save(folder / f"{number:03}.png")
    return str(folder)


def test_pictures_are_counted_and_their_shorter_sides_measured(folder):
    sizes = [(20, 30), (30, 20), (40, 90), (50, 50), (900, 1200)]
    found = gather(fill(folder, [picture(0, *size) for size in sizes]))
    assert (found.count, found.side, found.pixels) == (5, 40, PixelFormat())


def test_large_pictures(folder):
    found = gather(fill(folder, [picture(seed, 1500, 900) for seed in range(2)]))
    assert (found.count, found.side) == (2, 900)


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_gray_pictures_are_told_by_their_pixels_whatever_their_mode(folder, mode):
    found = gather(fill(folder, [picture(seed, gray=True).convert(mode) for seed in range(3)]))
    assert found.pixels == PixelFormat(channels=1)


@pytest.mark.parametrize("place", [0, 2, 4])
def test_one_picture_in_colour_is_enough(folder, place):
    found = gather(
        fill(
            folder,
            [picture(number, gray=number != place).convert("L" if number != place else "RGB") for number in range(5)],
        )
    )
    assert found.pixels == PixelFormat()


@pytest.mark.parametrize("channel", range(3))
def test_a_tint_in_any_channel_is_colour(folder, channel):
    tinted = np.full((20, 20, 3), 100, np.uint8)
    tinted[3, 4, channel] = 101
    assert gather(fill(folder, [Image.fromarray(tinted)])).pixels == PixelFormat()


def test_what_most_pictures_are_is_what_a_run_takes(folder):
    for number in range(4):
        values = np.random.default_rng(number).random((5, 20, 20)) * 1000
        tifffile.imwrite(
            folder / f"{number}.tif", values.astype("float32"), photometric="minisblack", planarconfig="separate"
        )
    found = gather(fill(folder, [picture()]))
    assert found.pixels == PixelFormat(channels=5, depth="float32") and found.count == 5


def test_tiles_and_shards_are_counted_as_such(folder):
    data = fill(folder, [picture(seed, 40, 40) for seed in range(3)])
    assert gather(data, tile=20).count == 12
    for shard in range(2):
        with tarfile.open(folder.parent / f"{shard}.tar", "w") as archive:
            archive.add(folder, "pictures")
    shards = f"{folder.parent}/*.tar"
    assert gather(shards).count == 6 and gather(shards, limit=4).count == 4 and gather(shards).side == 40


def test_broken_pictures_are_counted_but_not_looked_at(folder):
    fill(folder, [picture(seed, 40, 60, gray=True) for seed in range(3)])
    for number in range(4):
        (folder / f"broken{number}.png").write_bytes(b"no picture")
    found = gather(str(folder))
    assert (found.count, found.side, found.pixels.channels) == (7, 40, 1)


def test_none_that_can_be_read_is_one_line_for_the_user(folder):
    for number in range(3):
        (folder / f"{number}.png").write_bytes(b"")
    with pytest.raises(DataError, match=f"none of 3 pictures drawn from {folder} can be read") as caught:
        gather(str(folder))
    assert "\n" not in str(caught.value)


def test_no_pictures_is_one_line_for_the_user(folder):
    with pytest.raises(DataError, match="is empty"):
        gather(str(folder))


@pytest.mark.parametrize(("limit", "count"), [(None, 6), (4, 4), (6, 6), (100, 6)])
def test_a_limit_counts_only_those_to_learn_from(folder, limit, count):
    assert gather(fill(folder, [picture(seed) for seed in range(6)]), limit=limit).count == count


def test_test_pictures_are_not_looked_at(folder):
    for part, gray in (("train", True), ("test", False)):
        (folder / part).mkdir()
        fill(folder / part, [picture(seed, gray=gray) for seed in range(3)])
    found = gather(str(folder))
    assert found.count == 3 and found.pixels.channels == 1


def test_a_sample_of_many_is_the_same_every_time(folder):
    many = 2 * SAMPLE
    data = fill(folder, [picture(seed, 8 + seed, 200) for seed in range(many)])
    found = gather(data)
    assert gather(data) == found and found.count == many
    assert abs(found.side - (8 + many / 2)) < many / 6  # a median of 64 out of 128: standard deviation 6


def test_the_machine_is_looked_at(folder):
    found = gather(fill(folder, [picture()]))
    assert found.gpu == torch.cuda.is_available() and found.bf16 == native_bf16("cuda" if found.gpu else "cpu")


def test_the_machine_has_a_name():
    def named(gpu):
        return machine(Facts(count=2, side=32, pixels=PixelFormat(), gpu=gpu, bf16=False))

    assert named(True) == "a GPU" and named(False) == f"{os.cpu_count()} CPU cores"
