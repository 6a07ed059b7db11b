"""Which pictures to label first, when labels are few: chosen by their vectors, by a way of ``choices``.

No label is read: all that counts is which pictures have one, as those need none and cover what lies near them.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diptych.errors import ConfigError, DataError, printable, suggest
from diptych.runs import SCHEMA_VERSION
from diptych.seeding import SPLIT, generator
from diptych.vectors.choices import CHOICES
from diptych.vectors.listing import aligned, unguarded
from diptych.vectors.neighbours import normalised
from diptych.vectors.table import Vectors

DEFAULT = "typicality"
LOOKED_AT = 100_000
"""Pictures that are compared, at most: of more, so many are drawn first, so that memory and time have a bound."""
OF_EACH = 4
"""Pictures compared for each to choose, at least, where the budget is large."""
COLUMNS = ("rank", "name", "label", "group")
"""Of the CSV file."""
SHOWN = 10
"""Choices that are printed where a file holds them all."""
TOLD = {
    "typicality": "typical ones of as many groups as there are labels (TypiClust, arXiv 2202.02794)",
    "kcenter": "each the farthest from all before it (greedy k-center, arXiv 1708.00489)",
    "random": "drawn evenly",
}
"""How a method chooses, for people."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A picture to label."""

    rank: int
    """1 is to be labelled first."""
    row: int
    name: str
    group: str | None


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What to label, and of what it was chosen."""

    listed: tuple[Choice, ...]
    method: str
    """A key of ``choices.CHOICES``."""
    pictures: int
    labelled: int
    """Pictures that have a label, and cover what lies near them."""
    compared: int
    """Pictures without a label that the choice was made from: all, or as many as were drawn."""
    seed: int

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"schema_version": SCHEMA_VERSION, "budget": len(self.listed), **asdict(self)}

    def csv_rows(self) -> list[tuple[object, ...]]:
        """Return the cells of ``COLUMNS`` for every choice; ``label`` is left to be filled in."""
        return [(one.rank, one.name, None, one.group) for one in self.listed]

    def as_text(self, out: str | None) -> str:
        """Return lines for a terminal: all choices, or the first few where the file ``out`` holds them."""
        shown = self.listed[: SHOWN if out else None]
        lines = aligned(("rank", "name"), [(str(one.rank), one.name) for one in shown], words=1)
        if more := len(self.listed) - len(shown):
            lines.append(f"… and {more:,} more")
        free = self.pictures - self.labelled
        drawn = "" if self.compared == free else f"{self.compared:,} drawn of "
        lines += [
            "",
            f"{len(self.listed):,} of {drawn}{free:,} pictures without a label, by {self.method}: {TOLD[self.method]}. "
            "Label them in this order.",
        ]
        if self.labelled:
            have = "1 picture has" if self.labelled == 1 else f"{self.labelled:,} pictures have"
            lines.append(f"{have} a label; what is like that was not chosen again.")
        if out:
            lines.append(f"{printable(out)} holds them all: fill in its column label.")
        return "\n".join(lines)


def select_labels(
    vectors: Vectors,
    budget: int,
    *,
    method: str = DEFAULT,
    labelled: Sequence[str] = (),
    ignore_labels: bool = False,
    seed: int = 0,
) -> Chosen:
    """Choose the pictures whose labels would help most.

    Args:
        vectors: of all pictures, those with a label among them.
        budget: how many to choose.
        method: ``typicality``, ``kcenter`` or ``random``; see ``choices``.
        labelled: names of pictures that have a label, beside those that have one in ``vectors``.
        ignore_labels: choose as though ``vectors`` had no label; those in ``labelled`` count.
        seed: the same one chooses the same pictures.

    Raises:
        ConfigError: an unknown method, or a budget or a seed out of range.
        DataError: fewer pictures than ``budget`` are without a label, or a name in ``labelled`` is none of theirs.
    """
    if method not in CHOICES:
        raise ConfigError(f"unknown --method '{method}'{suggest(method, CHOICES)}")
    if budget < 1:
        raise ConfigError(f"--budget must be 1 or more, not {budget}")
    if seed < 0:
        raise ConfigError(f"--seed must be 0 or more, not {seed}")
    has_label = _with_label(vectors, labelled, ignore_labels)
    free = int((~has_label).sum())
    if budget > free:
        raise DataError(_too_few(vectors, budget, free, ignore_labels))
    rows = _drawn(has_label, max(LOOKED_AT, OF_EACH * budget), seed)
    values = normalised(vectors.values[rows])
    picked = rows[CHOICES[method](values, torch.from_numpy(has_label[rows]), budget, seed)].tolist()
    return Chosen(
        listed=tuple(
            Choice(rank=rank, row=row, name=vectors.names[row], group=vectors.groups[row] if vectors.groups else None)
            for rank, row in enumerate(picked, 1)
        ),
        method=method,
        pictures=len(vectors),
        labelled=len(vectors) - free,
        compared=int((~has_label[rows]).sum()),
        seed=seed,
    )


def read_labelled(path: str | Path) -> list[str]:
    """Read the names of labelled pictures: one a line, or the column ``name`` of a CSV file.

    A CSV file that has a column ``label`` too, as the one that ``select-labels`` writes, names as labelled the pictures
    where it is filled in.

    Raises:
        DataError: the file cannot be read, names no picture, or has no such column.
    """
    file = Path(path)
    try:
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"cannot read --labelled {path} ({error.strerror}); give a file with a name a line") from error
    if file.suffix.lower() != ".csv":
        lines = text.replace("\r\n", "\n").split("\n")  # splitlines would cut names at U+2028 and the like
        names = [line for line in lines if line.strip()]
    else:
        table = csv.DictReader(io.StringIO(text, newline=""))
        try:
            columns = table.fieldnames or ()
            rows = [*table]
        except csv.Error as error:
            raise DataError(f"--labelled {path} is no CSV file ({error}); give a file with a name a line") from error
        if "name" not in columns:
            raise DataError(f"--labelled {path} has no column 'name'{suggest('name', map(printable, columns))}")
        names = [unguarded(row["name"] or "") for row in rows if "label" not in columns or (row["label"] or "").strip()]
    if not names:
        raise DataError(f"--labelled {path} names no picture that has a label; fill some in, or leave the option out")
    return names


def _with_label(vectors: Vectors, labelled: Sequence[str], ignore_labels: bool) -> NDArray[np.bool_]:
    known = vectors.labels if vectors.labels and not ignore_labels else [None] * len(vectors)
    has_label = np.array([label is not None for label in known])
    has_label[[vectors.row_of(name) for name in labelled]] = True
    return has_label


def _drawn(has_label: NDArray[np.bool_], most: int, seed: int) -> NDArray[np.int64]:
    """Return the rows to compare, ascending: all, or ``most`` of those without a label and of those with one."""
    parts = []
    for stream, which in enumerate((~has_label, has_label)):
        rows = np.flatnonzero(which)
        if len(rows) > most:
            rows = rows[torch.randperm(len(rows), generator=generator(seed, SPLIT, stream))[:most].numpy()]
        parts.append(rows)
    return np.sort(np.concatenate(parts))


def _too_few(vectors: Vectors, budget: int, free: int, ignore_labels: bool) -> str:
    where = vectors.path or "the vectors"
    if free:
        return f"--budget {budget:,}: {where} has {free:,} pictures without a label; give --budget {free} or less"
    way = "" if ignore_labels or not vectors.labels else "; --ignore-labels chooses as though none had one"
    return f"every picture of {where} has a label: there is none to choose{way}"
