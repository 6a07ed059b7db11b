"""Pictures through the network: decoded by threads ahead of it, in the source's order, batch by batch.

A batch begins at the same picture whether or not the command was killed before it, so the numbers are the same bytes.
"""

import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from diptych.backbones.feature_choice import FeatureChoice
from diptych.data.decoding.pixels import BadPicture, PixelFormat, Pixels
from diptych.data.prefetch import ahead
from diptych.data.quarantine import Quarantine
from diptych.data.sources.source import Source, Subset
from diptych.data.stores.reading import read_all
from diptych.errors import RunFolderError
from diptych.frozen import FrozenBackbone
from diptych.progress import Terminal
from diptych.vectors.parts import Part, Parts

Dtype: TypeAlias = Literal["float32", "float16"]

PART_SECONDS = 30.0
"""A kill costs no more than this much work."""
PART_NUMBERS = 1 << 24
"""A part holds no more numbers than this and a batch: 64 MB of float32."""
BATCH_PIXELS = 64 * 224 * 224
"""Of a batch whose size was not given; what a network needs for one grows with its pixels."""
BATCH_SIZES = (8, 256)
"""The least and the most pictures of such a batch."""
CACHED_PIXELS, CACHED_PICTURES = 1 << 14, 8
"""What goes through a network on a CPU at a time: little, so that what is computed on the way stays in the cache, but
eight pictures at least, as fewer keep the processor less busy."""
DIVERGED = "is not finite: the run's training diverged; pretrain with a lower --lr"
AHEAD = 2
"""Batches decoded before the network asks for them."""


class _Batch(NamedTuple):
    pictures: Tensor
    """``(B, C, S, S)``; B may be 0."""
    places: list[int]
    """Where in the source they lie."""
    bad: list[BadPicture]
    end: int
    """The place behind the last picture, unreadable ones included."""


def batch_for(image_size: int) -> int:
    """Return how many pictures of so many pixels a side go through a network together."""
    least, most = BATCH_SIZES
    return max(least, min(most, BATCH_PIXELS // image_size**2))


def compute(
    backbone: FrozenBackbone,
    source: Source,
    parts: Parts,
    choice: FeatureChoice,
    dtype: Dtype,
    size: int,
    quarantine: Quarantine,
    terminal: Terminal,
) -> None:
    """Embed the pictures that are not in ``parts`` yet, and add them.

    Args:
        backbone: the network.
        source: all pictures.
        parts: what is done so far.
        choice: which numbers of the network.
        dtype: what they are kept as.
        size: pictures of a batch.
        quarantine: is told of those that cannot be read, also of those that were met before.
        terminal: where the progress is shown.

    Raises:
        DataError: more pictures than may be cannot be read.
        RunFolderError: a vector is not finite, or the disk is full.
    """
    made = backbone.preprocessing
    for bad in parts.bad:
        quarantine.add(bad)
    width, at_once = backbone.width(choice), size
    if backbone.device.type == "cpu":
        at_once = min(size, max(CACHED_PICTURES, CACHED_PIXELS // made.image_size**2))
    waiting: list[Part] = []
    written = time.monotonic()
    with (
        terminal.bar("embedding", len(source), parts.end) as bar,
        closing(ahead(_batches(source, parts.end, made.image_size, made.pixels, size), AHEAD)) as batches,
    ):
        for batch in batches:
            for bad in batch.bad:
                quarantine.add(bad)
            values = backbone.embed(batch.pictures, at_once, choice)
            _refuse_not_finite(values, batch, source, DIVERGED)
            values = values.to(getattr(torch, dtype))
            _refuse_not_finite(values, batch, source, f"holds numbers too large for {dtype}: leave out --dtype {dtype}")
            waiting.append(Part(values=values.numpy(), places=np.array(batch.places, np.int64), bad=batch.bad))
            late = time.monotonic() - written >= PART_SECONDS
            if late or batch.end == len(source) or len(waiting) * size * width >= PART_NUMBERS:
                parts.add(_joined(waiting), batch.end)
                waiting, written = [], time.monotonic()
            bar.update(batch.end)
    quarantine.check()


def _batches(source: Source, start: int, size: int, wanted: PixelFormat, count: int) -> Iterator[_Batch]:
    """Decode the pictures from ``start`` on; each batch takes ``count`` places of the source."""
    total = len(source)
    rest = Subset(source, range(start, total)) if start else source
    good: list[Pixels] = []
    places: list[int] = []
    bad: list[BadPicture] = []
    place = start
    for picture in chain.from_iterable(read_all(rest, size, wanted)):
        if isinstance(picture, BadPicture):
            bad.append(picture)
        else:
            good.append(picture)
            places.append(place)
        place += 1
        if (place - start) % count == 0 or place == total:
            yield _Batch(_stacked(good, size, wanted), places, bad, place)
            good, places, bad = [], [], []


def _stacked(pictures: list[Pixels], size: int, wanted: PixelFormat) -> Tensor:
    if not pictures:
        return torch.empty((0, wanted.channels, size, size), dtype=getattr(torch, wanted.depth))
    return torch.from_numpy(np.stack(pictures))


def _joined(parts: list[Part]) -> Part:
    return Part(
        values=np.concatenate([part.values for part in parts]),
        places=np.concatenate([part.places for part in parts]),
        bad=[bad for part in parts for bad in part.bad],
    )


def _refuse_not_finite(values: Tensor, batch: _Batch, source: Source, what: str) -> None:
    whole = values.isfinite().all(dim=1)
    if not whole.all():
        name = source.name_of(batch.places[int(whole.int().argmin())])
        raise RunFolderError(f"the vector of {name} {what}")
