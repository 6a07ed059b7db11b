"""What every entry of ``METHODS`` must do."""

import copy

import pytest
import torch
from torch import nn

from diptych.methods import METHODS

SMALL = {"simsiam": {"projector_width": 16, "predictor_width": 8}}


def build(name, channels=3):
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return METHODS[name](**SMALL[name]).build(backbone, 6)


def views(batch=8, channels=3, count=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, channels, 8, 8, generator=generator) for _ in range(count)]


@pytest.fixture(params=sorted(METHODS))
def name(request):
    return request.param


def test_loss_is_a_finite_scalar(name):
    output = build(name)(views())
    assert output.loss.shape == () and output.loss.isfinite()
    assert output.embeddings.shape[0] == 8 and not output.embeddings.requires_grad
    assert all(value.shape == () for value in output.metrics.values())


def test_every_trainable_parameter_gets_a_gradient(name):
    method = build(name)
    method(views()).loss.backward()
    for key, parameter in method.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.abs().sum() > 0), key


def test_groups_hold_every_trainable_parameter_once(name):
    method = build(name)
    grouped = [p for group in method.parameter_groups() for p in group.parameters]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in method.parameters() if p.requires_grad}


def test_state_round_trips_bit_exactly(name):
    first = build(name)
    first(views()).loss.backward()
    second = build(name)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(first(views()).loss, second(views()).loss)


def test_odd_batch_and_other_channel_counts(name):
    assert build(name)(views(batch=7)).loss.isfinite()
    assert build(name, channels=5)(views(channels=5)).loss.isfinite()


def test_bfloat16_autocast_gives_a_float32_loss(name):
    with torch.autocast("cpu", torch.bfloat16):
        loss = build(name)(views()).loss
    assert loss.dtype == torch.float32 and loss.isfinite()


def test_deterministic_on_the_cpu(name):
    assert torch.equal(build(name)(views()).loss, build(name)(views()).loss)


def test_after_step_at_both_ends(name):
    method = build(name)
    method.after_step(0.0)
    method.after_step(1.0)


def test_the_config_carries_the_name_it_is_listed_under(name):
    assert METHODS[name]().name == name
