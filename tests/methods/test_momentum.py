import copy

import pytest
import torch
from torch import nn

from diptych.methods.momentum import MomentumEncoder


def encoder():
    torch.manual_seed(0)
    return nn.Linear(3, 4), nn.Sequential(nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))


def fill(module, value):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)


def test_it_begins_as_a_copy_and_says_what_the_encoder_says():
    modules = encoder()
    target, views = MomentumEncoder(*modules), torch.randn(5, 3)
    assert torch.equal(target(views), modules[1](modules[0](views)))


def test_what_it_says_has_no_gradient():
    target = MomentumEncoder(*encoder())
    assert not target(torch.randn(5, 3, requires_grad=True)).requires_grad
    assert not any(parameter.requires_grad for parameter in target.parameters())


def test_the_encoder_is_left_as_it_was():
    modules = encoder()
    MomentumEncoder(*modules)(torch.randn(5, 3))
    assert all(parameter.requires_grad for module in modules for parameter in module.parameters())
    assert modules[1][0].num_batches_tracked == 0


def test_equation_2_after_several_steps():
    """θ' after n steps of following a constant θ: θ + mⁿ (θ'₀ - θ)."""
    module = nn.Linear(3, 2)
    fill(module, 2.0)
    target = MomentumEncoder(module)
    fill(module, 5.0)
    for _ in range(3):
        target.follow(module, momentum=0.9)
    assert all(torch.allclose(p, torch.full_like(p, 5 - 0.9**3 * 3)) for p in target.parameters())


def test_each_weight_follows_its_own():
    modules = encoder()
    target = MomentumEncoder(*modules)
    old = [parameter.detach().clone() for parameter in target.parameters()]
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.add_(torch.randn_like(parameter))
    new = [parameter for module in modules for parameter in module.parameters()]
    target.follow(*modules, momentum=0.75)
    for ours, before, theirs in zip(target.parameters(), old, new, strict=True):
        assert torch.allclose(ours, 0.75 * before + 0.25 * theirs, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_momentum_0_jumps_and_1_stands_still(momentum):
    modules = encoder()
    target = MomentumEncoder(*modules)
    before = copy.deepcopy(target)
    for module in modules:
        fill(module, 0.1)
    target.follow(*modules, momentum=momentum)
    expected = before if momentum else nn.ModuleList(modules)
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), expected.parameters(), strict=True))


def test_it_has_batch_statistics_of_its_own():
    modules = encoder()
    target = MomentumEncoder(*modules)
    target(torch.randn(5, 3) + 10)
    target.follow(*modules, momentum=0.0)
    ours, theirs = target.copies[1][0], modules[1][0]
    assert ours.num_batches_tracked == 1 and not torch.equal(ours.running_mean, theirs.running_mean)
    assert torch.equal(theirs.running_mean, torch.zeros(4))
