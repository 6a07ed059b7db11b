"""Judging: ``evaluate``, ``segment``, ``audit``, ``select``, ``compare``, ``report``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diptych.api.settings import Setting
from diptych.auditing.run import audit as _audit
from diptych.config import with_settings
from diptych.errors import ConfigError
from diptych.evaluation.choosing.select import Selection
from diptych.evaluation.choosing.select import select as _select
from diptych.evaluation.config import EvaluateConfig
from diptych.evaluation.run import default_name
from diptych.evaluation.run import evaluate as _evaluate
from diptych.evaluation.segmentation.config import SegmentationConfig
from diptych.evaluation.segmentation.pairs import shows_masks
from diptych.evaluation.segmentation.run import evaluate_segmentation
from diptych.progress import Terminal
from diptych.reports.compare import Comparison, draw
from diptych.reports.compare import compare as _compare
from diptych.reports.compare_page import write_page
from diptych.reports.render import write_report


def evaluate(
    run: str | Path, data: str | Path, *, device: str = "auto", terminal: Terminal | None = None, **settings: Setting
) -> dict[str, Any]:
    """Prove whether pretraining helped: the backbone against its own random initialisation and raw pixels.

    A run that began from weights (``init_from``) is compared with these weights as they were; random ones stay beside.

    Args:
        run: a finished run.
        data: labelled pictures: class subfolders, an archive of them, a CSV ``path,label``, ``cifar10`` or ``photos``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.
        settings: of ``diptych.evaluation.config.EvaluateConfig``, such as ``labels="1%,10%,100%"``, ``seeds=5``,
            ``against="random,scratch,runs/other"``; the flags of ``diptych evaluate --help``.

    Returns:
        What the JSON file holds: ``contenders``, ``differences``, ``verdict``, the ``curve`` over several budgets of
        labels, and how they came about.

    Raises:
        UserError: with one line that says what to change.
    """
    if shows_masks(str(data)):  # two classes, by the rule of class folders
        raise ConfigError(f"{data} holds images/ and masks/: add --task segmentation (in Python: diptych.segment)")
    config = with_settings(EvaluateConfig(), settings)
    result = _evaluate(run, str(data), config, device=device, terminal=terminal or Terminal(quiet=True))
    write_report(run)
    return result


def segment(
    run: str | Path, data: str | Path, *, device: str = "auto", terminal: Terminal | None = None, **settings: Setting
) -> dict[str, Any]:
    """Prove whether pretraining helped to tell what each pixel shows.

    Args:
        run: a finished run.
        data: a folder of ``images/`` and ``masks/``; see docs/dense.md.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.
        settings: of ``diptych.evaluation.segmentation.config.SegmentationConfig``, such as ``maps="all"``.

    Returns:
        What the JSON file holds: ``contenders``, ``differences``, ``verdict``, and how they came about.

    Raises:
        UserError: with one line that says what to change.
    """
    config = with_settings(SegmentationConfig(), settings)
    result = evaluate_segmentation(run, str(data), config, device=device, terminal=terminal)
    write_report(run)
    return result


def audit(
    data: str | Path, out: str | Path | None = None, *, data_dir: str | None = None, terminal: Terminal | None = None
) -> dict[str, Any]:
    """Say what a set of pictures holds: counts, formats, broken files, duplicates, classes; before any training.

    Args:
        data: as for ``pretrain``, save tar shards.
        out: the folder for ``audit.html``, ``audit.json`` and the index that makes the next audit quick;
            ``audits/NAME`` if None.
        data_dir: where the archive of a named data set lies.
        terminal: where to speak; silent if None.

    Returns:
        What ``audit.json`` holds.

    Raises:
        UserError: with one line that says what to change.
    """
    place = Path(out) if out else Path("audits") / default_name(str(data), "standard")
    return _audit(str(data), place, data_dir=data_dir, terminal=terminal or Terminal(quiet=True))


def report(run: str | Path) -> Path:
    """Rewrite ``RUN/report.html`` from what lies in the run folder; returns its path."""
    return write_report(run)


def compare(runs: Sequence[str | Path], out: str | Path | None = None) -> dict[str, Any]:
    """Put runs side by side: what they are, in which settings they differ, what came of them.

    Args:
        runs: two run folders or more, at any stage.
        out: a folder for ``compare.png`` and ``compare.html``, which show their curves too; nothing is written if None.

    Returns:
        ``runs``, ``differences`` (setting → its value in each run) and ``evaluations``, in groups of those that may be
        compared.

    Raises:
        UserError: with one line that says what to change.
    """
    return compare_runs(runs, out).to_dict()


def compare_runs(runs: Sequence[str | Path], out: str | Path | None) -> Comparison:
    """Compare runs, and draw them into ``out`` if it is given."""
    comparison = _compare(runs)
    if out is not None:
        draw(comparison, Path(out))
        write_page(comparison, Path(out))
    return comparison


def select(
    runs: str | Path | Sequence[str | Path],
    *,
    metric: str | None = None,
    data: str | Path | None = None,
    data_dir: str | None = None,
    pictures: int = 2000,
    seed: int = 0,
    device: str = "auto",
    terminal: Terminal | None = None,
) -> Selection:
    """Choose a checkpoint of a run, or among several runs, by their features alone: no label is read.

    Args:
        runs: a run folder, or several; what is not over yet offers the checkpoints that it has.
        metric: what ranks them: ``rankme``, ``alpha_req``, ``lidar``, ``clid``, ``learnability``, ``dimension``,
            ``alignment`` or ``uniformity``; ``evaluation.choosing.unlabelled`` says what each is and where it fails.
        data: pictures to choose by, as for ``pretrain``; those that the runs learned from if None.
        data_dir: where the archive of a named data set lies.
        pictures: how many are drawn.
        seed: of the draw, the views and the clusters.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; silent if None.

    Returns:
        The choice, its sentence, and every metric of every checkpoint; ``to_dict()`` has JSON values.

    Raises:
        UserError: with one line that says what to change.
    """
    return _select(
        [runs] if isinstance(runs, str | Path) else runs,
        metric=metric,
        data=None if data is None else str(data),
        data_dir=data_dir,
        pictures=pictures,
        seed=seed,
        device=device,
        terminal=terminal or Terminal(quiet=True),
    )
