"""The loop: batch → gradient → finite check → step → ``after_step`` → record → evaluate → save → stop."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch

from diptych import checkpoint
from diptych.checkpoint import Progress
from diptych.data.loader import Loader
from diptych.data.stream import StreamLoader
from diptych.distributed import StopFlag, World, agreed, mean_over_ranks
from diptych.methods import Method
from diptych.optim.build import parameters, set_rates
from diptych.optim.schedule import warmup_cosine
from diptych.runs import RunFolder
from diptych.training.config import RunConfig
from diptych.training.faults import Faults
from diptych.training.recorder import Recorder
from diptych.training.result import Status
from diptych.training.step import Backward, gradient_norm

CHECKPOINT_SECONDS = 60.0
"""A checkpoint is written at the end, when the run is stopped, and whenever the last one is older than this."""
QUICK = 0.6
"""Seconds of saving that are 1 % of that pace; checkpoints that take longer are written as much more rarely."""
STOP: tuple[Status | None, ...] = (None, "interrupted", "collapsed")
"""What processes tell each other after a step, by number; the greatest counts."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the loop moves; built once in ``build.py``."""

    config: RunConfig
    run: RunFolder
    loader: Loader | StreamLoader
    method: Method
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    backward: Backward
    device: torch.device
    world: World
    recorder: Recorder
    faults: Faults
    evaluate: Callable[[int], Mapping[str, float]]
    """Given the number of epochs done, measures the frozen backbone; the same values in every process."""
    kept_state: Callable[[], Mapping[str, torch.Tensor]]
    """What ``evaluate`` remembers from one epoch to the next."""


def train(parts: Parts, progress: Progress, stop: StopFlag) -> tuple[Progress, Status]:
    """Train from ``progress`` to the end, to an early stop, until asked to stop, or until the guard stops it.

    Raises:
        UserError: a loss or gradient is not finite and may not be skipped; the last checkpoint is kept.
    """
    config, optim, recorder, world = parts.config.train, parts.config.optim, parts.recorder, parts.world
    per_epoch = parts.loader.steps_per_epoch
    steps = config.epochs * per_epoch
    warmup_steps = round(optim.warmup_epochs * per_epoch)
    peak = optim.peak_lr(config.batch_size)
    saving = Saving(parts)
    if progress.step == 0 and parts.config.care.on_collapse == "recover":
        saving.save(progress, healthy=True)
    parts.method.train()
    if agreed(int(recorder.unhealthy), parts.device, world):  # as it was when the run was stopped
        return progress, "collapsed"
    while (status := ended(progress, steps, config.patience)) is None:
        epoch, first = divmod(progress.step, per_epoch)
        for batch in recorder.timed(parts.loader.epoch(epoch, first)):
            step = progress.step
            made = parts.backward(batch, step)
            lr = warmup_cosine(step, steps=steps, warmup_steps=warmup_steps, peak=peak)
            set_rates(parts.optimizer, optim, lr, peak, step / steps)
            norm = float(gradient_norm(parts.optimizer, parts.scaler, config.clip_norm))
            loss = float(mean_over_ranks(made.output.loss, world))
            # What is not finite on one process makes the mean so on all: none goes on alone. fp16 leaves out steps that
            # its scale was too large for, and lowers it; at a scale of 1 that is no excuse any more.
            finite, excused = math.isfinite(norm), parts.scaler.is_enabled() and parts.scaler.get_scale() > 1
            taken = math.isfinite(loss) and (finite or excused)
            if taken:
                parts.scaler.step(parts.optimizer)
                parts.scaler.update()
            if taken and finite:
                parts.method.after_step((step + 1) / steps)
            else:
                parts.backward.take_back()
            if not taken:
                parts.scaler.update(parts.scaler.get_scale())  # it forgets this gradient and keeps its scale
                parts.faults.note(step, batch, made, norm, skipped=progress.skipped)
            progress, is_best = counted(progress, loss if taken else None), False
            found = parts.evaluate(epoch + 1) if progress.step % per_epoch == 0 else {}
            if taken:
                recorder.record(step, loss, lr, made.output, norm, parameters(parts.optimizer), found)
            else:
                recorder.keep(found)
            if progress.step % per_epoch == 0:
                progress, is_best = judged(progress, monitored(parts, progress, found))
            news = STOP[agreed(2 if recorder.unhealthy else int(stop.asked), parts.device, world)]
            status = news if news == "collapsed" else ended(progress, steps, config.patience) or news
            if status or saving.due or is_best:
                saving.save(progress, best=is_best, healthy=status != "collapsed" and recorder.healthy)
            if status:
                return progress, status
    return progress, status


def ended(progress: Progress, steps: int, patience: int) -> Status | None:
    """Return why the run is over, None where it is not: all ``steps`` taken, or ``patience`` epochs without a gain."""
    if progress.step >= steps:
        return "finished"
    return "stopped early" if patience and progress.epochs_without_gain >= patience else None


def counted(progress: Progress, loss: float | None) -> Progress:
    """Count a step and its loss; None is that of a step which was skipped."""
    if loss is None:
        return replace(progress, step=progress.step + 1, skipped=progress.skipped + 1)
    return replace(
        progress,
        step=progress.step + 1,
        epoch_loss=progress.epoch_loss + loss,
        epoch_steps=progress.epoch_steps + 1,
    )


def judged(progress: Progress, value: float | None) -> tuple[Progress, bool]:
    """Begin a new epoch, and compare the one that ended with the best so far.

    Args:
        progress: at the end of an epoch.
        value: by which epochs are told, the higher the better; None where nothing is watched, or was not measured.

    Returns:
        Where the run stands now, and whether that epoch is the best so far.
    """
    progress = replace(progress, epoch_loss=0.0, epoch_steps=0)
    if value is None:
        return progress, False
    if progress.best is None or value > progress.best:
        return replace(progress, best=value, epochs_without_gain=0), True
    return replace(progress, epochs_without_gain=progress.epochs_without_gain + 1), False


def monitored(parts: Parts, progress: Progress, found: Mapping[str, float]) -> float | None:
    """Return what the best epoch is told by, the higher the better.

    Args:
        parts: of the run.
        progress: at the end of an epoch, its losses still counted.
        found: what the frozen backbone was measured to be worth.

    Returns:
        None where nothing is watched, or what is watched was not measured in this epoch.
    """
    watched = parts.config.train.watched
    if watched == "loss":
        value = -progress.epoch_loss / progress.epoch_steps if progress.epoch_steps else None
    elif watched in ("embedding_std", "effective_rank"):
        value = parts.recorder.epoch_mean(watched, progress.step)
    else:
        value = found.get(watched) if watched else None
    return value if value is not None and math.isfinite(value) else None


class Saving:
    """Writes checkpoints, from the first process only: all hold the same weights."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._at, self._took = time.monotonic(), 0.0

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is old enough for another one."""
        return time.monotonic() - self._at > CHECKPOINT_SECONDS * max(1.0, self._took / QUICK)

    def save(self, progress: Progress, *, best: bool = False, healthy: bool = False) -> None:
        """Write a checkpoint, and let ``best`` and ``healthy`` point to it where it is."""
        started = time.monotonic()
        parts = self.parts
        if parts.world.is_main:
            state = {
                "method": parts.config.method.name,
                "optimizer": parts.optimizer.state_dict(),
                "scaler": parts.scaler.state_dict(),
                "evaluation": dict(parts.kept_state()),
            }
            links = [name for name, holds in (("best", best), ("healthy", healthy)) if holds]
            checkpoint.save(
                parts.run.checkpoints,
                parts.method.state_dict(),
                state,
                progress,
                links=links,
                keep=parts.config.care.keep,
            )
        self._at = time.monotonic()
        self._took = self._at - started
