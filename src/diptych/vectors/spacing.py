"""How near pictures of a set lie that are not copies of each other, and what is nearer than chance brings them.

Around a picture, vectors of length 1 fill a space of some m dimensions: the number within a distance d grows as d^m.
m is read off the 8th and the 16th neighbour, the distance to which grows by a factor of 2^(1/m) (by the median, as the
ratio's m-th power has a Beta(8, 8) distribution, whose median is ½; after Levina and Bickel 2004, who take the mean of
all ratios). Copies disturb it only where most pictures have 8 or more of them. Below 160 pictures, the 16th would lie
among other kinds of pictures: a tenth of them takes its place, but no fewer than the 8th.

A nearest neighbour at a fraction r of the distance of the 16th comes about by chance with probability 15 · r^m, so that
a set of N pictures has N · 15 · r^m of them. ``auto`` takes the r for which this is ``CHANCE``, but at most
``FARTHEST``, and calls two pictures near-duplicates that are nearer to each other than r times the distance at which
*both* have their 16th neighbour: what is near among a thousand frogs is not what is near among twenty castles. Where a
picture has more than 16 copies, the 16th is one of them; so pictures are near-duplicates, too, that are nearer than r
times the distance of the 16th neighbour where pictures lie densely: at a tenth of them it is smaller. A set without
copies yields none by that, save where a small part of it lies far more densely than the rest.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from diptych.errors import ConfigError, DataError
from diptych.seeding import DRAW, generator
from diptych.vectors.files import Values
from diptych.vectors.neighbours import nearest

PICTURES = 2048
"""Drawn to be compared with all."""
NEIGHBOURS = (8, 16)
"""How many are looked at: a tenth of a small set, but within these bounds."""
LEAST = 50
"""Pictures that are needed to see what is usual."""
CHANCE = 0.1
"""Pictures that chance may bring so near, in the whole set."""
FARTHEST = 0.5
"""Of the distance of the 16th neighbour: where there are many dimensions, chance brings nothing near."""
DENSE = 0.1
"""Share of the pictures in whose neighbourhood others lie more densely than is reckoned with."""
ROUNDED = 1 - 1e-6
"""Cosine above which vectors may differ by rounding alone."""


@dataclass(frozen=True, kw_only=True)
class Spacing:
    """Some pictures compared with all others."""

    rows: NDArray[np.int64]
    """``(S,)``, drawn and sorted."""
    neighbours: NDArray[np.int64]
    """``(S, k)``: the rows of the nearest, the nearest first."""
    similarities: NDArray[np.float32]
    """``(S, k)``."""
    pictures: int
    """N."""


def look(values: Values) -> Spacing:
    """Compare some vectors with all of ``(N, D)``; N is at least 2."""
    count = len(values)
    rows = np.sort(torch.randperm(count, generator=generator(count, DRAW, 2))[:PICTURES].numpy())
    least, most = NEIGHBOURS
    k = min(max(least, min(most, count // 10)), count - 1)
    similarities, neighbours = nearest(values[rows], values, k, leave_out=rows)
    return Spacing(rows=rows, neighbours=neighbours, similarities=similarities, pictures=count)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What is nearer than chance brings pictures."""

    threshold: float
    """Cosine that is, wherever the pictures lie."""
    fraction: float
    """Of the smaller of the distances at which both have their k-th neighbour, within which they are, too."""
    neighbours: int
    """k."""
    why: str
    """For people."""


def choose(spacing: Spacing) -> Rule:
    """Say what is nearer than chance brings pictures.

    Raises:
        ConfigError: there are fewer than ``LEAST`` pictures.
        DataError: so many pictures have the same vector that none are usual.
    """
    if spacing.pictures < LEAST:
        raise ConfigError(
            f"--threshold auto needs {LEAST} different pictures to see what is usual, and there are "
            f"{spacing.pictures}; give a number, such as --threshold 0.95"
        )
    k = spacing.similarities.shape[1] // 2 * 2
    distances = np.sqrt(np.maximum(0, 2 - 2 * spacing.similarities.astype(np.float64)))
    half, whole = distances[:, k // 2 - 1], distances[:, k - 1]
    around = float(np.quantile(whole, DENSE))
    differ = half > 0
    if 1 - around**2 / 2 >= ROUNDED or not differ.any():
        raise DataError(
            f"a tenth of these pictures have {k} others with the same vector: the network has collapsed, or most are "
            "copies; give a number, such as --threshold 0.999"
        )
    growth = float(np.median(np.log(whole[differ] / half[differ])))
    dimensions = np.log(2) / growth if growth > 0 else np.inf
    fraction = min(FARTHEST, float((CHANCE / (spacing.pictures * (k - 1))) ** (1 / dimensions)))
    why = (
        f"pictures here have {dimensions:.3g} dimensions, so that chance hardly brings any nearer than {fraction:.2f} "
        f"of the distance of their {k}th neighbours"
    )
    threshold = min(1 - (fraction * around) ** 2 / 2, ROUNDED)
    return Rule(threshold=threshold, fraction=fraction, neighbours=k, why=why)


def lowest(rule: Rule, kth: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the cosine ``(P,)`` from which pictures are near-duplicates of each other.

    Args:
        rule: of ``choose``.
        kth: ``(N,)``, the cosine of each picture to its k-th neighbour.
        rows: ``(P, 2)``.
    """
    nearer = 1 - rule.fraction**2 * (1 - kth[rows].max(1).astype(np.float64))
    found: NDArray[np.float32] = np.minimum(nearer, rule.threshold).astype(np.float32)
    return found
