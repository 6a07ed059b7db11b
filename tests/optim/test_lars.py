import copy
import math

import pytest
import torch
from torch import nn

from diptych import checkpoint
from diptych.checkpoint import Progress
from diptych.optim.build import build_optimizer
from diptych.optim.config import OptimConfig
from diptych.optim.lars import LARS
from diptych.types import ParameterGroup


class PaperWeight:
    """One weight as a flat list of Python's floats, moved as the code of BYOL and Barlow Twins moves it."""

    def __init__(self, values, *, adapt):
        self.values, self.velocity, self.adapt = values, [0.0] * len(values), adapt

    def move(self, gradient, lr, momentum, decay):
        change = list(gradient)
        if self.adapt:
            change = [g + decay * w for g, w in zip(change, self.values, strict=True)]
            size, slope = math.hypot(*self.values), math.hypot(*change)
            trust = 0.001 * size / slope if size > 0 and slope > 0 else 1.0
            change = [trust * c for c in change]
        self.velocity = [momentum * v + c for v, c in zip(self.velocity, change, strict=True)]
        self.values = [w - lr * v for w, v in zip(self.values, self.velocity, strict=True)]


def lars(weight, *, adapt=True, lr=1.0, momentum=0.0, weight_decay=0.0):
    return LARS([{"params": [weight], "adapt": adapt}], lr, momentum, weight_decay)


@pytest.mark.parametrize("adapt", [True, False])
def test_several_steps_are_the_papers(adapt):
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(torch.randn(3, 4, generator=generator))
    paper = PaperWeight(weight.flatten().tolist(), adapt=adapt)
    optimizer = lars(weight, adapt=adapt, momentum=0.9, weight_decay=0.5)
    for lr in (0.3, 2.0, 1.0, 0.1, 0.0):
        weight.grad = torch.randn(3, 4, generator=generator)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        paper.move(weight.grad.flatten().tolist(), lr, 0.9, 0.5)
        assert weight.flatten().tolist() == pytest.approx(paper.values, abs=1e-6)


def test_one_step_closed_form():
    """‖w‖ = 5, ‖g‖ = 10: moves by lr × 0.001 × 5 along g / ‖g‖, whatever the size of g."""
    for slope in (1.0, 1e6):
        weight = nn.Parameter(torch.tensor([[3.0, 4.0]]))
        weight.grad = torch.tensor([[6.0, -8.0]]) * slope
        lars(weight, lr=100.0).step()
        assert torch.allclose(weight, torch.tensor([[3 - 0.5 * 0.6, 4 + 0.5 * 0.8]]))


def test_weight_decay_turns_the_step_but_does_not_lengthen_it():
    weight = nn.Parameter(torch.tensor([[1.0, 0.0]]))
    weight.grad = torch.tensor([[0.0, 2.0]])
    lars(weight, lr=100.0, weight_decay=2.0).step()
    assert torch.allclose(weight, torch.tensor([[1 - 0.1 * math.sqrt(0.5), -0.1 * math.sqrt(0.5)]]))


def test_a_weight_of_zero_moves_as_sgd_would():
    weight = nn.Parameter(torch.zeros(2, 2))
    weight.grad = torch.full((2, 2), 3.0)
    lars(weight, lr=0.1, weight_decay=1.0).step()
    assert torch.allclose(weight, torch.full((2, 2), -0.3))


def test_no_slope_leaves_a_weight_alone():
    weight = nn.Parameter(torch.ones(2, 2))
    weight.grad = torch.zeros(2, 2)
    lars(weight).step()
    assert torch.equal(weight, torch.ones(2, 2))


def test_what_has_no_gradient_is_left_alone():
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = lars(weight)
    optimizer.step()
    assert torch.equal(weight, torch.ones(2, 2)) and not optimizer.state


def test_biases_and_norms_move_as_sgd_would_without_decay():
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    config = OptimConfig(optimizer="lars", lr=0.5, momentum=0.9, weight_decay=0.1, decay_all=False)
    optimizer = build_optimizer([ParameterGroup(parameters=[*network.parameters()])], config)
    assert isinstance(optimizer, LARS)
    expected = [PaperWeight(p.flatten().tolist(), adapt=p.ndim > 1) for p in network.parameters()]
    for _ in range(3):
        for parameter, paper in zip(network.parameters(), expected, strict=True):
            parameter.grad = torch.randn_like(parameter)
            paper.move(parameter.grad.flatten().tolist(), 0.5, 0.9, 0.1)
        optimizer.step()
    for parameter, paper in zip(network.parameters(), expected, strict=True):
        assert parameter.flatten().tolist() == pytest.approx(paper.values, abs=1e-6)


def network():
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


def optimizer_of(model, name):
    config = OptimConfig(optimizer=name, lr=0.5, weight_decay=0.01, decay_all=False)
    groups = [ParameterGroup(parameters=[*model[:3].parameters()]), ParameterGroup(parameters=[*model[5].parameters()])]
    return build_optimizer(groups, config)


def train(model, optimizer, steps):
    for step in steps:
        pictures = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad(set_to_none=True)
        model(pictures.contiguous(memory_format=torch.channels_last)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", ["lars", "adamw", "sgd"])
def test_a_resumed_run_takes_the_very_same_steps(tmp_path, name):
    first = network()
    optimizer = optimizer_of(first, name)
    train(first, optimizer, range(3))
    checkpoint.save(tmp_path, first.state_dict(), {"optimizer": optimizer.state_dict()}, Progress(step=3))
    train(first, optimizer, range(3, 6))
    second = network()
    resumed = optimizer_of(second, name)
    point = checkpoint.load(tmp_path / "last")
    second.load_state_dict(point.weights)
    resumed.load_state_dict(copy.deepcopy(point.state["optimizer"]))
    train(second, resumed, range(3, 6))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    # and they are others where the optimizer begins anew
    third = network()
    third.load_state_dict(point.weights)
    train(third, optimizer_of(third, name), range(3, 6))
    assert not torch.equal(first[0].weight, third[0].weight)
