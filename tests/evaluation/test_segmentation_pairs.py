"""Pictures find their masks, masks keep their numbers, and what does not fit is refused in one line."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from shapes import shapes, write

from diptych.data.decoding.decode import fit
from diptych.errors import DataError
from diptych.evaluation.pictures import Labelled
from diptych.evaluation.segmentation.masks import fit_mask, read_mask, read_masked
from diptych.evaluation.segmentation.pairs import Pairs, open_pairs
from diptych.frozen import Preprocessing
from diptych.progress import Terminal

SIZE = 8
MADE = Preprocessing(image_size=SIZE, mean=(0.5,) * 3, std=(0.25,) * 3)


def picture(path: Path, height: int = SIZE, width: int = SIZE) -> None:
    write(path, np.full((height, width, 3), 90, np.uint8))


def mask(path: Path, *numbers: int) -> None:
    """Columns of ``numbers``, repeated to the width."""
    write(path, np.resize(np.array(numbers, np.uint8), (SIZE, SIZE)))


def pairs(folder: Path, *masks: tuple[int, ...]) -> Path:
    """A picture for each mask."""
    for place, numbers in enumerate(masks):
        picture(folder / "images" / f"{place:02}.png")
        mask(folder / "masks" / f"{place:02}.png", *numbers)
    return folder


def divided(folder: Path, train: list[tuple[int, ...]], test: list[tuple[int, ...]]) -> Path:
    for part, masks in (("train", train), ("test", test)):
        for place, numbers in enumerate(masks):
            picture(folder / "images" / part / f"{place}.png")
            mask(folder / "masks" / part / f"{place}.png", *numbers)
    return folder


def read(folder: Path, **settings: int) -> Labelled:
    paired = open_pairs(str(folder), settings.get("limit"), settings.get("seed", 0))
    return read_masked(paired, settings.get("size", SIZE), MADE, Terminal(quiet=True))[0]


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as refused:
        read(folder)
    assert "\n" not in str(refused.value)
    return str(refused.value).replace(str(folder), "DATA")


def names(part: Pairs) -> list[str]:
    return [part.images.name_of(place) for place in range(len(part))]


# Pairs


def test_a_random_fifth_is_tested_on(tmp_path: Path) -> None:
    paired = open_pairs(str(shapes(tmp_path, 20)), None, seed=3)
    train, test = names(paired.train), names(paired.test)
    assert len(test) == 4 and sorted(train + test) == [f"{place:02}.png" for place in range(20)]
    for part in (paired.train, paired.test):
        assert [path.name for path in part.masks] == names(part)
    assert "a random split by seed 3" in paired.note
    assert names(open_pairs(str(tmp_path), None, seed=4).test) != test
    few = open_pairs(str(tmp_path), 12, seed=3)
    assert (len(few.train), len(few.test)) == (10, 2) and "12 drawn by a fixed seed before the split" in few.note
    assert [path.name for path in few.test.masks] == names(few.test)


def test_folders_may_divide_the_pictures(tmp_path: Path) -> None:
    data = divided(tmp_path, [(0, 1)] * 3, [(0, 1)] * 2)
    paired = open_pairs(str(data), None, seed=0)
    assert names(paired.train) == [f"train/{place}.png" for place in range(3)]
    assert names(paired.test) == ["test/0.png", "test/1.png"]
    assert paired.note == "the probe learns from train/ and is tested on test/"


def test_the_fingerprint_changes_with_a_mask(tmp_path: Path) -> None:
    data = pairs(tmp_path, *[(0, 1)] * 10)
    before = open_pairs(str(data), None, 0).fingerprint
    assert open_pairs(str(data), None, 1).fingerprint == before
    mask(data / "masks" / "03.png", 0, 1, 2, 3, 4, 5, 6, 7)
    assert open_pairs(str(data), None, 0).fingerprint != before


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert refusal(tmp_path).startswith("there is no folder DATA/images: to segment, put pictures into DATA/images")
    picture(tmp_path / "images" / "a.png")
    assert refusal(tmp_path).startswith("there is no folder DATA/masks")


def test_a_picture_without_a_mask_and_the_reverse(tmp_path: Path) -> None:
    data = pairs(tmp_path, *[(0, 1)] * 10)
    (data / "masks" / "04.png").unlink()
    assert refusal(data) == "DATA/images/04.png has no mask: add masks/04.png, or remove it"
    (data / "masks" / "05.png").unlink()
    assert refusal(data).startswith("DATA/images/04.png has no mask (and 1 more)")
    for name in ("04.png", "05.png"):
        (data / "images" / name).unlink()
    mask(data / "masks" / "extra.png", 0)
    assert refusal(data) == "DATA/masks/extra.png belongs to no picture: add images/extra, or remove it"


def test_two_pictures_of_one_name(tmp_path: Path) -> None:
    data = pairs(tmp_path, *[(0, 1)] * 10)
    picture(data / "images" / "03.jpg")
    assert refusal(data).startswith("DATA/images holds both 03.jpg and 03.png")


def test_too_few_pictures(tmp_path: Path) -> None:
    data = pairs(tmp_path, *[(0, 1)] * 7)
    assert refusal(data).startswith("DATA leaves 1 picture to test on, and two or more are needed")
    assert refusal(pairs(tmp_path / "one", (0, 1))).startswith("DATA leaves 1 picture to learn from")


def test_folders_may_belong_together(tmp_path: Path) -> None:
    for scene in range(10):
        for place in range(3):
            picture(tmp_path / "images" / f"s{scene}" / f"{place}.png")
            mask(tmp_path / "masks" / f"s{scene}" / f"{place}.png", 0, 1)
    paired = open_pairs(str(tmp_path), None, seed=0, by_folder=True)
    train, test = ({name.split("/")[0] for name in names(part)} for part in (paired.train, paired.test))
    assert not train & test and len(paired.test) == 6
    assert [paired.test.images.group(place) for place in range(6)] == [
        name.split("/")[0] for name in names(paired.test)
    ]
    assert paired.test.masks[0] == tmp_path / "masks" / names(paired.test)[0]
    single = open_pairs(str(tmp_path), None, seed=0)
    assert single.test.images.group(0) is None
    with pytest.raises(DataError, match="all pictures of .* belong to the group"):
        open_pairs(str(pairs(tmp_path / "flat", *[(0, 1)] * 5)), None, 0, by_folder=True)


def test_a_folder_in_both_parts_is_told(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for scene in ("a", part):
            for place in range(2):
                picture(tmp_path / "images" / part / scene / f"{place}.png")
                mask(tmp_path / "masks" / part / scene / f"{place}.png", 0, 1)
    paired = open_pairs(str(tmp_path), None, seed=0, by_folder=True)
    assert {paired.test.images.group(place) for place in range(4)} == {"a", "val"}
    assert paired.note.endswith("val/; 1 folder in both parts, so that the test is no test of new ones")
    assert "folder in both" not in open_pairs(str(tmp_path), None, seed=0).note


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_one_file_may_be_the_mask_of_several_pictures(tmp_path: Path, link: str) -> None:
    data = pairs(tmp_path, *[(0, 1)] * 10)
    first, other = data / "masks" / "00.png", data / "masks" / "07.png"
    other.unlink()
    getattr(other, link)(first)
    paired = open_pairs(str(data), None, seed=0)
    assert sorted(path.name for part in (paired.train, paired.test) for path in part.masks)[7] == "07.png"


# Masks


@pytest.mark.parametrize(("height", "width", "size"), [(8, 8, 8), (12, 20, 5), (31, 17, 8), (6, 9, 16), (7, 7, 3)])
def test_a_mask_lies_as_its_picture_does(height: int, width: int, size: int) -> None:
    """Of a picture of two grays, resized, the pixels that are nearer to one of them are those of its mask."""
    numbers = np.zeros((height, width), np.uint16)
    numbers[height // 3 :, width // 2 :] = 1
    resized = fit((255 * numbers)[None].astype(np.uint8), size)[0]
    ours = fit_mask(numbers, size)
    sure = (resized < 40) | (resized > 215)
    assert sure.mean() > 0.5 and ours.shape == (size, size)
    np.testing.assert_array_equal(ours[sure], resized[sure] > 127)


def test_a_pixel_is_that_in_the_middle_of_those_it_stands_for() -> None:
    numbers = np.arange(9 * 13, dtype=np.uint16).reshape(9, 13)
    np.testing.assert_array_equal(fit_mask(numbers, 3), numbers[1::3, 3:12:3])


def test_files_of_every_kind_give_their_numbers(tmp_path: Path) -> None:
    numbers = np.array([[0, 1, 2], [3, 7, 15]], np.uint8)
    write(tmp_path / "gray.png", numbers)
    write(tmp_path / "deep.png", numbers.astype(np.uint16) * 100)
    palette = Image.new("P", (3, 2))
    palette.putpalette([place * 16 % 256 for place in range(768)])
    palette.putdata(numbers.ravel().tolist())
    palette.save(tmp_path / "palette.png")
    Image.fromarray(numbers > 1).save(tmp_path / "bits.png")
    for name, expected in (
        ("gray", numbers),
        ("deep", numbers.astype(int) * 100),
        ("palette", numbers),
        ("bits", numbers > 1),
    ):
        np.testing.assert_array_equal(read_mask(tmp_path / f"{name}.png"), expected.astype(np.uint16))


def test_gray_of_four_bits_is_not_spread(tmp_path: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0)  # 2 × 1 pixels of 4 bits, gray
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\x00\x3f")) + chunk(b"IEND", b"")
    (tmp_path / "four.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert read_mask(tmp_path / "four.png").tolist() == [[3, 15]]


def test_classes_are_those_of_the_training_masks(tmp_path: Path) -> None:
    found = read(divided(tmp_path, [(0, 9, 255, 9), (40, 0)], [(9, 9), (0, 255)]))
    assert found.classes == ("0", "9", "40")
    assert found.train_labels[0, 0, :4].tolist() == [0, 1, 255, 1] and found.train_labels[1, 0, :2].tolist() == [2, 0]
    assert found.test_labels[1, 0, :2].tolist() == [0, 255] and found.test_labels.shape == (2, SIZE, SIZE)


def test_a_class_that_chance_leaves_to_the_test_does_not_count(tmp_path: Path) -> None:
    """One picture in ten shows it: where that is tested on, nothing could have been learned of it."""
    data = pairs(tmp_path, *[(0, 1)] * 12)
    tested = names(open_pairs(str(data), None, seed=0).test)
    mask(data / "masks" / tested[0], 0, 7)
    found, unlearned = read_masked(open_pairs(str(data), None, seed=0), SIZE, MADE, Terminal(quiet=True))
    assert unlearned == ("7",) and found.classes == ("0", "1")
    assert found.test_labels[0, 0, :4].tolist() == [0, 255, 0, 255]
    mask(data / "masks" / tested[0], 7)
    assert refusal(data).startswith("of 2 masks of DATA, 1 show a class")
    both = divided(tmp_path / "both", [(0, 1)] * 3, [(0, 1), (1, 0), (0, 9)])
    assert open_pairs(str(both), 3, 0).drawn and not open_pairs(str(both), None, 0).drawn
    assert read_masked(open_pairs(str(both), 3, 0), SIZE, MADE, Terminal(quiet=True))[1] == ("9",)


def test_masks_are_as_large_as_pictures_are_seen(tmp_path: Path) -> None:
    """A camera that was held upright writes rows as columns, and says so."""
    data = divided(tmp_path, [(0, 1)] * 2, [(0, 1)] * 2)
    photograph = Image.fromarray(np.zeros((6, 10, 3), np.uint8))
    told = photograph.getexif()
    told[0x0112] = 6
    (data / "images" / "train" / "0.png").unlink()
    photograph.save(data / "images" / "train" / "0.jpg", exif=told)
    write(data / "masks" / "train" / "0.png", np.repeat(np.arange(10, dtype=np.uint8) // 5, 6).reshape(10, 6))
    assert read(data).train_labels[0, :, 0].tolist() == [0] * 4 + [1] * 4
    write(data / "masks" / "train" / "0.png", np.zeros((6, 10), np.uint8))
    assert "has 10 × 6 px and its picture train/0.jpg 6 × 10" in refusal(data)


def test_pictures_that_cannot_be_read_and_masks_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    data = divided(tmp_path, [(0, 1), (255,), (1, 0), (1, 1)], [(0, 1)] * 2)
    (data / "images" / "train" / "2.png").write_bytes(b"no picture")
    found = read(data)
    assert found.train.source_indices.tolist() == [0, 3] and [bad.name for bad in found.bad] == ["train/2.png"]
    assert found.train_labels[:, 0, 0].tolist() == [0, 1]


def test_masks_that_cannot_be_used(tmp_path: Path) -> None:
    data = divided(tmp_path, [(0, 1)] * 2, [(0, 1)] * 2)
    wrong = data / "masks" / "train" / "1.png"
    write(wrong, np.zeros((SIZE, SIZE, 3), np.uint8))
    assert refusal(data).startswith("the mask DATA/masks/train/1.png has colours (RGB) where class numbers are needed")
    write(wrong, np.zeros((SIZE, SIZE + 1), np.uint8))
    assert refusal(data).startswith("the mask DATA/masks/train/1.png has 9 × 8 px and its picture train/1.png 8 × 8")
    wrong.write_bytes(b"")
    assert refusal(data).startswith("the mask DATA/masks/train/1.png: the file is empty; put it right")
    mask(wrong, *range(8))
    wrong.write_bytes(wrong.read_bytes()[:50])
    assert refusal(data).startswith("the mask DATA/masks/train/1.png is cut short or damaged")
    wrong.unlink()
    write(wrong.with_suffix(".tif"), np.zeros((SIZE, SIZE), np.uint8))
    assert refusal(data).startswith("the mask DATA/masks/train/1.tif is a TIFF, and masks are PNG")


def test_classes_that_cannot_be_told_apart(tmp_path: Path) -> None:
    one = divided(tmp_path / "one", [(0,), (0, 255)], [(0,)] * 2)
    assert "all training masks of DATA show 0 (255 says that nothing is known" in refusal(one)
    new = divided(tmp_path / "new", [(0, 1)] * 2, [(0, 1), (0, 7)])
    assert refusal(new).startswith("the mask DATA/masks/test/1.png shows 7, which no training mask does: put it right")
    empty = divided(tmp_path / "empty", [(0, 1)] * 2, [(255,)] * 2)
    assert refusal(empty).startswith("of 2 masks of DATA, 0 show a class: all pixels of the others are 255")
    many = divided(tmp_path / "many", [(0, 1)] * 2, [(0, 1)] * 2)
    write(many / "masks" / "train" / "0.png", np.arange(289, dtype=np.uint16).reshape(17, 17))
    picture(many / "images" / "train" / "0.png", 17, 17)
    with pytest.raises(DataError, match="show 288 classes, and 255 are the most"):
        read(many, size=17)
