"""What to label first: ways to choose pictures by their vectors, of which none sees a label.

- ``random``: drawn evenly. What every other way is measured against.
- ``kcenter``: the picture farthest from all that are covered, again and again: greedy k-center, as the core-set of
  Sener and Savarese (arXiv 1708.00489, algorithm 1). Every picture then has a labelled one near it. With few labels it
  takes what is odd, since that is what lies far away.
- ``typicality``: TypiClust of Hacohen, Dekel and Weinshall (arXiv 2202.02794, algorithm 1), which is for few labels.
  k-means makes as many clusters as there are labels, those wanted and those there are, at most 500; the cluster with
  the fewest labels is next, of several the largest; from it comes the picture with the smallest mean distance to its
  nearest neighbours of the cluster. As in the authors' code, clusters of 5 pictures or fewer wait until the others are
  empty. Deviations: 10 neighbours, where the paper has 20, since 10 were better (docs/using.md); a picture with the
  vector of one that has a label waits until all others are labelled, so that copies are not labelled twice; the mean
  distance is that among all members, once, and not among those left after each choice.

Vectors have length 1, as both papers' have.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from diptych.seeding import DRAW, generator
from diptych.vectors.clusters import k_means
from diptych.vectors.outliers import COPY

Choose: TypeAlias = Callable[[Tensor, Tensor, int, int], list[int]]
"""From vectors ``(N, D)`` float32 of length 1, which of them have a label ``(N,)`` bool, how many to choose (of those
without one there are as many), and a seed, to rows in the order in which they should be labelled."""

CLUSTERS = 500
"""At most: more would be so small that nothing in them is typical."""
SMALL = 5
"""Pictures of a cluster that is no cluster."""
TYPICAL = 10
"""Neighbours that say how typical a picture is."""
_DISTANCES_AT_ONCE = 1 << 24  # 64 MiB of float32


def random(values: Tensor, labelled: Tensor, budget: int, seed: int) -> list[int]:
    """Choose evenly."""
    free = (~labelled).nonzero()[:, 0]
    return free[torch.randperm(len(free), generator=generator(seed, DRAW))[:budget]].tolist()


def kcenter(values: Tensor, labelled: Tensor, budget: int, seed: int) -> list[int]:
    """Choose the farthest from all covered; the first one is drawn where nothing is labelled."""
    chosen: list[int] = []
    if labelled.any():
        covered = values[labelled].T
        rows = max(1, _DISTANCES_AT_ONCE // covered.shape[1])
        nearest = torch.cat([(part @ covered).amax(1) for part in torch.split(values, rows)])
    else:
        chosen = random(values, labelled, 1, seed)
        nearest = values @ values[chosen[0]]
    nearest[labelled] = torch.inf
    while len(chosen) < budget:
        nearest[chosen[-1:]] = torch.inf
        chosen.append(int(nearest.argmin()))
        torch.maximum(nearest, values @ values[chosen[-1]], out=nearest)
    return chosen


def typicality(values: Tensor, labelled: Tensor, budget: int, seed: int) -> list[int]:
    """Choose the most typical picture of the largest cluster among those with the fewest labels."""
    count = min(int(labelled.sum()) + budget, CLUSTERS, len(values))
    found = k_means(values, count, generator(seed, DRAW))
    clusters = [_Cluster(values, rows, labelled) for rows in _members(found)]
    chosen: list[int] = []
    for again in (False, True):  # copies of what has a label come last
        queue = [(len(one.rows) <= SMALL, one.labels, -len(one.rows), place) for place, one in enumerate(clusters)]
        heapq.heapify(queue)
        while queue and len(chosen) < budget:
            small, _, size, place = heapq.heappop(queue)
            row = clusters[place].take(copies=again)
            if row is not None:
                chosen.append(row)
                heapq.heappush(queue, (small, clusters[place].labels, size, place))
    return chosen


CHOICES: dict[str, Choose] = {"typicality": typicality, "kcenter": kcenter, "random": random}
"""By the name that ``--method`` takes."""


class _Cluster:
    """The pictures of a cluster, the most typical first, and which of them have a label."""

    def __init__(self, values: Tensor, rows: Tensor, labelled: Tensor) -> None:
        self.rows = rows[_mean_distance(values[rows]).argsort(stable=True)]
        self.labels = int(labelled[rows].sum())
        self._values = values[self.rows]
        self._taken = labelled[self.rows]
        self._covered = self._taken.clone()
        for place in self._taken.nonzero()[:, 0].tolist():
            self._cover(place)

    def take(self, *, copies: bool) -> int | None:
        """Return the most typical picture without a label; None where there is none, or copies alone."""
        free = (~(self._taken if copies else self._covered)).nonzero()[:, 0]
        if not len(free):
            return None
        place = int(free[0])
        self._taken[place] = True
        self._cover(place)
        self.labels += 1
        return int(self.rows[place])

    def _cover(self, place: int) -> None:
        self._covered |= (self._values - self._values[place]).square().sum(1) < COPY**2


def _members(found: Tensor) -> Sequence[Tensor]:
    """Return the rows of each cluster that has some, ascending."""
    sizes = torch.bincount(found)
    return torch.split(found.argsort(stable=True), sizes[sizes > 0].tolist())


def _mean_distance(values: Tensor) -> Tensor:
    """Return the mean distance ``(N,)`` to the nearest others, ``TYPICAL`` of them or as many as there are."""
    count = min(TYPICAL, len(values) - 1)
    if not count:
        return torch.zeros(1)
    squares = values.square().sum(1)
    means = []
    for start in range(0, len(values), rows := max(1, _DISTANCES_AT_ONCE // len(values))):
        part = slice(start, start + rows)
        squared = (squares[part, None] + squares - 2 * values[part] @ values.T).clamp_min_(0)
        squared[torch.arange(len(squared)), torch.arange(start, start + len(squared))] = torch.inf
        means.append(squared.topk(count, largest=False).values.sqrt().mean(1))
    return torch.cat(means)
