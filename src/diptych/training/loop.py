"""The loop: batch → views → loss → finite check → backward → learning rate → step → ``after_step`` → record."""

import math
import time
from dataclasses import dataclass, replace

import torch
from torch import nn

from diptych import checkpoint
from diptych.checkpoint import Progress
from diptych.data.loader import Loader
from diptych.data.stream import StreamLoader
from diptych.distributed import StopFlag, World, any_rank, mean_over_ranks
from diptych.errors import UserError
from diptych.methods import Method
from diptych.optim.build import set_rates
from diptych.optim.schedule import warmup_cosine
from diptych.runs import RunFolder
from diptych.seeding import VIEWS, generator
from diptych.training.config import RunConfig
from diptych.training.recorder import Recorder
from diptych.training.result import Status
from diptych.views.pipeline import ViewMaker

CHECKPOINT_SECONDS = 60.0
"""A checkpoint is written at the end, when the run is stopped, and whenever the last one is older than this."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the loop moves; built once in ``run.py``."""

    config: RunConfig
    run: RunFolder
    loader: Loader | StreamLoader
    make_views: ViewMaker
    method: Method
    model: nn.Module
    """The method, wrapped for several processes where there are several."""
    optimizer: torch.optim.Optimizer
    device: torch.device
    world: World
    recorder: Recorder


def train(parts: Parts, progress: Progress, stop: StopFlag) -> tuple[Progress, Status]:
    """Train from ``progress`` to the end, to an early stop, or until asked to stop.

    Raises:
        UserError: the loss is no longer finite; the last checkpoint is kept.
    """
    config, optim, recorder, world = parts.config.train, parts.config.optim, parts.recorder, parts.world
    per_epoch = parts.loader.steps_per_epoch
    steps = config.epochs * per_epoch
    warmup_steps = round(optim.warmup_epochs * per_epoch)
    peak = optim.peak_lr(config.batch_size)
    saved_at = time.monotonic()
    parts.model.train()
    while (status := ended(progress, steps, config.patience)) is None:
        epoch, first = divmod(progress.step, per_epoch)
        for batch in recorder.timed(parts.loader.epoch(epoch, first)):
            step = progress.step
            draws = generator(config.seed, VIEWS, step, world.rank)
            torch.manual_seed(draws.initial_seed())  # dropout and the like: a function of the step too
            views = parts.make_views(batch.images.to(parts.device, non_blocking=True), draws)
            views = [view.contiguous(memory_format=torch.channels_last) for view in views]
            with torch.autocast(parts.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                output = parts.model(views)
            loss = float(mean_over_ranks(output.loss.detach(), world))
            if not math.isfinite(loss):  # what is not finite on one process makes the mean so on all: none goes on
                raise UserError(_not_finite(step, parts))
            parts.optimizer.zero_grad(set_to_none=True)
            output.loss.backward()
            lr = warmup_cosine(step, steps=steps, warmup_steps=warmup_steps, peak=peak)
            set_rates(parts.optimizer, optim, lr, peak, step / steps)
            parts.optimizer.step()
            parts.method.after_step((step + 1) / steps)
            recorder.record(step, loss, lr, output)
            progress, is_best = advanced(progress, loss, per_epoch)
            asked = any_rank(stop.asked, parts.device, world)
            status = ended(progress, steps, config.patience) or ("interrupted" if asked else None)
            due = time.monotonic() - saved_at > CHECKPOINT_SECONDS
            if status or due or (is_best and config.patience):
                saved_at = save(parts, progress, best=is_best)
            if status:
                return progress, status
    return progress, status


def ended(progress: Progress, steps: int, patience: int) -> Status | None:
    """Return why the run is over, None where it is not: all ``steps`` taken, or ``patience`` epochs without a gain."""
    if progress.step >= steps:
        return "finished"
    return "stopped early" if patience and progress.epochs_without_gain >= patience else None


def advanced(progress: Progress, loss: float, per_epoch: int) -> tuple[Progress, bool]:
    """Count a step and its loss.

    Returns:
        Where the run stands now, and whether an epoch ended with this step whose mean loss is the lowest so far.
    """
    step, total = progress.step + 1, progress.epoch_loss + loss
    if step % per_epoch:
        return replace(progress, step=step, epoch_loss=total), False
    mean = total / per_epoch
    if progress.best_loss is None or mean < progress.best_loss:
        return Progress(step=step, best_loss=mean), True
    without_gain = progress.epochs_without_gain + 1
    return Progress(step=step, best_loss=progress.best_loss, epochs_without_gain=without_gain), False


def save(parts: Parts, progress: Progress, *, best: bool = False) -> float:
    """Write a checkpoint, from the first process only (all hold the same weights); returns the time it was written."""
    if parts.world.is_main:
        state = {"optimizer": parts.optimizer.state_dict()}
        checkpoint.save(parts.run.checkpoints, parts.method.state_dict(), state, progress, best=best)
    return time.monotonic()


def _not_finite(step: int, parts: Parts) -> str:
    config = parts.config
    kept = "; the last checkpoint is kept" if (parts.run.checkpoints / "last").exists() else ""
    return (
        f"the loss is not a finite number at step {step}: try a lower --lr (now {config.optim.lr}) or a longer "
        f"--warmup-epochs (now {config.optim.warmup_epochs:g}) with a new --out{kept}"
    )
