"""What every entry of ``METHODS`` must do."""

import copy
import dataclasses
import inspect
import math

import pytest
import torch
from torch import nn

from diptych.config import from_dict, to_dict
from diptych.diagnostics import alignment
from diptych.errors import ConfigError
from diptych.methods import METHODS
from diptych.methods.momentum import MomentumEncoder
from diptych.optim.build import build_optimizer
from diptych.optim.config import OptimConfig

SMALL = {
    "simsiam": {"projector_width": 16, "predictor_width": 8},
    "fastsiam": {"projector_width": 16, "predictor_width": 8},
    "simclr": {"projector_width": 16, "projector_dim": 8},
    "byol": {"projector_width": 16, "projector_dim": 8, "predictor_width": 16},
    "moco": {"projector_width": 16, "projector_dim": 8, "queue_size": 12},
    "swav": {"projector_width": 16, "projector_dim": 8, "prototypes": 12, "queue_size": 12, "queue_from": 0.0},
    "barlow": {"projector_width": 16, "projector_dim": 12},
    "vicreg": {"projector_width": 16, "projector_dim": 12},
    "lejepa": {"projector_width": 16, "projector_dim": 8, "slices": 32},
    "dino": {"projector_width": 16, "projector_dim": 8, "prototypes": 12},
}


def build(name, channels=3):
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return METHODS[name](**SMALL[name]).build(backbone, 6)


def views(batch=8, channels=3, count=2, small=0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    sizes = [8] * count + [5] * small
    return [torch.randn(batch, channels, size, size, generator=generator) for size in sizes]


def stepped(method, steps, first=0, total=8, channels=3):
    """Train a few steps as the loop does, on views that are a function of the step; returns the losses."""
    optimizer = build_optimizer(method.parameter_groups(), OptimConfig())
    losses = []
    for step in range(first, first + steps):
        output = method(views(seed=step, channels=channels))
        optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        optimizer.step()
        method.after_step((step + 1) / total)
        losses.append(output.loss.item())
    return losses


def begun(name, channels=3):
    """A method after two steps: a queue may begin empty, and the first step compare nothing."""
    method = build(name, channels)
    stepped(method, 2, channels=channels)
    method.zero_grad(set_to_none=True)
    return method


@pytest.fixture(params=sorted(METHODS))
def name(request):
    return request.param


@pytest.mark.parametrize(("count", "small"), [(2, 0), (4, 0), (2, 3)])
def test_loss_is_a_finite_scalar(name, count, small):
    output = begun(name)(views(count=count, small=small))
    assert output.loss.shape == () and output.loss.isfinite() and output.loss != 0
    assert output.embeddings.shape[0] == 8 and output.embeddings.ndim == 2 and not output.embeddings.requires_grad
    assert all(value.shape == () and not value.requires_grad for value in output.metrics.values())


@pytest.mark.parametrize(("count", "small"), [(2, 0), (4, 0), (2, 3)])
def test_positives_are_the_same_pictures_in_another_view(name, count, small):
    method = build(name)
    view, *others = views(count=count, small=small)
    order = torch.randperm(len(view), generator=torch.Generator().manual_seed(2))
    # Any further view may be the one that is compared with; batch norm cares for no order.
    output = method([view, *(view[order] if other.shape == view.shape else other for other in others)])
    assert output.positives.shape == output.embeddings.shape and output.positives.dtype == torch.float32
    assert not output.positives.requires_grad
    assert float(alignment(output.embeddings[order], output.positives)) < 1e-6
    assert float(alignment(output.embeddings, output.positives)) > 1e-3


def test_every_trainable_parameter_gets_a_gradient(name):
    method = begun(name)
    method(views()).loss.backward()
    for key, parameter in method.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.abs().sum() > 0), key


def test_targets_get_no_gradient_and_follow_afterwards(name):
    method = build(name)
    targets = [part for part in method.modules() if isinstance(part, MomentumEncoder)]
    before = [copy.deepcopy(part.state_dict()) for part in targets]
    stepped(method, 2)
    for part, old in zip(targets, before, strict=True):
        assert all(p.grad is None and not p.requires_grad for p in part.parameters())
        assert any(not torch.equal(p, old[key]) for key, p in part.named_parameters())


def test_groups_hold_every_trainable_parameter_once(name):
    method = build(name)
    grouped = [p for group in method.parameter_groups() for p in group.parameters]
    assert len(grouped) == len({id(p) for p in grouped})
    assert {id(p) for p in grouped} == {id(p) for p in method.parameters() if p.requires_grad}


def test_state_round_trips_bit_exactly(name):
    """What ``after_step`` moves is state too: a run that goes on takes the very steps that the first would have."""
    first, second = build(name), build(name)
    stepped(first, 2)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert stepped(first, 3, first=2) == stepped(second, 3, first=2)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_odd_batch_and_other_channel_counts(name):
    assert begun(name)(views(batch=7)).loss.isfinite()
    assert begun(name, channels=5)(views(channels=5)).loss.isfinite()


def test_bfloat16_autocast_gives_a_float32_loss_near_the_exact_one(name):
    exact = begun(name)(views()).loss
    method = begun(name)
    with torch.autocast("cpu", torch.bfloat16):
        output = method(views())
    assert output.loss.dtype == output.embeddings.dtype == torch.float32
    assert output.loss.item() == pytest.approx(exact.item(), rel=0.1, abs=0.1)


def test_deterministic_on_the_cpu(name):
    assert stepped(build(name), 2) == stepped(build(name), 2)


def test_after_step_at_both_ends(name):
    method = build(name)
    method(views())
    method.after_step(1e-6)
    assert method(views()).loss.isfinite()
    method.after_step(1.0)
    assert method(views()).loss.isfinite()


def test_what_a_run_leaves_behind(name):
    method = begun(name)
    assert method.kept(views()[0]).shape == (8, 6)
    assert method.kept.state_dict().keys() == method.backbone.state_dict().keys()
    assert (method.kept is method.backbone) is (name != "dino")


def test_the_config_says_who_it_is(name):
    config = METHODS[name]()
    assert config.name == name
    assert config.heads and config.about.idea.endswith(".") and "arXiv" in config.about.paper and config.about.needs
    assert config.losses_compare is (name not in ("moco", "dino"))


def test_the_config_round_trips_through_json(name):
    config = METHODS[name](**SMALL[name])
    assert from_dict(METHODS[name], to_dict(config)) == config


def test_settings_that_are_no_finite_numbers_are_refused(name):
    for field in dataclasses.fields(METHODS[name]):
        for value in (math.nan, math.inf, -math.inf) if field.type is float else ():
            with pytest.raises(ConfigError, match=f"^--{field.name.replace('_', '-')} must be .*, not {value}$"):
                METHODS[name](**{field.name: value})


def test_every_setting_has_a_line_of_help(name):
    source = inspect.getsource(METHODS[name])
    for field in dataclasses.fields(METHODS[name]):
        if field.name != "name":
            _, _, after = source.partition(f"    {field.name}: ")
            assert after.splitlines()[1].strip().startswith('"""'), field.name
