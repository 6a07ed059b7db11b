import math

import pytest
import torch
from torch import tensor

from diptych.evaluation.truth import loss, standardised, strata


def test_classes_are_their_own_strata_and_quantities_have_none() -> None:
    classes = tensor([2, 0, 2])
    assert torch.equal(strata(classes), classes)
    assert strata(torch.rand(4, 2, dtype=torch.float64)).tolist() == [0, 0, 0, 0]


def test_a_picture_belongs_to_the_rarest_of_its_labels() -> None:
    common, rare = (True, False), (False, True)
    both, none = (True, True), (False, False)
    assert strata(tensor([common, common, common, both, rare, none, none])).tolist() == [0, 0, 0, 1, 1, 2, 2]


def test_who_would_be_alone_joins_those_without_labels() -> None:
    assert strata(tensor([(True, False), (True, False), (False, True)])).tolist() == [0, 0, 2]
    assert strata(torch.eye(3) > 0).tolist() == [3, 3, 3]


def test_losses_are_those_of_the_formulas() -> None:
    outputs = tensor([[2.0, -1.0], [0.5, 0.0]])
    softmax = [math.log(1 + math.exp(-3)), math.log(1 + math.exp(0.5))]
    assert loss(outputs, tensor([0, 1])).item() == pytest.approx(sum(softmax) / 2)
    labels = tensor([[True, False], [False, True]])
    each = [math.log(1 + math.exp(z)) for z in (-2, -1, 0.5, 0)]
    assert loss(outputs, labels).item() == pytest.approx(sum(each) / 4)
    assert loss(outputs, tensor([[1.0, -1.0], [0.5, 2.0]])).item() == pytest.approx((1 + 0 + 0 + 4) / 4)


def test_quantities_are_standardised_and_come_back() -> None:
    truth = tensor(
        [[1e9, 5.0], [1e9 + 2, 5.0], [1e9 + 4, 5.0]], dtype=torch.float64
    )  # float32 would not tell these apart
    values, back = standardised(truth)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values[:, 0], tensor([-1.5, 0.0, 1.5]) * math.sqrt(2 / 3))
    assert values[:, 1].tolist() == [0, 0, 0]
    torch.testing.assert_close(back(values), truth, rtol=1e-12, atol=0)
    labels = torch.eye(2) > 0
    same, unchanged = standardised(labels)
    assert same is labels and unchanged(values) is values
