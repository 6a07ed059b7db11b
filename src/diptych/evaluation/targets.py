"""Answers that stand in columns of a CSV or Parquet file: quantities, or several labels a picture.

The list itself is opened like any other (``data.sources.manifest``): its paths, groups and split count as always. Here
the columns that were named are read beside it, and joined by the pictures' paths.
"""

import csv
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from diptych.data.sources.manifest import PATHS
from diptych.data.sources.source import Source
from diptych.errors import ConfigError, DataError, suggest
from diptych.evaluation.answers import refuse_many, refuse_unique

Kind = Literal["multilabel", "regression"]
SEPARATOR = ";"
YES_OR_NO = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
"""What a cell of a label's own column may hold, in any case."""
NAMED = 3
"""Labels that a sentence names."""
LARGEST = 1e100
"""Quantities beyond this are mistakes, and their squares are no numbers any more."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns hold the answers, and what they are."""

    kind: Kind
    names: tuple[str, ...]

    @property
    def flag(self) -> str:
        """What was typed for it."""
        return "--multilabel" if self.kind == "multilabel" else "--targets"


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The answers for some pictures."""

    columns: Columns
    names: tuple[str, ...]
    """Of the quantities or the labels."""
    values: Tensor
    """``(P, T)`` float64, or ``(P, K)`` bool."""
    places: dict[str, int]
    """Picture's path → its row of ``values``."""
    note: str = ""
    """What was left out, for people."""

    @property
    def prints(self) -> list[object]:
        """What tells these answers from others."""
        return [self.columns.kind, *self.names, *self.values.flatten().tolist()]

    def of(self, source: Source, indices: Iterable[int] | None = None) -> Tensor:
        """Return the answers for pictures of a source, or of its tiles: ``(n, T)``; for all of them if None."""
        chosen = range(len(source)) if indices is None else indices
        return self.values[[self.places[_plain(source.name_of(index))] for index in chosen]]

    def learnable(self, train: Source) -> "Targets":
        """Leave out the labels that no training picture has, or that all have.

        Raises:
            DataError: fewer than two are left.
        """
        if self.columns.kind == "regression":
            return self
        known = self.of(train)
        kept = known.any(dim=0) & ~known.all(dim=0)
        if kept.all():
            return self
        gone = [f"'{name}'" for name, stays in zip(self.names, kept.tolist(), strict=True) if not stays]
        names = tuple(name for name, stays in zip(self.names, kept.tolist(), strict=True) if stays)
        told = ", ".join(gone[:NAMED]) + (", …" if len(gone) > NAMED else "")
        if len(names) < 2:
            raise DataError(
                f"--multilabel: fewer than two labels can be learned, because no training picture has {told}, or all "
                "have: add pictures, or raise --limit"
            )
        which = "the label" if len(gone) == 1 else f"{len(gone):,} labels"
        note = f"{which} {told} left out, which no training picture has, or all have"
        return replace(self, names=names, values=self.values[:, kept], note=note)


Cells = Callable[[Path, Columns], Iterator[tuple[int, str, list[str]]]]
"""Yields the number, the picture and the cells of each row."""


class _Row(NamedTuple):
    number: int
    """Line of a CSV file, its header being line 1; row of a Parquet file, the first being row 1."""
    cells: tuple[str, ...]


def parse_columns(kind: Kind, words: str) -> Columns:
    """Read ``age,weight``.

    Raises:
        ConfigError: a name is empty, or there twice.
    """
    columns = Columns(kind=kind, names=tuple(word.strip() for word in words.split(",")))
    if not all(columns.names):
        raise ConfigError(f"{columns.flag} cannot be '{words}': give the names of columns, such as age,weight")
    if repeated := [name for place, name in enumerate(columns.names) if name in columns.names[:place]]:
        raise ConfigError(f"{columns.flag} names {repeated[0]} twice: once is enough")
    return columns


def read_targets(data: str, columns: Columns, sources: Sequence[Source]) -> Targets:
    """Read the answers for the pictures of ``sources``, which were opened from ``data``.

    Raises:
        DataError: ``data`` has no columns, or not these, or a cell cannot be read; rows of other pictures may hold
            anything.
    """
    path = Path(os.path.expanduser(data))
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet"):
        raise DataError(
            f"{columns.flag} reads columns of a CSV or Parquet file, which {data} is not: list the pictures in one, "
            f"with the header path,{','.join(columns.names)}"
        )
    found = _rows(path, columns, _parquet_cells if kind == ".parquet" else _csv_cells)
    pictures = dict.fromkeys(_plain(source.name_of(index)) for source in sources for index in range(len(source)))
    rows = [found[picture] for picture in pictures]
    if columns.kind == "regression":
        names = columns.names
        numbers = [[_number(path, row, *pair) for pair in _named(row, columns)] for row in rows]
        values = torch.tensor(numbers, dtype=torch.float64)
    elif len(columns.names) > 1:
        names = columns.names
        values = torch.tensor([[_yes_or_no(path, row, *pair) for pair in _named(row, columns)] for row in rows])
    else:
        names, values = _listed(data, columns.names[0], rows)
    return Targets(
        columns=columns,
        names=names,
        values=values,
        places={picture: place for place, picture in enumerate(pictures)},
    )


def _plain(name: str) -> str:
    """Return one spelling of a path, without the place of a tile."""
    return str(PurePosixPath(re.sub(r"@r\d+,c\d+$", "", name)))


def _rows(path: Path, columns: Columns, read: Cells) -> dict[str, _Row]:
    """Return what the columns say of every picture that is listed."""
    rows: dict[str, _Row] = {}
    for number, picture, cells in read(path, columns):
        row = _Row(number, tuple(cell.strip() for cell in cells))
        earlier = rows.setdefault(_plain(picture.strip()), row)
        if earlier.cells != row.cells:
            raise DataError(
                f"{path}, rows {earlier.number} and {number}: {picture} has '{','.join(earlier.cells)}' and "
                f"'{','.join(row.cells)}'; keep one"
            )
    return rows


def _csv_cells(path: Path, columns: Columns) -> Iterator[tuple[int, str, list[str]]]:
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        header = [cell.strip() for cell in next(reader)]
        wanted = [header.index(name) for name in _present(path, columns, header)]
        for cells in filter(None, reader):
            cells += [""] * (len(header) - len(cells))
            picture, *found = (cells[place] for place in wanted)
            yield reader.line_num, picture, found


def _parquet_cells(path: Path, columns: Columns) -> Iterator[tuple[int, str, list[str]]]:
    import pyarrow as arrow
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        names = _present(path, columns, file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches(columns=names):
            try:
                texts = [batch.column(name).cast(arrow.string()).to_pylist() for name in names]
            except arrow.ArrowException as error:
                raise DataError(
                    f"{path}: {' or '.join(columns.names)} holds neither text nor numbers; write several labels as "
                    "text, such as edema;nodule"
                ) from error
            for row in zip(*texts, strict=True):
                number += 1
                picture, *found = (cell or "" for cell in row)
                yield number, picture, found


def _present(path: Path, columns: Columns, header: Sequence[str]) -> list[str]:
    """Return the column of paths and those that were named."""
    paths = next(name for name in PATHS if name in header)
    for name in columns.names:
        if name not in header:
            others = [other for other in header if other != paths]
            raise DataError(f"{path} has no column '{name}' for {columns.flag}{suggest(name, others)}")
    return [paths, *columns.names]


def _named(row: _Row, columns: Columns) -> Iterator[tuple[str, str]]:
    return zip(columns.names, row.cells, strict=True)


def _number(path: Path, row: _Row, name: str, cell: str) -> float:
    if not cell:
        raise DataError(f"{path}, row {row.number}: {name} is empty; fill it in or drop the row")
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not abs(value) <= LARGEST:  # nor where it is none
        raise DataError(
            f"{path}, row {row.number}: {name} is '{cell}', which is no number to learn; write one, such as 3.5, or "
            "drop the row (words are classes: name their column label, and leave out --targets)"
        )
    return value


def _yes_or_no(path: Path, row: _Row, name: str, cell: str) -> bool:
    if cell.casefold() not in YES_OR_NO:
        raise DataError(
            f"{path}, row {row.number}: {name} is '{cell}'; columns of labels hold 0 or 1 (one column alone may list "
            "labels, as in edema;nodule)"
        )
    return YES_OR_NO[cell.casefold()]


def _listed(data: str, column: str, rows: Sequence[_Row]) -> tuple[tuple[str, ...], Tensor]:
    """Return the labels that one column lists, and who has them."""
    sets = [{word for part in row.cells[0].split(SEPARATOR) if (word := part.strip())} for row in rows]
    names = tuple(sorted(set().union(*sets)))
    if set(names) <= set(YES_OR_NO) or len(names) < 2:
        told = f"one label only, '{column if set(names) <= set(YES_OR_NO) else names[0]}'"
        raise DataError(
            f"--multilabel {column}: there is {told}, which makes two classes: name the column label and leave out "
            "--multilabel, or name a column that lists several, such as edema;nodule"
        )
    refuse_unique(data, Counter(name for own in sets for name in own), "label")
    refuse_many(data, len(names), "labels")
    return names, torch.tensor([[name in own for name in names] for own in sets])
