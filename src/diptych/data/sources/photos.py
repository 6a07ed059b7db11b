"""``photos``: patches cut from the photographs inside scikit-image and scikit-learn, so that a demo needs no download.

A patch's label is its photograph. Test patches fill test blocks, which are spread over the whole photograph in a
regular grid, and do not overlap each other, so that each is a test of its own. Training patches lie anywhere outside
the blocks, at least ``MARGIN`` pixels away, so no pixel is in both parts. Photographs larger than ``LONGEST_SIDE`` are
first made smaller, so that a patch shows something and not only the grain of the film. Patches without content (black
sky, a blurred background) are left out of both parts by the same rule.

Drawings and synthetic pictures in those packages (``phantom``, ``horse``, ``color``, ``logo``) are not used, nor are
``clock_motion``, which is one blur, and ``cell``, which is nearly all empty.
"""

from dataclasses import dataclass
from importlib import util
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from diptych.data.decoding.decode import decode
from diptych.data.decoding.pixels import BadPicture, PixelFormat, convert
from diptych.data.sources.source import Arrays
from diptych.errors import DataError
from diptych.seeding import generator

PATCH = 32
"""Pixels a side."""
TRAIN_PER_PHOTO = 120
TEST_PER_PHOTO = 100
"""At most; small photographs and those with little content give fewer."""
LONGEST_SIDE = 640
"""Pixels; larger photographs are made smaller."""
BLOCK = 5 * PATCH
"""Pixels a side of a test block."""
PERIOD = 8 * PATCH
"""Pixels from one test block to the next."""
MARGIN = PATCH // 2
"""Pixels between a test block and the nearest training patch."""
MIN_STD = 4.0
"""Patches whose values (0..255) vary less than this within each channel, as a standard deviation, show nothing."""
SEED = 0

SKIMAGE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "page.png",
    "retina.jpg",
    "rocket.jpg",
    "text.png",
)
SKLEARN = ("china.jpg", "flower.jpg")


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Where the patches of one photograph lie."""

    train: NDArray[np.int64]
    """``(N, 2)``: top and left, in pixels of the photograph after it was made smaller."""
    test: NDArray[np.int64]
    """``(M, 2)``."""


def open_photos() -> tuple[Arrays, Arrays]:
    """Cut the training and the test patches, always the same ones.

    Returns:
        Two sources of uint8 ``(3, PATCH, PATCH)`` pictures.

    Raises:
        DataError: a photograph is missing from the installed scikit-image or scikit-learn.
    """
    train, test = [], []
    train_labels: list[int] = []
    test_labels: list[int] = []
    files = photo_files()
    for label, path in enumerate(files):
        photo = load_photo(path)
        places = patches(photo, label)
        train.append(_cut(photo, places.train))
        test.append(_cut(photo, places.test))
        train_labels += [label] * len(places.train)
        test_labels += [label] * len(places.test)
    classes = tuple(path.stem for path in files)
    return (
        Arrays("photos/train", np.concatenate(train), train_labels, classes),
        Arrays("photos/test", np.concatenate(test), test_labels, classes),
    )


def photo_files() -> list[Path]:
    """Return the photographs' files, sorted by name.

    Raises:
        DataError: one is missing.
    """
    found = [_folder("skimage", "data") / name for name in SKIMAGE]
    found += [_folder("sklearn", "datasets", "images") / name for name in SKLEARN]
    for path in found:
        if not path.is_file():
            raise DataError(
                f"the demo photograph {path.name} is not where the installed package should have it ({path.parent}); "
                "install scikit-image 0.26 and scikit-learn 1.9, or give pictures of your own"
            )
    return sorted(found, key=lambda path: path.stem)


def load_photo(path: Path) -> NDArray[np.uint8]:
    """Return a photograph as uint8 ``(3, H, W)``, at most ``LONGEST_SIDE`` pixels long.

    Raises:
        DataError: its file is damaged.
    """
    try:
        photo = np.asarray(convert(decode(path, path.name), PixelFormat(), path.name), np.uint8)
    except BadPicture as error:
        raise DataError(f"the demo photograph {path} cannot be read ({error.reason}); reinstall its package") from error
    _, height, width = photo.shape
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return photo
    picture = Image.fromarray(np.ascontiguousarray(photo.transpose(1, 2, 0)))
    smaller = picture.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    return np.array(smaller).transpose(2, 0, 1)


def patches(photo: NDArray[np.uint8], number: int) -> Patches:
    """Draw where to cut a photograph, uint8 ``(3, H, W)``; ``number`` is its place among all photographs."""
    _, height, width = photo.shape
    in_test = np.zeros((height - PATCH + 1, width - PATCH + 1), bool)
    near_test = np.zeros_like(in_test)
    for top, left in test_blocks(height, width):
        in_test[top : top + BLOCK : PATCH, left : left + BLOCK : PATCH] = True
        reach = MARGIN + PATCH  # a patch that begins nearer than this before the block comes too close to it
        near_test[max(0, top - reach + 1) : top + BLOCK + MARGIN, max(0, left - reach + 1) : left + BLOCK + MARGIN] = (
            True
        )
    content = _patch_std(photo) >= MIN_STD
    return Patches(
        train=_draw(np.argwhere(~near_test & content), TRAIN_PER_PHOTO, number, 0),
        test=_draw(np.argwhere(in_test & content), TEST_PER_PHOTO, number, 1),
    )


def test_blocks(height: int, width: int) -> list[tuple[int, int]]:
    """Return top and left of each test block, for a photograph of ``height`` × ``width`` pixels."""
    return [(top, left) for top in _spread(height) for left in _spread(width)]


def _spread(length: int) -> list[int]:
    """Place blocks along one side, ``PERIOD`` apart and centred."""
    count = 1 + (length - BLOCK) // PERIOD
    first = (length - BLOCK - (count - 1) * PERIOD) // 2
    return [first + number * PERIOD for number in range(count)]


def _patch_std(photo: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return how much the patch at every place varies within its channels, ``(H - PATCH + 1, W - PATCH + 1)``."""
    values = photo.astype(np.float64)
    variance = (_patch_mean(values**2) - _patch_mean(values) ** 2).mean(0)
    std: NDArray[np.float64] = np.sqrt(variance.clip(min=0))
    return std


def _patch_mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each channel's mean over the patch at every place, by a table of sums."""
    total = np.pad(values.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
    rows = total[:, PATCH:] - total[:, :-PATCH]
    mean: NDArray[np.float64] = (rows[:, :, PATCH:] - rows[:, :, :-PATCH]) / PATCH**2
    return mean


def _draw(places: NDArray[np.int64], count: int, *keys: int) -> NDArray[np.int64]:
    chosen = torch.randperm(len(places), generator=generator(SEED, *keys))[:count]
    drawn: NDArray[np.int64] = places[chosen.sort().values.numpy()]
    return drawn


def _cut(photo: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.stack([photo[:, top : top + PATCH, left : left + PATCH] for top, left in places])


def _folder(package: str, *below: str) -> Path:
    """Find a package's data without importing it, which would take a second."""
    found = util.find_spec(package)
    if found is None or found.origin is None:
        raise DataError(f"the demo photographs come with {package}, which is not installed; reinstall diptych")
    return Path(found.origin).parent.joinpath(*below)
