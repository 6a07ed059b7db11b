"""Commands that judge runs: ``evaluate``, ``select``, ``compare``."""

import itertools
import shutil
import sys
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from tyro.conf import Positional, arg

import diptych
from diptych.api.judging import compare_runs
from diptych.commands.parsing import Folder, Name, Switch, parse, tell
from diptych.evaluation.choosing.select_text import as_text as selection_as_text
from diptych.evaluation.config import EvaluateConfig
from diptych.evaluation.segmentation.config import SegmentationConfig
from diptych.evaluation.segmentation.table import as_text as segmentation_as_text
from diptych.evaluation.table import as_text
from diptych.progress import Terminal
from diptych.reports.compare_text import as_text as comparison_as_text


@dataclass(frozen=True, kw_only=True)
class EvaluateArgs(EvaluateConfig):
    """Did pretraining help? Compares the backbone with what training began with, random weights and raw pixels."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A finished run."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """Labelled pictures: class subfolders, an archive of them, a CSV `path,label`, hub:NAME, cifar10 or photos."""
    task: Literal["classification", "segmentation"] = "classification"
    """Segmentation takes a folder of images/ and masks/, and flags of its own: see --task segmentation --help."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def evaluate(words: list[str]) -> int:
    """Run `diptych evaluate`; returns the exit code."""
    if is_segmentation(words):
        return _segment(words)
    args = parse("evaluate", EvaluateArgs, words)
    asked = {field.name: getattr(args, field.name) for field in fields(EvaluateConfig)}
    result = diptych.evaluate(args.run, args.data, device=args.device, terminal=Terminal(), **asked)
    tell(args.json, result, as_text(result))
    return 0


@dataclass(frozen=True, kw_only=True)
class SegmentArgs(SegmentationConfig):
    """Did pretraining help to tell what each pixel shows? A linear probe on the backbone's maps."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """A finished run."""
    data: Annotated[Positional[str], arg(metavar="DATA")]
    """A folder of images/ and masks/, perhaps with train/ and test/ in each; a mask is a PNG of whole numbers."""
    task: Literal["classification", "segmentation"] = "segmentation"
    """Segmentation, here."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def _segment(words: list[str]) -> int:
    args = parse("evaluate", SegmentArgs, words)
    asked = {field.name: getattr(args, field.name) for field in fields(SegmentationConfig)}
    result = diptych.segment(args.run, args.data, device=args.device, terminal=Terminal(), **asked)
    tell(args.json, result, segmentation_as_text(result))
    return 0


def is_segmentation(words: list[str]) -> bool:
    """Whether ``--task segmentation`` was typed."""
    return "--task=segmentation" in words or ("--task", "segmentation") in itertools.pairwise(words)


@dataclass(frozen=True, kw_only=True)
class CompareArgs:
    """Runs side by side: what they are, in which settings they differ, what came of them."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """Two run folders or more."""
    out: Folder = None
    """Where compare.png and compare.html go, which show the curves too; nothing is written without it."""
    seed: int = 0
    """Accepted by every command; a comparison draws nothing at random."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def compare(words: list[str]) -> int:
    """Run `diptych compare`; returns the exit code."""
    args = parse("compare", CompareArgs, words)
    found = compare_runs(args.runs, args.out)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    tell(args.json, found.to_dict(), comparison_as_text(found, width))
    return 0


@dataclass(frozen=True, kw_only=True)
class SelectArgs:
    """Which checkpoint, which run? Ranks them by what their features tell on their own: no label is read."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """One run folder or more."""
    metric: Name = None
    """What ranks them: rankme, alpha_req, lidar, clid, learnability, dimension, alignment or uniformity."""
    data: Annotated[str | None, arg(metavar="DIR")] = None
    """Pictures to choose by; those that the runs learned from if not given."""
    data_dir: Folder = None
    """Where the archive of a named data set lies."""
    pictures: int = 2000
    """How many are drawn."""
    seed: int = 0
    """Of the draw, the views and the clusters."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def select(words: list[str]) -> int:
    """Run `diptych select`; returns the exit code."""
    args = parse("select", SelectArgs, words)
    found = diptych.select(
        args.runs,
        metric=args.metric,
        data=args.data,
        data_dir=args.data_dir,
        pictures=args.pictures,
        seed=args.seed,
        device=args.device,
        terminal=Terminal(),
    )
    tell(args.json, found.to_dict(), selection_as_text(found))
    return 0
