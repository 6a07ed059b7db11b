import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from diptych.errors import ConfigError, check
from diptych.methods.base import Method, arrows, full_size, pairs, predictions, widths


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


def test_a_run_leaves_the_backbone_behind():
    backbone = nn.Identity()
    assert Method(backbone).kept is backbone


def test_settings_that_do_not_hold_are_refused():
    settings = SimpleNamespace(queue_size=3, decay=0.5, rate=math.nan, most=math.inf)
    check(settings, "above 0", lambda value: value > 0, "queue_size", "decay")
    with pytest.raises(ConfigError, match=r"^--queue-size must be 4 or more, not 3$"):
        check(settings, "4 or more", lambda value: value >= 4, "queue_size")
    for option in ("rate", "most"):
        with pytest.raises(ConfigError, match=f"^--{option} must be a number, not {getattr(settings, option)}$"):
            check(settings, "a number", lambda value: True, "decay", option)


def test_heads_are_told_by_what_their_layers_yield():
    assert [widths(64, layers, 8) for layers in (1, 2, 3)] == [[8], [64, 8], [64, 64, 8]]
    assert arrows(64, 64, 8) == "64 → 64 → 8" and arrows(8) == "8"


def test_a_method_without_a_loss_says_so():
    with pytest.raises(NotImplementedError):
        Method(nn.Identity())([torch.zeros(1, 3, 2, 2)] * 2)
