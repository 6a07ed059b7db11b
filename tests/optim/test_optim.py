import math

import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.optim.build import build_optimizer, set_rates
from diptych.optim.config import OptimConfig
from diptych.optim.schedule import warmup_cosine
from diptych.types import ParameterGroup


def test_schedule_at_known_points():
    rates = [warmup_cosine(step, steps=104, warmup_steps=4, peak=2.0) for step in range(104)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0 and rates[54] == pytest.approx(1.0)
    assert rates[29] == pytest.approx(1 + math.cos(math.pi / 4))
    assert rates[-1] == pytest.approx(0, abs=1e-3) and all(a >= b for a, b in zip(rates[4:], rates[5:], strict=False))


def test_schedule_of_one_step():
    assert warmup_cosine(0, steps=1, warmup_steps=0, peak=1.0) == 1.0
    assert warmup_cosine(0, steps=1, warmup_steps=1, peak=1.0) == 1.0


def test_linear_scaling_rule():
    assert OptimConfig(lr=0.05).peak_lr(512) == pytest.approx(0.1)
    assert OptimConfig(lr=0.05, lr_scaling=False).peak_lr(512) == 0.05


def parameter():
    return nn.Parameter(torch.ones(3))


def test_constant_group_keeps_the_peak():
    a, b = parameter(), parameter()
    groups = [ParameterGroup(parameters=[a]), ParameterGroup(parameters=[b], constant_lr=True)]
    optimizer = build_optimizer(groups, OptimConfig())
    set_rates(optimizer, OptimConfig(), 0.01, 0.5, 0.0)
    assert [group["lr"] for group in optimizer.param_groups] == [0.01, 0.5]


def test_weight_decay_acts():
    """The Keras example's never reaches its loss; ours shrinks a weight that has no gradient but its own."""
    weight = parameter()
    config = OptimConfig(weight_decay=0.1, momentum=0.0)
    optimizer = build_optimizer([ParameterGroup(parameters=[weight])], config)
    set_rates(optimizer, config, 0.5, 0.5, 0.0)
    (weight * 0).sum().backward()
    optimizer.step()
    assert torch.allclose(weight, torch.full((3,), 1 - 0.5 * 0.1))


@pytest.mark.parametrize("bad", [{"lr": 0.0}, {"momentum": 1.0}, {"weight_decay": -1.0}, {"warmup_epochs": -1.0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match="--" + next(iter(bad)).replace("_", "-")):
        OptimConfig(**bad)
