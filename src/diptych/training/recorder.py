"""What the loop says of itself: one JSON line every few steps, the bar, and the collapse warning.

A record: ``step`` (0-based), ``epoch`` (fraction), ``loss``, ``lr``, ``embedding_std`` (× √d: 1 spread, 0 collapsed),
``effective_rank`` (dimensions), ``images_per_second``, ``wait_fraction`` (share of the time spent waiting for data),
``seconds`` (of training), and the method's own metrics.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from diptych.diagnostics import effective_rank, embedding_std
from diptych.distributed import World
from diptych.progress import Bar, Terminal
from diptych.runs import RunFolder
from diptych.training.advice import collapse_warning
from diptych.training.config import RunConfig
from diptych.types import Batch, StepOutput

RECORDS = 2000
"""So many records a run at most; each costs a small eigenvalue problem."""


class Recorder:
    """Measures and writes; only the first process writes.

    Args:
        run: where ``metrics.jsonl`` is.
        config: of the run.
        steps: in the whole run.
        per_epoch: steps an epoch.
        world: this process's place among those of the run.
        terminal: where warnings are said.
        bar: shows the last record.
    """

    def __init__(
        self, run: RunFolder, config: RunConfig, steps: int, per_epoch: int, world: World, terminal: Terminal, bar: Bar
    ) -> None:
        self.run, self.config, self.world = run, config, world
        self.steps, self.per_epoch = steps, per_epoch
        self.terminal, self.bar = terminal, bar
        self.every = -(-steps // RECORDS)
        self.records = run.read_lines(run.metrics)
        self.warning: str | None = None
        self.images = 0
        self.waited = 0.0
        self.before = self.records[-1]["seconds"] if self.records else 0.0
        self.started = self._since = time.perf_counter()
        self._images_then, self._waited_then = 0, 0.0

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Pass batches on and add up the time spent waiting for them."""
        iterator = iter(batches)
        while True:
            start = time.perf_counter()
            batch = next(iterator, None)
            self.waited += time.perf_counter() - start
            if batch is None:
                return
            self.images += batch.images.shape[0] * self.world.size
            yield batch

    def record(self, step: int, loss: float, lr: float, output: StepOutput) -> None:
        """Write a record if one is due at ``step``, and look for a collapse at the end of an epoch.

        ``loss`` is the mean over all processes.
        """
        if not self.world.is_main:
            return
        if (step + 1) % self.every == 0 or step + 1 == self.steps:
            self._write(step, loss, lr, output)
        if (step + 1) % self.per_epoch == 0:
            self._diagnose()

    def _write(self, step: int, loss: float, lr: float, output: StepOutput) -> None:
        now = time.perf_counter()
        elapsed = now - self._since
        record: dict[str, Any] = {
            "step": step,
            "epoch": (step + 1) / self.per_epoch,
            "loss": loss,
            "lr": lr,
            "embedding_std": float(embedding_std(output.embeddings)),
            "effective_rank": float(effective_rank(output.embeddings)),
            "images_per_second": (self.images - self._images_then) / elapsed,
            "wait_fraction": (self.waited - self._waited_then) / elapsed,
            "seconds": self.before + now - self.started,
        } | {name: float(value) for name, value in output.metrics.items()}
        self._since, self._images_then, self._waited_then = now, self.images, self.waited
        self.run.append(self.run.metrics, record)
        self.records.append(record)
        self.bar.update(step + 1, _text(record, self.config.train.epochs))

    def _diagnose(self) -> None:
        """Say it once when the run begins to look collapsed."""
        found = collapse_warning(self.records, self.config)
        if found and not self.warning:
            self.terminal.say(f"Warning: {found}")
        self.warning = found

    def warnings(self) -> list[str]:
        """The warnings that hold at the end of the run."""
        self.warning = collapse_warning(self.records, self.config)
        return [self.warning] if self.warning else []

    @property
    def seconds(self) -> float:
        """Seconds of training, those before a resume included."""
        return self.before + time.perf_counter() - self.started

    @property
    def images_per_second(self) -> float:
        """Mean rate since this process began to train."""
        return self.images / max(1e-9, time.perf_counter() - self.started)


def _text(record: dict[str, Any], epochs: int) -> str:
    return (
        f"epoch {record['epoch']:.2f}/{epochs}  loss {record['loss']:+.3f}  std {record['embedding_std']:.2f}  "
        f"rank {record['effective_rank']:.0f}  {record['images_per_second']:.0f} pictures/s  "
        f"waiting {100 * record['wait_fraction']:.0f} %"
    )
