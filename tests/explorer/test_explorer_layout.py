"""Places on the map against numpy's singular values; schemes against counts; what is refused."""

import base64
import io
import re
import sys

import numpy as np
import pytest
from PIL import Image
from scenes import scene, vectors

from diptych.errors import ConfigError, DataError
from diptych.explorer import layout, schemes
from diptych.explorer.layout import lay_out
from diptych.explorer.layout import unit as unit_of
from diptych.explorer.scene import compose
from diptych.explorer.schemes import COLOURS, categories, schemes_of
from diptych.vectors.table import Vectors


def unit(values):
    values = values.astype(np.float64)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def by_svd(values):
    """Two principal components, up to their signs, in a square of -1..1."""
    centred = unit(values) - unit(values).mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ directions[:2].T
    flat -= (flat.min(axis=0) + flat.max(axis=0)) / 2
    return flat / np.abs(flat).max()


@pytest.mark.parametrize("block", [7, 1 << 14])
def test_pca_is_that_of_singular_values_whatever_the_block(monkeypatch, block):
    monkeypatch.setattr(layout, "BLOCK", block)
    values = vectors().values
    found, expected = lay_out(values).positions, by_svd(values)
    signs = np.sign((found * expected).sum(axis=0))
    np.testing.assert_allclose(found * signs, expected, atol=1e-5)
    assert np.abs(found).max() == pytest.approx(1)


def test_components_of_a_sample_are_nearly_those_of_all(monkeypatch):
    values = np.random.default_rng(0).standard_normal((600, 6)).astype(np.float32) * [6, 3, 1, 1, 1, 1]
    whole = lay_out(values).positions
    monkeypatch.setattr(layout, "FITTED", 300)
    some = lay_out(values).positions
    for axis in range(2):
        assert abs(np.corrcoef(some[:, axis], whole[:, axis])[0, 1]) > 0.99


def test_a_picture_of_the_set_is_placed_where_it_is():
    values = vectors().values
    found = lay_out(values)
    for row in (0, 31):
        assert found.place(values[row], None, None) == pytest.approx(tuple(found.positions[row]), abs=1e-5)


@pytest.mark.parametrize(("count", "width"), [(1, 5), (2, 5), (9, 1), (9, 2)])
def test_few_pictures_and_narrow_vectors_have_places_too(count, width):
    values = np.random.default_rng(0).standard_normal((count, width)).astype(np.float32)
    found = lay_out(values).positions
    assert found.shape == (count, 2) and np.isfinite(found).all() and np.abs(found).max() <= 1 + 1e-6


def test_equal_vectors_share_the_middle():
    found = lay_out(np.ones((5, 3), np.float32))
    assert not found.positions.any() and found.sentence == "PCA, all vectors equal"
    assert re.fullmatch("PCA, [1-9][0-9]? % of variance", lay_out(vectors().values).sentence)


def test_umap_needs_five_pictures_and_its_package(monkeypatch):
    with pytest.raises(ConfigError, match="5 pictures or more, not 4: take --layout pca"):
        lay_out(vectors(4).values, "umap")
    monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"pip install 'diptych\[umap\]'"):
        lay_out(vectors(20).values, "umap")
    with pytest.raises(ConfigError, match="unknown --layout 'ump'; did you mean 'umap'"):
        lay_out(vectors(20).values, "ump")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("row", [0, 59])
def test_vectors_that_are_not_finite_are_refused(bad, row):
    spoilt = vectors(60)
    spoilt.values[row, 1] = bad
    with pytest.raises(DataError, match="a vector holds NaN or an infinite number"):
        compose(spoilt, None)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_very_long_and_very_short_vectors_keep_their_direction(scale):
    values = vectors().values
    np.testing.assert_allclose(unit_of(values * np.float32(scale)), unit(values), atol=1e-6)


@pytest.mark.slow  # numba compiles it for half a minute
@pytest.mark.filterwarnings("ignore")  # other people's: numba's and scikit-learn's of their next versions
def test_umap_keeps_groups_apart():
    pytest.importorskip("umap")
    values = vectors(90).values
    found = lay_out(values, "umap")
    again = lay_out(values, "umap")
    np.testing.assert_array_equal(found.positions, again.positions)
    groups = [found.positions[group::3] for group in range(3)]
    middles = np.stack([group.mean(axis=0) for group in groups])
    for number, group in enumerate(groups):
        assert (np.linalg.norm(group[:, None] - middles, axis=2).argmin(axis=1) == number).mean() > 0.9
    rows = np.array([3, 6, 9])
    x, y = found.place(values[0], np.array([0.5, 0.25, 0.25], np.float32), rows)
    assert (x, y) == pytest.approx(tuple([0.5, 0.25, 0.25] @ found.positions[rows]), abs=1e-6)


def test_categories_count_and_the_rarest_share_a_colour():
    words = [f"class {number:02}" for number in range(COLOURS + 5) for _ in range(number + 1)] + [None] * 3
    found = categories(words)
    entries = found.about["categories"]
    assert len(entries) == COLOURS + 6 and found.about["coloured"] == COLOURS
    assert entries[0] == {"name": "class 05", "count": 6}
    assert entries[COLOURS] == {"name": "class 00", "count": 1}
    assert entries[-1] == {"name": None, "count": 3}
    assert np.bincount(found.values).tolist() == [entry["count"] for entry in entries]
    assert [entries[value]["name"] for value in found.values] == words  # the rarest keep their own words


@pytest.mark.parametrize(("count", "kind"), [(256, "u1"), (257, "u4")])
def test_any_number_of_classes_has_places(count, kind):
    words = [f"class {number:05}" for number in range(count)]
    told = categories(words).to_dict()
    places = np.frombuffer(base64.b64decode(told["values"]), f"<{kind}")
    assert told["type"] == kind and [told["about"]["categories"][place]["name"] for place in places] == words


def test_clusters_are_the_groups():
    few = vectors(60, labels=False)
    (cluster,) = [scheme for scheme in schemes_of(vectors(60), None) if scheme.name == "cluster"]
    found = cluster.colouring()
    assert [entry["count"] for entry in found.about["categories"]] == [20, 20, 20]
    for group in range(3):
        assert len(set(found.values[group::3].tolist())) == 1
    assert [scheme.name for scheme in schemes_of(few, None)] == ["cluster", "outlier"]


def test_clusters_of_equal_vectors_are_one():
    same = Vectors(values=np.ones((9, 3), np.float32), names=["a"] * 9, labels=None, groups=None, card=None, path=None)
    cluster, outlier = schemes_of(same, None)
    assert [entry["count"] for entry in cluster.colouring().about["categories"]] == [9]
    with pytest.raises(DataError, match="all 9 vectors are the same"):
        outlier.colouring()


def test_outlier_scores_are_high_where_it_is_empty():
    found = vectors(60)
    found.values[7] = -10
    (scheme,) = [scheme for scheme in schemes_of(found, None) if scheme.name == "outlier"]
    colouring = scheme.colouring()
    assert colouring.values.argmax() == 7
    ends = np.quantile(colouring.values, (0.01, 0.99))  # one picture far away would make all others look alike
    assert (colouring.about["low"], colouring.about["high"]) == pytest.approx(tuple(ends))


def test_outlier_scores_that_would_take_too_long_are_not_offered(monkeypatch):
    monkeypatch.setattr(schemes, "SCORED", 60)
    assert "outlier" in [scheme.name for scheme in schemes_of(vectors(60), None)]
    assert "outlier" not in [scheme.name for scheme in schemes_of(vectors(61), None)]


def test_none_has_no_colour_of_its_own():
    about = categories(["a", None, None]).about
    assert about["coloured"] == 1 and about["categories"] == [{"name": "a", "count": 1}, {"name": None, "count": 2}]


def test_splits_are_offered_where_there_are_two():
    found = schemes_of(vectors(4), ["train", "train", "test", None])
    (split,) = [scheme for scheme in found if scheme.name == "split"]
    assert split.colouring().values.tolist() == [1, 1, 0, 2]
    assert "split" not in [scheme.name for scheme in schemes_of(vectors(4), ["train"] * 4)]


def test_zeros_have_a_place_and_no_direction():
    values = vectors(9).values
    values[4] = 0
    assert not unit_of(values)[4].any() and np.isfinite(lay_out(values).positions).all()


def test_one_picture_has_a_map_and_no_neighbours():
    alone = scene(1)
    buffer = io.BytesIO()
    Image.new("RGB", (25, 25)).save(buffer, "PNG")
    assert alone.place(buffer.getvalue())["rows"] == [0]
    similarities, rows = alone.neighbours(0, 1)
    assert similarities.shape == rows.shape == (1, 0)
    assert [*alone.schemes] == ["label"]


def test_no_pictures_and_other_pictures_are_refused():
    nothing = Vectors(values=np.empty((0, 3), np.float32), names=[], labels=None, groups=None, card=None, path=None)
    with pytest.raises(DataError, match="no picture to show"):
        compose(nothing, None)
    with pytest.raises(DataError, match="holds 60 pictures, but there are 59 vectors"):
        compose(vectors(59), scene(60).pictures)
