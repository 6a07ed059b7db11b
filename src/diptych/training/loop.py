"""The loop: batch → views → loss → finite check → backward → learning rate → step → ``after_step`` → record."""

import time
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from diptych import checkpoint
from diptych.checkpoint import Progress
from diptych.data.loader import Loader
from diptych.distributed import StopFlag, World, any_rank
from diptych.errors import UserError
from diptych.methods import Method
from diptych.optim.schedule import warmup_cosine
from diptych.optim.sgd import set_lr
from diptych.runs import RunFolder
from diptych.seeding import VIEWS, generator
from diptych.training.config import RunConfig
from diptych.training.recorder import Recorder
from diptych.views.pipeline import TwoViews

Status = Literal["finished", "stopped early", "interrupted"]

CHECKPOINT_SECONDS = 600.0
"""A checkpoint is written after every epoch, and within an epoch when the last one is older than this."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the loop moves; built once in ``run.py``."""

    config: RunConfig
    run: RunFolder
    loader: Loader
    make_views: TwoViews
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
    config, recorder = parts.config.train, parts.recorder
    per_epoch = parts.loader.steps_per_epoch
    steps = config.epochs * per_epoch
    warmup_steps = round(parts.config.optim.warmup_epochs * per_epoch)
    peak = parts.config.optim.peak_lr(config.batch_size)
    parts.model.train()
    saved_at = time.monotonic()
    while progress.step < steps:
        epoch, first = divmod(progress.step, per_epoch)
        for batch in recorder.timed(parts.loader.epoch(epoch, first)):
            step = progress.step
            draws = generator(config.seed, VIEWS, step, parts.world.rank)
            torch.manual_seed(
                draws.initial_seed()
            )  # dropout and the like: a function of the step, so resuming is exact
            views = parts.make_views(batch.images.to(parts.device, non_blocking=True), draws)
            views = [view.contiguous(memory_format=torch.channels_last) for view in views]
            with torch.autocast(parts.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
                output = parts.model(views)
            if any_rank(~output.loss.detach().isfinite(), parts.device, parts.world):
                raise UserError(_not_finite(step, parts.config))
            parts.optimizer.zero_grad(set_to_none=True)
            output.loss.backward()
            lr = warmup_cosine(step, steps=steps, warmup_steps=warmup_steps, peak=peak)
            set_lr(parts.optimizer, lr, peak)
            parts.optimizer.step()
            parts.method.after_step((step + 1) / steps)
            recorder.record(step, output, lr)
            progress = replace(progress, step=step + 1, epoch_loss=progress.epoch_loss + float(output.loss.detach()))
            stopping = any_rank(stop.asked, parts.device, parts.world)
            if progress.step % per_epoch == 0:
                progress, is_best = end_of_epoch(progress, per_epoch)
                saved_at = save(parts, progress, best=is_best)
            elif stopping or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                saved_at = save(parts, progress)
            if stopping and progress.step < steps:
                return progress, "interrupted"
        if config.patience and progress.epochs_without_gain >= config.patience and progress.step < steps:
            return progress, "stopped early"
    return progress, "finished"


def end_of_epoch(progress: Progress, steps: int) -> tuple[Progress, bool]:
    """Compare the epoch's mean loss with the best so far; returns where the run stands and whether this is the best."""
    mean = progress.epoch_loss / steps
    is_best = progress.best_loss is None or mean < progress.best_loss
    return (
        replace(
            progress,
            epoch_loss=0.0,
            best_loss=mean if is_best else progress.best_loss,
            epochs_without_gain=0 if is_best else progress.epochs_without_gain + 1,
        ),
        is_best,
    )


def save(parts: Parts, progress: Progress, *, best: bool = False) -> float:
    """Write a checkpoint, from the first process only (all hold the same weights); returns the time it was written."""
    if parts.world.is_main:
        state = {"optimizer": parts.optimizer.state_dict()}
        checkpoint.save(parts.run.checkpoints, parts.method.state_dict(), state, progress, best=best)
    return time.monotonic()


def _not_finite(step: int, config: RunConfig) -> str:
    return (
        f"the loss is not a finite number at step {step}: try a lower --lr (now {config.optim.lr}) or a longer "
        f"--warmup-epochs (now {config.optim.warmup_epochs:g}) with a new --out; the last checkpoint is kept"
    )
