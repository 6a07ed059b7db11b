"""Pictures that stand there more than once: the same file under two names, or nearly the same picture."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.auditing.index import PARTS, Index, shown
from diptych.auditing.inspect import SIGNATURE
from diptych.auditing.near import alike, candidates, groups

ASKED = 500
"""Rows asked for in one query."""


@dataclass(frozen=True, kw_only=True)
class Duplicates:
    """What looks alike among the distinct contents of a data set; constant pictures, which all do, are left out."""

    ids: NDArray[np.int64]
    """Row of each distinct content in the index, ``(N,)``; the rest counts in these."""
    counts: NDArray[np.int64]
    """How often it stands in each part, ``(N, 2)``."""
    pairs: NDArray[np.int64]
    """Two that look alike, ``(P, 2)``."""
    groups: list[list[int]] = field(default_factory=list)
    """Pairs joined; the largest first."""

    def overlap(self) -> list[tuple[int, int]]:
        """Return (test, train) for every content that stands in the test part alone and looks like a training picture.

        With each comes the first training picture that it looks like.
        """
        train, test = (self.counts > 0).T
        found: dict[int, int] = {}
        for one, other in np.concatenate([self.pairs, self.pairs[:, ::-1]]).tolist():
            if test[one] and not train[one] and train[other]:
                found[one] = min(other, found.get(one, other))
        return sorted(found.items())


def find(index: Index) -> Duplicates:
    """Compare all pictures of an index by their perceptual hashes."""
    query = (
        "SELECT min(id), phash, sum(part = 0), sum(part = 1) FROM good WHERE NOT constant GROUP BY digest "
        "ORDER BY digest"
    )
    table = np.fromiter(index.stream(query), np.dtype([("id", "i8"), ("hash", "i8"), ("train", "i8"), ("test", "i8")]))
    ids, counts = table["id"], np.stack([table["train"], table["test"]], 1)

    def signatures(places: NDArray[np.int64]) -> NDArray[np.uint8]:
        wanted = ids[places].tolist()
        found: dict[int, bytes] = {}
        for start in range(0, len(wanted), ASKED):
            some = wanted[start : start + ASKED]
            marks = ", ".join("?" * len(some))
            found.update(index.stream(f"SELECT id, signature FROM records WHERE id IN ({marks})", some))
        joined = b"".join(found[id_] for id_ in wanted)
        return np.frombuffer(joined, np.uint8).reshape(-1, SIGNATURE * SIGNATURE)

    pairs = alike(candidates(table["hash"]), signatures)
    joined = sorted(groups(map(tuple, pairs.tolist())), key=lambda group: (-len(group), group))
    return Duplicates(ids=ids, counts=counts, pairs=pairs, groups=joined)


def labels_of(index: Index, copies: Duplicates) -> dict[int, set[str]]:
    """Return all classes of every content that looks like another."""
    wanted = set(np.unique(copies.pairs).tolist())
    # In the order of ``find``, so that the place of a content is its number here.
    query = "SELECT digest, label FROM good WHERE NOT constant GROUP BY digest, label ORDER BY digest"
    return {
        place: {label for _, label in rows if label is not None}
        for place, (_, rows) in enumerate(groupby(index.stream(query), lambda row: row[0]))
        if place in wanted
    }


def digest_of(index: Index, copies: Duplicates, place: int) -> str:
    """Return the digest of a distinct content."""
    return str(index.rows("SELECT digest FROM records WHERE id = ?", [int(copies.ids[place])])[0][0])


def members(index: Index, digest: str, limit: int = -1) -> list[dict[str, Any]]:
    """Return the pictures of one content, in the order of their parts and names."""
    query = "SELECT part, name, label, width, height FROM good WHERE digest = ? ORDER BY part, name LIMIT ?"
    return [
        {"part": PARTS[part], "name": shown(name), "label": label, "width": width, "height": height, "digest": digest}
        for part, name, label, width, height in index.stream(query, [digest, limit])
    ]


def lines(index: Index, copies: Duplicates) -> Iterator[dict[str, Any]]:
    """Yield every group of pictures: first those with the same content, then those that look alike."""
    query = (
        "SELECT digest, part, name, label FROM good WHERE digest IN "
        "(SELECT digest FROM good GROUP BY digest HAVING count(*) > 1) ORDER BY digest, part, name"
    )
    for _, rows in groupby(index.stream(query), lambda row: row[0]):
        yield {
            "kind": "same",
            "pictures": [{"part": PARTS[part], "name": shown(name), "label": label} for _, part, name, label in rows],
        }
    for group in copies.groups:
        pictures = [one for place in group for one in members(index, digest_of(index, copies, place))]
        yield {
            "kind": "alike",
            "pictures": [{key: one[key] for key in ("part", "name", "label")} for one in pictures],
        }
