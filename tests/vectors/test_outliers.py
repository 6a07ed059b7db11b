"""Local outlier factors against scikit-learn's and a slow transcription; what copies do; what is refused."""

import json

import numpy as np
import pytest
from sklearn.neighbors import LocalOutlierFactor

from diptych.errors import ConfigError, DataError
from diptych.vectors import cells
from diptych.vectors import outliers as module
from diptych.vectors.outliers import find_places, local_outlier_factors, outliers
from diptych.vectors.table import Vectors


def vectors(values, names=None, labels=None, groups=None):
    values = np.asarray(values, np.float32) if getattr(values, "dtype", None) != np.float16 else values
    names = names or [f"{row}.png" for row in range(len(values))]
    return Vectors(values=values, names=names, labels=labels, groups=groups, card=None, path=None)


def clouds(count=150, width=6, seed=0):
    """A tight and a loose group of directions."""
    random = np.random.default_rng(seed)
    centres = np.eye(width)[:2] * 4
    spread = np.repeat([0.1, 1.0], count // 2)[:, None]
    return (np.repeat(centres, count // 2, 0) + spread * random.standard_normal((count, width))).astype(np.float32)


def unit(values):
    return values / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)


@pytest.mark.parametrize("k", [1, 5, 20, 149])
def test_scores_are_scikit_learns(k):
    values = clouds()
    reference = LocalOutlierFactor(n_neighbors=k, algorithm="brute").fit(unit(values))
    found = outliers(vectors(values), neighbours=k)
    np.testing.assert_allclose(found.scores, -reference.negative_outlier_factor_, rtol=1e-5)
    assert found.neighbours == k


def test_factors_are_the_papers_formulas_one_after_the_other():
    points = np.random.default_rng(1).standard_normal((12, 3))
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    k, n = 4, len(points)
    near = [
        sorted((other for other in range(n) if other != p), key=lambda other, p=p: apart[p, other])[:k]
        for p in range(n)
    ]
    k_distance = [apart[p, near[p][-1]] for p in range(n)]
    density = [k / sum(max(k_distance[o], apart[p, o]) for o in near[p]) for p in range(n)]
    expected = [sum(density[o] for o in near[p]) / k / density[p] for p in range(n)]
    distances = np.array([apart[p, near[p]] for p in range(n)])
    np.testing.assert_allclose(local_outlier_factors(distances, np.array(near)), expected, rtol=1e-12)


def test_directions_evenly_around_a_circle_have_score_one():
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    found = outliers(vectors(np.stack([np.cos(angles), np.sin(angles)], 1)), neighbours=4)
    np.testing.assert_allclose(found.scores, 1, atol=1e-4)


def test_what_lies_beside_a_tight_group_is_odder_than_all_of_a_loose_one():
    values = np.concatenate([clouds(), [[4, 2, 0, 0, 0, 0]]]).astype(np.float32)
    names = [f"{row}.png" for row in range(150)] + ["odd.png"]
    labels = [None] * 150 + ["car"]
    found = outliers(vectors(values, names, labels), top=3)
    first = found.listed[0]
    assert (first.rank, first.row, first.name, first.label, first.group) == (1, 150, "odd.png", "car", None)
    assert first.score == found.scores.max() > 2
    distances = np.linalg.norm(unit(values) - unit(values)[150], axis=1)
    assert first.nearest == f"{np.argsort(distances)[1]}.png"
    assert first.distance == pytest.approx(np.sort(distances)[1:21].mean(), rel=1e-6)
    assert [one.rank for one in found.listed] == [1, 2, 3]
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["listed"][0]["name"] == "odd.png"


@pytest.mark.parametrize("copies", [2, 40])
def test_copies_change_no_score_and_share_theirs(copies):
    values = clouds()
    alone = outliers(vectors(values)).scores
    again = np.concatenate([values, np.repeat(values[80:81], copies, 0)])
    found = outliers(vectors(again), top=200)
    np.testing.assert_allclose(found.scores[:150], alone, rtol=1e-6)
    assert found.scores[150:].tolist() == [found.scores[80]] * copies
    assert found.distinct == 150
    assert {one.copies for one in found.listed if one.row in (80, 150)} == {copies}
    assert {one.copies for one in found.listed if 80 != one.row < 150} == {0}


def test_copies_that_were_rounded_and_scaled_are_copies_still():
    values = clouds()
    rounded = np.concatenate([values, 3 * values[:30].astype(np.float16).astype(np.float32)])
    found = find_places(rounded, 5)
    assert (found.of == [*range(150), *range(30)]).all()
    assert (found.first == np.arange(150)).all()
    assert found.distances.min() > 0


def test_half_precision_scores_as_its_numbers_do():
    values = clouds().astype(np.float16)
    np.testing.assert_allclose(
        outliers(vectors(values)).scores, outliers(vectors(values.astype(np.float32))).scores, rtol=1e-6
    )


def test_fewer_pictures_than_neighbours_and_a_vector_of_zeros():
    found = outliers(vectors([[0, 0], [1, 0], [0, 1], [1, 1]]), top=50)
    assert found.neighbours == 3
    assert len(found.listed) == 4
    assert np.isfinite(found.scores).all()


def test_a_heap_of_nearly_the_same_pictures_is_one_place():
    values = clouds()
    noise = 1e-4 * np.random.default_rng(2).standard_normal((100, 6))
    heap = np.concatenate([values, values[80] + noise]).astype(np.float32)
    found = find_places(heap, 5)
    assert (found.of == [*range(150), *[80] * 100]).all() and found.counts[80] == 101


@pytest.mark.parametrize("sees", [0, 1])
def test_a_copy_that_only_one_of_two_has_found_is_one(monkeypatch, sees):
    """In cells that can happen, and must not go on for ever."""
    whole = module._neighbours

    def half(values, k):
        distances, rows = whole(values, k)
        blind = (distances[:, 0] < module.COPY) & (np.arange(len(values)) % 2 == sees)
        keep = np.where(blind[:, None], np.arange(1, k + 1), np.arange(k))
        wide, far = whole(values, k + 1)
        return np.take_along_axis(wide, keep, 1), np.take_along_axis(far, keep, 1)

    values = np.concatenate([clouds()[:21], clouds()[20:21] + 1e-4]).astype(np.float32)
    monkeypatch.setattr(module, "_neighbours", half)
    assert (find_places(values, 3).of == [*range(21), 20]).all()


def test_so_many_pictures_are_compared_in_part_and_it_is_told(monkeypatch):
    odd = [[4, 2, 0, 0, 0, 0], [2, 4, 0, 0, 3, 0], [-4, 0, 0, 1, 0, 0]]
    values = np.concatenate([clouds(3000), odd]).astype(np.float32)
    exact = outliers(vectors(values))
    assert exact.found == 1 and "each with each" not in exact.as_text()
    monkeypatch.setattr(module, "EXACT", 1000)
    monkeypatch.setattr(module, "PROBED", 8)
    monkeypatch.setattr(cells, "FEW", 1000)
    found = outliers(vectors(values))
    assert 0.8 < found.found < 1
    assert f"{100 * found.found:.1f} % of the nearest were found" in found.as_text()
    assert found.to_dict()["neighbours_found"] == found.found
    off = np.abs(found.scores / exact.scores - 1)
    assert 0 < off.mean() < 0.01 and off.max() < 0.2
    assert [one.row for one in found.listed[:2]] == [one.row for one in exact.listed[:2]]
    np.testing.assert_array_equal(found.scores, outliers(vectors(values)).scores)


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(DataError, match="one picture has no neighbours"):
        outliers(vectors([[1, 0]]))
    with pytest.raises(DataError, match="all 3 vectors are the same"):
        outliers(vectors([[1, 2]] * 3))
    with pytest.raises(ConfigError, match="--top must be 1 or more, not 0"):
        outliers(vectors(clouds()), top=0)
    with pytest.raises(ConfigError, match="--neighbours must be 1 or more, not 0"):
        outliers(vectors(clouds()), neighbours=0)
