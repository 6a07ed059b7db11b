"""How near pictures of a set lie that are not copies of each other, and which cosine is nearer than chance brings them.

Around a picture, vectors of length 1 fill a space of some m dimensions: the number within a distance d grows as d^m.
m is read off the 16th and the 32nd neighbour, the distance to which grows by a factor of 2^(1/m) (by the median, as the
ratio's m-th power has a Beta(16, 16) distribution, whose median is ½; after Levina and Bickel 2004, who take the mean
of all ratios). Copies disturb it only where most pictures have 16 or more of them. Below 320 pictures, the 32nd would
lie among other kinds of pictures: a tenth of them takes its place, but no fewer than the 8th.

A nearest neighbour at a fraction r of the distance of the 32nd comes about by chance with probability 31 · r^m, so that
a set of N pictures has N · 31 · r^m of them. ``auto`` is the r for which this is ``CHANCE``, but at most ``FARTHEST``,
times the distance of the 32nd neighbour where pictures lie densely: at a tenth of them it is smaller. So a set without
copies yields none, save where a small part of it lies far more densely than the rest.

How much is found is up to the network. On 6,000 pictures of CIFAR-10, by a ResNet-20 v2 after a single epoch of SimCLR,
none was called a copy of another; of 200 copies each, planted among them, all were found that were recompressed at
JPEG quality 75, 11 % at quality 30, and 10 % of those cut by a pixel at two edges. No threshold does much better: one
that 0.1 % of 5,000 pictures reach without any copies is reached by 39 % and 18 % of such copies.
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
NEIGHBOURS = (8, 32)
"""How many are looked at: a tenth of a small set, but within these bounds."""
LEAST = 50
"""Pictures that are needed to see what is usual."""
CHANCE = 0.1
"""Pictures that chance may bring so near, in the whole set."""
FARTHEST = 0.5
"""Of the distance of the 32nd neighbour: where there are many dimensions, chance brings nothing near."""
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


def choose(spacing: Spacing) -> tuple[float, str]:
    """Return the cosine above which pictures are nearer than chance brings them, and why, for people.

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
    apart = half > 0
    if 1 - around**2 / 2 >= ROUNDED or not apart.any():
        raise DataError(
            f"a tenth of these pictures have {k} others with the same vector: the network has collapsed, or most are "
            "copies; give a number, such as --threshold 0.999"
        )
    growth = float(np.median(np.log(whole[apart] / half[apart])))
    dimensions = np.log(2) / growth if growth > 0 else np.inf
    fraction = min(FARTHEST, (CHANCE / (spacing.pictures * (k - 1))) ** (1 / dimensions))
    threshold = min(1 - (fraction * around) ** 2 / 2, ROUNDED)
    why = (
        f"pictures here have {dimensions:.3g} dimensions and at a tenth of them {k} others within cosine "
        f"{1 - around**2 / 2:.4f}, so that chance hardly brings any nearer than {threshold:.4f}"
    )
    return threshold, why
