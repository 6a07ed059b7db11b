import re

import pytest
import torch

from diptych.errors import DataError
from diptych.evaluation.answers import refuse_many, refuse_unanswerable, refuse_unique


def test_names_of_single_pictures_are_refused() -> None:
    refuse_unique("d", {f"{n}.jpg": 1 for n in range(20)}, "class")  # few may be
    refuse_unique("d", {str(n): 1 + (n % 2) for n in range(40)}, "class")  # no more than half
    with pytest.raises(DataError, match=r"21 of the 22 classes of d have a single picture \(such as '0.jpg'\)"):
        refuse_unique("d", {f"{n}.jpg": 1 for n in range(21)} | {"many": 9}, "class")


def test_too_many_outputs_are_refused_with_their_number() -> None:
    refuse_many("d", 20_000, "classes")
    with pytest.raises(DataError, match=re.escape("d has 306,000,000 classes, and a probe learns 20,000 at most")):
        refuse_many("d", 306_000_000, "classes")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ([[1.0, 2.0], [1.0, 3.0]], [[1.0, 2.0], [2.0, 3.0]], "'a' is 1 for all 2 pictures to learn from"),
        ([[1.0, 2.0], [2.0, 3.0]], [[1.0, 2.5], [2.0, 2.5]], "'b' is 2.5 for all 2 pictures to test on"),
        ([[1.0, 2.0]], [[1.0, 2.0], [2.0, 3.0]], "there is 1 picture to learn from"),
        ([[1.0, 2.0], [2.0, 3.0]], [], "there are 0 pictures to test on"),
        ([[True, False], [False, True]], [[True, False], [True, False]], "the 2 pictures to test on all have the same"),
    ],
)
def test_what_cannot_be_told_is_refused(train: list[list[float]], test: list[list[float]], message: str) -> None:
    parts = (torch.tensor(part).reshape(-1, 2) for part in (train, test))
    with pytest.raises(DataError, match=message) as error:
        refuse_unanswerable(("a", "b"), *parts)
    assert "\n" not in str(error.value)


def test_one_label_that_varies_is_enough() -> None:
    truth = torch.tensor([[True, False], [True, True]])
    refuse_unanswerable(("a", "b"), truth, truth)
