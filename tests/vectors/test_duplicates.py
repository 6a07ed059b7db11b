import csv

import numpy as np
import pytest
from tiny import paint

from diptych.backbones.feature_choice import POOLED
from diptych.data.sources.open import open_data
from diptych.errors import ConfigError, DataError, UserError
from diptych.frozen import Preprocessing
from diptych.vectors import cells, spacing
from diptych.vectors.cells import pairs_above
from diptych.vectors.duplicates import duplicates, identical, stars
from diptych.vectors.lists import refuse_written, write_groups, write_keep_list
from diptych.vectors.neighbours import cosines
from diptych.vectors.table import Vectors, VectorsCard


def table(values, names=None, labels=None, card=None):
    names = names or [f"{row:05}.png" for row in range(len(values))]
    return Vectors(values=values, names=names, labels=labels, groups=None, card=card, path=None)


def cloud(count, dimensions=12, width=48, seed=0):
    """Vectors as a network has them: many numbers, fewer dimensions, none below zero."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((count, dimensions)) @ random.standard_normal((dimensions, width))
    return np.maximum(mixed, 0).astype(np.float32)


def copies(values, cosine, seed=1):
    """Vectors at about that cosine to each of ``values``."""
    noise = np.random.default_rng(seed).standard_normal(values.shape)
    lengths = np.linalg.norm(values, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return (values + noise * lengths * (1 / cosine**2 - 1) ** 0.5).astype(np.float32)


def brute_pairs(values, threshold):
    wide = values.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    rows = [
        np.argwhere((part @ wide.T).astype(np.float32) >= np.float32(threshold))
        for part in np.split(wide, range(512, len(wide), 512))
    ]
    pairs = np.concatenate([found + [512 * block, 0] for block, found in enumerate(rows)])
    return pairs[pairs[:, 0] < pairs[:, 1]]


def test_up_to_a_few_thousand_all_pairs_are_found():
    values = np.concatenate([cloud(400), copies(cloud(400)[:90], 0.97)])
    for threshold in (0.9, 0.96, 1.0, -1.0):
        np.testing.assert_array_equal(pairs_above(values, threshold).rows, brute_pairs(values, threshold))


@pytest.mark.parametrize("cosine", [0.9, 0.95, 0.99])
def test_beyond_that_copies_are_found_at_a_fraction_of_the_comparisons(cosine):
    base = cloud(5000)
    values = np.concatenate([base, copies(base[:500], cosine)])
    threshold = cosine - (1 - cosine) / 5
    found = pairs_above(values, threshold)
    numbers = set(map(tuple, found.rows.tolist()))
    true = {(row, 5000 + row) for row in range(500)}
    true &= set(map(tuple, brute_pairs(values, threshold).tolist()))
    assert len(true) >= 400 and len(true & numbers) >= 0.99 * len(true)
    assert (cosines(values, found.rows) >= np.float32(threshold)).all()
    assert found.compared <= 0.4 * len(values) ** 2 / 2


def test_comparisons_grow_slower_than_the_square():
    few, many = (pairs_above(cloud(count, width=16), 0.999).compared for count in (5000, 20_000))
    assert many < 4**1.65 * few  # N^1.5, and some for cells that are not equally full


def test_a_threshold_that_most_pairs_reach_is_refused(monkeypatch):
    monkeypatch.setattr(cells, "MOST", 1000)
    with pytest.raises(ConfigError, match="--threshold 0.1: more than 1,000 pairs"):
        pairs_above(cloud(300), 0.1)


def test_stars_have_no_chains():
    chain = np.array([[0, 1], [1, 2], [2, 3], [3, 4]])
    kept = stars(chain, np.ones(6, np.int64))
    np.testing.assert_array_equal(kept, [1, 1, 1, 3, 3, 5])
    # Three pictures with one vector weigh as many.
    np.testing.assert_array_equal(stars(chain, np.array([1, 1, 3, 1, 1, 1])), [1, 1, 1, 3, 3, 5])
    np.testing.assert_array_equal(stars(chain, np.array([1, 1, 1, 1, 5, 1])), [1, 1, 3, 3, 3, 5])


@pytest.mark.parametrize("seed", range(5))
def test_each_removed_picture_is_like_its_kept_one_and_no_two_kept_are_alike(seed):
    values = cloud(400, dimensions=3, seed=seed)
    values[50:60] = values[3]
    threshold = 0.97
    found = duplicates(table(values), threshold)
    alike = {tuple(pair) for pair in brute_pairs(values, threshold).tolist()}
    assert found.groups
    for group in found.groups:
        for member in group.others:
            assert tuple(sorted((group.kept.row, member.row))) in alike and member.similarity >= np.float32(threshold)
    kept = set(found.kept_rows())
    assert not any(one in kept and other in kept for one, other in alike)
    assert len(kept) + found.removed == 400


def test_copies_to_the_last_bit_are_one_place():
    values = cloud(6)[[0, 1, 0, 2, 1, 0]]
    first, place = identical(values)
    np.testing.assert_array_equal(first, [0, 1, 3])
    np.testing.assert_array_equal(place, [0, 1, 0, 2, 1, 0])
    found = duplicates(table(values, labels=["a", "b", "a", None, "c", "a"]), 1)
    assert [(group.kept.row, [one.row for one in group.others]) for group in found.groups] == [(0, [2, 5]), (1, [4])]
    assert found.conflicts == 1 and found.removed == 3 and found.kept_rows() == [0, 1, 3]


@pytest.mark.parametrize("dimensions", [6, 12, 30])
@pytest.mark.parametrize("count", [60, 400, 1500])
def test_auto_finds_none_where_there_are_none_and_copies_where_there_are(count, dimensions):
    values = cloud(count, dimensions)
    assert duplicates(table(values)).removed == 0
    planted = np.concatenate([values, copies(values[: count // 10], 0.99995)])
    found = duplicates(table(planted))
    pairs = {(group.kept.row, one.row) for group in found.groups for one in group.others}
    true = {(row, count + row) for row in range(count // 10)}
    assert len(pairs & true) >= 0.95 * len(true) and len(pairs - true) <= 1


def test_auto_is_not_misled_by_many_copies():
    values = cloud(500)
    found = duplicates(table(np.concatenate([values, *(copies(values, 0.9999, seed) for seed in range(3))])))
    assert found.removed == 1500 and len(found.groups) == 500


def test_dimensions_are_those_that_pictures_have():
    """On a sphere of m dimensions, ``spacing`` should read m off the neighbours."""
    values = np.random.default_rng(0).standard_normal((4000, 6)).astype(np.float32)
    _, why = spacing.choose(spacing.look(values))
    assert float(why.split()[3]) == pytest.approx(5, rel=0.15)


def test_found_pairs_are_checked_against_all(monkeypatch):
    monkeypatch.setattr("diptych.vectors.duplicates.FEW", 100)
    monkeypatch.setattr(cells, "FEW", 100)
    values = np.concatenate([cloud(600), copies(cloud(600)[:100], 0.999)])
    found = duplicates(table(values), 0.99)
    assert found.checked == len(brute_pairs(values, 0.99)) and found.found >= 0.97 * found.checked
    assert f"{found.found} of {found.checked} pairs" in found.as_text()


@pytest.mark.parametrize("threshold", [1.5, -1.01, float("nan")])
def test_a_threshold_is_a_cosine(threshold):
    with pytest.raises(ConfigError, match="--threshold must be auto or a cosine, -1..1, not"):
        duplicates(table(cloud(60)), threshold)


def test_too_few_pictures():
    with pytest.raises(DataError, match="single picture"):
        duplicates(table(cloud(1)), 0.9)
    with pytest.raises(ConfigError, match="needs 50 different pictures"):
        duplicates(table(cloud(20)))
    with pytest.raises(DataError, match="all 70 vectors are the same"):
        duplicates(table(np.ones((70, 4), np.float32)))
    with pytest.raises(DataError, match="the same vector: the network has collapsed"):
        duplicates(table(1 + 1e-7 * cloud(70)))
    assert duplicates(table(cloud(20)), 0.9999).groups == ()
    assert duplicates(table(np.ones((70, 4), np.float32)), 0.9).removed == 69


def card(data):
    made = Preprocessing(image_size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    return VectorsCard(
        schema_version=1, weights="", backbone="", preprocessing=made, features=POOLED, run="", data=str(data),
        data_dir=None, part="all", fingerprint="", diptych="",
    )  # fmt: skip


def test_lists_are_read_again(tmp_path):
    names = ["#1.png", "a, b.png", "c.png", "sub/d.png"]
    data = paint(tmp_path / "data", *names)
    found = duplicates(table(cloud(4)[[0, 1, 0, 2]], names, ["x", "x", "y", None], card(data)), 1)
    keep, groups = tmp_path / "lists" / "keep.txt", tmp_path / "lists" / "groups.csv"
    write_keep_list(keep, found, table(cloud(4), names, card=card(data)))
    write_groups(groups, found)
    again = open_data(str(keep)).train
    kept = [again.name_of(index) for index in range(len(again))]
    assert kept == sorted(f"../data/{name}" for name in ("#1.png", "a, b.png", "sub/d.png"))
    assert again.read(0).shape == (3, 16, 16)
    with open(groups, newline="") as file:
        assert [*csv.DictReader(file)] == [
            {"group": "1", "keep": "yes", "name": "#1.png", "similarity": "1.000000", "label": "x"},
            {"group": "1", "keep": "no", "name": "c.png", "similarity": "1.000000", "label": "y"},
        ]
    write_keep_list(keep, found, table(cloud(4), names))  # of whom nothing is known
    assert keep.read_text() == "./#1.png\na, b.png\nsub/d.png\n"


def test_a_name_that_no_line_can_hold(tmp_path):
    vectors = table(cloud(2), ["a\nb.png", "c.png"])
    with pytest.raises(DataError, match="rename the picture") as caught:
        write_keep_list(tmp_path / "keep.txt", duplicates(vectors, 1), vectors)
    assert "\n" not in str(caught.value) and not (tmp_path / "keep.txt").exists()


def test_what_is_there_is_not_replaced_unasked(tmp_path):
    there = tmp_path / "keep.txt"
    there.write_text("mine")
    with pytest.raises(UserError, match="choose another --keep-list, or add --overwrite"):
        refuse_written("--keep-list", there, (".txt",), overwrite=False)
    assert refuse_written("--keep-list", there, (".txt",), overwrite=True) == there
    with pytest.raises(ConfigError, match="--out .*: give a file NAME.csv"):
        refuse_written("--out", tmp_path / "groups.xls", (".csv",), overwrite=False)


def test_what_is_said(capsys):
    values = cloud(30)
    found = duplicates(table(values[[*range(30), 3, 3, 5]], labels=["x"] * 32 + ["y"]), 0.9999)
    text = found.as_text()
    assert "5 of 33 pictures are near-duplicates (cosine 0.9999 or more), in 2 groups; 3 can go" in text
    assert (
        "1. keep 00003.png: 00030.png (1.0000), 00031.png (1.0000)" in text
        and "1 group with pictures of several" in text
    )
    assert "no near-duplicates among 30" in duplicates(table(values), 0.9999).as_text()
    assert found.to_dict()["removed"] == 3
