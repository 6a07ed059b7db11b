import numpy as np
import pytest

from diptych.data.source import Arrays, Entry, Files
from diptych.data.split import draw, stratified_split
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
