import math

import pytest
import torch
from torch import nn

from diptych.errors import ConfigError
from diptych.methods.losses import negative_cosine
from diptych.methods.simsiam import SimSiamConfig


def paper_d(p, z):
    """Equation 1, one picture at a time."""
    total = 0.0
    for p_row, z_row in zip(p.tolist(), z.tolist(), strict=True):
        dot = sum(a * b for a, b in zip(p_row, z_row, strict=True))
        total -= dot / math.hypot(*p_row) / math.hypot(*z_row)
    return total / len(p)


def method(**settings):
    torch.manual_seed(0)
    return SimSiamConfig(projector_width=12, predictor_width=5, **settings).build(nn.Flatten(), 12)


def two_views():
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(6, 3, 2, 2, generator=generator) for _ in range(2)]


def test_negative_cosine_is_the_papers_formula():
    p, z = torch.randn(9, 5), torch.randn(9, 5)
    assert float(negative_cosine(p, z)) == pytest.approx(paper_d(p, z), abs=1e-6)


def test_negative_cosine_closed_form():
    p = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]])
    z = torch.tensor([[3.0, 0.0], [0.0, -1.0], [1.0, 0.0]])
    assert float(negative_cosine(p, z)) == pytest.approx(-(1 - 1 + math.sqrt(0.5)) / 3)


def test_loss_is_equation_4_with_stop_gradient():
    simsiam, (v1, v2) = method(), two_views()
    output = simsiam([v1, v2])
    z1, z2 = simsiam.projector(v1.flatten(1)), simsiam.projector(v2.flatten(1))
    p1, p2 = simsiam.predictor(z1), simsiam.predictor(z2)
    assert output.loss.item() == pytest.approx(paper_d(p1, z2) / 2 + paper_d(p2, z1) / 2, abs=1e-5)
    assert torch.allclose(output.embeddings, z1, atol=1e-6)

    # Gradients with targets that are constants of another graph: the same. Without stop-gradient: others.
    def gradient(t1, t2):
        simsiam.zero_grad()
        z1, z2 = simsiam.projector(v1.flatten(1)), simsiam.projector(v2.flatten(1))
        p1, p2 = simsiam.predictor(z1), simsiam.predictor(z2)
        t1, t2 = (z1, z2) if t1 is None else (t1, t2)
        (negative_cosine(p1, t2) / 2 + negative_cosine(p2, t1) / 2).backward()
        return simsiam.projector[0].weight.grad.clone()

    simsiam.zero_grad()
    simsiam([v1, v2]).loss.backward()
    ours = simsiam.projector[0].weight.grad.clone()
    assert torch.allclose(ours, gradient(z1.detach().clone(), z2.detach().clone()), atol=1e-6)
    assert not torch.allclose(ours, gradient(None, None), atol=1e-4)


def kinds(module):
    return [type(layer).__name__ for layer in module]


def test_heads_are_the_papers():
    simsiam = SimSiamConfig().build(nn.Flatten(), 256)
    layer = ["Linear", "BatchNorm1d", "ReLU"]
    assert kinds(simsiam.projector) == [*layer, *layer, "Linear", "BatchNorm1d"]
    assert kinds(simsiam.predictor) == [*layer, "Linear"]
    assert [m.weight.shape for m in simsiam.predictor if isinstance(m, nn.Linear)] == [(512, 2048), (2048, 512)]
    assert not simsiam.projector[-1].affine and simsiam.projector[1].affine
    assert SimSiamConfig().heads == "projector 2048 → 2048 → 2048, predictor 512 → 2048"


def test_the_examples_predictor_order():
    simsiam = method(predictor_order="relu-norm", projector_layers=2)
    assert kinds(simsiam.predictor) == ["Linear", "ReLU", "BatchNorm1d", "Linear"]
    assert kinds(simsiam.projector) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d"]


def test_constant_predictor_rate_marks_the_predictor_alone():
    encoder, predictor = method(predictor_constant_lr=True).parameter_groups()
    assert predictor.constant_lr and not encoder.constant_lr
    assert len(predictor.parameters) == 5
    assert not any(group.constant_lr for group in method(predictor_constant_lr=False).parameter_groups())


@pytest.mark.parametrize("bad", [{"projector_layers": 0}, {"projector_width": 1}, {"predictor_width": 0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match="--" + next(iter(bad)).replace("_", "-")):
        SimSiamConfig(**bad)
