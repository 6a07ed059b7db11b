"""The vectors nearest to a vector by cosine similarity: exact, a block at a time, in the same order whatever the block.

Each block is one multiplication of matrices in float32, by all threads. It proposes some rows more than were asked for;
their similarities are then computed once more in float64 and rounded, so that equal vectors have equal similarities
wherever they lie, and the smaller row comes first. Where so many rows are so close that a proposal may have left one
out (copies by the dozen, a collapsed network), the query goes through all rows in float64.
"""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from diptych.errors import ConfigError
from diptych.vectors.files import Values

BLOCK = 1 << 14
"""Rows compared at a time."""
SPARE = 16
"""Rows proposed beyond those asked for."""
ROUNDING = 4e-6
"""What float32 may be off by in a cosine of vectors of some thousands of numbers, and more."""
FOLDS = 16
"""Similarities whose largest is looked at before they are: most of a block need not be sorted."""

_SIMILARITIES_AT_ONCE = 1 << 22  # 16 MiB of float32
_PAIRED_AT_ONCE = 1 << 18  # numbers of float64: 2 MiB, that stay in the cache from one step to the next
_SHORT = 1e-15  # a length whose square, and more so the squares that it is the sum of, float32 does not hold


def nearest(
    queries: Values,
    vectors: Values,
    k: int,
    *,
    leave_out: NDArray[np.int64] | None = None,
    block: int = BLOCK,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the k rows with the largest cosine similarity to each query.

    Memory beyond the result is bounded: some 50 MiB, ``block · D`` numbers, and rows of the result's size.

    Args:
        queries: ``(M, D)``, finite; perhaps some of the vectors.
        vectors: ``(N, D)``, finite; memory-mapped ones are read once, a block at a time.
        k: how many.
        leave_out: ``(M,)``, for each query the row that is not to be found, such as its own; -1 for none.
        block: rows compared at a time; it changes the memory needed and nothing else.

    Returns:
        Similarities ``(M, k)`` in -1..1, largest first, and their rows ``(M, k)``; of equal ones the smaller row comes
        first. A vector of zeros has similarity 0 to all.

    Raises:
        ConfigError: k is not 1..N, or not 1..N - 1 where a row is left out; or the widths differ.
    """
    available = len(vectors) - (leave_out is not None)
    if not 1 <= k <= available:
        raise ConfigError(f"k must be 1..{available:,}, as many as there are to be found, not {k}")
    if queries.shape[1] != vectors.shape[1]:
        raise ConfigError(
            f"{queries.shape[1]} numbers a query and {vectors.shape[1]} a vector: embed both by the same run"
        )
    out = np.full(len(queries), -1, np.int64) if leave_out is None else np.asarray(leave_out, np.int64)
    wanted = min(k + SPARE, available)
    proposed, rows = _proposals(queries, vectors, wanted, out, block)
    similarities, rows = ranked(queries, vectors, rows)
    if wanted < available:
        close = np.flatnonzero(proposed >= similarities[:, k - 1] - 2 * ROUNDING)
        for some in np.array_split(close, -(-len(close) // 256)) if len(close) else []:
            similarities[some, :k], rows[some, :k] = _thorough(queries[some], vectors, k, out[some], block)
    return similarities[:, :k].copy(), rows[:, :k].copy()


def normalised(values: Values, out: Tensor | None = None) -> Tensor:
    """Return vectors ``(N, D)`` as float32 of length 1; zeros stay zeros.

    Args:
        values: finite.
        out: where to write them, N rows or more of float32; memory of their own if None.
    """
    unit = torch.empty(values.shape) if out is None else out[: len(values)]
    np.copyto(unit.numpy(), values)
    lengths = torch.linalg.vector_norm(unit, dim=1, keepdim=True)
    extreme = ((lengths < _SHORT) | lengths.isinf()).squeeze(1)
    if extreme.any():
        some = unit[extreme]
        unit[extreme] = F.normalize(some / some.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo().tiny))
        lengths[extreme] = 1
    return unit.div_(lengths)


def ranked(queries: Values, vectors: Values, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Order proposed rows by their exact similarity.

    Args:
        queries: ``(M, D)``.
        vectors: ``(N, D)``.
        rows: ``(M, n)`` of ``vectors``, those of each query; -1 for none.

    Returns:
        Similarities and rows ``(M, n)`` as ``nearest`` orders them; -inf and -1 where there was none.
    """
    there = np.maximum(rows, 0)
    similarities = np.where(rows >= 0, _exact(queries, vectors, there), np.float32(-np.inf))
    similarities, rows = _read_keys(np.sort(_keys(similarities, there), axis=1))
    return similarities, np.where(np.isneginf(similarities), -1, rows)


def cosines(vectors: Values, pairs: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the cosine ``(P,)`` of each pair of rows ``(P, 2)``: what ``nearest`` says of them."""
    found = np.empty(len(pairs), np.float32)
    step = max(1, _PAIRED_AT_ONCE // vectors.shape[1])
    for start in range(0, len(pairs), step):
        first, second = pairs[start : start + step].T
        found[start : start + step] = np.einsum("nd,nd->n", _unit(vectors[first]), _unit(vectors[second]))
    return found


def _proposals(
    queries: Values, vectors: Values, wanted: int, out: NDArray[np.int64], block: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return for each query the rows ``(M, wanted)`` that float32 finds nearest, and the similarity of the last one."""
    block = min(block, len(vectors))
    step = min(len(queries), max(1, _SIMILARITIES_AT_ONCE // block))
    best = torch.full((len(queries), wanted), -torch.inf)
    rows = torch.zeros((len(queries), wanted), dtype=torch.int64)
    # Taken once: memory taken anew for each block would cost as much as what is done in it.
    ours, theirs = torch.empty(step, vectors.shape[1]), torch.empty(block, vectors.shape[1])
    numbers = torch.empty(step * block)
    for start in range(0, len(vectors), block):
        some = normalised(vectors[start : start + block], theirs).T
        for first in range(0, len(queries), step):
            part = slice(first, first + step)
            asked = normalised(queries[part], ours)
            similar = numbers[: len(asked) * some.shape[1]].view(len(asked), some.shape[1])
            torch.mm(asked, some, out=similar)
            _leave_out(similar, out[part], start)
            values, found = _candidates(similar, wanted, best[part, -1:])
            both = torch.cat([best[part], values], 1), torch.cat([rows[part], found + start], 1)
            best[part], places = both[0].topk(wanted, dim=1)
            rows[part] = both[1].gather(1, places)
    return best[:, -1].numpy(), rows.numpy()


def _candidates(similar: Tensor, wanted: int, above: Tensor) -> tuple[Tensor, Tensor]:
    """Return values ``(M, n)`` among which are the largest of each row of ``(M, B)``, and their places.

    Args:
        similar: the values.
        wanted: at most so many of a row matter.
        above: ``(M, 1)``, what a value must exceed to matter.
    """
    count = similar.shape[1]
    folded = count // FOLDS
    if folded <= wanted:
        return similar, torch.arange(count).expand(len(similar), -1)
    # The largest lie in the folds whose own largest are largest; the few that do not fill a fold are looked at too.
    whole = folded * FOLDS
    largest = similar[:, :whole].view(-1, FOLDS, folded).amax(1)
    matter = min(wanted, int((largest > above).sum(1).max()))
    places = largest.topk(matter, dim=1, sorted=False).indices
    places = (places[:, :, None] + folded * torch.arange(FOLDS)).flatten(1)
    places = torch.cat([places, torch.arange(whole, count).expand(len(similar), -1)], 1)
    return similar.gather(1, places), places


def _leave_out(similar: Tensor | NDArray[np.float64], out: NDArray[np.int64], start: int) -> None:
    """Make the row that a query leaves out the farthest, in the block that begins at row ``start``."""
    there = np.flatnonzero((out >= start) & (out < start + similar.shape[1]))
    similar[there, out[there] - start] = -np.inf


def _exact(queries: Values, vectors: Values, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the cosines ``(M, n)`` of each query and its own rows."""
    found = np.empty(rows.shape, np.float32)
    across = min(rows.shape[1], max(1, _PAIRED_AT_ONCE // queries.shape[1]))
    step = max(1, _PAIRED_AT_ONCE // (across * queries.shape[1]))
    for first in range(0, len(queries), step):
        ours = _unit(queries[first : first + step])
        for left in range(0, rows.shape[1], across):
            part = slice(first, first + step), slice(left, left + across)
            theirs = _unit(vectors[rows[part].ravel()]).reshape(*rows[part].shape, -1)
            found[part] = np.einsum("md,mnd->mn", ours, theirs)
    return found


def _unit(values: Values) -> NDArray[np.float64]:
    unit = np.array(values, np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", unit, unit))
    unit /= np.where(lengths > 0, lengths, 1)[:, None]
    return unit


def _thorough(
    queries: Values, vectors: Values, k: int, out: NDArray[np.int64], block: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Find the nearest by comparing all in float64."""
    ours = _unit(queries)
    best = np.empty((len(queries), 0), np.int64)
    for start, theirs in _blocks(vectors, block):
        similar = ours @ theirs.T
        _leave_out(similar, out, start)
        keys = _keys(similar.astype(np.float32), np.arange(start, start + len(theirs)))
        best = np.concatenate([best, keys], 1)
        if best.shape[1] > k:
            best = np.partition(best, k - 1, axis=1)[:, :k]
    return _read_keys(np.sort(best, axis=1))


def _keys(similarities: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Write each similarity and its row as one whole number: smaller where it is more similar, then by the row."""
    bits = (similarities + np.float32(0)).view(np.int32).astype(np.int64)  # of the two zeros, one
    keys: NDArray[np.int64] = (-_flipped(bits) << 32) + rows
    return keys


def _read_keys(keys: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    return _flipped(-(keys >> 32)).astype(np.int32).view(np.float32), keys & 0xFFFFFFFF


def _flipped(bits: NDArray[np.int64]) -> NDArray[np.int64]:
    """Make bits of floats grow as the floats do, and back: those of negative ones grow the other way."""
    return np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


def _blocks(vectors: Values, block: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    for start in range(0, len(vectors), block):
        yield start, _unit(vectors[start : start + block])
