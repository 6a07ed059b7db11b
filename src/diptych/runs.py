"""The run folder: its paths, its marker, and its files that are written whole or not at all.

::

    RUN/  .diptych-run               the marker: this folder is ours, so --overwrite may delete it
          run.json                   the complete configuration, versions, git commit, data fingerprint, choices made
          metrics.jsonl              one JSON object a line (see ``training/recorder.py``)
          log.txt                    what was said on the terminal
          checkpoints/step-000123/   weights.safetensors, state.pt, meta.json; ``last`` and ``best`` point to one
          backbone.safetensors, backbone.json
          initial.safetensors        the backbone as training began, where it did not begin at random (--init-from)
          pictures.npy               a hash of each picture learned from: evaluations tell by it what was seen
          pictures-0.u64             the same where pictures are decoded as they are met, one file a process
          pictures-initial.u64       all that the run had learned from whose weights this one began with, where known
          views.png                  some pictures with their two views
          loss.png                   the loss curve
          evaluation/<name>.json     and <name>-neighbors.png, <name>-changed.png, labels/<name>.json
          evaluation/<name>-segmentation.json   and <name>-segmentation-masks.png
          vectors/                   of pictures that were explored; may be deleted
          features/                  what evaluations computed once (``evaluation/cache.py``); may be deleted
          quarantine.jsonl           pictures that could not be read, and why
          recovered.jsonl            metrics of steps that a recovery from a collapse went back behind
          trackers.json              the names by which services know this run; tensorboard/, wandb/ are their files
          faults.jsonl               steps whose loss or gradient was not a finite number, and their pictures
          report.html
"""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diptych.errors import RunFolderError, typed

MARKER = ".diptych-run"
SCHEMA_VERSION = 1
"""Of every JSON file in a run folder."""
CARD = {"diptych", "recipe", "config", "choices", "command", "data", "versions", "hardware", "started", "result"}
"""What ``run.json`` holds, at least."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all: yields a temporary path in the same folder, then fsyncs and renames it.

    Raises:
        RunFolderError: the disk is full, or the folder may not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing_errors(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def writing_folder(path: Path, advice: str = "", *, typed_as: Path | None = None) -> Iterator[Path]:
    """Write a folder whole or not at all: yields an empty one beside it, then fsyncs all of it and moves it there.

    What lay at ``path`` is deleted only then: whether it may be is for the caller to say.

    Args:
        path: the folder; where it is a link, the link is replaced, and what it points to is kept.
        advice: as for ``writing_errors``.
        typed_as: what to call it in errors; ``path`` if None.

    Raises:
        RunFolderError: the disk is full, or the folder may not be written.
    """
    temporary, earlier = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    with writing_errors(typed_as or path, advice):
        try:
            shutil.rmtree(temporary, ignore_errors=True)  # of a killed process that had our number, as in containers
            temporary.mkdir(parents=True)
            yield temporary
            for inner in temporary.rglob("*"):
                sync_folder(inner)  # a file likewise
            sync_folder(temporary)
            if os.path.lexists(path):
                os.replace(path, earlier)  # a kill from here on leaves it under that name
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            if os.path.lexists(earlier) and not os.path.lexists(path):
                os.replace(earlier, path)
            raise
        if earlier.is_symlink():
            earlier.unlink()
        else:
            shutil.rmtree(earlier, ignore_errors=True)


@contextlib.contextmanager
def writing_errors(path: Path, advice: str = "") -> Iterator[None]:
    """Turn the operating system's refusals to write into one line for the user.

    Args:
        path: what is written.
        advice: what to type instead; about the run folder if empty.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise RunFolderError(
                f"the disk is full: {path} was not written and what was there is untouched; "
                + (
                    advice
                    or "free some space and type the command again (a run with a checkpoint goes on with `diptych "
                    "pretrain --resume RUN`)"
                )
            ) from error
        advice = advice or "choose another folder with --out"
        raise RunFolderError(f"cannot write {path} ({error.strerror}); {advice}") from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` whole or not at all."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as indented JSON, whole or not at all. NaN and infinities are refused: JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RunFolderError: the file is missing, not readable, or not a JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not valid JSON"
        raise RunFolderError(f"cannot read {path} ({reason}); is {path.parent} the folder given to --out?") from error
    if not isinstance(value, dict):
        raise RunFolderError(f"{path} should hold a JSON object")
    return value


def read_versioned(path: Path) -> dict[str, Any]:
    """Read a JSON object that carries our ``schema_version``.

    Raises:
        RunFolderError: as for ``read_json``, or it was written by another version.
    """
    value = read_json(path)
    if value.get("schema_version") != SCHEMA_VERSION:
        raise RunFolderError(
            f"{path} was written by another version of diptych (schema {value.get('schema_version')}, this one knows "
            f"{SCHEMA_VERSION}); make it again with this version, or update diptych"
        )
    return value


class RunFolder:
    """Paths inside one run folder, and its append-only files."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "run.json"
        self.metrics = self.path / "metrics.jsonl"
        self.log = self.path / "log.txt"
        self.checkpoints = self.path / "checkpoints"
        self.backbone_weights = self.path / "backbone.safetensors"
        self.backbone = self.path / "backbone.json"
        self.initial = self.path / "initial.safetensors"
        self.pictures = self.path / "pictures.npy"
        self.initial_pictures = self.path / f"{self.pictures.stem}-initial.u64"
        self.views = self.path / "views.png"
        self.loss = self.path / "loss.png"
        self.evaluation = self.path / "evaluation"
        self.features = self.path / "features"
        self.quarantine = self.path / "quarantine.jsonl"
        self.recovered = self.path / "recovered.jsonl"
        self.faults = self.path / "faults.jsonl"
        self.report = self.path / "report.html"

    @classmethod
    def create(cls, path: str | Path, *, overwrite: bool = False) -> "RunFolder":
        """Make an empty run folder.

        Args:
            path: where; missing parents are made.
            overwrite: delete what is there first, provided it carries our marker.

        Raises:
            RunFolderError: the folder is not empty (both ways on are printed), or not ours, or cannot be written.
        """
        run = cls(path)
        run.refuse_if_used(overwrite=overwrite)
        with writing_errors(run.path):
            if run._is_used():
                shutil.rmtree(run.path)
            run.path.mkdir(parents=True, exist_ok=True)
        write_text(run.path / MARKER, "This folder is a diptych run; `--overwrite` may delete it.\n")
        return run

    def refuse_if_used(self, *, overwrite: bool) -> None:
        """Raise ``RunFolderError`` if a run may not be begun here: what lies here would be lost, or is not ours."""
        with writing_errors(self.path):
            if not self._is_used():
                return
        if not overwrite:
            raise RunFolderError(
                f"{self.path} is not empty: to go on with it type {typed('diptych pretrain --resume', self.path)}, to "
                f"delete it and start again add `--overwrite` to {typed('diptych pretrain DATA --out', self.path)}"
            )
        if not (self.path / MARKER).is_file():
            raise RunFolderError(
                f"{self.path} was not made by diptych, so --overwrite will not delete it; choose another --out"
            )

    def _is_used(self) -> bool:
        return self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir()))

    @classmethod
    def open(cls, path: str | Path) -> "RunFolder":
        """Open a run folder that exists.

        Raises:
            RunFolderError: there is none, or it was not made by diptych.
        """
        run = cls(path)
        if not run.path.is_dir():
            make = typed("diptych pretrain DATA --out", run.path)
            raise RunFolderError(f"there is no run folder {run.path}; make one with {make}")
        if not (run.path / MARKER).is_file() or not run.config.is_file():
            raise RunFolderError(
                f"{run.path} is not a run folder of diptych (it has no run.json); give the folder named by --out"
            )
        return run

    def met(self, rank: int) -> Path:
        """Return where the process ``rank`` notes the pictures it meets."""
        return self.path / f"{self.pictures.stem}-{rank}.u64"

    def read_card(self) -> dict[str, Any]:
        """Read ``run.json``.

        Raises:
            RunFolderError: it is damaged, or was written by another version.
        """
        card = read_versioned(self.config)
        if missing := CARD - card.keys():
            raise RunFolderError(
                f"{self.config} is damaged: it holds no '{min(missing)}'; start again with --overwrite"
            )
        return card

    def append(self, path: Path, record: Mapping[str, Any]) -> None:
        """Append one JSON line to ``path`` (metrics or quarantine)."""
        with writing_errors(path), open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False, ensure_ascii=False) + "\n")

    def read_lines(self, path: Path) -> list[dict[str, Any]]:
        """Read a file of JSON lines; empty where there is none. A last line cut short by a kill is left out."""
        if not path.is_file():
            return []
        records = []
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):  # text that is not UTF-8 is one too
                records.append(json.loads(line))
        return records

    def keep_metrics_before(self, step: int) -> None:
        """Drop metric records at ``step`` and later: a resumed run writes them again."""
        kept = [record for record in self.read_lines(self.metrics) if record["step"] < step]
        write_text(self.metrics, "".join(json.dumps(record) + "\n" for record in kept))
