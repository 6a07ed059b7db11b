import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from tiny import config, flat, picture, tree
from torch import nn

from diptych import checkpoint
from diptych.checkpoint import Progress
from diptych.data.loader import Loader
from diptych.data.stores.memory import MemoryStore
from diptych.distributed import StopFlag, World
from diptych.errors import UserError
from diptych.methods import Method
from diptych.methods.simsiam import SimSiam
from diptych.progress import Bar, Terminal
from diptych.runs import RunFolder
from diptych.training import loop
from diptych.training.build import build_parts
from diptych.training.loop import counted, ended, judged, monitored, train
from diptych.training.order import Order
from diptych.training.recorder import Recorder
from diptych.training.run import pretrain
from diptych.types import StepOutput

PER_EPOCH = 4


def make_parts(folder, method, settings, *, count=4 * PER_EPOCH):
    """All that the loop needs, around any method."""
    terminal, world = Terminal(quiet=True), World()
    images = torch.stack([torch.from_numpy(picture(seed)).permute(2, 0, 1) for seed in range(count)])
    loader = Loader(MemoryStore(images=images, source_indices=torch.arange(count)), settings.train.batch_size, seed=0)
    steps = settings.train.epochs * loader.steps_per_epoch
    run = RunFolder.create(folder)
    recorder = Recorder(run, settings, steps, loader.steps_per_epoch, world, terminal, Bar(terminal, "", steps, None))
    pictures = SimpleNamespace(loader=loader, names=lambda batch: [f"picture {n}" for n in batch.indices.tolist()])
    return build_parts(run, settings, pictures, method, recorder, torch.device("cpu"), world, terminal.say)


class Idle(Method):
    """A layer that learns, and a parameter whose gradient is always zero."""

    def __init__(self):
        super().__init__(nn.Linear(3, 2))
        self.idle = nn.Parameter(torch.ones(4))

    def loss(self, views):
        z = self.backbone(views[0].mean(dim=(2, 3)))
        return StepOutput(
            loss=z.square().mean() + 0 * self.idle.sum(), embeddings=z.detach(), positives=z.detach(), metrics={}
        )


class Watched(SimSiam):
    """SimSiam that notes the learning rate of every group at every step."""

    def after_step(self, progress):
        self.seen.append([group["lr"] for group in self.optimizer.param_groups])
        self.progress.append(progress)


def watched(folder, settings):
    backbone = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    method = Watched(settings.method, backbone, 6)
    parts = make_parts(folder, method, settings)
    method.seen, method.progress, method.optimizer = [], [], parts.optimizer
    return parts


# What the loop decides


@pytest.mark.parametrize(
    ("step", "without_gain", "patience", "expected"),
    [
        (9, 0, 0, None),
        (10, 0, 0, "finished"),
        (9, 99, 0, None),  # patience 0 never stops
        (9, 2, 3, None),
        (9, 3, 3, "stopped early"),
        (10, 3, 3, "finished"),
    ],
)
def test_a_run_ends_after_its_steps_or_when_patience_is_used_up(step, without_gain, patience, expected):
    assert ended(Progress(step=step, epochs_without_gain=without_gain), 10, patience) == expected


def test_losses_add_up_within_an_epoch_and_skipped_steps_have_none():
    progress = counted(counted(Progress(step=4, best=2.0, epochs_without_gain=1), 3.0), None)
    assert progress == Progress(step=6, epoch_loss=3.0, epoch_steps=1, best=2.0, epochs_without_gain=1, skipped=1)


@pytest.mark.parametrize(
    ("value", "best", "without_gain", "is_best"),
    [(1.1, 1.1, 0, True), (1.0, 1.0, 3, False), (0.9, 1.0, 3, False), (None, 1.0, 2, False)],
)
def test_only_a_higher_value_is_a_gain(value, best, without_gain, is_best):
    before = Progress(step=8, epoch_loss=3.0, epoch_steps=4, best=1.0, epochs_without_gain=2, skipped=1)
    after = Progress(step=8, best=best, epochs_without_gain=without_gain, skipped=1)
    assert judged(before, value) == (after, is_best)


def test_the_first_epoch_is_the_best_so_far():
    assert judged(Progress(step=4, epoch_loss=3.0, epoch_steps=4), -0.75) == (Progress(step=4, best=-0.75), True)


# What the loop does


def test_early_stopping_restores_the_weights_of_the_epoch_with_the_lowest_loss(tmp_path):
    data, run = flat(tmp_path / "pictures"), tmp_path / "run"
    settings = config(data, patience=2, epochs=60)  # two steps an epoch: their mean loss cannot fall sixty times
    result = pretrain(Order(config=settings, recipe="none"), run)
    assert result.status == "stopped early" and result.epochs < 60
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    epochs = [sum(losses[first : first + 2]) for first in range(0, len(losses), 2)]
    lowest = epochs.index(min(epochs)) + 1
    assert result.epochs == len(epochs) == lowest + 2
    assert checkpoint.load(run / "checkpoints" / "best").progress.step == 2 * lowest
    best, last = (load_file(run / "checkpoints" / name / "weights.safetensors") for name in ("best", "last"))
    left = load_file(run / "backbone.safetensors")
    assert all(torch.equal(tensor, best[f"backbone.{name}"]) for name, tensor in left.items())
    assert not all(torch.equal(tensor, last[f"backbone.{name}"]) for name, tensor in left.items())


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine(tmp_path):
    settings = config("x", epochs=3, warmup_epochs=1.0, lr=0.64, predictor_constant_lr=False)
    parts = watched(tmp_path / "run", settings)
    train(parts, Progress(step=0), StopFlag())
    peak = 0.64 * 4 / 256
    rising = [peak * part for part in (0.25, 0.5, 0.75, 1.0)]
    falling = [peak * (1 + math.cos(math.pi * part / 8)) / 2 for part in range(8)]
    used = [group[0] for group in parts.method.seen]
    assert used == pytest.approx(rising + falling)
    assert [record["lr"] for record in parts.run.read_lines(parts.run.metrics)] == used
    assert all(encoder == predictor for encoder, predictor in parts.method.seen)


def test_the_predictor_stays_at_the_peak_if_asked_to(tmp_path):
    settings = config("x", epochs=2, warmup_epochs=1.0, lr=0.64, predictor_constant_lr=True)
    parts = watched(tmp_path / "run", settings)
    train(parts, Progress(step=0), StopFlag())
    assert [predictor for _, predictor in parts.method.seen] == [0.64 * 4 / 256] * 8
    assert len({encoder for encoder, _ in parts.method.seen}) > 4


def test_the_learning_rate_is_not_scaled_if_not_asked_to(tmp_path):
    parts = watched(tmp_path / "run", config("x", epochs=1, lr=0.64, lr_scaling=False))
    train(parts, Progress(step=0), StopFlag())
    assert parts.method.seen[0] == [0.64, 0.64]


def test_a_method_is_told_how_much_of_the_run_is_done(tmp_path):
    parts = watched(tmp_path / "run", config("x", epochs=2))
    train(parts, Progress(step=0), StopFlag())
    assert parts.method.progress == [step / 8 for step in range(1, 9)]


@pytest.mark.parametrize("decay", [0.0, 0.25])
def test_weight_decay_shrinks_a_parameter_without_a_gradient(tmp_path, decay):
    settings = config("x", epochs=2, lr=0.5, lr_scaling=False, momentum=0.0, weight_decay=decay)
    parts = make_parts(tmp_path / "run", Idle(), settings)
    train(parts, Progress(step=0), StopFlag())
    kept = math.prod(1 - decay * record["lr"] for record in parts.run.read_lines(parts.run.metrics))
    assert (kept == 1.0) == (decay == 0.0)
    assert torch.allclose(parts.method.idle, torch.full((4,), kept))


def test_weight_decay_changes_a_run(tmp_path):
    data = flat(tmp_path / "pictures")
    for name, decay in (("with", 0.1), ("without", 0.0)):
        pretrain(Order(config=config(data, epochs=1, weight_decay=decay), recipe="none"), tmp_path / name)
    decayed, plain = (load_file(tmp_path / name / "backbone.safetensors") for name in ("with", "without"))
    assert not torch.equal(decayed["stem.0.weight"], plain["stem.0.weight"])


def test_a_stop_is_obeyed_after_the_step_and_leaves_a_checkpoint(tmp_path):
    parts, stop = make_parts(tmp_path / "run", Idle(), config("x", epochs=2)), StopFlag()
    stop.asked = True
    progress, status = train(parts, Progress(step=3, epoch_loss=0.5), stop)
    assert (status, progress.step) == ("interrupted", 4)
    assert checkpoint.load(parts.run.checkpoints / "last").progress == progress


def test_the_mean_loss_of_an_epoch_counts_the_steps_before_an_interruption(tmp_path):
    settings, ends = config("x", epochs=1, best_by="loss"), []
    for name, asked in (("whole", False), ("halved", True)):
        torch.manual_seed(0)
        parts, stop = make_parts(tmp_path / name, Idle(), settings), StopFlag()
        stop.asked = asked
        _, status = train(parts, Progress(step=0), stop)
        assert (status == "interrupted") is asked
        ends.append(train(parts, checkpoint.load(parts.run.checkpoints / "last").progress, StopFlag())[0])
    assert ends[0] == ends[1] and ends[0].best is not None


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_checkpoint(tmp_path):
    settings = config("x", epochs=2, lr=0.125)
    backbone = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts, stop = make_parts(tmp_path / "run", SimSiam(settings.method, backbone, 3), settings), StopFlag()
    stop.asked = True
    progress, _ = train(parts, Progress(step=0), stop)
    with torch.no_grad():
        next(parts.method.predictor.parameters()).fill_(math.nan)
    before = tree(parts.run.path)
    with pytest.raises(
        UserError, match=r"the loss is not a finite number at step 1 .*: try a lower --lr \(now 0.125\)"
    ) as c:
        train(parts, progress, StopFlag())
    assert "\n" not in str(c.value) and {**before, "faults.jsonl": None}.keys() == tree(parts.run.path).keys()
    assert checkpoint.load(parts.run.checkpoints / "last").progress == progress and progress.step == 1


@pytest.mark.parametrize(("seconds", "written"), [(0.0, [7, 8]), (60.0, [8])])
def test_a_checkpoint_is_written_at_the_end_and_when_the_last_one_is_old(tmp_path, monkeypatch, seconds, written):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", seconds)
    parts = make_parts(tmp_path / "run", Idle(), config("x", epochs=2))
    train(parts, Progress(step=0), StopFlag())
    assert sorted(path.name for path in parts.run.checkpoints.glob("step-*")) == [f"step-{n:06}" for n in written]


def test_an_epoch_is_judged_by_its_own_records_and_by_what_was_measured_in_it(tmp_path):
    parts = make_parts(tmp_path / "run", Idle(), config("x", epochs=2, best_by="effective_rank"))
    for step, rank in ((0, 1.0), (2, 3.0), (4, 10.0), (6, 20.0)):
        parts.recorder.records.append({"step": step, "effective_rank": rank})
    assert monitored(parts, Progress(step=4), {}) == 2.0 and monitored(parts, Progress(step=8), {}) == 15.0
    assert monitored(parts, Progress(step=12), {}) is None
    by_loss = replace(parts, config=config("x", epochs=2, best_by="loss"))
    assert monitored(by_loss, Progress(step=4, epoch_loss=6.0, epoch_steps=3), {}) == -2.0
    assert monitored(by_loss, Progress(step=4, skipped=4), {}) is None  # every step was left out
    by_probe = replace(parts, config=config("x", epochs=2, best_by="knn_top1", probe="x"))
    assert monitored(by_probe, Progress(step=4), {}) is None
    assert monitored(by_probe, Progress(step=4), {"knn_top1": 0.5}) == 0.5
    assert monitored(by_probe, Progress(step=4), {"knn_top1": math.nan}) is None
