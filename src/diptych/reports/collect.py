"""Read everything that a report shows from the run folder, and nothing from anywhere else."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from diptych.checkpoint import Progress
from diptych.errors import ConfigError, RunFolderError
from diptych.runs import RunFolder, read_versioned
from diptych.training.card import saved_config
from diptych.training.guard import Verdict, comparable, judge
from diptych.training.recover import since_recovery


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One ``RUN/evaluation/<name>.json`` and the pictures beside it."""

    name: str
    """The file's own name: what the file says of itself never leads to another file."""
    result: dict[str, Any]
    neighbors: bytes | None = None
    """PNG."""
    changed: bytes | None = None
    """PNG."""
    answers: bytes | None = None
    """PNG."""
    masks: bytes | None = None
    """PNG."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a run folder holds at this moment."""

    run: str
    """The folder as the user named it, for the commands that are suggested."""
    card: dict[str, Any]
    """``run.json``."""
    records: list[dict[str, Any]]
    """``metrics.jsonl``, oldest first; empty before the first one."""
    health: Verdict | None
    """What the guard finds by the last record; None where it was not asked."""
    evaluations: list[Evaluation]
    """Newest first; empty before the first one."""
    views: bytes | None
    """PNG."""
    quarantine: list[dict[str, Any]]
    """Pictures that could not be read."""


def collect(run: str | Path) -> Facts:
    """Read a run folder at any stage.

    Raises:
        RunFolderError: it is not a run folder, or a file in it is damaged or of another diptych.
    """
    folder = RunFolder.open(run)
    evaluations = [_evaluation(path) for path in sorted(folder.evaluation.glob("*.json"))]
    records = folder.read_lines(folder.metrics)
    return Facts(
        run=str(run),
        card=folder.read_card(),
        records=records,
        health=_health(folder, records),
        evaluations=sorted(evaluations, key=lambda evaluation: evaluation.result["created"], reverse=True),
        views=_png(folder.views),
        quarantine=folder.read_lines(folder.quarantine),
    )


def _health(folder: RunFolder, records: list[dict[str, Any]]) -> Verdict | None:
    _, begun = since_recovery(folder, Progress(step=0))
    if not (judged := comparable(records, begun)):
        return None
    with contextlib.suppress(ConfigError):  # settings of another version: its curves are shown all the same
        return judge(judged, saved_config(folder), processes=folder.read_card()["hardware"]["processes"])
    return None


def _evaluation(path: Path) -> Evaluation:
    return Evaluation(
        name=path.stem,
        result=read_versioned(path),
        neighbors=_png(path.with_name(f"{path.stem}-neighbors.png")),
        changed=_png(path.with_name(f"{path.stem}-changed.png")),
        answers=_png(path.with_name(f"{path.stem}-answers.png")),
        masks=_png(path.with_name(f"{path.stem}-masks.png")),
    )


def _png(path: Path) -> bytes | None:
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged or no PNG; remove it to have the report without it") from error
    return content
