"""From a data set to what is in it: one index, one list of findings, one page."""

import json
import os
import time
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diptych.auditing import duplicates, findings, kinds, page, thumbnails
from diptych.auditing.index import DamagedIndex, Index, Key, innermost, key_of, remove, shown
from diptych.auditing.inspect import Record
from diptych.auditing.pool import Task, cores, inspect_all
from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources.open import Splits, open_data
from diptych.data.sources.source import Files, Source
from diptych.errors import RunFolderError
from diptych.progress import Terminal
from diptych.runs import MARKER, write_json, write_text, writing, writing_errors

INDEX, RESULT, PAGE, BAD, DUPLICATES = "index.sqlite", "audit.json", "audit.html", "bad.jsonl", "duplicates.jsonl"
SMALL = 256
"""Below so many pictures to inspect, a second process takes longer to start than it saves."""
BATCH, BATCH_SECONDS = 1024, 1.0
"""Pictures, or seconds of work, that a kill may lose."""


def audit(data: str, out: str | Path, data_dir: str | None = None, terminal: Terminal | None = None) -> dict[str, Any]:
    """Say what is in a data set: what cannot be read, what stands there twice, what differs from the rest.

    Every picture is opened once. What is found is kept in ``out``, and a later audit opens only pictures that are new
    or have changed. Nothing is written anywhere else.

    Args:
        data: what ``data.open.open_data`` takes.
        out: the folder of this audit, made where there is none::

                index.sqlite       what is known of every picture
                audit.json         what is returned
                audit.html         the same for people, with pictures
                bad.jsonl          every picture that a run would leave out, and why
                duplicates.jsonl   every group of pictures that are the same, or look alike

        data_dir: where the archive of ``cifar10`` lies.
        terminal: is told the progress.

    Returns:
        The findings, the most serious first, with all counts (``findings.collect``); equal for equal pictures.

    Raises:
        DataError: there is no such data, or it holds no pictures.
        RunFolderError: ``out`` holds something else, or cannot be written.
    """
    terminal = terminal or Terminal(quiet=True)
    splits = open_data(data, data_dir, terminal.downloading())
    folder = _claim(Path(out))
    parts = [splits.train] + ([splits.test] if splits.test else [])
    try:
        result, small = _look(data, folder, splits, parts, terminal)
    except DamagedIndex:
        remove(folder / INDEX)
        try:
            result, small = _look(data, folder, splits, parts, terminal)
        except DamagedIndex as error:
            raise RunFolderError(
                f"{folder / INDEX} does not keep what is written; choose another folder with --out"
            ) from error
    write_json(folder / RESULT, result)
    write_text(folder / PAGE, page.render(result, small))
    return result


def _look(
    data: str, folder: Path, splits: Splits, parts: Sequence[Source], terminal: Terminal
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return the result of an audit and its small pictures, and write the lists."""
    where = Path(os.path.expanduser(data))
    name = str(where.resolve()) if where.exists() else data
    with Index(folder / INDEX, shown(name)) as index:
        bring_up_to_date(index, parts, terminal)
        copies, sorts = duplicates.find(index), kinds.tell(index)
        result = findings.collect(index, copies, sorts, data, splits)
        result["page"] = shown(str(folder / PAGE))
        small = thumbnails.make(index, parts, result)
        with writing(folder / BAD) as path:
            _write_lines(path, kinds.left_out(index, sorts))
        with writing(folder / DUPLICATES) as path:
            _write_lines(path, duplicates.lines(index, copies))
    return result, small


def _claim(folder: Path) -> Path:
    """Make the audit's folder, or take one that an earlier audit made."""
    with writing_errors(folder):
        used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        ours = (folder / MARKER).is_file() and not (folder / "run.json").exists()
        if used and not ours:
            raise RunFolderError(f"{folder} holds something else than an audit; choose another folder with --out")
        folder.mkdir(parents=True, exist_ok=True)
    if not ours:
        write_text(folder / MARKER, "This folder is an audit by diptych; it may be deleted.\n")
    return folder


def bring_up_to_date(index: Index, parts: Sequence[Source], terminal: Terminal) -> None:
    """Inspect what the index does not know, or knows otherwise."""
    missing = index.update(parts)
    total, wanted = sum(len(part) for part in parts), sum(len(places) for places in missing)
    if wanted < total:
        terminal.say(f"{total - wanted:,} of {total:,} pictures are known from the last audit")
    if not wanted:
        return
    begun, done = time.monotonic(), 0
    kept = begun
    workers = cores() if wanted >= SMALL else 1
    with terminal.bar("inspecting", wanted) as bar:
        waiting: list[tuple[tuple[int, Key], Record]] = []
        for batch in inspect_all(_tasks(parts, missing), workers):
            waiting += batch
            if len(waiting) >= BATCH or time.monotonic() - kept > BATCH_SECONDS:
                index.add(waiting)
                waiting, kept = [], time.monotonic()
            done += len(batch)
            bar.update(done, f"{done / (time.monotonic() - begun):,.0f} pictures/s")
        index.add(waiting)


def _tasks(parts: Sequence[Source], missing: "Sequence[array[int]]") -> Iterator[Task]:
    for number, (source, places) in enumerate(zip(parts, missing, strict=True)):
        for place in places:
            key: tuple[int, Key] = (number, key_of(source, place))
            found: Any
            try:
                inner, inside = innermost(source, place)
                found = inner.encoded(inside) if isinstance(inner, Files) else inner.read(inside)
            except BadPicture as bad:
                found = bad
            yield Task(key, source.name_of(place), found)


def _write_lines(path: Path, records: Iterator[dict[str, Any]]) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")
