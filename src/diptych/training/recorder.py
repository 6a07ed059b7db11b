"""What the loop says of itself: one JSON line every few steps, the bar, and what the guard finds.

A record: ``step`` (0-based), ``epoch`` (fraction), ``loss``, ``lr``; what ``diagnostics.py`` measures:
``embedding_std`` (× √d: 1 spread, 0 collapsed), ``effective_rank`` (dimensions), ``alignment`` (0 aligned, 2
unrelated), ``uniformity`` (-4 even, 0 collapsed), ``dead_dimensions`` (share); ``gradient_norm`` (before clipping; left
out where it is not finite, as in steps that fp16 leaves out), ``weight_norm``; ``images_per_second``, ``wait_fraction``
(share of the time spent waiting for data), ``seconds`` (of training), the method's own metrics, at the end of an epoch
what was then measured on the frozen backbone (``evaluation/online.py``), and ``health`` in words (``guard.py``).
"""

import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from diptych.diagnostics import diagnose, length
from diptych.distributed import World, from_main
from diptych.progress import Bar, Terminal
from diptych.runs import RunFolder
from diptych.trackers.follow import Trackers
from diptych.training.config import RunConfig
from diptych.training.guard import State, Verdict, comparable, judge
from diptych.types import Batch, StepOutput

RECORDS = 2000
"""So many records a run at most, those with a measurement aside; each costs a small eigenvalue problem."""
MEASURED = {"neighbour_stability": "stability {:.2f}", "knn_top1": "kNN {:.1%}", "linear_top1": "linear {:.1%}"}
"""How the bar tells what was last measured on the frozen backbone."""


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
        trackers: get every record too.
        begun: step at which the run's method began: records before it are another's, and not judged with it.
    """

    def __init__(
        self,
        run: RunFolder,
        config: RunConfig,
        steps: int,
        per_epoch: int,
        world: World,
        terminal: Terminal,
        bar: Bar,
        trackers: Trackers | None = None,
        begun: int = 0,
    ) -> None:
        self.run, self.config, self.world = run, config, world
        self.steps, self.per_epoch = steps, per_epoch
        self.terminal, self.bar, self.trackers = terminal, bar, trackers
        self.every = -(-steps // RECORDS)
        self.records = run.read_lines(run.metrics)
        self._judged = comparable(self.records, begun)
        self.verdict = self._judge()
        self._said: set[State] = {"healthy", self.verdict.state}
        self.images = 0
        self.waited = 0.0
        self.before = self.records[-1]["seconds"] if self.records else 0.0
        self.started = self._since = time.perf_counter()
        self._images_then, self._waited_then = 0, 0.0
        self._measured: dict[str, float] = {}
        self._kept: dict[str, float] = {}

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

    def record(
        self,
        step: int,
        loss: float,
        lr: float,
        output: StepOutput,
        gradient_norm: float,
        weights: Sequence[Tensor],
        measured: Mapping[str, float] = {},
    ) -> None:
        """Write a record if one is due at ``step``, and judge the run by it.

        Args:
            step: its number.
            loss: mean over all processes.
            lr: as scheduled.
            output: of this process.
            gradient_norm: of all weights together, before it was shortened.
            weights: all that is trained, as the step has left it.
            measured: what the frozen backbone was found to be worth.
        """
        if not self.world.is_main:
            return
        measured, self._kept = {**self._kept, **measured}, {}
        if measured or (step + 1) % self.every == 0 or step + 1 == self.steps:
            self._measured |= measured
            self._write(step, loss, lr, output, gradient_norm, weights, measured)

    def _write(
        self,
        step: int,
        loss: float,
        lr: float,
        output: StepOutput,
        gradient_norm: float,
        weights: Sequence[Tensor],
        measured: Mapping[str, float],
    ) -> None:
        now = time.perf_counter()
        elapsed = now - self._since
        record: dict[str, Any] = (
            {"step": step, "epoch": (step + 1) / self.per_epoch, "loss": loss, "lr": lr}
            | diagnose(output.embeddings, output.positives)
            | ({"gradient_norm": gradient_norm} if math.isfinite(gradient_norm) else {})
            | {
                "weight_norm": min(float(length(weights)), sys.float_info.max),  # JSON has no infinity
                "images_per_second": (self.images - self._images_then) / elapsed,
                "wait_fraction": (self.waited - self._waited_then) / elapsed,
                "seconds": self.before + now - self.started,
            }
            | {name: float(value) for name, value in output.metrics.items()}
            | dict(measured)
        )
        self._since, self._images_then, self._waited_then = now, self.images, self.waited
        self.records.append(record)
        self._judged.append(record)
        self.verdict = self._judge()
        record["health"] = self.verdict.state
        self.run.append(self.run.metrics, record)
        if self.trackers:
            self.trackers.log(record)
        told = [words.format(self._measured[name]) for name, words in MEASURED.items() if name in self._measured]
        self.bar.update(step + 1, "  ".join([_text(record, self.config.train.epochs), *told]))
        self._tell()

    def _judge(self) -> Verdict:
        return judge(self._judged, self.config, processes=self.world.size)

    def _tell(self) -> None:
        """Say each state once, when the run first comes to it."""
        if self.verdict.state not in self._said:
            self.terminal.say(f"Warning: {self.verdict.told}")
            self._said.add(self.verdict.state)

    @property
    def unhealthy(self) -> bool:
        """Whether the run is to be stopped for what the guard finds; the first process knows."""
        return self.world.is_main and self.config.care.on_collapse != "warn" and self.verdict.collapsed

    @property
    def healthy(self) -> bool:
        """Whether this is a state to go back to."""
        return self.verdict.safe

    def keep(self, measured: Mapping[str, float]) -> None:
        """Let the next record tell what was measured at a step that has none."""
        self._kept |= measured

    def epoch_mean(self, name: str, end: int) -> float | None:
        """Mean of a metric over the records of the epoch that ends after ``end`` steps; the same in every process."""
        last = [record[name] for record in self.records if end - self.per_epoch <= record["step"] < end]
        (found,) = from_main((sum(last) / len(last) if last else math.nan,), self.world)
        return None if math.isnan(found) else found

    def warnings(self) -> list[str]:
        """The warnings that hold at the end of the run."""
        return [] if self.verdict.state == "healthy" else [self.verdict.told]

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
