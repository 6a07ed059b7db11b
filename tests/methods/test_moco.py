import copy
import json
import math
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from diptych.errors import ConfigError
from diptych.methods.moco import MoCoConfig, enqueue, info_nce

lightly_loss = pytest.importorskip("lightly.loss")


def unit(*shape, seed=0):
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


# The loss


def paper_info_nce(queries, keys, negatives, temperature):
    """Equation 1 of arXiv 1911.05722, one query at a time."""

    def dot(u, v):
        return sum(a * b for a, b in zip(u, v, strict=True))

    total = 0.0
    for q, k in zip(queries.tolist(), keys.tolist(), strict=True):
        candidates = [k, *negatives.tolist()]
        total -= math.log(
            math.exp(dot(q, k) / temperature) / sum(math.exp(dot(q, c) / temperature) for c in candidates)
        )
    return total / len(queries)


@pytest.mark.parametrize("temperature", [0.05, 0.2])
def test_loss_is_the_papers_formula_and_lightlys(temperature):
    queries, keys, negatives = unit(6, 5), unit(6, 5, seed=1), unit(11, 5, seed=2)
    ours = float(info_nce(queries, keys, negatives, temperature))
    assert ours == pytest.approx(paper_info_nce(queries, keys, negatives, temperature), rel=1e-5)
    theirs = lightly_loss.NTXentLoss(temperature, memory_bank_size=(11, 5))
    theirs.memory_bank.bank = negatives
    assert ours == pytest.approx(float(theirs(queries, keys)), rel=1e-5)


def test_closed_forms():
    axes = torch.eye(8)
    queries, negatives = axes[:2], axes[2:]
    assert float(info_nce(queries, queries, negatives, 0.5)) == pytest.approx(math.log(1 + 6 * math.exp(-2)))
    assert float(info_nce(queries, axes[[1, 0]], negatives, 0.5)) == pytest.approx(math.log(7))  # all orthogonal
    assert float(info_nce(queries, queries, queries[:0], 0.5)) == 0  # an empty queue: nothing to tell apart


def test_a_low_temperature_is_exact_under_autocast():
    queries, keys, negatives = unit(9, 32).requires_grad_(), unit(9, 32, seed=1), unit(40, 32, seed=2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce(queries, keys, negatives, 0.05)
    loss.backward()
    assert loss.dtype == torch.float32
    exact = info_nce(queries.double(), keys.double(), negatives.double(), 0.05)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)
    assert queries.grad.isfinite().all() and queries.grad.abs().sum() > 0


# The queue


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 7, 12])
def test_the_queue_holds_the_latest_keys_and_only_the_oldest_go(batch):
    """Batches that divide its size, that do not, and that are larger than it."""
    size, seen, queue = 5, torch.tensor(0), torch.full((5, 1), -1.0)
    told = []
    for _ in range(6):
        keys = torch.arange(len(told), len(told) + batch).float()[:, None]
        enqueue(queue, keys, seen)
        seen += batch
        told += keys[:, 0].tolist()
        empty = [-1.0] * (size - len(told))
        assert sorted(queue[:, 0].tolist()) == empty + told[-size:]
        assert all(queue[int(key) % size, 0] == key for key in told[-size:])


def method(**settings):
    torch.manual_seed(0)
    return MoCoConfig(projector_width=12, projector_dim=5, **settings).build(nn.Flatten(), 12)


def some_views(count, seed=3, batch=4):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 3, 2, 2, generator=generator) for _ in range(count)]


def test_only_rows_that_are_filled_are_negatives():
    moco = method(queue_size=10, ema_momentum=0.0)
    told = []
    for step, filled in enumerate((0, 4, 8, 10, 10)):
        first, second = some_views(2, seed=step)
        q, k = (functional.normalize(moco.projector(view.flatten(1)), dim=1).detach() for view in (first, second))
        output = moco([first, second])
        expected = paper_info_nce(q, k, torch.cat(told)[-10:] if told else q[:0], 0.2)
        assert output.loss.item() == pytest.approx(expected, abs=1e-5)
        assert float(output.metrics["queue_filled"]) == pytest.approx(filled / 10)
        assert moco.keys_seen == 4 * step  # unmoved before the step
        moco.after_step(0.5)
        told.append(k)


# The encoders


def test_the_second_view_gives_keys_and_all_others_are_queries():
    moco = method(queue_size=6)
    moco(some_views(2, seed=9))
    moco.after_step(0.5)
    views = some_views(4)
    z = [functional.normalize(moco.projector(view.flatten(1)), dim=1) for view in views]
    output = moco(views)
    expected = sum(paper_info_nce(z[i], z[1], moco.queue[:4], 0.2) for i in (0, 2, 3)) / 3
    assert output.loss.item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(output.embeddings, moco.projector(views[0].flatten(1)))
    assert not moco.left[-1].requires_grad


def test_a_step_in_portions_fills_the_queue_as_the_whole_one_does():
    whole, portions = method(queue_size=6), method(queue_size=6)
    views = some_views(2)
    whole(views)
    for number in range(2):
        portions([view.chunk(2)[number] for view in views])
    for moco in (whole, portions):
        moco.after_step(0.5)
    assert whole.keys_seen == portions.keys_seen == len(views[0]) and not portions.left
    assert torch.allclose(whole.queue, portions.queue, atol=1e-6)


def test_the_key_encoder_follows_by_the_papers_equation():
    """Equation 2 of arXiv 1911.05722, at any part of the run: θ_k after t steps towards a constant θ_q."""
    moco = method(ema_momentum=0.9)
    begun = copy.deepcopy(moco.projector)
    with torch.no_grad():
        for parameter in moco.projector.parameters():
            parameter += 1
    for progress in (0.1, 0.5, 1.0):
        moco.after_step(progress)
    pairs = zip(moco.momentum_encoder.parameters(), begun.parameters(), strict=True)
    assert all(torch.allclose(ours, old + 1 - 0.9**3, atol=1e-6) for ours, old in pairs)


def test_gradients_pass_by_keys_and_queue():
    moco = method(queue_size=6)
    moco(some_views(2, seed=9))
    moco.after_step(0.5)
    first, second = some_views(2)
    moco([first, second]).loss.backward()
    ours = moco.projector[0].weight.grad.clone()
    constants = moco.left[-1].clone(), moco.queue[:4].clone()
    moco.zero_grad()
    info_nce(functional.normalize(moco.projector(first.flatten(1)), dim=1), *constants, 0.2).backward()
    assert torch.allclose(ours, moco.projector[0].weight.grad, atol=1e-7) and ours.any()
    assert all(parameter.grad is None for parameter in moco.momentum_encoder.parameters())


def test_the_head_is_the_papers():
    moco = MoCoConfig().build(nn.Flatten(), 256)
    assert [type(layer).__name__ for layer in moco.projector] == ["Linear", "ReLU", "Linear"]
    assert [m.weight.shape for m in moco.projector if isinstance(m, nn.Linear)] == [(2048, 256), (128, 2048)]
    assert moco.queue.shape == (65536, 128)
    assert MoCoConfig().heads == "projector 2048 → 128, queue of 65536"


@pytest.mark.parametrize(
    "bad",
    [
        *({"temperature": 0.0}, {"temperature": float("nan")}, {"ema_momentum": 1.0}, {"ema_momentum": -0.1}),
        *({"queue_size": 0}, {"projector_width": 1}, {"projector_dim": 0}),
    ],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match="--" + next(iter(bad)).replace("_", "-")):
        MoCoConfig(**bad)


# Together

PARTS = """
import torch
from torch import nn
from diptych.methods.moco import MoCoConfig

def build(norm):
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(6)] if norm else []
    backbone = nn.Sequential(nn.Conv2d(3, 6, 3), *norms, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return MoCoConfig(projector_width=8, projector_dim=4, queue_size=10).build(backbone, 6)

def pictures(step):
    return torch.randn(2, 8, 3, 6, 6, generator=torch.Generator().manual_seed(step))  # two views of eight
"""

TOGETHER = (
    PARTS
    + """
import json, sys
from diptych.distributed import joined, wrapped

def act(world):
    found = {}
    for norm in (True, False):
        method = build(norm)
        model = wrapped(method, world)
        for step in range(2):
            views = [view.chunk(2)[world.rank] for view in pictures(step)]
            loss = model(views).loss
            loss.backward()
            found[f"{norm} {step}"] = method.left[-1].tolist()
            found[f"{norm} {step} loss"] = loss.item()
            method.after_step(0.5)
        found[f"{norm} queue"] = method.queue.tolist()
    with open(f"{sys.argv[1]}/{world.rank}.json", "w") as file:
        json.dump(found, file)

with joined() as world:
    act(world)
"""
)


def test_two_processes_shuffle_their_keys_and_keep_one_queue(tmp_path):
    (tmp_path / "together.py").write_text(TOGETHER)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*torchrun, tmp_path / "together.py", tmp_path], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    same = [key for key in found[0] if not key.endswith("loss")]
    assert all(found[0][key] == found[1][key] for key in same)

    parts = {}
    exec(PARTS, parts)

    def near(values, tensor):
        return torch.allclose(torch.tensor(values), tensor, atol=1e-5)

    for norm in (True, False):
        moco, told = parts["build"](norm), []
        for step in range(2):
            first, second = parts["pictures"](step)
            order = torch.randperm(8, generator=torch.Generator().manual_seed(8 * step))
            keys, straight = torch.empty(8, 4), torch.empty(8, 4)
            for share, rows in zip(order.chunk(2), torch.arange(8).chunk(2), strict=True):
                keys[share] = functional.normalize(moco.momentum_encoder(second[share]), dim=1)
                straight[rows] = functional.normalize(moco.momentum_encoder(second[rows]), dim=1)
            assert near(found[0][f"{norm} {step}"], keys)  # each picture's key in the place of the picture
            assert near(found[0][f"{norm} {step}"], straight) is not norm  # normalised in other company than its query
            for rank, rows in enumerate(torch.arange(8).chunk(2)):
                queries = functional.normalize(moco.projector(moco.backbone(first[rows])), dim=1)
                expected = paper_info_nce(queries, keys[rows], torch.cat([keys[:0], *told]), 0.2)
                assert found[rank][f"{norm} {step} loss"] == pytest.approx(expected, abs=1e-5)
            told.append(keys)
        assert near(found[0][f"{norm} queue"], torch.cat([*told, *told])[[*range(10, 16), *range(6, 10)]])
