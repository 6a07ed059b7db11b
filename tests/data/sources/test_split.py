import numpy as np
import pytest

from diptych.data.sources.source import Arrays, Entry, Files
from diptych.data.sources.split import draw, stratified_split
from diptych.errors import DataError


def source(*counts):
    labels = [label for label, count in enumerate(counts) for _ in range(count)]
    return Arrays(
        "x", np.zeros((len(labels), 3, 2, 2), np.uint8), labels, tuple(f"class{i}" for i in range(len(counts)))
    )


def test_drawn_pictures_are_distinct_in_order_and_always_the_same():
    whole = source(50, 50)
    drawn = draw(whole, 30)
    assert len(drawn) == 30 and drawn.indices == sorted(set(drawn.indices)) and max(drawn.indices) < 100
    assert draw(whole, 30).fingerprint == drawn.fingerprint != whole.fingerprint
    assert draw(whole, 30, seed=1).indices != drawn.indices


def test_drawing_is_even():
    counts = np.zeros(20)
    for seed in range(400):
        counts[draw(source(20), 5, seed).indices] += 1
    assert np.abs(counts - 100).max() < 40  # binomial, standard deviation 8.7


def test_a_limit_above_the_number_changes_nothing():
    whole = source(5)
    assert draw(whole, 5) is whole and draw(whole, 500) is whole


@pytest.mark.parametrize("limit", [0, -3])
def test_no_pictures_asked_for(limit):
    with pytest.raises(DataError, match=f"--limit {limit}"):
        draw(source(5), limit)


def test_split_keeps_the_share_of_every_class_and_every_picture_once():
    whole = source(100, 10, 2, 3)
    train, test = stratified_split(whole, seed=0)
    assert sorted([*train.indices, *test.indices]) == list(range(115))
    assert np.bincount([test.label(i) for i in range(len(test))]).tolist() == [20, 2, 1, 1]
    assert np.bincount([train.label(i) for i in range(len(train))]).tolist() == [80, 8, 1, 2]


def test_split_depends_on_the_seed_alone():
    whole = source(50, 50)
    assert stratified_split(whole, 3)[1].indices == stratified_split(whole, 3)[1].indices
    assert stratified_split(whole, 3)[1].indices != stratified_split(whole, 4)[1].indices


def test_a_class_keeps_its_split_when_another_class_grows():
    first, second = (stratified_split(source(30, extra), 0)[1].indices for extra in (10, 20))
    assert [i for i in first if i < 30] == [i for i in second if i < 30]


def test_a_large_test_fraction_leaves_a_picture_to_learn_from():
    train, test = stratified_split(source(3, 2), 0, test_fraction=0.99)
    assert len(train) == 2 and len(test) == 3


def test_a_class_with_one_picture_is_named():
    with pytest.raises(DataError, match=r"class 'class1' of x has a single picture \(class1/00004\).*add pictures"):
        stratified_split(source(4, 1), 0)


def test_pictures_without_labels_cannot_be_split():
    with pytest.raises(DataError, match="a.jpg has no label"):
        stratified_split(Files("x", [Entry("a.jpg", 1, 1)], lambda name: b""), 0)


def grouped(*pictures):
    """A source of (label, group)."""
    entries = [Entry(f"{place:04}.jpg", 1, 1) for place in range(len(pictures))]
    labels, groups = zip(*pictures, strict=True)
    names = tuple(f"class{label}" for label in range(max(labels) + 1))
    return Files("x", entries, lambda name: b"", labels, names, groups)


def patients(seed, count=60, classes=3):
    """Groups of 1 to 12 pictures, each of one class or, every fifth, of two."""
    rng = np.random.default_rng(seed)
    found = []
    for patient in range(count):
        kinds = rng.choice(classes, 2 if patient % 5 == 0 else 1, replace=False)
        found += [(int(rng.choice(kinds)), f"p{patient}") for _ in range(rng.integers(1, 13))]
    return grouped(*(found[place] for place in rng.permutation(len(found))))


@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_parted_and_the_shares_are_near(seed):
    whole = patients(seed)
    train, test = stratified_split(whole, seed)
    assert sorted([*train.indices, *test.indices]) == list(range(len(whole)))
    sides = [{part.group(index) for index in range(len(part))} for part in (train, test)]
    assert not sides[0] & sides[1]
    for label in range(3):
        share = sum(test.label(i) == label for i in range(len(test))) / sum(
            whole.label(i) == label for i in range(len(whole))
        )
        assert abs(share - 0.2) < 0.06
    assert stratified_split(whole, seed)[1].indices == test.indices != stratified_split(whole, seed + 100)[1].indices


def test_a_large_group_stays_on_the_learning_side():
    pictures = [(label, f"{label}{'large' if place < 9 else 'small'}") for label in (0, 1) for place in range(10)]
    for seed in range(10):
        test = stratified_split(grouped(*pictures), seed)[1]
        assert [test.group(index) for index in range(len(test))] == ["0small", "1small"]


def test_every_class_is_on_both_sides_though_its_groups_are_too_large():
    pictures = [(label, f"{label}{place % 2}") for label in (0, 1) for place in range(10)]
    train, test = stratified_split(grouped(*pictures), 0, test_fraction=0.05)
    assert {train.label(i) for i in range(len(train))} == {test.label(i) for i in range(len(test))} == {0, 1}


def test_pictures_without_a_group_are_their_own():
    pictures = [(place % 2, "a" if place < 10 else None) for place in range(50)]
    train, test = stratified_split(grouped(*pictures), 0)
    assert len(test) == 10
    assert len({index < 10 for index in test.indices} & {index < 10 for index in train.indices} & {True}) == 0


def test_a_class_of_one_group_is_named():
    with pytest.raises(DataError, match="class 'class1' of x: all its pictures belong to the group 'c', which"):
        stratified_split(grouped((0, "a"), (0, "b"), (1, "c"), (1, "c")), 0)


def test_groups_that_leave_no_split_are_told():
    pictures = [(0, "a"), (1, "a"), (1, "b"), (2, "b"), (0, "c"), (2, "c")]  # any two of them hold a whole class
    with pytest.raises(DataError, match="cannot be split by groups: class 'class.' is left on one side only"):
        stratified_split(grouped(*pictures), 0)
