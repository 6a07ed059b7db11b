"""What is odd: pictures that lie where vectors are sparser than around their neighbours.

The score is the local outlier factor of Breunig et al. (SIGMOD 2000, doi 10.1145/342009.335388), on vectors of length
1. With d the distance, k-distance(o) that to the k-th neighbour of o, and N_k(p) the k nearest neighbours of p:

    reach(p, o) = max(k-distance(o), d(p, o))        density(p) = 1 / mean over o in N_k(p) of reach(p, o)
    LOF(p)      = mean over o in N_k(p) of density(o) / density(p)

About 1 is as dense as around its neighbours, be these a tight group or a loose one, which is why it is no plain mean
distance: that would call every picture of a varied class odd. How much more is odd depends on the set, so the score
that 99 of 100 pictures do not exceed is told beside it.

Deviations: N_k has k members where several are equally far, as in scikit-learn. And pictures with the same vector up to
rounding count as one place, whose score they share. The paper's factor is undefined where k + 1 of them meet, and made
finite by a constant, as scikit-learn does, calls all around them odd by a factor of millions (the paper's own way out,
the k-distance of distinct places, is the same where copies are exact). Nearly the same pictures count each:
``diptych duplicates`` finds them.

Neighbours are exact up to ``EXACT`` pictures, for which time grows with the square of their number. Above, they are
looked for in ``PROBED`` cells (``cells``), for which it grows as N^1.5, and the share of them that was found is counted
on pictures drawn at random, and told. Tried on the 60,000 pictures of CIFAR-10, 98 % were found in a quarter of the
time (14 s, one thread); scores were off by 0.14 % on average and 11 % at worst, and 48 of the 50 oddest were the same.
Memory grows with N · k.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from diptych.errors import ConfigError, DataError
from diptych.runs import SCHEMA_VERSION
from diptych.seeding import DRAW, generator
from diptych.vectors.cells import divide, nearest_by_cells
from diptych.vectors.duplicates import identical
from diptych.vectors.files import Values
from diptych.vectors.listing import aligned
from diptych.vectors.neighbours import nearest
from diptych.vectors.table import Vectors

NEIGHBOURS = 20
"""k: the paper finds 10 the least that does not shake, and scikit-learn takes 20."""
EXACT = 1 << 16
"""Pictures up to which each is compared with each."""
PROBED = 32
"""Cells that a vector looks into beyond that: those of neighbours are farther than those of near-duplicates."""
DRAWN = 256
"""Pictures compared with all to count what was missed."""
COPY = 1e-3
"""Distance of vectors of length 1 within which rounding, to float16 too, may have put the same picture."""

COLUMNS = ("rank", "name", "label", "group", "score", "distance", "nearest", "copies")
"""Of the CSV file."""

_NUMBERS_AT_ONCE = 1 << 22  # of float64: 32 MiB


@dataclass(frozen=True, kw_only=True)
class Outlier:
    """A picture that was listed."""

    rank: int
    """1 is the oddest."""
    row: int
    name: str
    label: str | None
    group: str | None
    score: float
    """Local outlier factor: 1 is as its neighbours."""
    distance: float
    """Mean distance to its k nearest neighbours, 0..2, of vectors of length 1."""
    nearest: str
    """The name of its nearest neighbour."""
    copies: int
    """Other pictures with the same vector."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Outliers:
    """The oddest pictures, and the score of every one."""

    listed: tuple[Outlier, ...]
    """The oddest first; of equal scores the smaller row."""
    scores: NDArray[np.float64]
    """``(N,)``: local outlier factors, above 0; 1 is as its neighbours."""
    neighbours: int
    """k, as it was used."""
    distinct: int
    """Pictures that have no earlier one's vector."""
    found: float
    """Share of their nearest neighbours that pictures drawn at random were given; 1 where all are exact."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: what is listed, and how the scores of all are spread."""
        return {
            "schema_version": SCHEMA_VERSION,
            "score": "local outlier factor",
            "neighbours": self.neighbours,
            "pictures": len(self.scores),
            "distinct": self.distinct,
            "neighbours_found": self.found,
            "quantiles": {str(part): float(np.quantile(self.scores, part)) for part in (0.5, 0.9, 0.99)},
            "listed": [asdict(one) for one in self.listed],
        }

    def csv_rows(self) -> list[tuple[object, ...]]:
        """Return the cells of ``COLUMNS`` for every picture that is listed."""
        return [tuple(getattr(one, column) for column in COLUMNS) for one in self.listed]

    def as_text(self) -> str:
        """Return lines for a terminal: the table, then what its numbers mean."""
        rows = [
            (str(one.rank), f"{one.score:.2f}", f"{one.distance:.3f}", str(one.copies), one.label or "–", one.name)
            for one in self.listed
        ]
        pictures = len(self.scores)
        half, most = np.quantile(self.scores, (0.5, 0.99))
        lines = [
            *aligned(("rank", "score", "distance", "copies", "label", "name"), rows, words=2),
            "",
            "Score: local outlier factor (Breunig et al. 2000). 1 is as dense as around its neighbours, 2 lies about "
            f"twice as far from others as they do from theirs. Half of all have {half:.2f} or less, 99 of 100 "
            f"{most:.2f}.",
            f"Distance: mean to the {self.neighbours} nearest of {pictures:,} pictures, of vectors of length 1.",
        ]
        if copies := pictures - self.distinct:
            lines.append(f"{copies:,} pictures have the vector of another one: copies count once.")
        if self.found < 1:
            lines.append(
                f"So many are not compared each with each: {100 * self.found:.1f} % of the nearest were found, by "
                "pictures drawn at random."
            )
        return "\n".join(lines)


def outliers(vectors: Vectors, *, top: int = 50, neighbours: int = NEIGHBOURS) -> Outliers:
    """Score every picture by the density around it, and list the oddest.

    Args:
        vectors: of two different pictures or more.
        top: how many to list; all where there are fewer.
        neighbours: k; cut to the number of other distinct pictures.

    Raises:
        ConfigError: ``top`` or ``neighbours`` is below 1.
        DataError: there is one picture, or all have the same vector.
    """
    for option, value in (("--top", top), ("--neighbours", neighbours)):
        if value < 1:
            raise ConfigError(f"{option} must be 1 or more, not {value}")
    if len(vectors) < 2:
        raise DataError(
            f"{vectors.path or 'the vectors'}: one picture has no neighbours to be compared with; embed more"
        )
    places = find_places(vectors.values, neighbours)
    if len(places.first) == 1:
        raise DataError(
            f"{vectors.path or 'the vectors'}: all {len(vectors):,} vectors are the same, so that nothing stands out: "
            "the network has collapsed, or the pictures are copies"
        )
    scores = local_outlier_factors(places.distances, places.nearest)[places.of]
    listed = np.argsort(-scores, kind="stable")[:top]
    return Outliers(
        listed=tuple(_listed(vectors, places, scores, rank, row) for rank, row in enumerate(listed.tolist(), 1)),
        scores=scores,
        neighbours=places.nearest.shape[1],
        distinct=len(places.first),
        found=places.found,
    )


def local_outlier_factors(distances: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the local outlier factor ``(N,)`` of points of which no two coincide.

    Args:
        distances: ``(N, k)`` to the k nearest others, ascending.
        rows: ``(N, k)``: which they are.
    """
    reach = np.maximum(distances[rows, -1], distances)
    density = 1 / reach.mean(axis=1)
    factors: NDArray[np.float64] = density[rows].mean(axis=1) / density
    return factors


class Places(NamedTuple):
    """Where pictures lie: those with the same vector up to rounding in one place."""

    of: NDArray[np.int64]
    """``(N,)``: the place of each picture."""
    first: NDArray[np.int64]
    """``(P,)``: the first picture of each place, ascending."""
    counts: NDArray[np.int64]
    """``(P,)``: pictures of each place."""
    distances: NDArray[np.float64]
    """``(P, k)`` to the nearest other places, ascending."""
    nearest: NDArray[np.int64]
    """``(P, k)``: which they are."""
    found: float
    """Share of them that are truly the nearest, by places drawn at random; 1 up to ``EXACT``."""


def find_places(values: Values, neighbours: int) -> Places:
    """Find copies among vectors ``(N, D)``, and what is nearest to what is left; k is cut to P - 1."""
    first, places = identical(values)
    while True:
        left = values if len(first) == len(values) else values[first]
        distances, rows = _neighbours(left, min(neighbours, len(first) - 1))
        if len(first) == 1 or distances[:, 0].min() >= COPY:
            return Places(places, first, np.bincount(places), distances, rows, _found(left, rows))
        # Of each and the copy nearest to it the later follows the earlier, even where only one has found the other, so
        # that each turn leaves fewer; what is left of a heap of copies meets next time.
        one = np.flatnonzero(distances[:, 0] < COPY)
        other = rows[one, 0]
        leader = np.arange(len(first))
        np.minimum.at(leader, np.maximum(one, other), np.minimum(one, other))
        while (leader[leader] != leader).any():
            leader = leader[leader]
        kept = np.unique(leader)
        places, first = np.searchsorted(kept, leader)[places], first[kept]


def _listed(vectors: Vectors, places: Places, scores: NDArray[np.float64], rank: int, row: int) -> Outlier:
    place = places.of[row]
    return Outlier(
        rank=rank,
        row=row,
        name=vectors.names[row],
        label=vectors.labels[row] if vectors.labels else None,
        group=vectors.groups[row] if vectors.groups else None,
        score=float(scores[row]),
        distance=float(places.distances[place].mean()),
        nearest=vectors.names[int(places.first[places.nearest[place, 0]])],
        copies=int(places.counts[place]) - 1,
    )


def _neighbours(values: Values, k: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return distances ``(N, k)`` of vectors of length 1 to the nearest others, ascending, and their rows."""
    if not k:
        return np.empty((len(values), 0)), np.empty((len(values), 0), np.int64)
    if len(values) <= EXACT:
        _, rows = nearest(values, values, k, leave_out=np.arange(len(values)))
    else:
        _, rows = nearest_by_cells(values, k, divide(values, PROBED))
    distances = np.empty(rows.shape)
    step = max(1, _NUMBERS_AT_ONCE // (k * values.shape[1]))
    for start in range(0, len(values), step):
        part = slice(start, start + step)
        apart = _unit(values[rows[part]]) - _unit(values[part])[:, None]
        # By the difference, not by the cosine: that of near ones is 1 less what float32 rounds away.
        distances[part] = np.sqrt(np.einsum("nkd,nkd->nk", apart, apart))
    order = np.argsort(distances, axis=1, kind="stable")
    return np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1)


def _found(values: Values, rows: NDArray[np.int64]) -> float:
    """Return the share of the nearest that ``rows`` ``(N, k)`` holds, of some vectors compared with all."""
    if len(values) <= EXACT:
        return 1.0
    drawn = np.sort(torch.randperm(len(values), generator=generator(len(values), DRAW))[:DRAWN].numpy())
    _, true = nearest(values[drawn], values, rows.shape[1], leave_out=drawn)
    return float((true[:, :, None] == rows[drawn][:, None]).any(2).mean())


def _unit(values: Values) -> NDArray[np.float64]:
    wide = values.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    unit: NDArray[np.float64] = wide / np.where(lengths > 0, lengths, 1)
    return unit
