"""Which pictures a run can take together: it brings all to one kind, and leaves out those that it cannot bring to it.

The kind is the most frequent one of the training part, as in ``recipes.facts``.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from diptych.auditing.index import PARTS, Index, shown
from diptych.data.decoding.pixels import BadPicture, PixelFormat, convert


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """The kinds of the pictures that can be read, and what becomes of each in a run."""

    usual: PixelFormat | None
    """What a run brings every picture to; None where no training picture can be read."""
    parts: tuple[Counter[PixelFormat], ...]
    """Pictures of each kind, by part."""
    refused: dict[PixelFormat, str] = field(default_factory=dict)
    """The kinds that have no faithful form of the usual one, with the reason that a run gives."""

    def left_out(self, part: int) -> int:
        """Return how many pictures of a part can be read and yet are left out."""
        return sum(count for kind, count in self.parts[part].items() if kind in self.refused)


def tell(index: Index) -> Kinds:
    """Sort the pictures of an index by what a run makes of them."""
    parts: tuple[Counter[PixelFormat], ...] = tuple(Counter() for _ in PARTS)
    query = (
        "SELECT part, channels, depth, count(*) AS n FROM good GROUP BY part, channels, depth "
        "ORDER BY n DESC, channels, depth"
    )
    for part, channels, depth, count in index.rows(query):
        parts[part][PixelFormat(channels=channels, depth=depth)] = count
    if not parts[0]:
        return Kinds(usual=None, parts=parts)
    usual = next(iter(parts[0]))
    refused = {}
    for kind in {kind: None for part in parts for kind in part}:
        try:
            convert(np.zeros((kind.channels, 1, 1), kind.depth), usual, "")
        except BadPicture as bad:
            refused[kind] = bad.reason
    return Kinds(usual=usual, parts=parts, refused=refused)


def left_out(index: Index, kinds: Kinds) -> Iterator[dict[str, Any]]:
    """Yield every picture that a run or an evaluation leaves out, and the reason that it gives."""
    condition, values = of(kinds.refused)
    query = (
        f"SELECT part, name, size, reason, channels, depth FROM pictures WHERE reason IS NOT NULL OR {condition} "
        "ORDER BY part, name"
    )
    for part, name, size, reason, channels, depth in index.stream(query, values):
        told = reason or kinds.refused[PixelFormat(channels=channels, depth=depth)]
        yield {"part": PARTS[part], "name": shown(name), "bytes": size, "reason": told}


def of(kinds: "dict[PixelFormat, str] | list[PixelFormat]") -> tuple[str, list[str]]:
    """Return the SQL condition for pictures of these kinds, and its values."""
    values = [f"{kind.channels} {kind.depth}" for kind in kinds]
    return f"(channels || ' ' || depth) IN ({', '.join('?' * len(values))})", values
