"""Pairs of vectors with a cosine above a threshold, without comparing each with each.

Vectors are divided into about √(8 N) cells by k-means; each is compared with those whose cell is among its own
``PROBED`` nearest (multi-probe, as Lv et al. 2007 do for hashes). A pair is found if either looks into the cell of the
other: near-duplicates nearly always lie in one cell or in two that meet. The cost grows as N^1.5.

Measured on 13,200 vectors, of which 1,200 are planted copies (``python benchmarks/duplicates.py 12000``, one thread),
of 12 and 30 dimensions, at cosines 0.9, 0.95 and 0.99: no copy was missed, save 0.2 % of those at 0.9 in 30 dimensions.
Of all pairs above 0.88, most of which chance makes in 12 dimensions, 2.3 % were missed. 18 % of all pairs were
compared, in a fifth of the time that all take; of 20,000 vectors it is 13 %.

The nearest of each are found likewise, less surely, as they lie farther away: of the 60,000 pictures of CIFAR-10, in
256 numbers, 80 % of the 20 nearest are found by looking into ``PROBED`` cells, so that the 16th comes out 1.5 % too far
away, and 98 % by looking into 32.
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
from diptych.vectors.neighbours import ROUNDING, cosines, nearest, normalised, ranked

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
class Cells:
    """Which vectors are compared with which."""

    nearest: NDArray[np.int32]
    """``(N, P)``: the cells that each vector looks into, first the one that holds it."""
    compared: int
    """Pairs of vectors and centres that were multiplied to find them."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Rows that are alike."""

    rows: NDArray[np.int64]
    """``(P, 2)``, the smaller row first; sorted, each pair once."""
    compared: int
    """Pairs of vectors that were multiplied to find them, those of vectors and centres included."""


def divide(values: Values, probed: int = PROBED) -> Cells:
    """Divide vectors ``(N, D)`` into cells, of which each looks into ``probed``; up to ``FEW`` into a single one."""
    count = len(values)
    if count <= FEW:
        return Cells(nearest=np.zeros((count, 1), np.int32), compared=0)
    cells = round((PROBED * count) ** 0.5)
    drawn = torch.randperm(count, generator=generator(count, DRAW))[: SAMPLE * cells].sort().values.numpy()
    sample = normalised(values[drawn])
    centres = sample[torch.randperm(len(sample), generator=generator(count, DRAW, 1))[:cells]]
    for _ in range(ROUNDS):
        own = torch.cat([(part @ centres.T).argmax(1) for part in torch.split(sample, _ROWS)])
        sums = torch.zeros_like(centres).index_add_(0, own, sample)
        centres = torch.where(sums.any(1, keepdim=True), F.normalize(sums), centres)
    found = np.empty((count, probed), np.int32)
    for start in range(0, count, _ROWS):
        similar: Tensor = normalised(values[start : start + _ROWS]) @ centres.T
        found[start : start + _ROWS] = similar.topk(probed, dim=1).indices.numpy()
    return Cells(nearest=found, compared=ROUNDS * len(sample) * cells + count * cells)


def pairs_above(values: Values, threshold: float, cells: Cells) -> Pairs:
    """Find pairs of vectors ``(N, D)`` with a cosine of at least ``threshold``: all up to ``FEW``, nearly all above.

    Memory: 12 bytes a vector and cell looked into, 8 a pair found, and some 100 MiB.

    Raises:
        ConfigError: there are more than ``MOST`` of them.
    """
    count = len(values)
    lowest = threshold - ROUNDING
    found: list[NDArray[np.int64]] = []
    compared, pairs = cells.compared, 0
    for visitors, members, similar in _similarities(values, cells):
        close = (similar >= lowest).nonzero().numpy()
        compared += similar.numel()
        one, other = visitors[close[:, 0]], members[close[:, 1]]
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


def nearest_by_cells(values: Values, k: int, cells: Cells) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the k nearest others of each vector ``(N, D)``, k at most N - 1: nearly all of them.

    Memory: 12 bytes a vector and neighbour, and some 100 MiB.

    Returns:
        Similarities and rows ``(N, k)``, as ``nearest`` orders them.
    """
    best = torch.full((len(values), k), -torch.inf)
    rows = torch.full((len(values), k), -1)
    for visitors, members, similar in _similarities(values, cells):
        place = np.minimum(np.searchsorted(members, visitors), len(members) - 1)
        itself = np.flatnonzero(members[place] == visitors)
        similar[itself, place[itself]] = -torch.inf
        closest = similar.topk(min(k, len(members)), dim=1)
        some = torch.from_numpy(visitors)
        known = torch.cat([best[some], closest.values], 1)
        theirs = torch.cat([rows[some], torch.from_numpy(members)[closest.indices]], 1)
        best[some], kept = known.topk(k, dim=1)
        rows[some] = theirs.gather(1, kept)
    similarities, ordered = ranked(values, values, rows.masked_fill_(best.isneginf(), -1).numpy())
    lonely = np.flatnonzero(ordered[:, -1] < 0)  # the cells that they look into hold fewer than k others
    if len(lonely):
        similarities[lonely], ordered[lonely] = nearest(values[lonely], values, k, leave_out=lonely)
    return similarities, ordered


def _similarities(values: Values, cells: Cells) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Tensor]]:
    """Yield rows that look into a cell ``(V,)``, those that it holds ``(M,)``, ascending, and their cosines ``(V, M)``.

    A row meets itself where it looks into its own cell.
    """
    for visitors, members in _visits(cells.nearest):
        theirs = normalised(values[members]).T
        step = max(1, _SIMILARITIES_AT_ONCE // len(members))
        for start in range(0, len(visitors), step):
            some = visitors[start : start + step]
            yield some, members, normalised(values[some]) @ theirs


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
