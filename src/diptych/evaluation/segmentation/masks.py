"""What each pixel shows: PNG files of class numbers, brought to the size of the pictures without mixing any.

A mask is gray (8 or 16 bits; black and white are 0 and 1) or has a palette, whose places are the numbers, as PASCAL VOC
writes them. 255 says that nothing is known of a pixel: it is neither learned from nor counted.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diptych.data.decoding.decode import header
from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources.source import Source
from diptych.data.stores.memory import MemoryStore, build_memory_store
from diptych.errors import DataError, printable
from diptych.evaluation.pictures import Labelled
from diptych.evaluation.segmentation.pairs import Paired, Pairs
from diptych.frozen import Preprocessing
from diptych.progress import Terminal

IGNORED = 255
"""Of a pixel of which nothing is known, in files and in tensors."""
SPREAD = {"L;2": 85, "L;4": 17}
"""Of gray with few bits, which Pillow spreads over 0..255: the factor."""


def read_masked(paired: Paired, size: int, made: Preprocessing, terminal: Terminal) -> tuple[Labelled, tuple[str, ...]]:
    """Decode both parts: pictures of the run's kind, and masks of the same size.

    Pictures that cannot be read are left out, and so are those that show no class.

    Args:
        paired: pictures and masks.
        size: pixels a side.
        made: how the run's pictures are.
        terminal: where to speak.

    Returns:
        Labels are masks ``(N, size, size)`` uint8: places in ``classes``, the numbers in the files as text, or 255. And
        the numbers that test masks alone show, where chance made it so: like 255, they do not count.

    Raises:
        DataError: a mask is no PNG of numbers or has another size than its picture; there is one class alone, or more
            than 255; a class is tested on without being learned from; or a part is left with fewer than two pictures.
    """
    bad: list[BadPicture] = []
    parts = [_read(pairs, size, made, bad, terminal) for pairs in (paired.train, paired.test)]
    for _, found in parts:
        _refuse_empty((found != IGNORED).any(axis=(1, 2)), paired.name)
    (_, train_numbers), (test, test_numbers) = parts
    numbers = _classes(train_numbers, paired.name)
    unlearned = sorted(set(np.unique(test_numbers).tolist()) - {*numbers, IGNORED})
    if unlearned and not paired.drawn:
        row = int((test_numbers == unlearned[0]).any(axis=(1, 2)).argmax())
        mask = paired.test.masks[int(test.source_indices[row])]
        raise DataError(
            f"the mask {printable(str(mask))} shows {unlearned[0]}, which no training mask does: put it right, or add "
            f"pictures that show {unlearned[0]} to those that are learned from"
        )
    place = np.full(1 << 16, IGNORED, np.uint8)
    place[numbers] = np.arange(len(numbers))
    (train, train_labels), (test, test_labels) = (_showing(store, place[found], paired.name) for store, found in parts)
    labelled = Labelled(
        train=train,
        test=test,
        train_labels=train_labels,
        test_labels=test_labels,
        classes=tuple(map(str, numbers)),
        bad=bad,
    )
    return labelled, tuple(map(str, unlearned))


def read_mask(path: Path) -> NDArray[np.uint16]:
    """Read the class numbers ``(H, W)`` of a PNG.

    Raises:
        DataError: it is no PNG of class numbers.
    """
    name = printable(str(path))
    try:
        found = header(path, name)
        if found.format != "PNG":
            raise DataError(f"the mask {name} is a {found.format}, and masks are PNG: write its class numbers as PNG")
        with Image.open(path, formats=("PNG",)) as mask:
            if mask.mode not in ("1", "L", "P") and not mask.mode.startswith("I"):
                raise DataError(
                    f"the mask {name} has colours ({mask.mode}) where class numbers are needed: write it with one "
                    "channel, or with a palette"
                )
            spread = next((factor for raw, factor in SPREAD.items() if mask.tile and mask.tile[0].args == raw), 1)
            numbers: NDArray[np.uint16] = np.asarray(mask).astype(np.uint16) // np.uint16(spread)
            return numbers
    except BadPicture as error:
        raise DataError(f"the mask {error}; put it right, or remove it and its picture") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"the mask {name} is cut short or damaged: put it right, or remove it and its picture"
        ) from error


def fit_mask(numbers: NDArray[np.uint16], size: int) -> NDArray[np.uint16]:
    """Bring a mask to ``(size, size)`` as ``decode.fit`` brings its picture, each pixel that of the nearest one.

    Args:
        numbers: ``(H, W)``; its largest centred square is taken.
        size: pixels a side.
    """
    height, width = numbers.shape
    side = min(height, width)
    down, across = (
        np.floor((full - side) / 2 + (np.arange(size) + 0.5) * side / size).astype(int) for full in (height, width)
    )
    nearest: NDArray[np.uint16] = numbers[down[:, None], across]
    return nearest


def _read(
    pairs: Pairs, size: int, made: Preprocessing, bad: list[BadPicture], terminal: Terminal
) -> tuple[MemoryStore, NDArray[np.uint16]]:
    with terminal.bar("reading pictures", len(pairs)) as bar:
        store = build_memory_store(pairs.images, size, made.pixels, bad.append, lambda done, _: bar.update(done))
    numbers = np.empty((len(store), size, size), np.uint16)
    with terminal.bar("reading masks", len(store)) as bar:
        for row, place in enumerate(store.source_indices.tolist()):
            mask = read_mask(pairs.masks[place])
            _refuse_other_size(pairs.images, place, pairs.masks[place], mask.shape)
            numbers[row] = fit_mask(mask, size)
            bar.update(row + 1)
    return store, numbers


def _refuse_other_size(images: Source, place: int, path: Path, shape: tuple[int, ...]) -> None:
    picture = images.header(place)
    if shape != (picture.height, picture.width):
        raise DataError(
            f"the mask {printable(str(path))} has {shape[1]} × {shape[0]} px and its picture "
            f"{printable(images.name_of(place))} {picture.width} × {picture.height}: masks are as large as their "
            "pictures"
        )


def _showing(store: MemoryStore, labels: NDArray[np.uint8], data: str) -> tuple[MemoryStore, Tensor]:
    """Leave out the pictures all of whose pixels are ignored."""
    shows = (labels != IGNORED).any(axis=(1, 2))
    _refuse_empty(shows, data)
    if shows.all():  # no second copy of all pictures
        return store, torch.from_numpy(labels)
    kept = torch.from_numpy(shows).nonzero()[:, 0]
    left = MemoryStore(images=store.images[kept], source_indices=store.source_indices[kept])
    return left, torch.from_numpy(labels[shows])


def _refuse_empty(shows: NDArray[np.bool_], data: str) -> None:
    if shows.sum() < 2:
        raise DataError(
            f"of {len(shows)} masks of {data}, {int(shows.sum())} show a class: all pixels of the others are "
            f"{IGNORED}, which says that nothing is known of them; two masks or more with classes are needed to learn "
            "from, and as many to test on"
        )


def _classes(masks: NDArray[np.uint16], data: str) -> list[int]:
    """Return the numbers that training masks show."""
    train = np.unique(masks).tolist()
    numbers = [number for number in train if number != IGNORED]
    if len(numbers) < 2:
        white = f" ({IGNORED} says that nothing is known: write another number for a class)" if IGNORED in train else ""
        raise DataError(
            f"segmentation needs two classes or more, and all training masks of {data} show {numbers[0]}{white}: add "
            "another class"
        )
    if len(numbers) > IGNORED:
        raise DataError(
            f"the training masks of {data} show {len(numbers)} classes, and 255 are the most that can be told apart: "
            "do they hold class numbers, and not colours or the numbers of objects?"
        )
    return numbers
