import math

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from torch import nn

from diptych.errors import ConfigError
from diptych.methods.fastsiam import FastSiamConfig, targets
from diptych.methods.simsiam import SimSiamConfig

SIZES = {"projector_width": 12, "predictor_width": 5, "projector_layers": 2}


def backbone():
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten())


def method(config=FastSiamConfig, **settings):
    torch.manual_seed(0)
    return config(**SIZES, **settings).build(backbone(), 12)


def some_views(count=4, small=0):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(6, 3, size, size, generator=generator) for size in [4] * count + [2] * small]


def paper_loss(p, z, full):
    """Mean over the views of -cos(p, mean of the others' z), one picture and one coordinate at a time."""
    total = 0.0
    for i, predicted in enumerate(p):
        for row in range(len(predicted)):
            a = predicted[row].tolist()
            others = [z[j][row].tolist() for j in range(full) if j != i]
            b = [sum(column) / len(others) for column in zip(*others, strict=True)]
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            total -= dot / math.hypot(*a) / math.hypot(*b) / len(predicted)
    return total / len(p)


@pytest.mark.parametrize(("count", "small"), [(2, 0), (4, 0), (3, 2)])
def test_loss_is_the_mean_of_the_others(count, small):
    fastsiam, views = method(), some_views(count, small)
    z = [fastsiam.projector(fastsiam.backbone(view)) for view in views]
    p = [fastsiam.predictor(projection) for projection in z]
    output = fastsiam(views)
    assert output.loss.item() == pytest.approx(paper_loss(p, z, count), abs=1e-5)
    assert torch.allclose(output.embeddings, z[0], atol=1e-6)


def test_loss_is_that_of_lightlys_negative_cosine():
    fastsiam, views = method(), some_views()
    z = [fastsiam.projector(fastsiam.backbone(view)) for view in views]
    criterion, total = NegativeCosineSimilarity(), 0.0
    for i in range(4):
        rest = torch.stack([z[j] for j in range(4) if j != i])
        total = total + criterion(fastsiam.predictor(z[i]), rest.mean(dim=0)) / 4
    assert torch.allclose(fastsiam(views).loss, total, atol=1e-5)


def test_targets_closed_form():
    z = [torch.full((1, 2), value, requires_grad=True) for value in (1.0, 2.0, 4.0, 8.0, 100.0)]
    found = targets(z, full=4)  # the last one is small: it learns from all four, and nobody learns from it
    assert [target[0, 0].item() for target in found] == pytest.approx([14 / 3, 13 / 3, 11 / 3, 7 / 3, 15 / 4])
    assert not any(target.requires_grad for target in found)


def test_two_views_are_simsiam():
    fastsiam, simsiam, views = method(), method(SimSiamConfig), some_views(2)
    simsiam.load_state_dict(fastsiam.state_dict())
    losses = fastsiam(views).loss, simsiam(views).loss
    for loss in losses:
        loss.backward()
    assert torch.allclose(*losses, atol=1e-6)
    for ours, theirs in zip(fastsiam.parameters(), simsiam.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, atol=1e-6)


def test_gradients_are_those_with_constant_targets():
    fastsiam, views = method(), some_views()

    def gradient(constant):
        fastsiam.zero_grad()
        z = [fastsiam.projector(fastsiam.backbone(view)) for view in views]
        criterion, total = NegativeCosineSimilarity(), 0.0
        for i in range(4):
            rest = torch.stack([z[j] for j in range(4) if j != i]).mean(dim=0)
            total = total + criterion(fastsiam.predictor(z[i]), rest.detach() if constant else rest) / 4
        total.backward()
        return fastsiam.projector[0].weight.grad.clone()

    fastsiam(views).loss.backward()
    ours = fastsiam.projector[0].weight.grad.clone()
    assert torch.allclose(ours, gradient(constant=True), atol=1e-6)
    assert not torch.allclose(ours, gradient(constant=False), atol=1e-4)


def test_constant_predictor_rate_marks_the_predictor_alone():
    encoder, predictor = method().parameter_groups()
    assert predictor.constant_lr and not encoder.constant_lr and len(predictor.parameters) == 5
    assert not any(group.constant_lr for group in method(predictor_constant_lr=False).parameter_groups())


@pytest.mark.parametrize("bad", [{"projector_layers": 0}, {"projector_width": 1}, {"predictor_width": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match="--" + next(iter(bad)).replace("_", "-")):
        FastSiamConfig(**bad)
