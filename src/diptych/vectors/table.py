"""Vectors of pictures, with their names, and the card that says where they come from.

On disk they are a Parquet file (columns ``name``, ``label``, ``group``, ``vector``; the card in its metadata), or a
plain ``NAME.npy`` with ``NAME.json`` (the card) and ``NAME.jsonl`` (a line a row: name, label, group) beside it.
Vectors of somebody else are read too: a ``.npy`` alone, or a Parquet file with a column ``vector``; they have no card.
"""

import difflib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from diptych.backbones.feature_choice import FeatureChoice
from diptych.config import from_dict, to_dict
from diptych.errors import ConfigError, DataError, printable, typed
from diptych.frozen import Preprocessing
from diptych.runs import SCHEMA_VERSION
from diptych.vectors.files import COLUMNS, KIND, Values, head, read_npy, read_parquet, refuse_not_finite

SUFFIXES = (".parquet", ".npy")
LOOKED_AT = 20_000
"""Names compared with one that is not there: more would take seconds."""


@dataclass(frozen=True, kw_only=True)
class VectorsCard:
    """Where vectors come from: two files with equal ``weights``, ``preprocessing`` and ``features`` can be compared."""

    schema_version: int
    weights: str
    """Hash of the backbone's weights, see ``frozen.weights_digest``: another one makes other vectors."""
    backbone: str
    preprocessing: Preprocessing
    features: FeatureChoice
    run: str
    """The run folder, as it was typed."""
    data: str
    """What ``open_data`` takes, as it was typed."""
    data_dir: str | None
    part: str
    """Which pictures of ``data``: all, train or test."""
    fingerprint: str
    """Of the source of the pictures."""
    diptych: str
    """The version that computed the vectors."""
    limit: int | None = None
    """So many pictures were drawn from the part; None for all of them."""
    shape: tuple[int, ...] = ()
    """Of what each vector is a flattened copy: cells ``(C, h, w)``; empty for plain vectors."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Vectors:
    """Vectors of N pictures."""

    values: Values
    """``(N, D)``, all finite; perhaps memory-mapped, and then read-only."""
    names: Sequence[str]
    """Of the pictures within their source; the numbers of the rows where nothing is known."""
    labels: Sequence[str | None] | None
    """The class of each picture by name, None where it has none; None as a whole where no picture has one."""
    groups: Sequence[str | None] | None
    """What each picture belongs to, likewise."""
    card: VectorsCard | None
    """None for vectors of somebody else."""
    path: Path | None
    """The file; None for vectors that were made here."""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def dim(self) -> int:
        """How many numbers a vector has."""
        return int(self.values.shape[1])

    def row_of(self, name: str) -> int:
        """Return the place of the picture ``name``; of the first one where several have it.

        Raises:
            DataError: there is none; the text names one that is like it.
        """
        row = self._rows.get(name)
        if row is None:
            raise DataError(f"{self.path or 'the vectors'}: no picture is named '{name}'{self._like(name)}")
        return row

    @cached_property
    def _rows(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for row, name in enumerate(self.names):
            found.setdefault(name, row)
        return found

    def _like(self, name: str) -> str:
        last = name.rpartition("/")[2]
        close = next((other for other in self.names if other.rpartition("/")[2] == last), None)
        if close is None:
            close = next(iter(difflib.get_close_matches(name, islice(self.names, LOOKED_AT), n=1)), None)
        return printable(f"; did you mean '{close}'?" if close else f"; the first one is '{self.names[0]}'")


def read_vectors(path: str | Path) -> Vectors:
    """Read vectors from a Parquet or ``.npy`` file; the numbers of a ``.npy`` stay on disk, memory-mapped.

    Raises:
        DataError: there is no such file, it is cut short or damaged, holds no vectors of float32 or float16, or one
            that is not finite (its row is named); or it was written by another version.
        ConfigError: it is a Parquet file, and pyarrow is not installed.
    """
    file = Path(os.path.expanduser(path))
    if file.suffix not in SUFFIXES:
        raise DataError(f"{path}: vectors lie in a file NAME.parquet or NAME.npy; give one of these")
    if not os.path.isfile(file):  # Path's own raises where a name is too long
        raise DataError(f"there is no file {path}; make one with {typed('diptych embed RUN DATA --out', path)}")
    values, columns, text = read_parquet(file) if file.suffix == ".parquet" else read_npy(file)
    if 0 in values.shape:
        raise DataError(f"{path} holds no vectors; embed pictures with `diptych embed RUN DATA --out FILE`")
    refuse_not_finite(values, file)
    card = None if text is None else read_card(text, str(path))
    names, labels, groups = (_texts(columns.get(name)) for name in COLUMNS)
    named = names or [None] * len(values)
    return Vectors(
        values=values,
        names=[str(row) if name is None else name for row, name in enumerate(named)],
        labels=labels,
        groups=groups,
        card=card,
        path=file,
    )


def card_of(path: Path) -> tuple[VectorsCard | None, str, int]:
    """Return the card of a file of vectors, the type of its numbers and how many vectors it has; none is read.

    Raises:
        DataError: it is damaged, or was written by another version.
        ConfigError: it is a Parquet file, and pyarrow is not installed.
    """
    rows, dtype, text = head(path)
    return None if text is None else read_card(text, str(path)), dtype, rows


def write_card(card: VectorsCard) -> str:
    """Return a card as JSON."""
    # In ASCII, as paths may hold bytes that are no text, which JSON keeps as escapes alone.
    return json.dumps({"kind": KIND, **to_dict(card)}, allow_nan=False)


def read_card(text: str | bytes, where: str) -> VectorsCard | None:
    """Read what ``write_card`` gave; None for JSON of somebody else.

    Raises:
        DataError: it is damaged or was written by another version; ``where`` says in which file.
    """
    try:
        values = json.loads(text)
        if not isinstance(values, dict) or values.pop("kind", None) != KIND:
            return None
        if values.get("schema_version") != SCHEMA_VERSION:
            raise DataError(
                f"{where} was written by another version of diptych (schema {values.get('schema_version')}, this one "
                f"knows {SCHEMA_VERSION}); embed the pictures again, or update diptych"
            )
        return from_dict(VectorsCard, values)
    except (ValueError, RecursionError, ConfigError) as error:
        raise DataError(f"{where} is damaged ({error}); embed the pictures again") from error


def _texts(column: list[Any] | None) -> list[str | None] | None:
    """Return a column as text, of numbers of somebody else theirs; None where there is none, or nothing in it.

    Half of a surrogate pair, which is no text, becomes a question mark: no terminal, page or file would take it.
    """
    if column is None or all(value is None for value in column):
        return None
    return [None if value is None else str(value).encode("utf-8", "replace").decode() for value in column]
