import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.methods.simclr import SimCLRConfig, nt_xent

lightly_loss = pytest.importorskip("lightly.loss")


def unit(*shape, seed=0):
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def paper_nt_xent(first, second, temperature):
    """Equation 1 and the mean of algorithm 1, one embedding at a time; views of picture k lie at 2k and 2k + 1."""

    def similarity(u, v):
        return sum(a * b for a, b in zip(u, v, strict=True)) / math.hypot(*u) / math.hypot(*v)

    z = [row for pair in zip(first.tolist(), second.tolist(), strict=True) for row in pair]

    def term(i, j):
        rest = sum(math.exp(similarity(z[i], z[k]) / temperature) for k in range(len(z)) if k != i)
        return -math.log(math.exp(similarity(z[i], z[j]) / temperature) / rest)

    pairs = range(0, len(z), 2)
    return sum(term(k, k + 1) + term(k + 1, k) for k in pairs) / len(z)


def both_ways(a, b, temperature):
    return (nt_xent(a, a, b, temperature) + nt_xent(b, b, a, temperature)) / 2


@pytest.mark.parametrize("temperature", [0.05, 0.1, 0.5])
def test_loss_is_the_papers_formula_and_lightlys(temperature):
    a, b = unit(7, 5), unit(7, 5, seed=1)
    ours = float(both_ways(a, b, temperature))
    assert ours == pytest.approx(paper_nt_xent(a, b, temperature), rel=1e-5)
    assert ours == pytest.approx(float(lightly_loss.NTXentLoss(temperature)(a, b)), rel=1e-5)


def test_closed_forms():
    n, temperature = 4, 0.5
    axes = torch.eye(2 * n)
    # both views alike, all pictures orthogonal
    assert float(both_ways(axes[:n], axes[:n], temperature)) == pytest.approx(
        math.log(1 + (2 * n - 2) * math.exp(-1 / temperature))
    )
    # everything orthogonal, or everything the same: chance
    assert float(both_ways(axes[:n], axes[n:], temperature)) == pytest.approx(math.log(2 * n - 1))
    same = unit(1, 3).expand(n, 3)
    assert float(both_ways(same, same, 0.05)) == pytest.approx(math.log(2 * n - 1))


def test_shares_of_a_batch_make_the_whole():
    """What each process computes of its own rows, against the rows of all."""
    a, b = unit(6, 5), unit(6, 5, seed=1)
    shares = [nt_xent(a[start : start + 2], a, b, 0.1, start) for start in (0, 2, 4)]
    assert float(sum(shares) / 3) == pytest.approx(float(nt_xent(a, a, b, 0.1)), rel=1e-6)


def test_a_low_temperature_is_exact_under_autocast():
    a, b = unit(9, 32).requires_grad_(), unit(9, 32, seed=1)
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(a, a, b, 0.05)
    loss.backward()
    assert loss.dtype == torch.float32
    exact = nt_xent(a.double(), a.double(), b.double(), 0.05)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    assert a.grad.isfinite().all() and a.grad.abs().sum() > 0


def method(**settings):
    torch.manual_seed(0)
    return SimCLRConfig(projector_width=12, projector_dim=5, **settings).build(nn.Flatten(), 12)


def some_views(count):
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(6, 3, 2, 2, generator=generator) for _ in range(count)]


def test_two_views_are_compared_both_ways():
    simclr, views = method(temperature=0.5), some_views(2)
    output = simclr(views)
    a, b = (simclr.projector(view.flatten(1)) for view in views)
    assert output.loss.item() == pytest.approx(paper_nt_xent(a, b, 0.5), rel=1e-5)
    assert torch.equal(output.embeddings, a)


def test_further_views_are_paired_with_each_of_the_first_two():
    simclr, views = method(), some_views(4)
    z = [simclr.projector(view.flatten(1)) for view in views]
    pairs = [(0, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
    expected = sum(paper_nt_xent(z[i], z[j], 0.1) for i, j in pairs) / len(pairs)
    assert simclr(views).loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_head_is_the_authors():
    head = SimCLRConfig().build(nn.Flatten(), 256).projector
    assert [type(layer).__name__ for layer in head] == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]
    assert [m.weight.shape for m in head if isinstance(m, nn.Linear)] == [(2048, 256), (128, 2048)]
    assert not any(m.bias is not None for m in head if isinstance(m, nn.Linear))
    scale, shift = head[-1].weight, head[-1].bias
    assert scale.requires_grad and not shift.requires_grad and not shift.any()


@pytest.mark.parametrize(
    "bad", [{"temperature": 0.0}, {"temperature": float("nan")}, {"projector_width": 1}, {"projector_dim": 0}]
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match="--" + next(iter(bad)).replace("_", "-")):
        SimCLRConfig(**bad)
