"""``diptych duplicates``: groups of near-duplicates, and which picture of each to keep.

Pictures are near-duplicates where the cosine of their vectors reaches a threshold: a given one, or what ``spacing``
takes from how densely others lie around both. Of all pictures not in a group yet, the one with the most near-duplicates
is kept, and those that it has form its group (star clustering, Aslam, Pelekhov and Rus 2004); of equal ones, the first
of the set. So there are no chains: each picture of a group is a near-duplicate of the one kept, and no two kept
pictures are near-duplicates of each other. The one with the most is the most typical: copies that were cut or
recompressed are nearer to their original than to each other. File sizes are not looked at; vectors know none.
"""

import hashlib
from collections import Counter
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ConfigError, DataError, printable
from diptych.runs import SCHEMA_VERSION
from diptych.vectors.cells import FEW, Cells, divide, nearest_by_cells, pairs_above
from diptych.vectors.files import Values
from diptych.vectors.neighbours import cosines
from diptych.vectors.spacing import Rule, Spacing, choose, look, lowest
from diptych.vectors.table import Vectors

COLUMNS = ("group", "keep", "name", "similarity", "label")
SHOWN = 10
"""Groups that are printed."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A picture of a group."""

    row: int
    name: str
    label: str | None
    similarity: float
    """Cosine to the one that is kept; 1 for itself."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Near-duplicates of one picture."""

    kept: Member
    others: tuple[Member, ...]
    """The most similar first; of equal ones the smaller row."""


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """The near-duplicates of a set."""

    threshold: float
    """Cosine from which pictures are near-duplicates, wherever they lie."""
    fraction: float
    """Of the distance at which both have their 16th neighbour (``spacing``), within which they are, too; 0 for a given
    threshold."""
    why: str
    """Where it comes from, for people."""
    pictures: int
    groups: tuple[Group, ...]
    """The largest first; of equal ones, the one whose kept picture comes first."""
    conflicts: int
    """Groups whose pictures have several labels."""
    compared: float
    """Pairs of vectors compared, as a share of all N (N - 1) / 2."""
    checked: int
    """Pairs of near-duplicates that pictures drawn at random have, compared with all others; 0 where all were."""
    found: int
    """Of these, the pairs that were found."""

    @property
    def removed(self) -> int:
        """Pictures that are near-duplicates of a kept one."""
        return sum(len(group.others) for group in self.groups)

    @property
    def rule(self) -> str:
        """What near-duplicates are, for people."""
        sparse = ", less where pictures lie sparsely" if self.fraction else ""
        return f"cosine {self.threshold:.4f} or more{sparse}"

    def kept_rows(self) -> list[int]:
        """Return the rows of all pictures to keep: those of no group, and one of each."""
        out = {member.row for group in self.groups for member in group.others}
        return [row for row in range(self.pictures) if row not in out]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self), "removed": self.removed}

    def csv_rows(self) -> list[tuple[object, ...]]:
        """Return the cells of ``COLUMNS`` for every picture of a group, the one to keep first."""
        return [
            (number, "yes" if member is group.kept else "no", member.name, f"{member.similarity:.6f}", member.label)
            for number, group in enumerate(self.groups, 1)
            for member in (group.kept, *group.others)
        ]

    def as_text(self) -> str:
        """Return lines for a terminal."""
        if not self.groups:
            lines = [f"no near-duplicates among {self.pictures:,} pictures ({self.rule})"]
        else:
            lines = [
                f"{self.removed + len(self.groups):,} of {self.pictures:,} pictures are near-duplicates ({self.rule}), "
                f"in {_count(len(self.groups), 'group')}; {self.removed:,} can go"
            ]
        lines.append(f"threshold: {self.why}")
        if self.checked:
            lines.append(
                f"{100 * self.compared:.2g} % of all pairs were compared, by which {self.found:,} of {self.checked:,} "
                "pairs of pictures drawn at random were found"
            )
        if self.conflicts:
            lines.append(f"{_count(self.conflicts, 'group')} with pictures of several labels: look at these first")
        if self.groups:
            lines.append("")
        for number, group in enumerate(self.groups[:SHOWN], 1):
            some = ", ".join(f"{other.name} ({other.similarity:.4f})" for other in group.others[:3])
            more = len(group.others) - 3
            lines.append(printable(f"{number}. keep {group.kept.name}: {some}{f' and {more:,} more' * (more > 0)}"))
        if len(self.groups) > SHOWN:
            lines.append(f"… and {_count(len(self.groups) - SHOWN, 'more group')}")
        return "\n".join(lines)


def duplicates(vectors: Vectors, threshold: float | Literal["auto"] = "auto") -> Duplicates:
    """Find groups of near-duplicates.

    Args:
        vectors: of ``read_vectors``.
        threshold: cosine -1..1 from which pictures are near-duplicates; ``auto`` is the rule of ``spacing.choose``.

    Raises:
        ConfigError: the threshold is out of range, so low that nearly all are near-duplicates, or ``auto`` for too few
            pictures.
        DataError: there is a single picture, or ``auto`` for pictures that mostly have the same vector.
    """
    _check(threshold)
    if len(vectors) < 2:
        raise DataError(
            f"{vectors.path or 'the set'} has a single picture, of which there are no duplicates; embed more"
        )
    first, place = identical(vectors.values)
    values = vectors.values if len(first) == len(vectors) else vectors.values[first]
    cells = divide(values)
    spacing = look(values) if len(first) > 1 and (threshold == "auto" or len(first) > FEW) else None
    if threshold != "auto":
        rule = Rule(threshold=float(threshold), fraction=0.0, neighbours=1, why="as given")
    elif spacing is None:
        raise DataError(f"all {len(vectors):,} vectors are the same: the network has collapsed, or all are copies")
    else:
        rule = choose(spacing)
    alike = pairs_above(values, rule.threshold, cells)
    pairs, kth = alike.rows, np.ones(len(first), np.float32)
    if rule.fraction:
        nearer, kth = _nearer(values, rule, cells)
        pairs = np.unique(np.concatenate([pairs, nearer]), axis=0)
    leaders = first[stars(pairs, np.bincount(place))][place]
    groups = _groups(vectors, leaders, place)
    checked, found = _checked(spacing, pairs, rule, kth) if spacing is not None and len(first) > FEW else (0, 0)
    return Duplicates(
        threshold=rule.threshold,
        fraction=rule.fraction,
        why=rule.why,
        pictures=len(vectors),
        groups=groups,
        conflicts=sum(len({one.label for one in (group.kept, *group.others)} - {None}) > 1 for group in groups),
        compared=alike.compared / (len(vectors) * (len(vectors) - 1) / 2) if len(first) > FEW else 1.0,
        checked=checked,
        found=found,
    )


def identical(values: Values) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tell vectors ``(N, D)`` that are the same to the last bit as one.

    Returns:
        The first row of each different vector, ascending, and the place ``(N,)`` of each vector among them.
    """
    known: dict[bytes, int] = {}
    place = np.empty(len(values), np.int64)
    first: list[int] = []
    for row, vector in enumerate(values):
        key = hashlib.blake2b(np.ascontiguousarray(vector).data, digest_size=16).digest()
        place[row] = known.setdefault(key, len(known))
        if len(known) > len(first):
            first.append(row)
    return np.array(first, np.int64), place


def stars(pairs: NDArray[np.int64], weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each of N places the one that is kept for it, perhaps itself.

    Args:
        pairs: ``(P, 2)`` near-duplicates, each pair once.
        weights: ``(N,)``: pictures at each place.
    """
    count = len(weights)
    ends = np.concatenate([pairs, pairs[:, ::-1]])
    ends = ends[np.argsort(ends[:, 0], kind="stable")]
    bounds = np.searchsorted(ends[:, 0], np.arange(count + 1))
    near = np.bincount(ends[:, 0], weights[ends[:, 1]], count) + weights
    kept = np.arange(count)
    free = np.ones(count, bool)
    joined = np.unique(ends[:, 0])
    for place in joined[np.argsort(-near[joined], kind="stable")].tolist():
        if free[place]:
            others = ends[bounds[place] : bounds[place + 1], 1]
            others = others[free[others]]
            kept[others], free[others], free[place] = place, False, False
    return kept


def _groups(vectors: Vectors, leaders: NDArray[np.int64], place: NDArray[np.int64]) -> tuple[Group, ...]:
    """Make groups of all rows that have another for a leader ``(N,)``; those of one place have the same vector."""
    rows = np.flatnonzero(leaders != np.arange(len(leaders)))
    pairs = np.stack([leaders[rows], rows], 1)
    similar = cosines(vectors.values, pairs)
    similar[place[rows] == place[pairs[:, 0]]] = 1  # of zeros, too
    order = np.lexsort((rows, -similar, pairs[:, 0]))
    sizes = Counter(pairs[:, 0].tolist())
    members: dict[int, list[Member]] = {}
    for leader, row, similarity in zip(*pairs[order].T.tolist(), similar[order].tolist(), strict=True):
        members.setdefault(leader, []).append(_member(vectors, row, similarity))
    return tuple(
        Group(kept=_member(vectors, leader, 1.0), others=tuple(members[leader]))
        for leader in sorted(members, key=lambda leader: (-sizes[leader], leader))
    )


def _member(vectors: Vectors, row: int, similarity: float) -> Member:
    label = vectors.labels[row] if vectors.labels else None
    return Member(row=row, name=vectors.names[row], label=label, similarity=similarity)


def _nearer(values: Values, rule: Rule, cells: Cells) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Find pairs that are nearer than others lie around both.

    Returns:
        ``(P, 2)``, the smaller row first, some twice; and the cosine of each vector to its k-th neighbour, ``(N,)``.
    """
    similarities, rows = nearest_by_cells(values, rule.neighbours, cells)
    kth = similarities[:, -1].copy()
    own = lowest(rule, kth, np.arange(len(rows))[:, None])  # for both it is this or more
    one, place = np.nonzero(similarities >= own[:, None])
    pairs = np.stack([one, rows[one, place]], 1)
    near = similarities[one, place] >= lowest(rule, kth, pairs)
    return np.sort(pairs[near], axis=1), kth


def _checked(spacing: Spacing, pairs: NDArray[np.int64], rule: Rule, kth: NDArray[np.float32]) -> tuple[int, int]:
    """Count the pairs that some pictures have, compared with all others, and those of them that were found."""
    near = np.stack([np.repeat(spacing.rows, spacing.neighbours.shape[1]), spacing.neighbours.ravel()], 1)
    near = near[spacing.similarities.ravel() >= lowest(rule, kth, near)]
    numbers = np.unique(near.min(1) * spacing.pictures + near.max(1))
    return len(numbers), int(np.isin(numbers, pairs[:, 0] * spacing.pictures + pairs[:, 1]).sum())


def _check(threshold: float | Literal["auto"]) -> None:
    if threshold != "auto" and not (isinstance(threshold, Real) and -1 <= threshold <= 1):
        raise ConfigError(f"--threshold must be auto or a cosine, -1..1, not {threshold}")


def _count(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
