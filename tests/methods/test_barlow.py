import math

import pytest
import torch
from lightly.loss import BarlowTwinsLoss
from torch import nn

from diptych.errors import ConfigError
from diptych.methods.barlow import BarlowConfig, correlation, invariance, redundancy, standardised


def paper_correlation(a, b):
    """Equation 2, entry by entry, of embeddings centred over the batch; the authors' 1e-5 on each variance."""
    columns = [[[row[i] for row in z.tolist()] for i in range(z.shape[1])] for z in (a, b)]
    centred = [[[x - sum(column) / len(a) for x in column] for column in view] for view in columns]
    size = [[math.sqrt(sum(x * x for x in column) + len(a) * 1e-5) for column in view] for view in centred]
    return [
        [
            sum(x * y for x, y in zip(one, other, strict=True)) / (size[0][i] * size[1][j])
            for j, other in enumerate(centred[1])
        ]
        for i, one in enumerate(centred[0])
    ]


def paper_terms(a, b):
    """Both sums of equation 1."""
    c = paper_correlation(a, b)
    return (
        sum((1 - c[i][i]) ** 2 for i in range(len(c))),
        sum(c[i][j] ** 2 for i in range(len(c)) for j in range(len(c)) if i != j),
    )


def method(**settings):
    torch.manual_seed(0)
    return BarlowConfig(projector_width=9, projector_dim=5, **settings).build(nn.Flatten(), 12)


def views(count, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(7, 3, 2, 2, generator=generator) for _ in range(count)]


def pair(*shape):
    generator = torch.Generator().manual_seed(4)
    a = torch.randn(*shape, generator=generator)
    return 3 + a, 0.5 * a + torch.randn(*shape, generator=generator)


def ours(a, b):
    matrix = correlation(standardised(a), standardised(b))
    return float(invariance(matrix)), float(redundancy(matrix))


def test_both_terms_are_the_papers():
    a, b = pair(11, 4)
    assert torch.allclose(correlation(standardised(a), standardised(b)), torch.tensor(paper_correlation(a, b)))
    assert ours(a, b) == pytest.approx(paper_terms(a, b), rel=1e-5)


@pytest.mark.parametrize("weight", [0.0051, 0.3])
def test_both_terms_are_lightlys(weight):
    a, b = pair(32, 10)
    agreement, overlap = ours(a, b)
    assert agreement + weight * overlap == pytest.approx(float(BarlowTwinsLoss(weight)(a, b)), rel=1e-5)


def hadamard():
    """Three uncorrelated channels of variance 1 over four pictures."""
    return torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])


def test_equal_white_views_are_perfect():
    white = hadamard()
    assert ours(white, white) == pytest.approx((0, 0), abs=1e-8)
    assert ours(white, 5 + 3 * white) == pytest.approx((0, 0), abs=1e-8)  # neither mean nor scale matters


def test_views_without_anything_in_common_and_channels_that_are_one():
    x, y = hadamard()[:, :1], hadamard()[:, 1:2]
    assert ours(x, y) == pytest.approx((1, 0), abs=1e-8)
    assert ours(x, -x) == pytest.approx((4, 0), abs=1e-3)
    same = x.expand(4, 6)
    assert ours(same, same) == pytest.approx((0, 6 * 5), abs=1e-2)
    constant = torch.full((4, 6), 0.7)
    assert ours(constant, constant) == pytest.approx((6, 0), abs=1e-8)  # a collapse is the worst there is


def test_loss_is_equation_1_times_its_scale():
    barlow, (first, second) = method(loss_scale=0.5, redundancy_weight=0.1), views(2)
    output = barlow([first, second])
    a, b = (barlow.projector(view.flatten(1)) for view in (first, second))
    agreement, overlap = paper_terms(a, b)
    assert output.metrics["invariance"].item() == pytest.approx(agreement, rel=1e-4)
    assert output.metrics["redundancy"].item() == pytest.approx(overlap, rel=1e-4)
    assert output.loss.item() == pytest.approx(0.5 * (agreement + 0.1 * overlap), rel=1e-4)
    assert torch.allclose(output.embeddings, a, atol=1e-6)


def test_further_views_are_twins_of_the_first_two():
    barlow, three = method(), views(3)
    twins = [barlow([three[i], three[j]]).loss.item() for i, j in ((0, 1), (2, 0), (2, 1))]
    assert barlow(three).loss.item() == pytest.approx(sum(twins) / 3, rel=1e-5)


def test_bfloat16_autocast_does_not_round_the_correlation():
    a, b = pair(32, 10)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = ours(a, b)
    assert lowered == ours(a, b)


def test_projector_is_the_papers():
    layers = [*BarlowConfig(projector_width=64, projector_dim=128).build(nn.Flatten(), 12).projector]
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [layer.weight.shape for layer in layers if isinstance(layer, nn.Linear)] == [(64, 12), (64, 64), (128, 64)]
    assert not any(layer.bias is not None for layer in layers if isinstance(layer, nn.Linear))
    assert BarlowConfig(projector_width=64, projector_dim=128).heads == "projector 64 → 64 → 128"


@pytest.mark.parametrize(
    "bad",
    [
        *({"projector_layers": 0}, {"projector_width": 1}, {"projector_dim": 1}),
        *({"redundancy_weight": -1.0}, {"redundancy_weight": math.nan}, {"loss_scale": 0.0}),
    ],
)
def test_impossible_settings_are_refused(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} must be .*, not {value}"):
        BarlowConfig(**bad)
