"""What is measured on the frozen backbone while training goes on, at the end of an epoch.

- ``neighbour_stability``, without labels: the share of each picture's 10 nearest neighbours, among a fixed sample of
  the run's own pictures, that it had at the last measurement too. It rises towards 1 as a representation settles; near
  chance (10 of all others: 0.04 in a sample of 256) it is noise. It says that a run has settled, not on what.
- ``knn_top1`` and ``linear_top1``, with labels (``--probe``): the accuracy 0..1 of evaluation's own probes on labelled
  pictures that were held out. Training never sees these labels.

Pictures are taken as they are stored, without views, and the network is a copy: nothing of the run is touched. Only the
first process measures; all get its values, because what stops a run must be the same in every process.

The labelled pictures are drawn from those that ``evaluate`` would learn from. Where they chose the weights
(``--best-by knn_top1``), the pictures that it tests on by default have still had no part in it.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.data.decoding.pixels import PixelFormat
from diptych.data.sources.source import Source, Subset
from diptych.data.sources.split import draw, stratified_split
from diptych.distributed import World, from_main
from diptych.errors import ConfigError, DataError, RunFolderError
from diptych.evaluation.features import backbone_features
from diptych.evaluation.pictures import Labelled, open_labelled, read_labelled
from diptych.evaluation.probes import knn, linear
from diptych.evaluation.probes.holding_out import hold_out
from diptych.frozen import FrozenBackbone
from diptych.progress import Terminal
from diptych.seeding import DRAW, generator

SAMPLE_BYTES, LEAST, AT_ONCE = 8 << 20, 32, 16
"""Memory that the sample may take, pictures that it has all the same, and pictures embedded at a time."""
SAMPLE = 256
"""Pictures whose neighbours are compared, at most."""
K = 10
"""Neighbours of each; a sample of no more than twice as many says nothing, as chance alone finds half of them again."""
SHARE = 0.01
"""Of an epoch's work, that comparing neighbours may take: where an epoch is short, it waits for several."""
PASSES = 6
"""Work of training on a picture, in forward passes: two views, and a backward pass costs two forward ones."""
SEED = 0
"""Of the draws from labelled pictures: runs with different seeds are judged by the same pictures."""
JUDGED = 0.5
"""Share of the labelled pictures that the probes are judged by; they learn from the others."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Labelled pictures that watch a run."""

    labelled: Labelled
    described: dict[str, Any]
    """What ``run.json`` says of them."""


class Online:
    """Measures the backbone of a run at the end of its epochs.

    Args:
        probe: labelled pictures, where there are some; needed by the first process alone.
        probe_every: epochs from one measurement with labels to the next, the last of the run aside; 0 for no labels.
        epochs: of the whole run.
        best_by: what the run tells its best epoch by.
        seed: of the run.
        world: this process's place among those of the run.
    """

    def __init__(
        self, *, probe: Probe | None, probe_every: int, epochs: int, best_by: str | None, seed: int, world: World
    ) -> None:
        self.probe, self.probe_every, self.epochs = probe, probe_every, epochs
        self.best_by, self.seed, self.world = best_by, seed, world
        self.every = 0
        """Epochs from one look at the neighbours to the next; 0 for none."""
        self._sample = torch.empty(0)
        self._neighbours: Tensor | None = None

    @property
    def described(self) -> dict[str, Any] | None:
        """What ``run.json`` says of the labelled pictures; None where there are none, or in other processes."""
        return self.probe.described if self.probe else None

    def begin(self, some: Callable[[int, int], Tensor], count: int) -> None:
        """Take the sample whose neighbours are compared.

        Args:
            some: given a number and a seed, draws so many of the run's pictures, ``(n, C, S, S)``, or all.
            count: pictures that an epoch goes through.

        Raises:
            ConfigError: the best epoch is to be told by these neighbours, and they will not be compared even once.
        """
        sample = min(SAMPLE, count, max(LEAST, SAMPLE_BYTES // some(1, self.seed).nbytes)) if count > 2 * K else 0
        self.every = spacing(count, sample, self.world.size) if sample > 2 * K else 0
        if self.every and self.world.is_main:
            self._sample = some(sample, self.seed)
        if self.best_by == "neighbour_stability" and not 0 < 2 * self.every <= self.epochs:
            few = f"more than {2 * K} pictures" if not self.every else f"--epochs {2 * self.every} or more"
            raise ConfigError(
                f"--best-by neighbour_stability needs {few} (with {count} pictures and --epochs {self.epochs}, it is "
                "never measured): choose another --best-by"
            )

    def __call__(self, frozen: Callable[[], FrozenBackbone], epochs: int) -> dict[str, float]:
        """Measure what is due after so many epochs.

        Args:
            frozen: makes a copy of the backbone as it is now; called if something is due.
            epochs: done by now.

        Returns:
            What was measured, by its name in ``metrics.jsonl``, the same in every process. Neighbours are compared from
            their second measurement on. A backbone whose features are not finite has no value at all.
        """
        compared = bool(self.every) and epochs % self.every == 0
        judged = bool(self.probe_every) and (epochs % self.probe_every == 0 or epochs == self.epochs)
        names = ["neighbour_stability"] * compared + ["knn_top1", "linear_top1"] * judged
        if not names:
            return {}
        found = self._measured(frozen(), epochs, compared, judged) if self.world.is_main else {}
        shared = from_main([found.get(name, math.nan) for name in names], self.world)
        return {name: value for name, value in zip(names, shared, strict=True) if not math.isnan(value)}

    def _measured(self, backbone: FrozenBackbone, epochs: int, compared: bool, judged: bool) -> dict[str, float]:
        found: dict[str, float] = {}
        try:
            if compared:
                values = backbone_features(backbone, self._sample, torch.empty(0), AT_ONCE).values
                now = neighbours(values, torch.randperm(len(values), generator=generator(self.seed, DRAW, epochs)))
                if self._neighbours is not None:
                    found["neighbour_stability"] = stability(self._neighbours, now)
                self._neighbours = now
            if judged:
                assert self.probe, "the first process has read the labelled pictures"
                found |= accuracies(backbone, self.probe.labelled)
        except RunFolderError:  # features that are not finite: the loop stops a run that diverges, and says why
            return {}
        return found

    def state(self) -> dict[str, Tensor]:
        """Return what is remembered from one measurement to the next, for a checkpoint."""
        return {} if self._neighbours is None else {"neighbours": self._neighbours}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go back to what ``state`` gave."""
        self._neighbours = state.get("neighbours")


def spacing(pictures: int, sample: int, processes: int) -> int:
    """Return the epochs from one look at ``sample`` pictures to the next, so that it costs ``SHARE`` at most.

    Args:
        pictures: of an epoch; the processes share them.
        sample: pictures that one process looks at while the others wait.
        processes: how many.
    """
    return max(1, math.ceil(sample * processes / (SHARE * PASSES * pictures)))


def neighbours(values: Tensor, order: Tensor) -> Tensor:
    """Find the ``K`` other rows of ``values`` ``(N, D)`` with the largest cosine similarity to each: ``(N, K)`` int64.

    Args:
        values: N > K.
        order: a permutation of N, drawn anew each time: rows that are equally near are taken by chance. Else features
            that are all alike, a collapse, would always find the same ones and look settled.
    """
    unit = F.normalize(values)
    similarities = unit @ unit[order].T
    similarities[order == torch.arange(len(values))[:, None]] = -math.inf
    return order[similarities.topk(K).indices]


def stability(before: Tensor, now: Tensor) -> float:
    """Return the share of the neighbours ``now`` ``(N, K)`` that the same picture had ``before``, in 0..1."""
    return (now[:, :, None] == before[:, None, :]).any(dim=2).double().mean().item()


def accuracies(backbone: FrozenBackbone, pictures: Labelled) -> dict[str, float]:
    """Return the accuracy 0..1 of the two probes that ``evaluate`` has by default."""
    train = backbone_features(backbone, pictures.train.images, pictures.train_labels)
    test = backbone_features(backbone, pictures.test.images, pictures.test_labels)
    by_neighbours, _ = knn.classify(train, test.values, len(pictures.classes))
    by_plane = linear.fit_linear(train, test.values, len(pictures.classes), SEED).logits
    found = {"knn_top1": by_neighbours, "linear_top1": by_plane}
    return {name: (logits.argmax(dim=1) == test.labels).double().mean().item() for name, logits in found.items()}


def read_probe(
    data: str,
    data_dir: str | None,
    *,
    pictures: int,
    size: int,
    pixels: PixelFormat,
    tile: int | None,
    chooses: bool,
    terminal: Terminal,
) -> Probe:
    """Draw labelled pictures from those that ``evaluate`` would learn from, split and decode them.

    Args:
        data: as for ``evaluate``.
        data_dir: as for ``evaluate``.
        pictures: how many at most; half to learn from, half to judge by.
        size: pixels a side.
        pixels: channels and type.
        tile: pixels a side of the squares that each picture is cut into.
        chooses: whether the weights that are kept are chosen by these labels.
        terminal: where to speak.

    Raises:
        DataError: there is no such data, or it has no labels, too few pictures, or one class only.
    """
    try:
        sources = open_labelled(data, data_dir, None, SEED, tile)
        terminal.say(f"--probe: {sources.found}")
        train, test = stratified_split(_in_pairs(draw(sources.train, pictures)), SEED, JUDGED)
        labelled = read_labelled(replace(sources, train=train, test=test), size, pixels, terminal)
        if not len(hold_out(labelled.train_labels, SEED)[1]):
            raise DataError("a class needs four pictures or more, and none has as many: raise --limit, or label more")
    except DataError as error:
        told = str(error).replace("--limit", "--probe-pictures")
        raise DataError(f"--probe {data} cannot be used: {told}") from error
    if labelled.bad:
        first = labelled.bad[0]
        terminal.say(
            f"{len(labelled.bad)} pictures of --probe could not be read and are left out (first {first.name}: "
            f"{first.reason})"
        )
    terminal.say(
        f"--probe: {len(labelled.train):,} labelled pictures to learn a probe from, {len(labelled.test):,} to judge it "
        "by; training sees no label" + (", but the weights that are kept are chosen by them" if chooses else "")
    )
    described = {
        "name": data,
        "train_pictures": len(labelled.train),
        "test_pictures": len(labelled.test),
        "skipped": len(labelled.bad),
        "classes": list(labelled.classes),
        "fingerprint": sources.fingerprint,
        "chose_weights": chooses,
    }
    return Probe(labelled=labelled, described=described)


def _in_pairs(source: Source) -> Source:
    """Leave out pictures that are the only one of their class: one is needed to learn from and one to judge by."""
    labels = [source.label(index) for index in range(len(source))]
    counts = Counter(labels)
    kept = [index for index, label in enumerate(labels) if counts[label] > 1]
    if len({labels[index] for index in kept}) < 2:
        raise DataError(f"of {len(source)} pictures drawn, two classes need two or more each: raise --limit")
    return Subset(source, kept)
