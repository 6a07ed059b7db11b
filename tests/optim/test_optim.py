import math

import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.optim.build import build_optimizer, set_rates
from diptych.optim.config import OptimConfig
from diptych.optim.lars import LARS
from diptych.optim.schedule import half_cosine, warmup_cosine
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


def test_half_cosine_at_known_points():
    assert half_cosine(0.996, 1.0, 0.0) == pytest.approx(0.996) and half_cosine(0.996, 1.0, 1.0) == 1.0
    assert half_cosine(0.04, 0.4, 0.5) == pytest.approx(0.22)
    assert half_cosine(2.0, 0.0, 0.25) == pytest.approx(1 + math.sqrt(0.5))
    assert half_cosine(0.5, 0.5, 0.3) == 0.5
    rising = [half_cosine(0.9, 1.0, step / 50) for step in range(51)]
    assert all(a < b for a, b in zip(rising, rising[1:], strict=False))


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


OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW, "lars": LARS}


@pytest.fixture(params=sorted(OPTIMIZERS))
def name(request):
    return request.param


def test_each_is_built_with_its_settings(name):
    config = OptimConfig(optimizer=name, lr=0.3, momentum=0.8, weight_decay=0.02)
    optimizer = build_optimizer([ParameterGroup(parameters=[parameter()])], config)
    (group,) = optimizer.param_groups
    assert type(optimizer) is OPTIMIZERS[name]
    assert (group["lr"], group["weight_decay"]) == (0.3, 0.02)
    assert group["betas"] == (0.8, 0.999) if name == "adamw" else group["momentum"] == 0.8


def test_adamw_shrinks_a_weight_apart_from_its_gradient():
    """Loshchilov & Hutter (arXiv 1711.05101): the first step is lr × (sign of the gradient + decay × weight)."""
    weight = nn.Parameter(torch.tensor([[2.0, -2.0]]))
    config = OptimConfig(optimizer="adamw", weight_decay=0.5)
    optimizer = build_optimizer([ParameterGroup(parameters=[weight])], config)
    set_rates(optimizer, config, 0.1, 0.1, 0.0)
    weight.grad = torch.tensor([[7.0, 1e-3]])
    optimizer.step()
    assert torch.allclose(weight, torch.tensor([[2 - 0.1 * (1 + 1), -2 - 0.1 * (1 - 1)]]), atol=1e-4)


def network():
    """Weights of a convolution and a linear layer, and their biases and norms."""
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)]
    vectors = [layers[0].bias, layers[1].weight, layers[1].bias, layers[2].bias]
    return [p for layer in layers for p in layer.parameters()], [layers[0].weight, layers[2].weight], vectors


def same(found, expected):
    return [id(p) for p in found] == [id(p) for p in expected]


def test_biases_and_norms_decay_with_the_rest_if_asked(name):
    parameters, _, _ = network()
    optimizer = build_optimizer([ParameterGroup(parameters=parameters)], OptimConfig(optimizer=name, decay_all=True))
    (group,) = optimizer.param_groups
    assert same(group["params"], parameters) and group["weight_decay"] == 1e-4
    assert name != "lars" or group["adapt"]


def test_biases_and_norms_are_left_out_of_decay_and_adaptation(name):
    parameters, tensors, vectors = network()
    config = OptimConfig(optimizer=name, decay_all=False)
    asked = ParameterGroup(parameters=parameters, constant_lr=True, frozen_until=0.25)
    decayed, plain = build_optimizer([asked], config).param_groups
    assert same(decayed["params"], tensors) and decayed["weight_decay"] == 1e-4
    assert same(plain["params"], vectors) and plain["weight_decay"] == 0
    assert all(group["constant_lr"] and group["frozen_until"] == 0.25 for group in (decayed, plain))
    assert name != "lars" or (decayed["adapt"] and not plain["adapt"])


def test_a_group_of_vectors_alone_is_one_group(name):
    parameters = [parameter(), parameter()]
    optimizer = build_optimizer([ParameterGroup(parameters=parameters)], OptimConfig(optimizer=name, decay_all=False))
    (group,) = optimizer.param_groups
    assert same(group["params"], parameters) and group["weight_decay"] == 0


def test_vectors_do_not_shrink_where_they_do_not_decay(name):
    weight, bias = nn.Parameter(torch.ones(2, 2)), parameter()
    config = OptimConfig(optimizer=name, weight_decay=0.5, final_weight_decay=0.7, decay_all=False)
    optimizer = build_optimizer([ParameterGroup(parameters=[weight, bias])], config)
    for step in range(3):
        weight.grad, bias.grad = torch.zeros_like(weight), torch.zeros_like(bias)
        set_rates(optimizer, config, 0.1, 0.1, step / 3)
        optimizer.step()
    assert (weight < 1).all() and torch.equal(bias, torch.ones(3))


@pytest.mark.parametrize("decay_all", [True, False])
def test_weight_decay_goes_to_its_end_along_half_a_cosine(name, decay_all):
    parameters, _, _ = network()
    config = OptimConfig(optimizer=name, weight_decay=0.04, final_weight_decay=0.4, decay_all=decay_all)
    optimizer = build_optimizer([ParameterGroup(parameters=parameters)], config)
    for progress, expected in ((0.0, 0.04), (0.5, 0.22), (1.0, 0.4)):
        set_rates(optimizer, config, 0.1, 0.1, progress)
        decays = [group["weight_decay"] for group in optimizer.param_groups]
        assert decays == pytest.approx([expected] if decay_all else [expected, 0.0])


def test_weight_decay_stays_where_no_end_is_given():
    config = OptimConfig(weight_decay=0.04)
    optimizer = build_optimizer([ParameterGroup(parameters=[parameter()])], config)
    set_rates(optimizer, config, 0.1, 0.1, 0.7)
    assert optimizer.param_groups[0]["weight_decay"] == 0.04


def test_a_frozen_group_stands_still_until_its_time(name):
    config = OptimConfig(optimizer=name, weight_decay=0.1)
    frozen, free = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    groups = [
        ParameterGroup(parameters=[frozen], frozen_until=0.5, constant_lr=True),
        ParameterGroup(parameters=[free]),
    ]
    optimizer = build_optimizer(groups, config)
    for step in range(4):
        before = [frozen.detach().clone(), free.detach().clone()]
        frozen.grad, free.grad = torch.ones(2, 2), torch.ones(2, 2)
        set_rates(optimizer, config, 0.1, 0.3, step / 4)
        optimizer.step()
        assert torch.equal(frozen, before[0]) == (step < 2)
        assert not torch.equal(free, before[1])
    assert [group["lr"] for group in optimizer.param_groups] == [0.3, 0.1]


def test_a_group_that_was_frozen_begins_as_if_it_were_new(name):
    """The authors of SwAV and DINO drop the gradients: momentum that gathered all the while would be a leap."""
    config = OptimConfig(optimizer=name)
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = build_optimizer([ParameterGroup(parameters=[weight], frozen_until=0.5)], config)
    for step in range(6):
        weight.grad = torch.full((2, 2), 5.0 - step)
        set_rates(optimizer, config, 0.1, 0.1, step / 10)
        optimizer.step()
    fresh = nn.Parameter(torch.ones(2, 2))
    anew = build_optimizer([ParameterGroup(parameters=[fresh])], config)
    fresh.grad = torch.zeros(2, 2)
    set_rates(anew, config, 0.1, 0.1, 0.5)
    anew.step()
    assert torch.equal(weight, fresh)


@pytest.mark.parametrize(
    "bad",
    [
        {"lr": 0.0},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"final_weight_decay": -0.1},
        {"warmup_epochs": -1.0},
    ],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match="--" + next(iter(bad)).replace("_", "-")):
        OptimConfig(**bad)


@pytest.mark.parametrize("option", ["lr", "momentum", "weight_decay", "final_weight_decay", "warmup_epochs"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_settings_that_are_no_finite_numbers_are_refused(option, value):
    with pytest.raises(ConfigError, match=f"^--{option.replace('_', '-')} must be .*, not {value}$"):
        OptimConfig(**{option: value})
