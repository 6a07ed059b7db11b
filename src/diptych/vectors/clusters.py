"""k-means by which the same seed gives the same clusters each time.

Lloyd's algorithm from the starts of k-means++ (Arthur and Vassilvitskii 2007), of several draws the best one each time,
as scikit-learn begins too. The sums of scikit-learn's depend on which thread comes first, and so would what is chosen.
"""

import math

import torch
from torch import Tensor

STEPS = 50
"""Of Lloyd's algorithm, at most: later ones move few vectors."""
_DISTANCES_AT_ONCE = 1 << 24  # 64 MiB of float32


def k_means(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return the cluster ``(N,)`` int64 of each vector, 0..count - 1.

    Some clusters are empty where fewer vectors than ``count`` are different.

    Args:
        values: ``(N, D)`` float32, of length 1 or less.
        count: how many clusters, 1..N.
        generator: of the starts.
    """
    centres = _starts(values, count, generator)
    labels = _nearest(values, centres)
    for _ in range(STEPS):
        sizes = torch.bincount(labels, minlength=len(centres))
        sums = torch.zeros_like(centres).index_add_(0, labels, values)
        centres = torch.where(sizes[:, None] > 0, sums / sizes[:, None].clamp_min(1), centres)
        before, labels = labels, _nearest(values, centres)
        if torch.equal(before, labels):
            break
    return labels


def _starts(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw vectors, each with a chance that grows with the square of its distance to those drawn before."""
    first = int(torch.randint(len(values), (1,), generator=generator))
    chosen, squared = [first], _squared(values, values[first : first + 1])[:, 0]
    while len(chosen) < count and squared.any():
        sums = squared.double().cumsum(0)
        draws = sums[-1] * torch.rand(2 + int(math.log(count)), generator=generator, dtype=torch.float64)
        tried = torch.searchsorted(sums, draws, right=True).clamp_max_(len(values) - 1)
        left = torch.minimum(squared[:, None], _squared(values, values[tried]))
        best = int(left.sum(0).argmin())
        chosen.append(int(tried[best]))
        squared = left[:, best]
    return values[chosen]


def _squared(values: Tensor, centres: Tensor) -> Tensor:
    """Return the squared distances ``(N, K)``; those that rounding alone makes are 0."""
    found = values.square().sum(1)[:, None] - 2 * values @ centres.T + centres.square().sum(1)
    return torch.where(found > 1e-6, found, 0.0)


def _nearest(values: Tensor, centres: Tensor) -> Tensor:
    rows = max(1, _DISTANCES_AT_ONCE // len(centres))
    half = centres.square().sum(1) / 2
    return torch.cat([(part @ centres.T - half).argmax(1) for part in torch.split(values, rows)])
