"""What the default recipe looks at before it chooses: the pictures and the machine."""

import os
import statistics
from collections import Counter
from dataclasses import dataclass, replace

import torch

from diptych.data.decoding.pixels import BadPicture, PixelFormat, Pixels, format_of
from diptych.data.sources.chosen import open_source
from diptych.data.sources.shards import count as count_pictures
from diptych.data.sources.shards import find_shards, is_shards
from diptych.data.sources.split import draw
from diptych.errors import DataError, typed
from diptych.hardware import native_bf16

LOOKED_AT = 64
"""Pixels a side for which they are read: enough to tell gray from colour."""
SAMPLE = 64
"""Pictures looked at."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of the pictures and the machine."""

    count: int
    """Pictures to learn from."""
    side: int
    """Median of the shorter side, in pixels, over a sample."""
    pixels: PixelFormat
    """What most pictures of the sample are: one channel where all are gray, three equal ones included."""
    gpu: bool
    """Whether a CUDA GPU is there."""
    bf16: bool
    """Whether the processor computes in bfloat16 natively."""


def gather(data: str, data_dir: str | None = None, limit: int | None = None, tile: int | None = None) -> Facts:
    """Look at a sample of the pictures and at the machine.

    Raises:
        DataError: the pictures cannot be found, or none of the sample can be read.
    """
    source, _ = open_source(data, data_dir, tile, limit)
    count = limit or count_pictures(find_shards(data)) if is_shards(data) else len(source)
    sample = draw(source, min(SAMPLE, len(source)))
    sides: list[int] = []
    kinds: Counter[PixelFormat] = Counter()
    gray = True
    bad: list[BadPicture] = []
    for index in range(len(sample)):
        try:
            told = sample.header(index)
            picture = sample.read(index, LOOKED_AT)
        except BadPicture as error:
            bad.append(error)
            continue
        sides.append(min(told.height, told.width))
        kinds[format_of(picture)] += 1
        gray = gray and is_gray(picture)
    if not sides:
        raise DataError(
            f"none of {len(sample)} pictures drawn from {data} can be read; the first, {bad[0]}. "
            f"{typed('diptych audit', data)} says more"
        )
    pixels = kinds.most_common(1)[0][0]
    if gray:
        pixels = replace(pixels, channels=1)
    elif pixels.channels == 1:  # most are gray but some have colour, which one channel would lose
        pixels = replace(pixels, channels=3)
    return Facts(
        count=count,
        side=int(statistics.median(sides)),
        pixels=pixels,
        gpu=torch.cuda.is_available(),
        bf16=native_bf16("cuda" if torch.cuda.is_available() else "cpu"),
    )


def is_gray(picture: Pixels) -> bool:
    """Whether a picture has one channel, or three equal ones."""
    return len(picture) == 1 or (len(picture) == 3 and bool((picture == picture[:1]).all()))


def machine(facts: Facts) -> str:
    """Name the machine for the log."""
    return "a GPU" if facts.gpu else f"{os.cpu_count()} CPU cores"
