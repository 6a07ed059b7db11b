import pytest
import torch
from torch import nn

from diptych.methods.base import Method, full_size, pairs, predictions


@pytest.mark.parametrize(("large", "small"), [(2, 0), (2, 6), (4, 0), (3, 1)])
def test_full_size_counts_the_large_views(large, small):
    views = [torch.zeros(2, 3, 8, 8)] * large + [torch.zeros(2, 3, 4, 4)] * small
    assert full_size(views) == large


def test_two_views_learn_from_each_other():
    assert predictions(2) == [(0, 1), (1, 0)]
    assert pairs(2) == [(0, 1)]


def test_more_views_learn_from_the_first_two_alone():
    assert predictions(4) == [(0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (3, 1)]
    assert pairs(4) == [(0, 1), (2, 0), (2, 1), (3, 0), (3, 1)]


@pytest.mark.parametrize("views", [2, 3, 5, 8])
def test_pairs_are_predictions_without_their_mirror_images(views):
    assert len(predictions(views)) == 2 * (views - 1)
    assert len(pairs(views)) == 2 * views - 3
    assert {frozenset(pair) for pair in pairs(views)} == {frozenset(pair) for pair in predictions(views)}
    assert len({frozenset(pair) for pair in pairs(views)}) == len(pairs(views))


def test_a_method_optimises_what_is_not_frozen():
    method = Method(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)))
    method.backbone[0].requires_grad_(False)
    (group,) = method.parameter_groups()
    assert [id(p) for p in group.parameters] == [id(p) for p in method.backbone[1].parameters()]
    assert not group.constant_lr and group.frozen_until == 0


def test_a_method_without_a_loss_says_so():
    with pytest.raises(NotImplementedError):
        Method(nn.Identity())([torch.zeros(1, 3, 2, 2)] * 2)
