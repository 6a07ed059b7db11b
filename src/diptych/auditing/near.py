"""Pictures that look alike, found without comparing all with all.

Two stages. The perceptual hashes propose: the 64 bits are cut into ``BANDS``, and two hashes that differ in at most
``DISTANCE`` bits agree in two bands at least, so they lie beside each other when sorted by the right two (multi-index
hashing, Norouzi, Punjani and Fleet 2012, arXiv 1307.2982). Then 16 × 16 gray pixels of both decide: their correlation
must be at least ``CORRELATION``. Brightness, contrast and colour may differ, a resized or recompressed copy passes, and
so do two frames of one scene. On CIFAR-10, pairs between 0.90 and 0.93 are still nearly all the same photograph.
"""

import itertools
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

DISTANCE = 8
"""Bits in which two hashes may differ."""
BANDS = 10
"""Two of these agree even where each of the ``DISTANCE`` differing bits lies in another."""
CORRELATION = 0.9
WINDOW = 64
"""Neighbours that a hash is compared with among those that agree in two bands, at least; twice their mean number where
that is more. It bounds the work where thousands of pictures have nearly one hash: they are still joined, one by the
other."""
SAME = 8
"""Pictures of the very same hash that are compared with those of another, and with each other."""
MERGE = 1 << 22
"""Pairs that are gathered before those found twice are dropped."""
BLOCK = 1 << 14
"""Pairs whose pixels are compared at a time."""

_BITS = np.array([bin(value).count("1") for value in range(1 << 16)], np.uint8)


def candidates(hashes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the pairs of hashes that differ in at most ``DISTANCE`` bits, ``(P, 2)``, sorted, the smaller place first.

    Args:
        hashes: ``(N,)``.
    """
    order = np.argsort(hashes, kind="stable")
    values, first, sizes = np.unique(hashes[order], return_index=True, return_counts=True)
    pairs = np.concatenate([_close(values.view(np.uint64)), np.arange(len(values))[:, None].repeat(2, 1)])
    found = []
    # A hash stands for all its pictures: of each of the two, up to SAME of them are paired.
    for one in range(SAME):
        pairs = pairs[one < sizes[pairs[:, 0]]]
        for other in range(SAME):
            there = pairs[other < sizes[pairs[:, 1]]]
            found.append(_numbered(order[first[there[:, 0]] + one], order[first[there[:, 1]] + other], len(hashes)))
    # The pictures of one hash beyond those are joined each to the ones before it.
    for step in range(1, SAME):
        same = np.flatnonzero(hashes[order[step:]] == hashes[order[:-step]])
        found.append(_numbered(order[same], order[same + step], len(hashes)))
    return _pairs(found, len(hashes))


def _numbered(one: NDArray[np.int64], other: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Write each pair of two different places as one number, ``smaller × count + larger``."""
    numbers: NDArray[np.int64] = (np.minimum(one, other) * count + np.maximum(one, other))[one != other]
    return numbers


def _distinct(numbers: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Join and sort, each once. ``numpy.unique`` hashes, and takes a minute where this takes a second."""
    joined = np.sort(np.concatenate(numbers))
    distinct: NDArray[np.int64] = joined[np.diff(joined, prepend=-1) != 0]
    return distinct


def _pairs(numbers: list[NDArray[np.int64]], count: int) -> NDArray[np.int64]:
    """Turn numbered pairs back into pairs, each once, sorted."""
    return np.stack(np.divmod(_distinct(numbers), max(count, 1)), 1)


def _close(values: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the pairs of different hashes that are close."""
    edges = np.linspace(0, 64, BANDS + 1).astype(int)
    masks = [sum(1 << bit for bit in range(first, last)) for first, last in itertools.pairwise(edges.tolist())]
    found = [np.empty(0, np.int64)]
    for one, other in itertools.combinations(masks, 2):
        found.append(_beside(values, np.uint64(one | other)))
        if sum(map(len, found[1:])) > max(MERGE, len(found[0])):
            found = [_distinct(found)]
    return _pairs(found, len(values))


def _beside(values: NDArray[np.uint64], mask: np.uint64) -> NDArray[np.int64]:
    """Return the close pairs that agree in the bits of ``mask``, as ``_numbered`` writes them."""
    keys = values & mask
    order = np.lexsort((values, keys))
    keys, values = keys[order], values[order]
    found = [np.empty(0, np.int64)]
    for offset in range(1, max(WINDOW, len(values) >> 11) + 1):
        agree = keys[:-offset] == keys[offset:]
        if not agree.any():
            break
        close = np.flatnonzero(agree & (_differing(values[:-offset] ^ values[offset:]) <= DISTANCE))
        found.append(_numbered(order[close], order[close + offset], len(values)))
    return np.concatenate(found)


def _differing(values: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """Count the bits that are set."""
    if hasattr(np, "bitwise_count"):  # since NumPy 2
        return np.bitwise_count(values)
    counted: NDArray[np.uint8] = _BITS[values.view(np.uint16)].reshape(-1, 4).sum(1, dtype=np.uint8)
    return counted


def alike(pairs: NDArray[np.int64], signatures: Callable[[NDArray[np.int64]], NDArray[np.uint8]]) -> NDArray[np.int64]:
    """Keep the pairs whose small pictures agree.

    Args:
        pairs: ``(P, 2)``, from ``candidates``.
        signatures: returns the gray values ``(n, D)`` of the places given, which are sorted and unique.
    """
    kept = [np.empty((0, 2), np.int64)]
    for start in range(0, len(pairs), BLOCK):
        block = pairs[start : start + BLOCK]
        places, rows = np.unique(block, return_inverse=True)
        values = signatures(places).astype(np.float32)
        values -= values.mean(1, keepdims=True)
        values /= np.linalg.norm(values, axis=1, keepdims=True) + 1e-6
        first, second = rows.reshape(-1, 2).T
        kept.append(block[np.einsum("id,id->i", values[first], values[second]) >= CORRELATION])
    return np.concatenate(kept)


def groups(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Join pairs that share a place into groups; members sorted, groups in the order of their first."""
    parent: dict[int, int] = {}

    def root(place: int) -> int:
        parent.setdefault(place, place)
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for first, second in pairs:
        low, high = sorted((root(first), root(second)))
        parent[high] = low
    joined: dict[int, list[int]] = {}
    for place in sorted(parent):
        joined.setdefault(root(place), []).append(place)
    return list(joined.values())
