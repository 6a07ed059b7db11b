"""A list of pictures, as a CSV file that the next tool reads and as a table that people do.

A cell that begins like a formula is one to a spreadsheet, which would run or mangle it, and names of files and classes
are other people's words. Such a text gets an apostrophe in front, as OWASP advises; ``unguarded`` takes it off again.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from diptych.errors import printable
from diptych.runs import writing

FORMULA = tuple("=+-@\t\r\n")
"""What a cell begins with that a spreadsheet computes."""
NUMBER = re.compile(r"[+-]?\d+(\.\d+)?(e[+-]?\d+)?", re.IGNORECASE | re.ASCII)
"""Classes may be called -1 and +1."""
GUARD = "'"


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file whole or not at all; None is an empty cell, and a name that is no UTF-8 keeps its bytes."""
    with (
        writing(path) as temporary,
        open(temporary, "w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        table = csv.writer(file)  # the ends of lines of RFC 4180, or a name that holds one of two kinds would be cut
        table.writerow(header)
        table.writerows([_guarded(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)


def unguarded(cell: str) -> str:
    """Return a text as it was before ``write_csv`` wrote it."""
    return cell[1:] if cell.startswith(GUARD) and _is_formula(cell) else cell


def _guarded(cell: str) -> str:
    return GUARD + cell if _is_formula(cell) else cell


def _is_formula(cell: str) -> bool:
    """Whether a text, without the apostrophes that it begins with, is computed and is no plain number."""
    bare = cell.lstrip(GUARD)
    return bare.startswith(FORMULA) and not NUMBER.fullmatch(bare)


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
