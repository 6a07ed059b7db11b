"""A CSV file that lists pictures with their labels: the header ``file,label``, paths relative to the CSV file."""

import csv
from dataclasses import dataclass
from pathlib import Path

from diptych.data.decode import read_file
from diptych.data.source import Entry, Files
from diptych.errors import DataError

COLUMNS = ("file", "label")


@dataclass(frozen=True)
class Row:
    """One line of the file."""

    number: int
    """Counted from 1, the header included."""
    file: str
    label: str


def open_csv(path: Path) -> tuple[Files, int]:
    """Open the pictures listed in a CSV file; other columns than ``file`` and ``label`` are ignored.

    Returns:
        The pictures sorted by path, and how many lines were left out as exact repetitions.

    Raises:
        DataError: the file cannot be read, has no such header, no rows, a row without a file or a label, a picture that
            is not there, or one picture under two labels.
    """
    rows = _read(path)
    kept: dict[str, Row] = {}
    for row in rows:
        earlier = kept.setdefault(row.file, row)
        if earlier.label != row.label:
            raise DataError(
                f"{path}, rows {earlier.number} and {row.number}: {row.file} is labelled both '{earlier.label}' and "
                f"'{row.label}'; keep one"
            )
    classes = tuple(sorted({row.label for row in rows}))
    number = {name: label for label, name in enumerate(classes)}
    listed = sorted(kept.values(), key=lambda row: row.file)
    entries = [_entry(path, row) for row in listed]
    labels = [number[row.label] for row in listed]
    root = path.parent
    return Files(str(path), entries, lambda name: read_file(root / name, name), labels, classes), len(rows) - len(kept)


def _read(path: Path) -> list[Row]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames or []
            if missing := [column for column in COLUMNS if column not in header]:
                raise DataError(
                    f"{path} has no column '{missing[0]}': its first line should be file,label and is "
                    f"'{','.join(header)}'"
                    if header
                    else f"{path} is empty; its first line should be file,label, then one line for each picture"
                )
            rows = [
                Row(reader.line_num, (line["file"] or "").strip(), (line["label"] or "").strip()) for line in reader
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not a CSV file in UTF-8: {error}"
        raise DataError(f"cannot read {path} ({reason}); save it as CSV with the header file,label") from error
    if not rows:
        raise DataError(f"{path} lists no pictures: add a line 'picture.jpg,class' for each below its header")
    for row in rows:
        if not row.file or not row.label:
            raise DataError(
                f"{path}, row {row.number}: the {'label' if row.file else 'file'} is empty; fill it in or drop the row"
            )
    return rows


def _entry(path: Path, row: Row) -> Entry:
    picture = path.parent / row.file
    try:
        status = picture.stat()
    except OSError as error:
        raise DataError(
            f"{path}, row {row.number}: cannot find {row.file} ({error.strerror}); paths are relative to {path.parent}/"
        ) from error
    if not picture.is_file():
        raise DataError(f"{path}, row {row.number}: {row.file} is not a file; list the pictures one by one")
    return Entry(row.file, status.st_size, status.st_mtime_ns)
