"""What the default recipe looks at before it chooses: the pictures and the machine."""

import os
import statistics
from dataclasses import dataclass

import numpy as np
import torch

from diptych.data.open import open_data
from diptych.data.source import BadPicture
from diptych.data.split import draw
from diptych.errors import DataError

SAMPLE = 64
"""Pictures looked at."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known of the pictures and the machine."""

    count: int
    """Pictures to learn from."""
    side: int
    """Median of the shorter side, in pixels, over a sample."""
    gray: bool
    """Whether every picture of the sample has three equal channels."""
    gpu: bool
    """Whether a CUDA GPU is there."""
    bf16: bool
    """Whether the processor computes in bfloat16 natively."""


def gather(data: str, data_dir: str | None = None, limit: int | None = None) -> Facts:
    """Look at a sample of the pictures and at the machine.

    Raises:
        DataError: the pictures cannot be found, or none of the sample can be read.
    """
    source = open_data(data, data_dir).train
    source = source if limit is None else draw(source, limit)
    sample = draw(source, min(SAMPLE, len(source)))
    sides, gray = [], True
    for index in range(len(sample)):
        try:
            picture = sample.read(index)
        except BadPicture:
            continue
        sides.append(min(picture.shape[1:]))
        gray = gray and bool(np.array_equal(picture[0], picture[1]) and np.array_equal(picture[1], picture[2]))
    if not sides:
        raise DataError(
            f"none of {len(sample)} pictures drawn from {data} can be read; look at them, or try another folder"
        )
    side = int(statistics.median(sides))
    return Facts(count=len(source), side=side, gray=gray, gpu=torch.cuda.is_available(), bf16=native_bf16())


def native_bf16() -> bool:
    """Whether bfloat16 is faster than float32 here: a recent GPU, or a processor with instructions for it."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def machine(facts: Facts) -> str:
    """Name the machine for the log."""
    return "a GPU" if facts.gpu else f"{os.cpu_count()} CPU cores"
