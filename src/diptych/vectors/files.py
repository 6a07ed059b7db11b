"""What lies in a file of vectors, before anything is known of it: numbers, columns, and the text of a card.

Files are other people's: a damaged one is a line that names it, and no code of it runs.
"""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diptych.errors import ConfigError, DataError, UserError, printable, suggest

Values: TypeAlias = NDArray[np.float32 | np.float16]

CARD_KEY = b"diptych"
"""Under it the card lies in the metadata of a Parquet file."""
KIND = "vectors of diptych"
"""Tells our cards from the JSON of others."""
COLUMNS = ("name", "label", "group")
BLOCK = 1 << 24
"""Numbers read or looked at together: 64 MB of float32."""


class Head(NamedTuple):
    """What a file says of itself; none of its vectors is read."""

    rows: int
    dtype: str
    """Of the numbers: float32, float16, or what is no vector's."""
    card: str | None
    """JSON; None where there is none."""


class Content(NamedTuple):
    """What a file holds."""

    values: Values
    """``(N, D)``, perhaps memory-mapped."""
    columns: dict[str, list[Any]]
    """Of ``COLUMNS`` those that there are, N values each."""
    card: str | None
    """JSON; None where there is none."""


def pyarrow() -> ModuleType:
    """Return the package, which Parquet files need and nothing else does.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet
    except ImportError as error:
        raise ConfigError(
            "Parquet files need the package pyarrow: pip install 'diptych[parquet]', or give a file NAME.npy"
        ) from error
    return arrow  # type: ignore[no-any-return]


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a library says of a damaged file into one line: of any kind, as parsers of hostile bytes raise many.

    Raises:
        DataError: the block raised what is no UserError, or there is not enough memory.
    """
    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise DataError(
            f"{path} does not fit into memory: embed the pictures again with --out NAME.npy, which is left on disk"
        ) from error
    except Exception as error:
        reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{path} cannot be read ({printable(reason)}): it is cut short, damaged, or not what its name says; make "
            "it again"
        ) from error


def read_npy(path: Path) -> Content:
    """Open ``NAME.npy``, and ``NAME.json`` and ``NAME.jsonl`` where they lie beside it.

    Raises:
        DataError: one of them is damaged, or the array is none of vectors.
    """
    values = _mapped(path)
    if values.ndim != 2 or values.dtype not in (np.float32, np.float16):
        raise DataError(
            f"{path} holds {values.dtype} {values.shape}, not vectors float32 or float16 (N, D): save them with "
            "np.save(path, vectors.astype('float32'))"
        )
    rows, card = path.with_suffix(".jsonl"), _card_beside(path)
    columns: dict[str, list[Any]] = {}
    if card and KIND in card:
        with reading(rows), open(rows, encoding="utf-8") as file:
            known = [json.loads(line) for line in file]
            columns = {name: [row[name] for row in known] for name in COLUMNS}
        if len(known) != len(values):
            raise DataError(f"{rows} has {len(known):,} lines and {path} {len(values):,} vectors: embed them again")
    return Content(np.ascontiguousarray(values) if not values.flags.c_contiguous else values, columns, card)


def head(path: Path) -> Head:
    """Read what a file says of itself, ``NAME.parquet`` or ``NAME.npy`` with ``NAME.json`` beside it.

    Raises:
        DataError: it is damaged.
        ConfigError: it is a Parquet file, and pyarrow is not installed.
    """
    if path.suffix == ".npy":
        values = _mapped(path)
        return Head(len(values), str(values.dtype), _card_beside(path))
    arrow = pyarrow()
    with reading(path), open(path, "rb") as raw, arrow.parquet.ParquetFile(raw) as file:
        kind = file.schema_arrow.field("vector").type
        numbers = str(kind.value_type.to_pandas_dtype().__name__)
        return Head(file.metadata.num_rows, numbers, _card_within(file))


def read_parquet(path: Path) -> Content:
    """Read a Parquet file, block by block into one array.

    Raises:
        DataError: it is damaged, or has no column ``vector`` of vectors.
        ConfigError: pyarrow is not installed.
    """
    arrow = pyarrow()
    columns: dict[str, list[Any]]
    values: Values | None = None
    start = 0
    with (
        reading(path),
        open(path, "rb") as raw,  # by its name pyarrow would take some for addresses, and refuse what is no UTF-8
        arrow.parquet.ParquetFile(raw, page_checksum_verification=True) as file,
    ):
        schema = file.schema_arrow
        if "vector" not in schema.names:
            raise DataError(f"{path} has no column 'vector'{suggest('vector', map(printable, schema.names))}")
        columns = {name: [] for name in COLUMNS if name in schema.names}
        rows = max(1, BLOCK // max(1, getattr(schema.field("vector").type, "list_size", 1 << 14)))
        for batch in file.iter_batches(rows, columns=["vector", *columns]):
            block = _block(arrow, batch.column("vector"), path, start)
            if values is None:
                values = np.empty((file.metadata.num_rows, block.shape[1]), block.dtype)
            if block.shape[1] != values.shape[1]:
                raise DataError(
                    f"{path}, row {start}: a vector of {block.shape[1]} numbers after such of {values.shape[1]}"
                )
            values[start : start + len(block)] = block
            for name, column in columns.items():
                column += batch.column(name).to_pylist()
            start += len(block)
        card = _card_within(file)
    return Content(np.empty((0, 0), np.float32) if values is None else values, columns, card)


def refuse_not_finite(values: Values, path: Path) -> None:
    """Look at vectors block by block.

    Raises:
        DataError: one holds NaN or an infinite number; the text names the row.
    """
    rows = max(1, BLOCK // values.shape[1])
    for start in range(0, len(values), rows):
        whole = np.isfinite(values[start : start + rows]).all(axis=1)
        if not whole.all():
            raise DataError(
                f"{path}, row {start + int(whole.argmin())}: the vector holds NaN or an infinite number; leave such "
                "rows out, or embed the pictures again"
            )


def _mapped(path: Path) -> Any:
    with reading(path):
        return np.lib.format.open_memmap(path, mode="r")


def _card_beside(path: Path) -> str | None:
    """Return what ``NAME.json`` beside ``NAME.npy`` holds."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    with reading(beside):
        return beside.read_text(encoding="utf-8", errors="replace")


def _card_within(file: Any) -> str | None:
    """Return the card of a Parquet file that was opened."""
    card = (file.schema_arrow.metadata or {}).get(CARD_KEY)
    return card.decode("utf-8", "replace") if card else None


def _block(arrow: Any, column: Any, path: Path, start: int) -> Values:
    """Return a column of lists as ``(n, D)``."""
    kind = column.type
    is_list = arrow.types.is_fixed_size_list(kind) or arrow.types.is_list(kind) or arrow.types.is_large_list(kind)
    if not is_list or kind.value_type not in (arrow.float32(), arrow.float16()):
        raise DataError(f"{path}: column 'vector' holds {kind}, not lists of float32 or float16")
    if column.null_count or column.flatten().null_count:
        row = next(row for row, vector in enumerate(column.to_pylist()) if vector is None or None in vector)
        raise DataError(f"{path}, row {start + row}: there is no vector, or a number of it is missing")
    if arrow.types.is_fixed_size_list(kind):
        width = kind.list_size
    else:
        lengths = column.value_lengths().to_numpy()
        width = int(lengths[0])
        if (lengths != width).any():
            row = int((lengths != width).argmax())
            raise DataError(f"{path}, row {start + row}: a vector of {lengths[row]} numbers after such of {width}")
    return column.flatten().to_numpy().reshape(len(column), width)  # type: ignore[no-any-return]
