import csv

import numpy as np
import pytest
from tiny import paint

from diptych.backbones.feature_choice import POOLED
from diptych.data.sources.open import open_data
from diptych.errors import ConfigError, DataError, UserError
from diptych.frozen import Preprocessing
from diptych.vectors import cells, spacing
from diptych.vectors.cells import divide, nearest_by_cells, pairs_above
from diptych.vectors.duplicates import _nearer, duplicates, identical, stars
from diptych.vectors.lists import refuse_written, write_groups, write_keep_list
from diptych.vectors.neighbours import cosines, nearest
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
        np.testing.assert_array_equal(
            pairs_above(values, threshold, divide(values)).rows, brute_pairs(values, threshold)
        )


@pytest.mark.parametrize("cosine", [0.9, 0.95, 0.99])
def test_beyond_that_copies_are_found_at_a_fraction_of_the_comparisons(cosine):
    base = cloud(5000)
    values = np.concatenate([base, copies(base[:500], cosine)])
    threshold = cosine - (1 - cosine) / 5
    found = pairs_above(values, threshold, divide(values))
    numbers = set(map(tuple, found.rows.tolist()))
    true = {(row, 5000 + row) for row in range(500)}
    true &= set(map(tuple, brute_pairs(values, threshold).tolist()))
    assert len(true) >= 400 and len(true & numbers) >= 0.99 * len(true)
    assert (cosines(values, found.rows) >= np.float32(threshold)).all()
    assert found.compared <= 0.4 * len(values) ** 2 / 2


def test_comparisons_grow_slower_than_the_square():
    clouds = (cloud(count, width=16) for count in (5000, 20_000))
    few, many = (pairs_above(values, 0.999, divide(values)).compared for values in clouds)
    assert many < 4**1.65 * few  # N^1.5, and some for cells that are not equally full


def test_up_to_a_few_thousand_the_nearest_are_exact():
    values = cloud(300)
    similarities, rows = nearest_by_cells(values, 12, divide(values))
    expected = nearest(values, values, 12, leave_out=np.arange(300))
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_array_equal(similarities, expected[0])


def test_beyond_that_most_of_the_nearest_are_found():
    values = cloud(5000)
    _, true = nearest(values, values, 16, leave_out=np.arange(5000))

    def shared(probed):
        similarities, rows = nearest_by_cells(values, 16, divide(values, probed))
        assert (rows >= 0).all() and (rows != np.arange(5000)[:, None]).all()
        assert all(len(set(some)) == 16 for some in rows.tolist())
        assert (np.diff(similarities, axis=1) <= 0).all()
        pairs = np.stack([np.repeat(np.arange(5000), 16), rows.ravel()], 1)
        np.testing.assert_array_equal(similarities.ravel(), cosines(values, pairs))
        return (true[:, :, None] == rows[:, None]).any(2).mean()

    assert 0.75 < shared(8) < shared(32) > 0.97


def test_where_cells_hold_too_few_all_are_compared(monkeypatch):
    monkeypatch.setattr(cells, "FEW", 100)
    values = cloud(400)
    similarities, rows = nearest_by_cells(values, 300, divide(values))
    expected = nearest(values, values, 300, leave_out=np.arange(400))
    np.testing.assert_array_equal(rows, expected[1])
    np.testing.assert_array_equal(similarities, expected[0])


def test_a_threshold_that_most_pairs_reach_is_refused(monkeypatch):
    monkeypatch.setattr(cells, "MOST", 1000)
    with pytest.raises(ConfigError, match="--threshold 0.1: more than 1,000 pairs"):
        pairs_above(cloud(300), 0.1, divide(cloud(300)))


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


def test_auto_finds_large_groups_too():
    """Of 60 copies of a picture that is not there, the 16th neighbour of each is one of them."""
    values = cloud(2000)
    found = duplicates(table(np.concatenate([values[1:], copies(np.repeat(values[:1], 60, 0), 0.9999)])))
    assert found.removed >= 55
    kept = np.array(found.kept_rows())
    assert (
        len(brute_pairs(np.concatenate([values[1:], copies(np.repeat(values[:1], 60, 0), 0.9999)])[kept], 0.999)) == 0
    )


def test_nearer_pairs_are_those_of_all_that_are_near_for_both():
    random = np.random.default_rng(0)
    values = (cloud(300)[:1] + np.exp(random.standard_normal((300, 1))) * cloud(300)).astype(np.float32)
    rule = spacing.Rule(threshold=1.0, fraction=0.8, neighbours=10, why="")
    pairs, kth = _nearer(values, rule, divide(values))
    np.testing.assert_array_equal(kth, nearest(values, values, 10, leave_out=np.arange(300))[0][:, -1])
    some = brute_pairs(values, -1.0)
    apart = np.sqrt(2 - 2 * cosines(values, some).astype(float))
    reach = 0.8 * np.sqrt(2 - 2 * kth.astype(float))[some]
    assert {*map(tuple, pairs.tolist())} == {*map(tuple, some[apart <= reach.min(1)].tolist())}
    assert (apart <= reach.max(1)).sum() > len(pairs) > 50  # one of the two alone says little


def test_auto_groups_each_pair_once(monkeypatch):
    """Of pairs counted twice, the one to keep would weigh more than it has near-duplicates."""
    values = np.concatenate([cloud(800), *(copies(cloud(800)[:200], 0.99, seed) for seed in range(3))])
    given = []
    monkeypatch.setattr(
        "diptych.vectors.duplicates.stars", lambda pairs, weights: given.append(pairs) or stars(pairs, weights)
    )
    found = duplicates(table(values))
    rule = spacing.choose(spacing.look(values))
    near, _ = _nearer(values, rule, divide(values))
    pairs = {*map(tuple, near.tolist())} | {*map(tuple, brute_pairs(values, rule.threshold).tolist())}
    assert sorted(map(tuple, given[0].tolist())) == sorted(pairs) and len(pairs) > 300
    assert found.kept_rows() == np.unique(stars(given[0], np.ones(len(values), np.int64))).tolist()


def test_what_is_near_depends_on_where_it_lies():
    """A tight and a loose lot: the same distance is usual in the one, and that of a copy in the other."""
    random = np.random.default_rng(0)
    spread = np.repeat([0.05, 0.5], 500)[:, None] * random.standard_normal((1000, 10))
    values = np.concatenate([np.repeat(np.eye(2)[::-1], 500, 0), spread], 1).astype(np.float32)
    planted = values[500:550] + 0.03 * random.standard_normal((50, 12)).astype(np.float32)
    found = duplicates(table(np.concatenate([values, planted])))
    assert [(group.kept.row, group.others[0].row) for group in found.groups] == [
        (row, row + 500) for row in range(500, 550)
    ]
    least = min(group.others[0].similarity for group in found.groups)
    assert least < found.threshold and len(brute_pairs(values[:500], least)) > 50
    assert "or more, less where pictures lie sparsely" in found.as_text()


def test_both_must_be_near_for_where_they_lie():
    rule = spacing.Rule(threshold=0.98, fraction=0.5, neighbours=16, why="")
    kth = np.array([0.9, 0.6, 0.99], np.float32)
    found = spacing.lowest(rule, kth, np.array([[0, 1], [1, 0], [1, 1], [1, 2]]))
    np.testing.assert_allclose(found, [0.975, 0.975, 0.9, 0.98], rtol=1e-6)
    given = spacing.Rule(threshold=0.7, fraction=0, neighbours=1, why="")
    np.testing.assert_array_equal(spacing.lowest(given, kth, np.array([[0, 1]])), np.float32([0.7]))


def test_auto_is_what_chance_hardly_brings():
    """The docstring's formula, on vectors of 5 dimensions of which the 16th neighbours are known."""
    values = np.random.default_rng(0).standard_normal((4000, 6)).astype(np.float32)
    rule = spacing.choose(spacing.look(values))
    assert rule.neighbours == 16
    assert 4000 * 15 * rule.fraction**5 == pytest.approx(0.1, rel=0.5)
    sixteenth = np.sqrt(2 - 2 * nearest(values, values, 16, leave_out=np.arange(4000))[0][:, -1].astype(float))
    expected = 1 - (rule.fraction * np.quantile(sixteenth, 0.1)) ** 2 / 2
    assert 1 - rule.threshold == pytest.approx(1 - expected, rel=0.03)


def test_dimensions_are_those_that_pictures_have():
    """On a sphere of m dimensions, ``spacing`` should read m off the neighbours."""
    values = np.random.default_rng(0).standard_normal((4000, 6)).astype(np.float32)
    why = spacing.choose(spacing.look(values)).why
    assert float(why.split()[3]) == pytest.approx(5, rel=0.15)


def test_found_pairs_are_checked_against_all(monkeypatch):
    monkeypatch.setattr("diptych.vectors.duplicates.FEW", 100)
    monkeypatch.setattr(cells, "FEW", 100)
    values = np.concatenate([cloud(600), copies(cloud(600)[:100], 0.999)])
    found = duplicates(table(values), 0.99)
    assert found.checked == len(brute_pairs(values, 0.99)) and found.found >= 0.97 * found.checked
    assert f"{found.found} of {found.checked} pairs" in found.as_text()


def test_pairs_of_auto_are_checked_against_all(monkeypatch):
    monkeypatch.setattr("diptych.vectors.duplicates.FEW", 100)
    monkeypatch.setattr(cells, "FEW", 100)
    values = np.concatenate([cloud(600), copies(cloud(600)[:100], 0.975)])
    found = duplicates(table(values))
    assert found.checked >= 20 and found.found >= 0.97 * found.checked
    monkeypatch.setattr("diptych.vectors.duplicates._nearer", lambda values, rule, cells: (np.empty((0, 2), int), kth))
    kth = nearest_by_cells(values, 16, divide(values))[0][:, -1]
    assert duplicates(table(values)).found < found.found


def test_vectors_of_zeros_are_the_same():
    values = cloud(60)
    values[[3, 9]] = 0
    ((group,),) = (duplicates(table(values), 0.9999).groups,)
    assert (group.kept.row, group.others[0].row, group.others[0].similarity) == (3, 9, 1)


def test_a_threshold_of_numpy_is_a_number():
    values = cloud(30)[[*range(30), 4]]
    assert duplicates(table(values), np.float32(0.999)).removed == duplicates(table(values), np.float64(1)).removed == 1


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
