"""A list of pictures, as a CSV file that the next tool reads and as a table that people do."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from diptych.errors import printable
from diptych.runs import writing


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file whole or not at all; None is an empty cell, and a name that is no UTF-8 keeps its bytes."""
    with (
        writing(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]], words: int) -> list[str]:
    """Return lines of a table for a terminal.

    Args:
        header: names of the columns.
        rows: of cells; what would steer a terminal is replaced.
        words: so many columns, at the end, are words and flush left; those before are numbers and flush right.
    """
    table = [[printable(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = [
            cell.rjust(wide) if column < len(header) - words else cell.ljust(wide)
            for column, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]
