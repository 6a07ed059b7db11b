"""Pairs of vectors with a cosine above a threshold, without comparing each with each.

Vectors are divided into about √(8 N) cells by k-means; each is compared with those whose cell is among its own
``PROBED`` nearest (multi-probe, as Lv et al. 2007 do for hashes). A pair is found if either looks into the cell of the
other: near-duplicates nearly always lie in one cell or in two that meet. The cost grows as N^1.5.

Measured on 13,200 vectors, of which 1,200 are planted copies (``python benchmarks/duplicates.py 12000``, one thread),
of 12 and 30 dimensions, at cosines 0.9, 0.95 and 0.99: no copy was missed, save 0.2 % of those at 0.9 in 30 dimensions.
Of all pairs above 0.88, most of which chance makes in 12 dimensions, 2.3 % were missed. 18 % of all pairs were
compared, in a fifth of the time that all take; of 20,000 vectors it is 13 %.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from diptych.errors import ConfigError
from diptych.seeding import DRAW, generator
from diptych.vectors.files import Values
from diptych.vectors.neighbours import ROUNDING, cosines, normalised

PROBED = 8
"""Cells that a vector looks into."""
FEW = 4096
"""Up to so many vectors each is compared with each, which costs no more."""
SAMPLE = 16
"""Vectors a cell that its centre is found by."""
ROUNDS = 4
"""Of Lloyd's algorithm: cells need only be small, not good."""
MOST = 1 << 26
"""Pairs above which the threshold is no sign of near-duplicates any more: half a gigabyte."""

_ROWS = 1 << 12
_SIMILARITIES_AT_ONCE = 1 << 23  # 32 MiB of float32


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Rows that are alike."""

    rows: NDArray[np.int64]
    """``(P, 2)``, the smaller row first; sorted, each pair once."""
    compared: int
    """Pairs of vectors that were multiplied to find them, those of vectors and centres included."""


def pairs_above(values: Values, threshold: float) -> Pairs:
    """Find pairs of vectors ``(N, D)`` with a cosine of at least ``threshold``: all up to ``FEW``, nearly all above.

    Memory: 12 bytes a vector and cell looked into, 8 a pair found, and some 100 MiB.

    Raises:
        ConfigError: there are more than ``MOST`` of them.
    """
    count = len(values)
    lowest = threshold - ROUNDING
    found: list[NDArray[np.int64]] = []
    compared = pairs = 0
    if count <= FEW:
        visits: Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]] = iter([(np.arange(count), np.arange(count))])
    else:
        cells, compared = _nearest_cells(values)
        visits = _visits(cells)
    for visitors, members in visits:
        theirs = normalised(values[members]).T
        step = max(1, _SIMILARITIES_AT_ONCE // len(members))
        for start in range(0, len(visitors), step):
            some = visitors[start : start + step]
            close = (normalised(values[some]) @ theirs >= lowest).nonzero().numpy()
            compared += len(some) * len(members)
            one, other = some[close[:, 0]], members[close[:, 1]]
            numbers = (np.minimum(one, other) * count + np.maximum(one, other))[one != other]
            found.append(np.unique(numbers))
            pairs += len(found[-1])
            if pairs > 2 * MOST:  # each may have been found from both sides
                raise ConfigError(
                    f"--threshold {threshold:g}: more than {MOST:,} pairs of pictures are as alike as that; give a "
                    "higher one (or the network has collapsed: look at its report)"
                )
    numbers = np.unique(np.concatenate(found)) if found else np.empty(0, np.int64)
    rows = np.stack([numbers // count, numbers % count], 1)
    return Pairs(rows=rows[cosines(values, rows) >= np.float32(threshold)], compared=compared)


def _nearest_cells(values: Values) -> tuple[NDArray[np.int32], int]:
    """Return the nearest cells ``(N, PROBED)`` of each vector, the nearest first, and the comparisons it took."""
    count = len(values)
    cells = round((PROBED * count) ** 0.5)
    drawn = torch.randperm(count, generator=generator(count, DRAW))[: SAMPLE * cells].sort().values.numpy()
    sample = normalised(values[drawn])
    centres = sample[torch.randperm(len(sample), generator=generator(count, DRAW, 1))[:cells]]
    for _ in range(ROUNDS):
        nearest = torch.cat([(part @ centres.T).argmax(1) for part in torch.split(sample, _ROWS)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, sample)
        centres = torch.where(sums.any(1, keepdim=True), F.normalize(sums), centres)
    found = np.empty((count, PROBED), np.int32)
    for start in range(0, count, _ROWS):
        similar: Tensor = normalised(values[start : start + _ROWS]) @ centres.T
        found[start : start + _ROWS] = similar.topk(PROBED, dim=1).indices.numpy()
    return found, ROUNDS * len(sample) * cells + count * cells


def _visits(cells: NDArray[np.int32]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield for each cell that holds any the vectors that look into it, and those that it holds."""
    width = cells.shape[1]
    looked, held = np.argsort(cells.ravel(), kind="stable"), np.argsort(cells[:, 0], kind="stable")
    ends = np.arange(cells.max() + 2)
    of_looked, of_held = np.searchsorted(cells.ravel()[looked], ends), np.searchsorted(cells[held, 0], ends)
    for cell in range(len(ends) - 1):
        members = held[of_held[cell] : of_held[cell + 1]]
        if len(members):
            yield looked[of_looked[cell] : of_looked[cell + 1]] // width, members
