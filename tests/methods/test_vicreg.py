import math

import pytest
import torch
from lightly.loss import VICRegLoss
from torch import nn

from diptych.errors import ConfigError
from diptych.methods.vicreg import VICRegConfig, covariance, invariance, variance


def paper_variance(z):
    """Equations 1 and 2, channel by channel."""
    total = 0.0
    for column in z.T.tolist():
        mean = sum(column) / len(column)
        var = sum((x - mean) ** 2 for x in column) / (len(column) - 1)
        total += max(0.0, 1 - math.sqrt(var + 1e-4))
    return total / z.shape[1]


def paper_covariance(z):
    """Equations 3 and 4, entry by entry."""
    rows = z.tolist()
    n, d = len(rows), len(rows[0])
    mean = [sum(row[i] for row in rows) / n for i in range(d)]
    total = 0.0
    for i in range(d):
        for j in range(d):
            if i != j:
                total += (sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in rows) / (n - 1)) ** 2
    return total / d


def paper_invariance(a, b):
    """Equation 5, and divided by the number of channels as in the authors' code."""
    rows = zip(a.tolist(), b.tolist(), strict=True)
    return sum(sum((x - y) ** 2 for x, y in zip(*row, strict=True)) for row in rows) / a.numel()


def pair(*shape):
    generator = torch.Generator().manual_seed(4)
    a = torch.randn(*shape, generator=generator)
    return 3 + a, 0.5 * a + 0.2 * torch.randn(*shape, generator=generator)


def method(**settings):
    torch.manual_seed(0)
    return VICRegConfig(projector_width=9, projector_dim=5, **settings).build(nn.Flatten(), 12)


def views(count, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(7, 3, 2, 2, generator=generator) for _ in range(count)]


def test_the_three_terms_are_the_papers():
    for z in pair(11, 4):
        assert variance(z).item() == pytest.approx(paper_variance(z), rel=1e-5)
        assert covariance(z).item() == pytest.approx(paper_covariance(z), rel=1e-5)
    assert invariance(*pair(11, 4)).item() == pytest.approx(paper_invariance(*pair(11, 4)), rel=1e-5)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (2.0, 3.0, 4.0)])
def test_the_loss_is_lightlys(weights):
    names = ("invariance_weight", "variance_weight", "covariance_weight")
    vicreg, (first, second) = method(**dict(zip(names, weights, strict=True))), views(2)
    a, b = (vicreg.projector(view.flatten(1)) for view in (first, second))
    expected = VICRegLoss(*weights)(a, b).item()
    assert vicreg([first, second]).loss.item() == pytest.approx(expected, rel=1e-5)


def test_constant_embeddings_lack_everything():
    constant = torch.full((6, 3), 0.7)
    assert variance(constant).item() == pytest.approx(1 - math.sqrt(1e-4), abs=1e-6)
    assert covariance(constant).item() == 0
    assert invariance(constant, constant).item() == 0


def test_white_embeddings_are_perfect():
    white = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    assert variance(white).item() == 0 and covariance(white).item() == 0
    # a channel of variance v lacks 1 - √(v + ε): here 1/16 of 4/3
    assert variance(white / 4).item() == pytest.approx(1 - math.sqrt(1 / 12 + 1e-4))
    # three channels that are one: 3 · 2 covariances of 4/3, over 3
    assert covariance(white[:, :1].expand(4, 3)).item() == pytest.approx(2 * (4 / 3) ** 2)
    assert invariance(white, -white).item() == 4


def test_loss_is_the_weighted_sum_of_its_metrics():
    vicreg, (first, second) = method(), views(2)
    output = vicreg([first, second])
    a, b = (vicreg.projector(view.flatten(1)) for view in (first, second))
    terms = {name: value.item() for name, value in output.metrics.items()}
    assert terms["invariance"] == pytest.approx(paper_invariance(a, b), rel=1e-4)
    assert terms["variance"] == pytest.approx((paper_variance(a) + paper_variance(b)) / 2, rel=1e-4)
    assert terms["covariance"] == pytest.approx(paper_covariance(a) + paper_covariance(b), rel=1e-4)
    weighted = 25 * terms["invariance"] + 25 * terms["variance"] + terms["covariance"]
    assert output.loss.item() == pytest.approx(weighted, rel=1e-5)
    assert torch.allclose(output.embeddings, a, atol=1e-6)


def test_further_views_are_drawn_to_the_first_two_and_vary_by_themselves():
    vicreg, three = method(), views(3)
    z = [vicreg.projector(view.flatten(1)) for view in three]
    metrics = vicreg(three).metrics
    drawn = [paper_invariance(z[i], z[j]) for i, j in ((0, 1), (2, 0), (2, 1))]
    assert metrics["invariance"].item() == pytest.approx(sum(drawn) / 3, rel=1e-4)
    assert metrics["variance"].item() == pytest.approx(sum(map(paper_variance, z)) / 3, rel=1e-4)
    assert metrics["covariance"].item() == pytest.approx(2 * sum(map(paper_covariance, z)) / 3, rel=1e-4)


def test_bfloat16_autocast_does_not_round_the_covariance():
    z, _ = pair(32, 10)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = covariance(z)
    assert torch.equal(lowered, covariance(z))


def test_projector_is_the_papers():
    layers = [*VICRegConfig(projector_width=64, projector_dim=128).build(nn.Flatten(), 12).projector]
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [layer.weight.shape for layer in layers if isinstance(layer, nn.Linear)] == [(64, 12), (64, 64), (128, 64)]
    assert VICRegConfig().heads == "projector 8192 → 8192 → 8192"
    assert VICRegConfig(projector_layers=1, projector_dim=128).heads == "projector 128"


@pytest.mark.parametrize(
    "bad",
    [
        *({"projector_layers": 0}, {"projector_width": 1}, {"projector_dim": 1}),
        *({"invariance_weight": -1.0}, {"variance_weight": math.nan}, {"covariance_weight": -0.5}),
        {"invariance_weight": 0.0, "variance_weight": 0.0, "covariance_weight": 0.0},
    ],
)
def test_impossible_settings_are_refused(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} must be .*, not {value}"):
        VICRegConfig(**bad)
