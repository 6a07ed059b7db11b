"""Mean, standard deviation and range of each channel, measured from the pictures themselves."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from diptych.data.decoding.pixels import Depth, Pixels

SAMPLE = 2_000
"""Pictures measured, drawn at random; wherever pictures are kept, the same ones."""
FULL = {"uint8": 255.0, "uint16": 65535.0}


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Of each channel, in the unit that networks see: 0..1 from the lowest to the highest value."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    """1 for a channel that never varies, so that dividing by it is harmless."""
    low: tuple[float, ...]
    """What becomes 0; empty for whole numbers, where it is 0."""
    high: tuple[float, ...]
    """What becomes 1; empty for whole numbers, where it is 255 or 65535."""
    pictures: int
    """How many were measured."""


def measure(
    batches: Iterable[Pixels], depth: Depth, low: Sequence[float] = (), high: Sequence[float] = ()
) -> Statistics:
    """Measure pictures ``(N, C, S, S)``; there must be one at least.

    Args:
        batches: of pictures.
        depth: their type.
        low: what becomes 0 in each channel of floating-point pictures; their lowest value if empty.
        high: what becomes 1; their highest value if empty.
    """
    count, pictures = 0, 0
    shift = total = squares = lowest = highest = np.zeros(1)
    for batch in batches:
        values = batch.transpose(1, 0, 2, 3).reshape(batch.shape[1], -1).astype(np.float64)
        if not count:  # sums are taken around the first batch's mean, so that squares keep their digits
            shift = values.mean(1)
            total, squares = np.zeros_like(shift), np.zeros_like(shift)
            lowest, highest = values.min(1), values.max(1)
        centred = values - shift[:, None]
        total, squares = total + centred.sum(1), squares + (centred**2).sum(1)
        lowest, highest = np.minimum(lowest, values.min(1)), np.maximum(highest, values.max(1))
        count, pictures = count + values.shape[1], pictures + len(batch)
    mean, std = shift + total / count, np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0))
    if depth in FULL:
        ends: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())
        mean, std = mean / FULL[depth], std / FULL[depth]
    else:
        bottom, top = np.array(low or lowest), np.array(high or highest)
        top = np.where(top > bottom, top, bottom + np.maximum(1, np.abs(bottom)))  # a channel that never varies
        mean, std = (mean - bottom) / (top - bottom), std / (top - bottom)
        ends = (tuple(bottom.tolist()), tuple(top.tolist()))
    return Statistics(
        mean=_rounded(mean), std=_rounded(np.where(std > 0, std, 1)), low=ends[0], high=ends[1], pictures=pictures
    )


def _rounded(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, ...]:
    """Six significant digits: readable in a configuration, and far below what a picture more or less changes."""
    return tuple(float(f"{value:.6g}") for value in values)
