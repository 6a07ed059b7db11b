"""Files that list pictures: a manifest (CSV or Parquet, with labels, groups, a split and times) or a list of paths.

Paths are relative to the folder of the file that lists them; absolute ones are taken as they are, for whoever may write
the list may read its pictures.
"""

import csv
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from diptych.data.sources.layout import PARTS, VALIDATION, Splits, choose_parts, count
from diptych.data.sources.source import Entry, Files, Listing
from diptych.errors import DataError, suggest

PATHS = ("path", "file")
"""Columns that hold the path; the first one that is there counts."""
OPTIONAL = ("label", "group", "split", "time")
COMMENT = "#"
STREAMED = (".tar", ".tar.gz", ".tgz")
BATCH = 1 << 16
"""Rows of a Parquet file that are in memory at once."""
NEEDS_PYARROW = "needs `pip install 'diptych[hub]'`"


class Row(NamedTuple):
    """What a manifest says of one picture; None for a column that it does not have."""

    number: int
    """Line of a CSV file, its header being line 1; row of a Parquet file, the first being row 1."""
    label: str | None
    group: str | None
    split: str | None
    time: str | None


def open_manifest(path: Path) -> Splits:
    """Open the pictures listed in a CSV or Parquet file, sorted by path; other columns are ignored.

    With a column ``split``, rows of ``train`` are to learn from and rows of ``test`` to test on. Rows of ``val``
    (``valid``, ``validation``) take the place of a test that is not there and are left out otherwise. What is written
    in a column ``time`` is read where pictures are split by it.

    Raises:
        DataError: the file cannot be read, has no column of paths, no rows, a cell that is empty though others of its
            column are not, an unknown split, a picture that is not there, or one picture under two labels.
    """
    rows, repeated = _read(path)
    parts: dict[str, list[str]] = {}
    for file, row in rows.items():
        parts.setdefault(row.split or "train", []).append(file)
    if "train" not in parts:
        raise DataError(
            f"{path} has no row whose split is 'train' (it has {', '.join(sorted(parts))}); name what is to be learned "
            "from so, or leave the column out"
        )
    train, test = choose_parts(parts) or ("train", None)
    used = [file for part in (train, test) if part for file in parts[part]]
    classes = tuple(sorted({label for file in used if (label := rows[file].label) is not None}))
    number = {name: place for place, name in enumerate(classes)}
    root = path.parent

    def source(part: str) -> Files:
        files = sorted(parts[part])
        listed = [rows[file] for file in files]
        entries = [_entry(path, f"row {row.number}", file) for file, row in zip(files, listed, strict=True)]
        labels = [number[row.label] for row in listed if row.label is not None]
        groups = [row.group for row in listed if row.group is not None]
        times = [row.time for row in listed if row.time is not None]
        name = f"{path}/{part}" if test else str(path)
        return Files(name, entries, lambda name: root / name, labels or None, classes, groups or None, times or None)

    learned, tested = source(train), source(test) if test else None
    return Splits(train=learned, test=tested, note=_note(path, rows, parts, test, repeated, len(classes)))


def open_list(path: Path) -> Listing:
    """List the pictures of a text file with one path on each line; blank lines and comments are skipped.

    Raises:
        DataError: it cannot be read, lists nothing, or a picture is not there.
    """
    numbers: dict[str, int] = {}
    repeated = 0
    try:
        with open(path, encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if not (text := line.strip()) or text.startswith(COMMENT):
                    continue
                if "://" in text or text.lower().endswith(STREAMED):
                    raise DataError(f"{path}, line {number}: {text} is not a picture on this disk; list pictures only")
                repeated += numbers.setdefault(_tidy(text), number) != number
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not text in UTF-8: {error}"
        raise DataError(f"cannot read {path} ({reason}); write one path on each line") from error
    if not numbers:
        raise DataError(f"{path} lists no pictures: write one path on each line, relative to {path.parent}/")
    entries = [_entry(path, f"line {numbers[file]}", file) for file in sorted(numbers)]
    left_out = [f"{count(repeated, 'repeated line')} left out"] if repeated else []
    return Listing(entries=entries, load=lambda name: path.parent / name, left_out=left_out)


def _read(path: Path) -> tuple[dict[str, Row], int]:
    """Return the row of each picture, and how many rows only repeat another."""
    kept: dict[str, Row] = {}
    repeated = 0
    filled: dict[str, bool] = dict.fromkeys(OPTIONAL, False)
    empty: dict[str, int] = {}
    for number, file, cells in _parquet_rows(path) if path.suffix.lower() == ".parquet" else _csv_rows(path):
        for column, cell in zip(OPTIONAL, cells, strict=True):
            if cell:
                filled[column] = True
            else:
                empty.setdefault(column, number)
        # A label stands in many rows: one copy of its text is kept.
        label, group, split, time = (sys.intern(cell) if cell else None for cell in cells)
        row = Row(number, label, group, None if split is None else _split(path, number, split), time)
        earlier = kept.setdefault(_tidy(file), row)
        if earlier is not row:
            _refuse_conflict(path, file, earlier, row)
            repeated += 1
    if not kept:
        raise DataError(f"{path} lists no pictures: add a row for each, such as 'picture.jpg,class' below path,label")
    for column, number in empty.items():
        if filled[column]:
            raise _empty(path, number, column)
    return kept, repeated


def _csv_rows(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the number, the path and the cells of ``OPTIONAL`` of each row."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = [cell.strip() for cell in next(reader, [])]
            if not header:
                raise DataError(f"{path} is empty; its first line should be path,label, then one for each picture")
            paths, others = _columns(path, header, f"its first line should be path,label and is '{','.join(header)}'")
            for cells in filter(None, reader):
                if any(cells[len(header) :]):
                    raise DataError(
                        f"{path}, row {reader.line_num}: it has {count(len(cells), 'cell')} and the header "
                        f'{len(header)}; put what holds a comma between "quotes"'
                    )
                cells += [""] * (len(header) - len(cells))
                if not (picture := cells[header.index(paths)].strip()):
                    raise _empty(path, reader.line_num, paths)
                wanted = ("" if column is None else cells[header.index(column)].strip() for column in others)
                yield reader.line_num, picture, list(wanted)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not a CSV file in UTF-8: {error}"
        raise DataError(f"cannot read {path} ({reason}); save it as CSV with the header path,label") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """Yield the number, the path and the cells of ``OPTIONAL`` of each row, as ``_csv_rows`` does."""
    try:
        import pyarrow as arrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"reading {path} {NEEDS_PYARROW}") from error
    try:
        with parquet.ParquetFile(path) as file:
            header = file.schema_arrow.names
            embedded = "; for pictures that lie inside it type hub:" + str(path) if _embedded(header) else ""
            paths, others = _columns(path, header, f"it has {', '.join(header)}{embedded}")
            names = [name for name in (paths, *others) if name is not None]
            number = 0
            for batch in file.iter_batches(batch_size=BATCH, columns=names):
                texts = {name: batch.column(name).cast(arrow.string()).to_pylist() for name in names}
                blank = [""] * len(batch)
                columns = [texts[paths], *(blank if name is None else texts[name] for name in others)]
                for row in zip(*columns, strict=True):
                    number += 1
                    picture, *cells = ((cell or "").strip() for cell in row)
                    if not picture:
                        raise _empty(path, number, paths)
                    yield number, picture, cells
    except (OSError, arrow.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"cannot read {path} (not a Parquet file of text, or damaged: {reason}); write it again") from (
            error
        )


def _columns(path: Path, header: list[str], found: str) -> tuple[str, list[str | None]]:
    """Return the column of paths, and those of ``OPTIONAL`` that are there."""
    paths = next((name for name in PATHS if name in header), None)
    if paths is None:
        raise DataError(f"{path} has no column '{PATHS[0]}' (or '{PATHS[1]}'): {found}")
    return paths, [name if name in header else None for name in OPTIONAL]


def _embedded(header: Iterable[str]) -> bool:
    return any(name in ("image", "img") for name in header)


def _split(path: Path, number: int, text: str) -> str:
    if (split := text.casefold()) not in PARTS:
        raise DataError(f"{path}, row {number}: there is no split '{text}'{suggest(split, PARTS)}")
    return sys.intern(PARTS[split])


def _empty(path: Path, number: int, column: str) -> DataError:
    return DataError(f"{path}, row {number}: the {column} is empty; fill it in or drop the row")


def _refuse_conflict(path: Path, file: str, earlier: Row, row: Row) -> None:
    for column, first, second in zip(OPTIONAL, earlier[1:], row[1:], strict=True):
        if first != second:
            what = "is labelled both" if column == "label" else f"has the {column}s"
            raise DataError(
                f"{path}, rows {earlier.number} and {row.number}: {file} {what} '{first or ''}' and '{second or ''}'; "
                "keep one"
            )


def _tidy(file: str) -> str:
    """Return one spelling for ``a.jpg``, ``./a.jpg`` and ``.//a.jpg``."""
    return str(PurePosixPath(file)) if "./" in file or "//" in file else file


def _entry(path: Path, place: str, file: str) -> Entry:
    try:
        status = os.stat(os.path.join(path.parent, file))
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(
            f"{path}, {place}: cannot find {file} ({reason}); paths are relative to {path.parent}/"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path}, {place}: {file} is not a file; list the pictures one by one")
    return Entry(file, status.st_size, status.st_mtime_ns)


def _note(
    path: Path, rows: dict[str, Row], parts: dict[str, list[str]], test: str | None, repeated: int, classes: int
) -> str:
    note = f"{path} lists {count(len(parts['train']), 'picture')}"
    if test:
        note += f" to learn from and {len(parts[test])} to test on"
        note += f" (its split {test}, as there is no test)" if test in VALIDATION else ""
    note += f" of {count(classes, 'class')}" if classes else ", without labels"
    groups = [{rows[file].group for file in parts[part]} - {None} for part in ("train", test) if part]
    if any(groups):
        note += f" in {count(len(set().union(*groups)), 'group')}"
    for part in sorted(set(parts) - {"train", test}):
        note += f"; {count(len(parts[part]), 'picture')} of the split {part} left out"
    if test and (shared := len(groups[0] & groups[1])):
        note += f"; {count(shared, 'group')} in both parts, so that the test is no test of new ones"
    return note + (f"; {count(repeated, 'repeated row')} left out" if repeated else "")
