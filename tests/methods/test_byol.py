import math

import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from torch import nn

from diptych.errors import ConfigError
from diptych.methods.byol import BYOLConfig


def method(**settings):
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 10))
    settings = {"projector_width": 9, "projector_dim": 7, "predictor_width": 8, **settings}
    return BYOLConfig(**settings).build(backbone, 10)


def some_views(count=2):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(6, 3, 2, 2, generator=generator) for _ in range(count)]


def paper_distance(q, z):
    """Equation 2: the squared distance of unit vectors, one picture and one coordinate at a time."""
    total = 0.0
    for q_row, z_row in zip(q.tolist(), z.tolist(), strict=True):
        q_norm, z_norm = math.hypot(*q_row), math.hypot(*z_row)
        total += sum((a / q_norm - b / z_norm) ** 2 for a, b in zip(q_row, z_row, strict=True))
    return total / len(q)


def outputs(byol, views):
    """Predictions of all views, and targets of all."""
    q = [byol.predictor(byol.projector(byol.backbone(view))) for view in views]
    return q, [byol.momentum_encoder(view) for view in views]


def bare():
    """The method without networks: what it makes of a view is the view."""
    byol = method()
    byol.backbone = byol.projector = byol.predictor = byol.momentum_encoder.copies = nn.Identity()
    return byol


def test_loss_is_equation_2_in_both_directions():
    byol, views = method(), some_views()
    byol(views)
    byol.after_step(0.5)  # from here on the targets are another network's
    with torch.no_grad():
        byol.projector[0].weight.add_(0.3)
    q, z = outputs(byol, views)
    assert byol(views).loss.item() == pytest.approx(paper_distance(q[0], z[1]) + paper_distance(q[1], z[0]), abs=1e-5)


def test_loss_is_that_of_lightlys_negative_cosine():
    byol, views = method(), some_views()
    q, z = outputs(byol, views)
    cosine = NegativeCosineSimilarity()
    expected = (2 + 2 * cosine(q[0], z[1])) + (2 + 2 * cosine(q[1], z[0]))
    assert torch.allclose(byol(views).loss, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("second", "loss"), [((3.0, 0.0), 0), ((0.0, 2.0), 4), ((-1.0, 0.0), 8), ((1.0, 1.0), 1.17157)]
)
def test_closed_form(second, loss):
    views = [torch.tensor([[1.0, 0.0]]), torch.tensor([second])]
    assert bare()(views).loss.item() == pytest.approx(loss, abs=1e-5)


def test_further_views_only_predict_and_the_scale_stays():
    byol, views = method(), some_views(3)
    q, z = outputs(byol, views)
    pairs = [(0, 1), (1, 0), (2, 0), (2, 1)]
    expected = 2 * sum(paper_distance(q[i], z[j]) for i, j in pairs) / len(pairs)
    assert byol(views).loss.item() == pytest.approx(expected, abs=1e-5)


def test_embeddings_are_the_first_views_projections():
    byol, views = method(), some_views()
    assert torch.allclose(byol(views).embeddings, byol.projector(byol.backbone(views[0])), atol=1e-6)


def test_targets_are_constants():
    byol, views = method(), some_views()
    byol(views).loss.backward()
    assert all(parameter.grad is None for parameter in byol.momentum_encoder.parameters())
    ours = byol.projector[0].weight.grad.clone()
    byol.zero_grad()
    q, z = outputs(byol, views)
    z = [target.clone() for target in z]
    distance = sum(
        (nn.functional.normalize(q[i], dim=1) - nn.functional.normalize(z[1 - i], dim=1)).square().sum(1).mean()
        for i in range(2)
    )
    distance.backward()
    assert torch.allclose(ours, byol.projector[0].weight.grad, atol=1e-6)


@pytest.mark.parametrize("progress", [1e-9, 0.25, 0.5, 0.9, 1.0])
def test_the_slow_copy_follows_by_equation_1(progress):
    byol = method(ema_momentum=0.9)
    before = [parameter.clone() for parameter in byol.momentum_encoder.parameters()]
    with torch.no_grad():
        for parameter in byol.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    byol.after_step(progress)
    tau = 1 - (1 - 0.9) * (math.cos(math.pi * progress) + 1) / 2
    online = [*byol.backbone.parameters(), *byol.projector.parameters()]
    after = [*byol.momentum_encoder.parameters()]
    assert len(before) == len(online) == len(after)
    for old, theta, new in zip(before, online, after, strict=True):
        assert torch.allclose(new, tau * old + (1 - tau) * theta, atol=1e-6)
    if progress == 1:
        assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_heads_are_the_papers():
    byol = BYOLConfig().build(nn.Flatten(), 64)
    for head, into in ((byol.projector, 64), (byol.predictor, 256)):
        assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
        assert [m.weight.shape for m in head if isinstance(m, nn.Linear)] == [(4096, into), (256, 4096)]
        assert head[0].bias is None and head[-1].bias is None
    assert BYOLConfig().heads == "projector 4096 → 256, predictor 4096 → 256"


@pytest.mark.parametrize(
    "bad", [{"projector_width": 1}, {"projector_dim": 0}, {"predictor_width": 1}, {"ema_momentum": 1.0}]
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match="--" + next(iter(bad)).replace("_", "-")):
        BYOLConfig(**bad)
