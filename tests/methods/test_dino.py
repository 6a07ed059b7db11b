import math

import pytest
import torch
from lightly.loss import DINOLoss
from torch import nn
from torch.nn import functional

from diptych.backbones.build import build_backbone
from diptych.errors import ConfigError
from diptych.methods.dino import DINOConfig, cross_entropy, moved_center, teacher_temperature
from diptych.optim.build import build_optimizer, set_rates
from diptych.optim.config import OptimConfig

SIZES = {"projector_width": 16, "projector_dim": 8, "prototypes": 10}


def method(**settings):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 12))
    return DINOConfig(**{**SIZES, **settings}).build(backbone, 12)


def some_views(count=2, small=0, size=4, batch=6):
    generator = torch.Generator().manual_seed(3)
    sizes = [size] * count + [size // 2] * small
    return [torch.randn(batch, 3, pixels, pixels, generator=generator) for pixels in sizes]


def rows(count, columns, seed):
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed))


def paper_loss(teachers, students, center, tau_t, tau_s):
    """Equations 1 to 3 and 4's centering, one picture and one prototype at a time."""

    def softmax(values, tau):
        powers = [math.exp(value / tau) for value in values]
        return [power / sum(powers) for power in powers]

    terms = []
    for j, t in enumerate(teachers):
        for i, s in enumerate(students):
            if i != j:
                total = 0.0
                for t_row, s_row in zip(t.tolist(), s.tolist(), strict=True):
                    p_t = softmax([value - c for value, c in zip(t_row, center.tolist(), strict=True)], tau_t)
                    p_s = softmax(s_row, tau_s)
                    total -= sum(a * math.log(b) for a, b in zip(p_t, p_s, strict=True))
                terms.append(total / len(t))
    return sum(terms) / len(terms)


# The loss


@pytest.mark.parametrize(("count", "small"), [(2, 0), (2, 3), (3, 0)])
def test_loss_is_the_papers(count, small):
    dino, views = method(), some_views(count, small)
    with torch.no_grad():
        dino.projector[0].weight.mul_(-2)  # a student that is not its teacher
        dino.center.copy_(rows(1, 10, seed=5)[0] / 10)
    students = [dino.prototypes(dino.projector(dino.backbone(view))) for view in views]
    teachers = [dino.momentum_encoder(view) for view in views[:count]]
    expected = paper_loss(teachers, students, dino.center, tau_t=0.04, tau_s=0.1)
    output = dino(views)
    assert output.loss.item() == pytest.approx(expected, abs=1e-4)
    assert torch.allclose(output.embeddings, dino.projector(dino.backbone(views[0])), atol=1e-6)


def test_loss_and_center_are_lightlys_step_for_step():
    theirs = DINOLoss(output_dim=10, teacher_temp=0.05, student_temp=0.1, center_momentum=0.8)
    center = torch.zeros(10)
    for step in range(3):
        teachers = [rows(6, 10, seed=10 * step + view) for view in range(2)]
        students = [rows(6, 10, seed=100 + 10 * step + view) for view in range(5)]
        targets = [functional.softmax((teacher - center) / 0.05, dim=1) for teacher in teachers]
        ours = cross_entropy(targets, students, 0.1)
        center = moved_center(center, torch.cat(teachers), 0.8)
        assert torch.allclose(ours, theirs(teachers, students), rtol=1e-5)
        assert torch.allclose(center, theirs.center.flatten(), atol=1e-6)


def test_cross_entropy_closed_forms():
    uniform, sharp = torch.full((4, 16), 1 / 16), functional.one_hot(torch.arange(4), 16).float()
    nothing, certain = torch.zeros(4, 16), 100 * sharp
    assert cross_entropy([uniform] * 2, [nothing] * 2, 0.1).item() == pytest.approx(math.log(16))
    assert cross_entropy([sharp] * 2, [nothing] * 2, 0.1).item() == pytest.approx(math.log(16))
    assert cross_entropy([sharp] * 2, [certain] * 2, 0.1).item() == pytest.approx(0, abs=1e-6)
    # the same view is no pair: a student that is right for its own view alone has learned nothing
    right_for_itself = [certain, certain.roll(1, dims=0)]
    assert cross_entropy([sharp, sharp.roll(1, dims=0)], right_for_itself, 1.0).item() == pytest.approx(100, rel=1e-4)


def test_teacher_entropy_tells_both_ways_of_collapsing():
    dino = method()
    views = [some_views()[0][:1].expand(6, -1, -1, -1)] * 2  # all pictures are alike
    dino(views)
    for _ in range(200):  # the center arrives at what the teacher says of all: nothing is left
        dino.center.copy_(moved_center(dino.center, dino.left[-1], 0.9))
    output = dino(views)
    assert output.metrics["teacher_entropy"].item() == pytest.approx(math.log(10), rel=1e-4)
    dino.center.zero_()  # without it, and sharp: one prototype for every picture
    dino.teacher_temperature.fill_(1e-4)
    assert dino(views).metrics["teacher_entropy"].item() == pytest.approx(0, abs=1e-3)


# What moves after a step


def test_the_temperature_rises_and_stays():
    config = DINOConfig(teacher_temperature_warmup=0.2)
    found = [teacher_temperature(config, progress) for progress in (0.0, 0.05, 0.1, 0.2, 0.6, 1.0)]
    assert found == pytest.approx([0.04, 0.0475, 0.055, 0.07, 0.07, 0.07])
    assert teacher_temperature(DINOConfig(teacher_temperature_warmup=0.0), 0.0) == 0.07


def test_after_step_sets_the_temperature_of_the_next_loss():
    dino = method()
    assert dino.teacher_temperature.item() == pytest.approx(0.04)
    dino(some_views())
    dino.after_step(0.05)
    assert dino.teacher_temperature.item() == pytest.approx(0.055)
    assert dino.state_dict()["teacher_temperature"].item() == pytest.approx(0.055)


def test_the_center_is_the_mean_of_every_row():
    outputs, center = rows(8, 5, seed=1), rows(1, 5, seed=2)[0]
    found = moved_center(center, outputs, 0.9)
    expected = [0.9 * c + 0.1 * sum(column) / 8 for c, column in zip(center.tolist(), outputs.T.tolist(), strict=True)]
    assert found.tolist() == pytest.approx(expected, abs=1e-6)
    # the mean of the means of equal parts, which is what the processes put together, is that of all rows
    means = torch.stack([part.mean(dim=0) for part in outputs.chunk(4)])
    assert torch.allclose(found, moved_center(center, means, 0.9), atol=1e-6)


def test_the_center_moves_after_the_step_and_by_full_size_views_alone():
    dino, views = method(), some_views(small=2)
    taught = torch.cat([dino.momentum_encoder(view) for view in views[:2]])
    dino(views)
    assert not dino.center.any()
    dino.after_step(0.5)
    assert torch.allclose(dino.center, 0.1 * taught.mean(dim=0), atol=1e-6)


@pytest.mark.parametrize("progress", [1e-9, 0.5, 1.0])
def test_the_teacher_follows_backbone_projector_and_prototypes(progress):
    dino = method(ema_momentum=0.9)
    dino(some_views())
    before = [parameter.clone() for parameter in dino.momentum_encoder.parameters()]
    student = [*dino.backbone.parameters(), *dino.projector.parameters(), *dino.prototypes.parameters()]
    with torch.no_grad():
        for parameter in student:
            parameter.add_(1.0)
    dino.after_step(progress)
    momentum = 1 - 0.1 * (math.cos(math.pi * progress) + 1) / 2
    for old, theirs, new in zip(before, student, dino.momentum_encoder.parameters(), strict=True):
        assert torch.allclose(new, momentum * old + (1 - momentum) * theirs, atol=1e-6)
        assert torch.equal(new, old) or progress < 1


def test_the_teacher_sees_full_size_views_only_and_gets_no_gradient():
    dino, seen = method(), []
    dino.momentum_encoder.register_forward_hook(lambda _, views, __: seen.append(views[0].shape[-1]))
    dino(some_views(count=2, small=3)).loss.backward()
    assert seen == [4, 4]
    assert all(parameter.grad is None for parameter in dino.momentum_encoder.parameters())


def test_a_run_leaves_the_teacher_behind():
    dino = method()
    dino(some_views())
    with torch.no_grad():
        dino.backbone[2].weight.add_(1.0)
    dino.after_step(0.5)
    slow = dino.momentum_encoder.copies[0][2].weight
    assert torch.equal(dino.kept[2].weight, slow) and not torch.equal(slow, dino.backbone[2].weight)


def test_prototypes_are_frozen_in_the_beginning_and_get_gradients():
    dino, views = method(prototypes_frozen=0.25), some_views()
    config = OptimConfig(optimizer="adamw", lr=0.01, lr_scaling=False)
    optimizer = build_optimizer(dino.parameter_groups(), config)
    moved = []
    for step in range(8):
        before = dino.prototypes.weight.detach().clone(), dino.projector[0].weight.detach().clone()
        optimizer.zero_grad()
        dino(views).loss.backward()
        assert dino.prototypes.weight.grad.abs().sum() > 0
        set_rates(optimizer, config, config.lr, config.lr, step / 8)
        optimizer.step()
        assert not torch.equal(before[1], dino.projector[0].weight)
        moved.append(not torch.equal(before[0], dino.prototypes.weight))
    assert moved == [False] * 2 + [True] * 6


# The networks


def kinds(module):
    return [type(layer).__name__ for layer in module]


def test_heads_are_the_papers():
    dino = DINOConfig(prototypes=32).build(nn.Flatten(), 384)
    assert kinds(dino.projector) == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    linear = [layer for layer in dino.projector if isinstance(layer, nn.Linear)]
    assert [layer.weight.shape for layer in linear] == [(2048, 384), (2048, 2048), (256, 2048)]
    assert not any(layer.bias.any() for layer in linear)
    assert [layer.weight.std().item() for layer in linear] == pytest.approx([0.02] * 3, rel=0.02)
    assert dino.prototypes.weight.shape == (32, 256)
    assert DINOConfig().heads == "projector 2048 → 2048 → 256, 65536 prototypes"


def test_batch_norm_in_the_head_is_a_setting():
    dino = method(projector_norm=True)
    assert kinds(dino.projector) == ["Linear", "BatchNorm1d", "GELU", "Linear", "BatchNorm1d", "GELU", "Linear"]
    assert dino(some_views()).loss.isfinite()


def test_a_vision_transformer_learns_from_small_views():
    """timm's smallest ViT, patches of 16 pixels: full-size views of four patches, small ones of one."""
    torch.manual_seed(0)
    built = build_backbone("timm:test_vit", image_size=32)
    dino = DINOConfig(**SIZES).build(built.module, built.num_features)
    config = OptimConfig(optimizer="adamw", lr=1e-3, lr_scaling=False)
    optimizer = build_optimizer(dino.parameter_groups(), config)
    views, losses = some_views(count=2, small=3, size=32), []
    for step in range(8):
        output = dino(views)
        optimizer.zero_grad()
        output.loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in dino.parameters() if p.requires_grad)
        set_rates(optimizer, config, config.lr, config.lr, step / 8)
        optimizer.step()
        dino.after_step((step + 1) / 8)
        losses.append(output.loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    "bad",
    [
        {"projector_layers": 0},
        {"projector_width": 1},
        {"projector_dim": 1},
        {"prototypes": 1},
        {"prototypes_frozen": 1.5},
        {"temperature": 0.0},
        {"teacher_temperature": -0.1},
        {"teacher_temperature_start": 0.0},
        {"teacher_temperature_warmup": -0.1},
        {"center_momentum": 1.0},
        {"ema_momentum": 1.0},
    ],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match=f"--{next(iter(bad)).replace('_', '-')} must be "):
        DINOConfig(**bad)
