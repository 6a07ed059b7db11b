"""From parts to one file of vectors: Parquet, or ``.npy`` with ``.json`` and ``.jsonl`` beside it; see ``table.py``.

A block of vectors is in memory at a time. Row groups of a Parquet file do not depend on how the parts were cut, so a
command that was killed gives the same bytes as one that was not.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources.source import Source
from diptych.runs import write_text, writing
from diptych.vectors.files import BLOCK, CARD_KEY, COLUMNS, Values, pyarrow
from diptych.vectors.parts import Part
from diptych.vectors.table import VectorsCard, write_card


def write_parquet(path: Path, parts: Iterable[Part], source: Source, card: VectorsCard) -> None:
    """Write a Parquet file, whole or not at all.

    Args:
        path: where.
        parts: the vectors; at least one.
        source: the pictures that they are of.
        card: goes into the file's metadata.

    Raises:
        ConfigError: pyarrow is not installed.
        RunFolderError: the disk is full, or the folder may not be written.
    """
    arrow = pyarrow()
    writer = None
    with writing(path) as temporary, open(temporary, "wb") as file:
        for values, places in _blocks(parts):
            vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(values.reshape(-1)), values.shape[1])
            texts = [arrow.array(column, arrow.string()) for column in zip(*_rows(source, places), strict=True)]
            table = arrow.Table.from_arrays([*texts, vectors], [*COLUMNS, "vector"])
            if writer is None:
                # Numbers like these hardly become smaller, and reading them would take twice as long.
                packing = dict.fromkeys(COLUMNS, "zstd") | {"vector.list.element": "none"}
                writer = arrow.parquet.ParquetWriter(
                    file,
                    table.schema.with_metadata({CARD_KEY: write_card(card).encode()}),
                    compression=packing,
                    use_dictionary=["label", "group"],
                    write_statistics=["name", "label", "group"],
                    write_page_checksum=True,
                )
            writer.write_table(table, row_group_size=len(table))
        assert writer is not None
        writer.close()


def write_npy(path: Path, parts: Iterable[Part], count: int, source: Source, card: VectorsCard) -> None:
    """Write ``NAME.npy``, ``NAME.jsonl`` and ``NAME.json``, each whole or not at all.

    Args:
        path: ``NAME.npy``.
        parts: the vectors; at least one.
        count: how many they are.
        source: the pictures that they are of.
        card: goes into ``NAME.json``.

    Raises:
        RunFolderError: the disk is full, or the folder may not be written.
    """
    with (
        writing(path) as temporary,
        writing(path.with_suffix(".jsonl")) as rows,
        open(temporary, "wb") as numbers,
        open(rows, "w", encoding="utf-8") as lines,
    ):
        for values, places in _blocks(parts):
            if numbers.tell() == 0:
                head = np.lib.format.header_data_from_array_1_0(values) | {"shape": (count, values.shape[1])}
                np.lib.format.write_array_header_1_0(numbers, head)
            numbers.write(values.data)
            lines.writelines(
                json.dumps(dict(zip(COLUMNS, row, strict=True)), ensure_ascii=False) + "\n"
                for row in _rows(source, places)
            )
    write_text(path.with_suffix(".json"), write_card(card) + "\n")


def write_quarantine(path: Path, bad: Iterable[BadPicture]) -> None:
    """Write a line for each picture that was left out: its name and the reason."""
    records = ({"name": one.name, "reason": one.reason, "during": "embed"} for one in bad)
    write_text(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))


def _blocks(parts: Iterable[Part]) -> Iterator[tuple[Values, NDArray[np.int64]]]:
    """Yield the vectors of all parts, cut anew into blocks of ``BLOCK`` numbers, and their places in the source."""
    waiting: list[Part] = []
    for part in parts:
        waiting.append(part)
        rows = max(1, BLOCK // part.values.shape[1])
        while sum(len(one.places) for one in waiting) >= rows:
            values, places = _joined(waiting)
            yield values[:rows], places[:rows]
            waiting = [Part(values=values[rows:], places=places[rows:], bad=[])]
    values, places = _joined(waiting)
    if len(places):
        yield values, places


def _joined(parts: list[Part]) -> tuple[Values, NDArray[np.int64]]:
    return np.concatenate([part.values for part in parts]), np.concatenate([part.places for part in parts])


def _rows(source: Source, places: NDArray[np.int64]) -> Iterator[tuple[str | None, ...]]:
    """Yield the name, the class and the group of each picture."""
    for place in places.tolist():
        label = source.label(place)
        row = source.name_of(place), None if label is None else source.classes[label], source.group(place)
        # A folder's name may hold bytes that are no text, and files of vectors take text alone.
        yield tuple(text and text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for text in row)
