"""Evaluate a run by segmentation: its maps, those of the same network before training, and plain colours.

Every contender learns from the same pixels of the same pictures, and is tested on every pixel of the same others. The
rule of the verdict is that of all evaluations (``evaluation/verdict.py``). Left behind are
``RUN/evaluation/<name>-segmentation.json`` and ``<name>-segmentation-masks.png``.
"""

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diptych.data.sources.layout import count
from diptych.data.sources.source import Subset
from diptych.data.stores.memory import build_memory_store
from diptych.errors import DataError, RunFolderError, printable
from diptych.evaluation import files
from diptych.evaluation.contenders import Contender, open_contenders
from diptych.evaluation.curve import OURS
from diptych.evaluation.groups import grouping, groups_of, together
from diptych.evaluation.numbers.headline import MIOU
from diptych.evaluation.numbers.statistics import Estimate, bootstrap_gain, bootstrap_metric
from diptych.evaluation.pictures import Labelled
from diptych.evaluation.probes.holding_out import HELD_OUT
from diptych.evaluation.probes.linear import L2_GRID, Planes
from diptych.evaluation.run import default_name
from diptych.evaluation.segmentation.config import SegmentationConfig
from diptych.evaluation.segmentation.drawing import draw_masks
from diptych.evaluation.segmentation.masks import read_masked
from diptych.evaluation.segmentation.pairs import Paired, open_pairs
from diptych.evaluation.segmentation.pixels import Drawn, draw_pixels, features_at, levels_of
from diptych.evaluation.segmentation.probe import fit_pixels, predict
from diptych.evaluation.segmentation.score import PixelScore, possible, score, within
from diptych.evaluation.table import BEFORE
from diptych.evaluation.verdict import decide, level_for
from diptych.frozen import Preprocessing, open_finished
from diptych.progress import Terminal
from diptych.runs import SCHEMA_VERSION, RunFolder, write_json
from diptych.seeding import generator

NUMBERS = 2**26
"""Features of all drawn pixels together, at most: 256 MiB."""
AT_ONCE = 2**18
"""Pixels of pictures that a network is given at a time."""
PROBE = "linear"
SHOWN = 6
"""Test pictures that are drawn."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came of one contender."""

    planes: Planes
    answers: Tensor
    """``(M, S, S)`` uint8, places of classes."""
    score: PixelScore


def evaluate_segmentation(
    run: str | Path,
    data: str,
    config: SegmentationConfig,
    *,
    device: str = "auto",
    terminal: Terminal | None = None,
) -> dict[str, Any]:
    """Measure whether pretraining helped to tell what each pixel shows, and write the answer into the run folder.

    Args:
        run: a finished run's folder.
        data: a folder of ``images/`` and ``masks/``; see ``pairs.open_pairs`` and ``masks``.
        config: what is asked.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; nowhere if None.

    Returns:
        What ``RUN/evaluation/<name>-segmentation.json`` holds.

    Raises:
        UserError: the run, the pictures, the masks or the arguments cannot be used as asked.
    """
    started = time.monotonic()
    terminal = terminal or Terminal(quiet=True)
    folder = RunFolder.open(run)
    terminal.log_to(folder.log)
    _, made = open_finished(run)
    init_from = None if made.init_from is None else printable(made.init_from)
    contenders = open_contenders(run, None, device)
    size = config.size or made.preprocessing.image_size
    most = min(config.pixels, NUMBERS // _width(contenders[0], config, size))
    paired = open_pairs(data, config.limit, config.seed, by_folder=config.group_by == "folder")
    pictures, unlearned = read_masked(paired, size, made.preprocessing, terminal)
    files.quarantine(folder, pictures, terminal)
    terminal.say(
        f"{len(pictures.train):,} pictures to learn from, {len(pictures.test):,} to test on, {size} px a side: "
        + paired.note
    )
    drawn = draw_pixels(pictures.train_labels, most, config.seed)
    groups = [
        groups_of(pairs.images, store)
        for pairs, store in ((paired.train, pictures.train), (paired.test, pictures.test))
    ]
    learned, tested = map(together, groups)
    found = {}
    with terminal.bar("segmenting", len(contenders)) as bar:
        for done, contender in enumerate(contenders, 1):
            found[contender.key] = _measured(contender, pictures, drawn, learned, config, size)
            bar.update(done, contender.name)
    for contender in contenders:
        if not found[contender.key].planes.converged:
            terminal.say(f"The probe on {contender.name} stopped before it converged: its mIoU is approximate")

    before = "random" if init_from is None else "initial"
    seen = _seen(contenders[0], paired, pictures, size)
    copies = int(np.isin(pictures.test.digests, pictures.train.digests).sum())
    resampled = {key: result.score.resampled(tested) for key, result in found.items()}
    estimates = {key: within(bootstrap_metric(draws)) for key, draws in resampled.items()}
    gains = {
        key: possible(bootstrap_gain(resampled[OURS], draws, level_for(1), MIOU.scale))
        for key, draws in resampled.items()
        if key != OURS
    }
    verdict = decide(
        {PROBE: gains[before]},
        {key: {PROBE: estimate.value} for key, estimate in estimates.items()},
        {PROBE: before},
        len(pictures.test),
        MIOU,
        unseen=seen == 0 and not copies and not contenders[0].unknown,
        init_from=init_from,
    )

    name = f"{config.name or default_name(data, 'standard')}-segmentation"
    path = folder.evaluation / f"{name}.json"
    if path.exists():
        terminal.say(f"Replacing the earlier {path}")
    _draw(path.with_name(f"{name}-masks.png"), pictures, found, before, config.seed)
    result = {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "diptych": metadata.version("diptych"),
        "command": f"{shlex.join(['diptych', 'evaluate', str(run), data])} {config.words}",
        "run": str(run),
        "data": _described(
            paired, pictures, [*_apart(unlearned), *grouping(groups[1])], seen, copies, made.preprocessing
        ),
        "task": "segmentation",
        "protocol": "segmentation",
        "settings": {
            PROBE: {
                "size": size,
                "maps": config.maps,
                "pixels": len(drawn.labels),
                "group_by": config.group_by,
                "l2_grid": list(L2_GRID),
                "held_out": HELD_OUT,
            }
        },
        "seed": config.seed,
        **({} if init_from is None else {"init_from": init_from}),
        "names": {contender.key: contender.name for contender in contenders} | {"pixels": "raw pixels and position"},
        "contenders": {key: {PROBE: _told(result, estimates[key], pictures.classes)} for key, result in found.items()},
        "compared_with": {PROBE: before},
        "differences": {PROBE: gains[before].to_dict()},
        "gains": {key: {PROBE: gain.to_dict()} for key, gain in gains.items()},
        "verdict": verdict.to_dict(),
        "seconds": round(time.monotonic() - started, 2),
    }
    write_json(path, result)
    return result


def _width(contender: Contender, config: SegmentationConfig, size: int) -> int:
    """Return how many features a pixel has; what refuses a size is told before any picture is read."""
    made = contender.preprocessing
    black = torch.zeros(1, made.channels, size, size, dtype=getattr(torch, made.depth))
    try:
        return sum(cells.shape[1] for cells in levels_of(contender, config.maps)(black))
    except DataError as error:
        raise DataError(f"--size {size}: {error}") from error


def _measured(
    contender: Contender,
    pictures: Labelled,
    drawn: Drawn,
    groups: Tensor | None,
    config: SegmentationConfig,
    size: int,
) -> Found:
    levels, at_once = levels_of(contender, config.maps), max(1, AT_ONCE // size**2)
    values = features_at(levels, pictures.train.images, drawn, at_once)
    if not values.isfinite().all():
        raise RunFolderError(
            f"the features of {contender.name} are not finite: its training diverged; pretrain with a lower --lr"
        )
    classes = len(pictures.classes)
    planes = fit_pixels(values, drawn, classes, config.seed, groups)
    answers = predict(planes, levels, pictures.test.images, at_once)
    return Found(planes=planes, answers=answers, score=score(answers, pictures.test_labels, classes))


def _seen(pretrained: Contender, paired: Paired, pictures: Labelled, size: int) -> int | None:
    """Count the test pictures that the run has learned from; None where it has learned from squares of pictures."""
    made = pretrained.preprocessing
    if made.tile is not None:
        return None
    store = pictures.test
    if size != made.image_size:  # it knows pictures by what they are at its own size
        tested = Subset(paired.test.images, store.source_indices.tolist())
        store = build_memory_store(tested, made.image_size, made.pixels, lambda bad: None)
    return int(np.isin(store.digests, pretrained.seen).sum())


def _apart(unlearned: tuple[str, ...]) -> list[str]:
    """Say which classes do not count."""
    if not unlearned:
        return []
    names = f"class {unlearned[0]}" if len(unlearned) == 1 else f"{len(unlearned)} classes (such as {unlearned[0]})"
    return [f"{names} left out, which only pictures to test on show"]


def _told(found: Found, estimate: Estimate, classes: tuple[str, ...]) -> dict[str, Any]:
    planes = found.planes
    return {
        MIOU.key: estimate.value,
        "ci95": [estimate.low, estimate.high],
        **found.score.to_dict(classes),
        "l2": planes.l2,
        "at_edge": planes.l2 in (L2_GRID[0], L2_GRID[-1]),
        "converged": planes.converged,
    }


def _described(
    paired: Paired, pictures: Labelled, said: list[str], seen: int | None, copies: int, made: Preprocessing
) -> dict[str, Any]:
    """Say what was tested on, and what of it was not new."""
    note = paired.note
    left_out = len(paired.train) + len(paired.test) - len(pictures.train) - len(pictures.test) - len(pictures.bad)
    if left_out:
        note += f"; {count(left_out, 'picture')} left out, of which no pixel has a class"
    note = "; ".join([note, *said])
    if copies:
        note += f"; {count(copies, 'test picture')} also among those that the probe learns from"
    if seen:
        note += f"; the backbone saw {seen:,} of the test pictures, without masks, during pretraining"
    if made.tile is not None:
        note += (
            f"; the run learned from squares of {made.tile} px, and these pictures are whole: whether it saw some of "
            "them is not known"
        )
    return {
        "name": paired.name,
        "note": note,
        "train_pictures": len(pictures.train),
        "test_pictures": len(pictures.test),
        "skipped": len(pictures.bad),
        "segments": list(pictures.classes),
        "fingerprint": paired.fingerprint,
        "seen_in_pretraining": seen,
        "copies_of_training": copies,
    }


def _draw(path: Path, pictures: Labelled, found: Mapping[str, Found], before: str, seed: int) -> None:
    shown = torch.randperm(len(pictures.test), generator=generator(seed))[:SHOWN]
    columns = [
        ("truth", pictures.test_labels),
        ("pretrained", found[OURS].answers),
        (BEFORE[before], found[before].answers),
    ]
    draw_masks(path, pictures.test.images[shown], [(title, masks[shown]) for title, masks in columns], pictures.classes)
