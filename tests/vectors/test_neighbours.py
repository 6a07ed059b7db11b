import tracemalloc

import numpy as np
import pytest
import torch

from diptych.errors import ConfigError
from diptych.evaluation.probes import knn
from diptych.vectors.neighbours import cosines, nearest, normalised, ranked


def brute(queries, vectors, k, leave_out=None):
    """All with all in float64, in a stable order."""
    one, other = (unit(values) for values in (queries, vectors))
    similar = (one @ other.T).astype(np.float32)
    for query, row in enumerate([] if leave_out is None else leave_out):
        if row >= 0:
            similar[query, row] = -np.inf
    rows = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similar, rows, 1), rows


def unit(values):
    wide = values.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return wide / np.where(lengths > 0, lengths, 1)


def some(count, width=24, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal((count, width)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("block", [64, 1000, 1 << 14])
def test_equal_to_brute_force_whatever_the_block(dtype, block):
    vectors = some(3000, dtype=dtype)
    vectors[1000:1040], vectors[7] = vectors[3], 0  # more copies than are proposed to spare, and a vector of zeros
    leave_out = np.where(np.arange(50) % 5 == 0, -1, np.arange(50))
    for out in (None, leave_out):
        found, rows = nearest(vectors[:50], vectors, 10, leave_out=out, block=block)
        similar, places = brute(vectors[:50], vectors, 10, out)
        np.testing.assert_array_equal(rows, places)
        np.testing.assert_allclose(found, similar, rtol=0, atol=1e-7)
    assert found.dtype == np.float32 and rows.dtype == np.int64


def test_equal_vectors_come_in_the_order_of_their_rows():
    vectors = np.tile(some(4, 7), (900, 1))
    _, rows = nearest(vectors[:4], vectors, 30, leave_out=np.arange(4), block=256)
    for query in range(4):
        np.testing.assert_array_equal(rows[query], query + 4 * np.arange(1, 31))


def test_a_collapsed_network_is_told_apart_as_well_as_float32_can():
    vectors = 1 + 1e-6 * some(2000, 8)
    np.testing.assert_array_equal(nearest(vectors[:9], vectors, 5)[1], brute(vectors[:9], vectors, 5)[1])


def test_vectors_of_any_length_are_compared_by_their_direction():
    vectors = some(500)
    plain = nearest(vectors[:20], vectors, 7)
    scales = np.array([1e-44, 1e-38, 1e-30, 1e-18, 1, 1e18, 1e30, 3e37], np.float32)
    scaled = vectors * scales[np.arange(500) % 8, None]
    scaled[np.arange(500) % 8 == 0] = vectors[np.arange(500) % 8 == 0]  # of so small ones no direction is left
    similar, rows = nearest(scaled[:20], scaled, 7)
    np.testing.assert_array_equal(rows, brute(scaled[:20], scaled, 7)[1])
    np.testing.assert_array_equal(rows, plain[1])
    np.testing.assert_allclose(normalised(scaled), normalised(vectors), atol=1e-6)
    tiny = normalised(np.array([[1e-44, 0], [0, 0]], np.float32))
    np.testing.assert_array_equal(tiny, [[1, 0], [0, 0]])


def test_memory_is_bounded_however_many_are_asked_for():
    vectors = some(20_000, 64)
    tracemalloc.start()
    try:
        found, rows = nearest(vectors[:3], vectors, 20_000)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 6 << 20  # all of them in float64 would be 10 MiB
    np.testing.assert_array_equal(rows[2], brute(vectors[2:3], vectors, 20_000)[1][0])


def test_order_is_that_of_the_evaluation():
    vectors, queries = some(700), some(40, seed=1)
    theirs = knn.nearest(torch.from_numpy(vectors), torch.from_numpy(queries), 20)
    similar, rows = nearest(queries, vectors, 20)
    np.testing.assert_array_equal(rows, theirs.indices.numpy())
    np.testing.assert_allclose(similar, theirs.similarities.numpy(), rtol=0, atol=1e-6)


def test_vectors_on_disk(tmp_path):
    vectors = some(300)
    np.save(tmp_path / "v.npy", vectors)
    mapped = np.load(tmp_path / "v.npy", mmap_mode="r")
    np.testing.assert_array_equal(nearest(mapped[:3], mapped, 300)[1], brute(vectors[:3], vectors, 300)[1])


@pytest.mark.parametrize("k", [0, -1, 11])
def test_k_is_at_most_what_there_is(k):
    with pytest.raises(ConfigError, match=f"k must be 1..10.* not {k}"):
        nearest(some(2), some(10), k)
    with pytest.raises(ConfigError, match=r"1\.\.9"):
        nearest(some(2), some(10), 10, leave_out=np.array([0, 1]))


def test_other_widths_are_refused():
    with pytest.raises(ConfigError, match="23 numbers a query and 24 a vector"):
        nearest(some(2, 23), some(10), 3)


def test_proposals_are_ranked_and_gaps_come_last():
    vectors = some(50)
    similar, rows = ranked(vectors[:2], vectors, np.array([[4, -1, 0, 9], [-1, 1, -1, 30]]))
    whole = brute(vectors[:2], vectors, 50)[0][:, :1]
    assert rows[0, 0] == 0 and rows[1, 0] == 1 and similar[:, :1] == pytest.approx(whole)
    assert rows[0, 3] == -1 and (rows[1, 2:] == -1).all() and np.isneginf(similar[1, 2:]).all()


def test_cosines_of_pairs():
    vectors = some(20)
    pairs = np.array([[0, 5], [3, 3], [19, 2]])
    expected = (unit(vectors) @ unit(vectors).T)[pairs[:, 0], pairs[:, 1]]
    np.testing.assert_allclose(cosines(vectors, pairs), expected, rtol=1e-6)
    assert cosines(vectors, pairs)[1] == 1
