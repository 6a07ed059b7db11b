import math
import operator

import pytest
import torch
from lightly.loss import SwaVLoss
from lightly.loss.swav_loss import sinkhorn as lightly_sinkhorn
from torch import nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.methods.swav import SwAVConfig, sinkhorn, swapped_prediction
from diptych.optim.build import build_optimizer, set_rates
from diptych.optim.config import OptimConfig


def paper_sinkhorn(scores, epsilon, iterations):
    """Section 3.1 on lists of Python's floats: rows and columns get their shares of 1 in turn. (B, K) both ways."""
    pictures, prototypes = len(scores), len(scores[0])
    q = [[math.exp(score / epsilon) for score in row] for row in scores]
    for _ in range(iterations):
        for k in range(prototypes):
            total = sum(q[b][k] for b in range(pictures))
            for b in range(pictures):
                q[b][k] /= total * prototypes
        for b in range(pictures):
            total = sum(q[b])
            q[b] = [value / total / pictures for value in q[b]]
    return [[value * pictures for value in row] for row in q]


def paper_loss(scores, codes, temperature):
    """Equation 2, one picture at a time, as a mean over the batch."""
    total = 0.0
    for row, code in zip(scores, codes, strict=True):
        exponentials = [math.exp(score / temperature) for score in row]
        total -= sum(q * math.log(e / sum(exponentials)) for q, e in zip(code, exponentials, strict=True))
    return total / len(scores)


def cosines(embeddings, prototypes):
    return [
        [sum(map(operator.mul, z, c)) / math.hypot(*z) / math.hypot(*c) for c in prototypes.tolist()]
        for z in embeddings.tolist()
    ]


def scores(batch=10, prototypes=6, seed=0):
    return torch.rand(batch, prototypes, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def method(**settings):
    torch.manual_seed(0)
    settings = {"projector_width": 10, "projector_dim": 4, "prototypes": 6} | settings
    return SwAVConfig(**settings).build(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), 12)


def views(count=2, small=0, batch=5, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 3, size, size, generator=generator) for size in [4] * count + [2] * small]


# Sinkhorn


@pytest.mark.parametrize(("batch", "prototypes", "iterations"), [(10, 6, 3), (3, 8, 1), (4, 4, 20)])
def test_sinkhorn_is_the_papers(batch, prototypes, iterations):
    s = scores(batch, prototypes)
    expected = torch.tensor(paper_sinkhorn(s.tolist(), 0.05, iterations))
    assert torch.allclose(sinkhorn(s, 0.05, iterations), expected, atol=1e-5)


def test_sinkhorn_is_lightlys():
    s = scores(16, 9)
    assert torch.allclose(sinkhorn(s, 0.05, 3), lightly_sinkhorn(s.clone(), 3, 0.05), atol=1e-5)


def test_codes_share_the_batch_evenly():
    codes = sinkhorn(scores(12, 5), 0.05, 500)
    assert torch.allclose(codes.sum(1), torch.ones(12), atol=1e-5)
    assert torch.allclose(codes.sum(0), torch.full((5,), 12 / 5), atol=1e-3)
    assert codes.min() >= 0
    plain = (scores(12, 5) / 0.05).softmax(1)  # without equal shares, some get more
    assert (plain.sum(0) - 12 / 5).abs().max() > 0.5


def test_codes_of_two_pictures_and_two_prototypes():
    """What scaling of rows and columns can make of [[a, b], [c, d]] keeps ad / bc: q₁₁ = √(ad) / (√(ad) + √(bc))."""
    s = torch.tensor([[0.9, 0.5], [0.6, 0.3]])
    ratio = math.exp((0.9 + 0.3 - 0.5 - 0.6) / 0.05 / 2)
    q = ratio / (1 + ratio)
    assert torch.allclose(sinkhorn(s, 0.05, 200), torch.tensor([[q, 1 - q], [1 - q, q]]), atol=1e-5)
    # both like the first one best; sharply, only the one that likes it more by more gets it
    assert torch.allclose(sinkhorn(s, 0.001, 200), torch.eye(2), atol=1e-2)


def test_codes_of_one_hot_scores():
    """Each picture on a prototype of its own is in equal shares already: codes are the softmax."""
    q = math.exp(1 / 0.5) / (math.exp(1 / 0.5) + 3)
    codes = sinkhorn(torch.eye(4), 0.5, 3)
    assert torch.allclose(codes.diag(), torch.full((4,), q))
    assert torch.allclose(codes.sum(1) - codes.diag(), torch.full((4,), 1 - q))


def test_equal_pictures_are_assigned_to_all_alike():
    assert torch.allclose(sinkhorn(scores(1, 6).expand(7, 6), 0.05, 3), torch.full((7, 6), 1 / 6))


@pytest.mark.parametrize("lowered", [False, True])
def test_sinkhorn_neither_overflows_nor_underflows(lowered):
    s = scores(8, 5)
    s[:, 0], s[:, 1], s[0] = -1.0, 1.0, -1.0  # exp(±100): a prototype that none likes, one that all do
    with torch.autocast("cpu", torch.bfloat16, enabled=lowered):
        codes = sinkhorn(s, 0.01, 3)
        loss = swapped_prediction(s, codes, 0.01)
    expected = torch.tensor(paper_sinkhorn(s.tolist(), 0.01, 3))
    assert codes.dtype == loss.dtype == torch.float32
    assert torch.allclose(codes, expected, atol=1e-4)
    assert loss.item() == pytest.approx(paper_loss(s.tolist(), expected.tolist(), 0.01), rel=1e-4)
    assert not lightly_sinkhorn(s.clone(), 3, 0.01).isfinite().all()  # what this would be without logarithms


# The loss


def test_swapped_prediction_is_equation_2():
    s, codes = scores(seed=1), sinkhorn(scores(seed=2), 0.05, 3)
    expected = paper_loss(s.tolist(), codes.tolist(), 0.1)
    assert swapped_prediction(s, codes, 0.1).item() == pytest.approx(expected, rel=1e-5)


def test_bfloat16_scores_are_lifted():
    s = scores().bfloat16()
    codes = sinkhorn(s, 0.05, 3)
    assert codes.dtype == swapped_prediction(s, codes, 0.1).dtype == torch.float32
    assert torch.equal(codes, sinkhorn(s.float(), 0.05, 3))
    assert torch.equal(swapped_prediction(s, codes, 0.1), swapped_prediction(s.float(), codes, 0.1))


def test_swapped_prediction_closed_form():
    """A one-hot code, predicted with a score of 1 against 0 for each other: log(1 + (K - 1) e^(-1/τ))."""
    expected = math.log(1 + 2 * math.exp(-1 / 0.5))
    assert swapped_prediction(torch.eye(3), torch.eye(3), 0.5).item() == pytest.approx(expected)
    assert swapped_prediction(torch.zeros(4, 3), torch.eye(3)[[0, 1, 2, 0]], 0.1).item() == pytest.approx(math.log(3))


def test_loss_of_two_views_is_the_papers():
    swav, two = method(), views()
    z = [swav.projector(swav.backbone(view)) for view in two]
    s = [cosines(embeddings, swav.prototypes.weight) for embeddings in z]
    codes = [paper_sinkhorn(view, 0.05, 3) for view in s]
    expected = (paper_loss(s[0], codes[1], 0.1) + paper_loss(s[1], codes[0], 0.1)) / 2
    output = swav(two)
    assert output.loss.item() == pytest.approx(expected, rel=1e-4)
    assert torch.equal(output.embeddings, z[0])
    entropy = -sum(q * math.log(q) for view in codes for row in view for q in row if q > 0) / 10
    assert output.metrics["code_entropy"].item() == pytest.approx(entropy, rel=1e-4)


@pytest.mark.parametrize(("count", "small", "terms"), [(2, 0, 2), (2, 3, 8), (4, 0, 6), (3, 2, 8)])
def test_every_other_view_predicts_the_codes_of_the_first_two(count, small, terms):
    swav, all_views = method(), views(count, small)
    s = [swav.prototypes(swav.projector(swav.backbone(view))) for view in all_views]
    codes = [sinkhorn(view, 0.05, 3) for view in s[:2]]
    expected = [swapped_prediction(s[i], codes[j], 0.1) for i in range(count + small) for j in range(2) if i != j]
    assert len(expected) == terms
    assert swav(all_views).loss.item() == pytest.approx(sum(expected).item() / terms, rel=1e-5)


@pytest.mark.parametrize("queued", [False, True])
def test_loss_is_lightlys(queued):
    swav, all_views = method(queue_size=7 if queued else 0), views(2, 3)
    s = [swav.prototypes(swav.projector(swav.backbone(view))) for view in all_views]
    earlier = None
    if queued:
        swav.queue.copy_(functional.normalize(torch.randn(2, 7, 4), dim=2))
        earlier = [swav.prototypes(view) for view in swav.queue]
    expected = SwaVLoss()(s[:2], s[2:], earlier)
    assert swav(all_views).loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_codes_are_constants():
    swav, two = method(), views()

    def gradient(loss):
        swav.zero_grad()
        loss.backward()
        return [parameter.grad.clone() for parameter in swav.parameters()]

    s = [swav.prototypes(swav.projector(swav.backbone(view))) for view in two]
    codes = [sinkhorn(view.detach().clone(), 0.05, 3) for view in s]
    expected = gradient((swapped_prediction(s[0], codes[1], 0.1) + swapped_prediction(s[1], codes[0], 0.1)) / 2)
    ours = gradient(swav(two).loss)
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, expected, strict=True))


def test_small_temperatures_are_exact_under_autocast():
    """The projector runs in bfloat16, and from there on everything in float32."""
    swav, two = method(sinkhorn_epsilon=0.01, temperature=0.01), views()
    with torch.autocast("cpu", torch.bfloat16):
        z = [swav.projector(swav.backbone(view)) for view in two]
        output = swav(two)
    assert z[0].dtype == torch.bfloat16
    s = [cosines(embeddings, swav.prototypes.weight) for embeddings in z]
    codes = [paper_sinkhorn(view, 0.01, 3) for view in s]
    expected = (paper_loss(s[0], codes[1], 0.01) + paper_loss(s[1], codes[0], 0.01)) / 2
    assert output.loss.item() == pytest.approx(expected, rel=1e-3)


# The queue


def embeddings(swav, view):
    return functional.normalize(swav.projector(swav.backbone(view)).detach(), dim=1)


def test_the_newest_embeddings_stand_first_and_the_oldest_fall_off():
    swav = method(queue_size=12, queue_from=0.0)
    kept = []
    for step in range(4):
        two = views(seed=step)
        swav(two)
        swav.after_step((step + 1) / 10)
        kept.insert(0, [embeddings(swav, view) for view in two])
        expected = torch.stack([torch.cat([rows[view] for rows in kept])[:12] for view in range(2)])
        assert torch.allclose(swav.queue[:, : 5 * len(kept)], expected, atol=1e-6)
        assert not swav.queue[:, 5 * len(kept) :].any()


def test_a_batch_larger_than_the_queue_fills_it_with_its_first_rows():
    swav, two = method(queue_size=3, queue_from=0.0), views()
    swav(two)
    swav.after_step(0.1)
    assert torch.allclose(swav.queue, torch.stack([embeddings(swav, view)[:3] for view in two]), atol=1e-6)


def test_the_queue_fills_only_once_its_time_has_come():
    swav = method(queue_size=5, queue_from=0.5)
    for step in range(6):
        swav(views())
        swav.after_step((step + 1) / 10)
        assert bool(swav.queue.any()) == (step >= 5)  # half of ten steps are done before it


def test_the_queue_counts_only_once_full():
    """Steps 0 and 1 assign their own pictures alone; from step 2 on, along with what is in the queue."""
    swav, plain = method(queue_size=10, queue_from=0.0), method()
    plain.load_state_dict({key: value for key, value in swav.state_dict().items() if key != "queue"})
    for step in range(4):
        two = views(seed=step)
        queue = swav.queue.clone()
        ours, alone = swav(two).loss.item(), plain(two).loss.item()
        if step < 2:
            assert ours == alone
        else:
            z = [swav.projector(swav.backbone(view)) for view in two]
            s = [cosines(rows, swav.prototypes.weight) for rows in z]
            earlier = [cosines(rows, swav.prototypes.weight) for rows in queue]
            codes = [paper_sinkhorn(a + b, 0.05, 3)[:5] for a, b in zip(s, earlier, strict=True)]
            expected = (paper_loss(s[0], codes[1], 0.1) + paper_loss(s[1], codes[0], 0.1)) / 2
            assert ours == pytest.approx(expected, rel=1e-4)
            assert ours != pytest.approx(alone, rel=1e-4)
        swav.after_step((step + 1) / 10)


def test_a_loss_leaves_the_queue_as_it_is():
    swav = method(queue_size=5, queue_from=0.0)
    swav(views())
    assert not swav.queue.any()


# What is optimised, and settings


def test_the_prototypes_stand_still_at_first():
    swav, config = method(prototypes_frozen=0.2), OptimConfig()
    optimizer = build_optimizer(swav.parameter_groups(), config)
    moved = []
    for step in range(4):
        before = [swav.prototypes.weight.detach().clone(), swav.projector[0].weight.detach().clone()]
        swav(views(seed=step)).loss.backward()
        set_rates(optimizer, config, 0.1, 0.1, step / 10)
        optimizer.step()
        now = [swav.prototypes.weight, swav.projector[0].weight]
        moved.append([not torch.equal(a, b) for a, b in zip(before, now, strict=True)])
    assert moved == [[False, True], [False, True], [True, True], [True, True]]


def test_heads_are_the_papers():
    config = SwAVConfig()
    swav = config.build(nn.Flatten(), 2048)
    assert [type(layer).__name__ for layer in swav.projector] == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [m.weight.shape for m in swav.projector if isinstance(m, nn.Linear)] == [(2048, 2048), (128, 2048)]
    assert swav.prototypes.weight.shape == (3000, 128)
    assert "queue" not in swav.state_dict()
    assert config.heads == "projector 2048 → 128, 3000 prototypes"
    assert (config.temperature, config.sinkhorn_epsilon, config.sinkhorn_iterations) == (0.1, 0.05, 3)


@pytest.mark.parametrize(
    "bad",
    [
        {"projector_width": 1},
        {"projector_dim": 0},
        {"prototypes": 1},
        {"temperature": 0.0},
        {"sinkhorn_epsilon": -0.05},
        {"sinkhorn_epsilon": math.nan},
        {"sinkhorn_iterations": 0},
        {"prototypes_frozen": 1.5},
        {"queue_size": -1},
        {"queue_from": -0.1},
    ],
)
def test_impossible_settings_are_refused(bad):
    ((option, value),) = bad.items()
    with pytest.raises(ConfigError, match=f"^--{option.replace('_', '-')} must be .*, not {value}$"):
        SwAVConfig(**bad)
