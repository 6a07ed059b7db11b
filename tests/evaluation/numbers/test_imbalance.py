import pytest
from torch import tensor

from diptych.evaluation.numbers.imbalance import imbalance, positive_class


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        ([0, 0, 0, 1], ("no", "yes"), 1),
        ([0, 1, 1, 1], ("no", "yes"), 0),
        ([0, 0, 1, 1], ("no", "yes"), 1),  # a tie: the last by name
        ([0, 0, 1, 1], ("yes", "no"), 0),
        ([0, 0], ("no", "yes"), 1),
        ([0, 1, 2], ("a", "b", "c"), None),
    ],
)
def test_the_rarer_class_is_positive(labels: list[int], classes: tuple[str, ...], expected: int | None) -> None:
    assert positive_class(tensor(labels), classes) == expected


def test_a_class_that_most_pictures_have_is_named() -> None:
    assert imbalance(tensor([0] * 90 + [1] * 10), ("healthy", "sick")) == (
        "90.0 % of the pictures are 'healthy', so always answering that scores as much: "
        "read the balanced accuracy or macro-F1 instead of top-1"
    )
    assert "'b'" in str(imbalance(tensor([1] * 6 + [0] * 3 + [2] * 2), ("a", "b", "c")))


def test_a_class_that_hardly_counts_is_named() -> None:
    labels = tensor([0] * 110 + [1] * 100 + [2] * 10)
    assert imbalance(labels, ("cat", "dog", "gnu", "none")) == (
        "'cat' has 11 times the pictures of 'gnu', which hardly counts in top-1: "
        "read the balanced accuracy or macro-F1 instead of top-1"
    )


def test_even_classes_need_no_word() -> None:
    assert imbalance(tensor([0] * 51 + [1] * 49), ("a", "b")) is None
    assert imbalance(tensor([0] * 100 + [1] * 100 + [2] * 10), ("a", "b", "c")) is None  # ten times, not more
    assert imbalance(tensor([0] * 5), ("a", "b")) is None  # one class alone is another matter
