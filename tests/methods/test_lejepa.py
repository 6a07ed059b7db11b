import cmath
import copy
import math

import numpy as np
import pytest
import torch
from lightly.loss import LeJEPALoss
from torch import nn

from diptych.errors import ConfigError
from diptych.methods.lejepa import LeJEPAConfig, epps_pulley, prediction, sigreg, slices


def paper_epps_pulley(samples):
    """Algorithm 1 for one direction, sample by sample, over -3..3 by the trapezoidal rule at our knots."""
    knots = [i * 3 / 16 for i in range(-16, 17)]
    total = 0.0
    for k, t in enumerate(knots):
        ecf = sum(cmath.exp(1j * t * x) for x in samples) / len(samples)
        gaussian = math.exp(-0.5 * t * t)
        end = k in (0, len(knots) - 1)
        total += abs(ecf - gaussian) ** 2 * gaussian * (0.5 if end else 1.0) * 3 / 16
    return total * len(samples)


def whole_line(samples):
    """The same integral over all t, in closed form."""
    pairs = sum(math.sqrt(2 * math.pi) * math.exp(-((x - y) ** 2) / 2) for x in samples for y in samples)
    single = sum(math.sqrt(math.pi) * math.exp(-x * x / 4) for x in samples)
    return pairs / len(samples) - 2 * single + len(samples) * math.sqrt(2 * math.pi / 3)


def method(**settings):
    torch.manual_seed(0)
    return LeJEPAConfig(projector_width=9, projector_dim=5, slices=16, **settings).build(nn.Flatten(), 12)


def views(count, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(7, 3, 2, 2, generator=generator) for _ in range(count)]


def gaussian(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def test_epps_pulley_is_the_papers():
    samples = 0.5 + 2 * gaussian(9, 3)
    expected = [paper_epps_pulley(column) for column in samples.T.tolist()]
    assert epps_pulley(samples).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("x", [0.0, 0.5, -2.0, 6.0])
def test_one_point_is_the_exact_integral(x):
    t = np.linspace(-3, 3, 100_001)
    integrand = np.abs(np.exp(1j * t * x) - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
    found = epps_pulley(torch.tensor([[x]])).item()
    assert found == pytest.approx(np.trapezoid(integrand, t), abs=2e-3)
    assert found == pytest.approx(whole_line([x]), abs=0.03)  # at most 4 × the weight beyond 3


def test_a_sample_is_the_closed_form():
    samples = 0.5 + 2 * gaussian(40, 1)
    assert epps_pulley(samples).item() == pytest.approx(whole_line(samples[:, 0].tolist()), rel=2e-3)


def test_a_gaussian_scores_the_same_whatever_its_size_and_everything_else_grows():
    directions = slices(0, 8, 64)
    # expectation of N ∫ |φ̂ - φ|² φ dt = ∫ (1 - φ²) φ dt over the line
    expected = math.sqrt(2 * math.pi) - math.sqrt(2 * math.pi / 3)
    for size in (50, 400):
        samples = gaussian(100, size, 8)
        scores = [sigreg(sample, directions).item() for sample in samples]
        assert sum(scores) / len(scores) == pytest.approx(expected, rel=0.08)
        constant = size * (math.sqrt(2 * math.pi) + math.sqrt(2 * math.pi / 3) - 2 * math.sqrt(math.pi))
        assert sigreg(torch.zeros(size, 8), directions).item() == pytest.approx(constant, rel=0.02)
        assert sigreg(2 * samples[0], directions).item() > 0.05 * size
        flat = samples[0] * torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])
        assert sigreg(flat, directions).item() > 0.005 * size


def test_directions_are_of_length_one_and_a_function_of_the_step():
    first = slices(0, 6, 500)
    assert torch.allclose(first.norm(dim=0), torch.ones(500))
    assert first.mean(dim=1).abs().max() < 0.1
    assert torch.equal(first, slices(0, 6, 500))
    assert not torch.isclose(first, slices(1, 6, 500)).any(dim=0).all()


def test_each_step_draws_new_directions_and_a_resumed_one_the_same():
    lejepa, two = method(), views(2)
    first = lejepa(two).metrics["sigreg"].item()
    assert lejepa(two).metrics["sigreg"].item() == first
    saved = copy.deepcopy(lejepa.state_dict())
    lejepa.after_step(0.5)
    second = lejepa(two).metrics["sigreg"].item()
    assert second != first
    lejepa.load_state_dict(saved)
    assert lejepa(two).metrics["sigreg"].item() == first


def test_prediction_closed_form():
    z = torch.tensor([[[1.0, 0.0]], [[3.0, 0.0]], [[2.0, 6.0]]])  # two full-size views of mean (2, 0), a small one
    assert prediction(z, 2).item() == pytest.approx((1 + 1 + 36) / 6)
    assert prediction(z, 3).item() == pytest.approx((2 + 4 + 4 + 16) / 6)


def test_loss_is_the_papers_algorithm_2():
    lejepa, two = method(sigreg_weight=0.3), views(2)
    small = [torch.randn(7, 12, 1, 1, generator=torch.Generator().manual_seed(6)) for _ in range(2)]
    output = lejepa([*two, *small])
    z = [lejepa.projector(view.flatten(1)) for view in (*two, *small)]
    centre = (z[0] + z[1]) / 2
    predicted = sum(((one - centre) ** 2).mean().item() for one in z) / 4
    directions = slices(0, 5, 16)
    scores = [paper_epps_pulley(column) for one in z for column in (one @ directions).T.tolist()]
    assert output.metrics["prediction"].item() == pytest.approx(predicted, rel=1e-4)
    assert output.metrics["sigreg"].item() == pytest.approx(sum(scores) / len(scores), rel=1e-4)
    assert output.loss.item() == pytest.approx(0.7 * predicted + 0.3 * sum(scores) / len(scores), rel=1e-4)
    assert torch.allclose(output.embeddings, z[0], atol=1e-6)


def test_loss_is_lightlys_with_the_same_directions(monkeypatch):
    lejepa, two = method(), views(2)
    reference = LeJEPALoss(0.05, sigreg_num_vectors=16)
    monkeypatch.setattr(reference.sigreg, "_generate_unit_vectors", lambda *_: slices(0, 5, 16))
    small = [torch.randn(7, 12, 1, 1, generator=torch.Generator().manual_seed(6))]
    z = torch.stack([lejepa.projector(view.flatten(1)) for view in (*two, *small)])
    expected = reference(global_proj=z[:2], local_proj=z[2:]).item()
    assert lejepa([*two, *small]).loss.item() == pytest.approx(expected, rel=1e-5)


def test_bfloat16_autocast_does_not_round_the_statistic():
    z, directions = gaussian(20, 6), slices(0, 6, 16)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = sigreg(z, directions)
    assert torch.equal(lowered, sigreg(z, directions))


def test_projector_is_the_authors():
    layers = [*LeJEPAConfig().build(nn.Flatten(), 12).projector]
    kinds = [type(layer).__name__ for layer in layers]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    weights = [layer.weight.shape for layer in layers if isinstance(layer, nn.Linear)]
    assert weights == [(2048, 12), (2048, 2048), (128, 2048)]
    assert layers[-1].bias is not None  # the mean of the embeddings matters here


@pytest.mark.parametrize(
    "bad",
    [
        *({"projector_layers": 0}, {"projector_width": 1}, {"projector_dim": 1}, {"slices": 0}),
        *({"sigreg_weight": -0.1}, {"sigreg_weight": 1.5}, {"sigreg_weight": math.nan}),
    ],
)
def test_impossible_settings_are_refused(bad):
    (name, value), *_ = bad.items()
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} must be .*, not {value}"):
        LeJEPAConfig(**bad)
