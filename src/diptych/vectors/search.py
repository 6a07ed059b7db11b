"""``diptych search``: the pictures of a set that are most like one picture, by the cosine of their vectors."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.data.decoding.pixels import BadPicture
from diptych.errors import ConfigError, DataError, RunFolderError, printable, typed
from diptych.frozen import FrozenBackbone, Picture, load, weights_digest
from diptych.runs import SCHEMA_VERSION
from diptych.vectors.index import Index
from diptych.vectors.listing import aligned
from diptych.vectors.neighbours import nearest
from diptych.vectors.table import Vectors, VectorsCard

DEFAULT_K = 20
MANY = 1_000_000
"""Vectors from which on an index is advised."""


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A picture that was found."""

    rank: int
    """1 is the most similar."""
    row: int
    """Of the vectors."""
    similarity: float
    """Cosine, -1..1; what is high differs from network to network."""
    name: str
    label: str | None
    group: str | None


@dataclass(frozen=True, kw_only=True)
class Found:
    """The pictures most like a query."""

    query: str
    """Its name in the set, or what else it was."""
    row: int | None
    """Of the query, where it is of the set, and then not among the hits."""
    hits: tuple[Hit, ...]
    """The most similar first; of equal ones the smaller row."""
    vectors: int
    """How many were searched."""
    how: str
    """Exact, or by which index and what share of the nearest that finds."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"schema_version": SCHEMA_VERSION, **asdict(self)}

    def as_text(self) -> str:
        """Return a table for a terminal."""
        header = ["rank", "similarity", "name", *(["label"] if any(hit.label for hit in self.hits) else [])]
        rows = [[str(hit.rank), f"{hit.similarity:.4f}", hit.name, hit.label or ""][: len(header)] for hit in self.hits]
        title = f"most like {self.query}{'' if self.row is None else ' of the set'}, of {self.vectors:,} ({self.how})"
        return "\n".join([printable(title), "", *aligned(header, rows, len(header) - 2)])


def search(
    vectors: Vectors,
    query: Picture,
    k: int | None = None,
    *,
    index: Index | None = None,
    device: str = "auto",
) -> Found:
    """Find the pictures most like a query.

    Args:
        vectors: of ``read_vectors``.
        query: the name of a picture of the set, which is then left out of the answer; or another picture, which the
            run of the vectors embeds: a file, a Pillow picture or an array ``(H, W, C)``; or its vector ``(D,)``.
        k: how many to find; 20, or all where there are fewer, if None.
        index: of ``open_index``; exact search if None.
        device: for the network: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        DataError: there is no such picture, it cannot be read, or nothing says which run made the vectors.
        RunFolderError: that run is gone or has other weights now.
        ConfigError: there are fewer than ``k`` pictures, or ``k`` is below 1.
    """
    row = _row(vectors, query)
    available = len(vectors) - (row is not None)
    if available == 0:
        raise DataError(f"{_where(vectors)} has a single picture, {vectors.names[0]}: there is no other to be found")
    if k is not None and not 1 <= k <= available:
        others = "other pictures" if row is not None else "pictures"
        raise ConfigError(f"-k must be 1..{available:,}, as there are {available:,} {others}, not {k}")
    wanted = min(DEFAULT_K, available) if k is None else k
    values = vectors.values[row : row + 1] if row is not None else _embedded(vectors, query, device)
    leave_out = None if row is None else np.array([row])
    if index is None:
        similarities, rows = nearest(values, vectors.values, wanted, leave_out=leave_out)
    else:
        similarities, rows = index.nearest(values, vectors.values, wanted, leave_out=leave_out)
    return Found(
        query=vectors.names[row] if row is not None else _title(query),
        row=row,
        hits=tuple(
            Hit(
                rank=rank,
                row=found,
                similarity=similarity,
                name=vectors.names[found],
                label=vectors.labels[found] if vectors.labels else None,
                group=vectors.groups[found] if vectors.groups else None,
            )
            for rank, (found, similarity) in enumerate(zip(rows[0].tolist(), similarities[0].tolist(), strict=True), 1)
        ),
        vectors=len(vectors),
        how=_exact(vectors) if index is None else index.sentence,
    )


def load_embedder(vectors: Vectors, device: str = "auto") -> FrozenBackbone:
    """Load the network that made the vectors, to embed more pictures for comparison with them.

    Raises:
        DataError: nothing says which it was.
        RunFolderError: its run is gone, or has other weights now.
    """
    card = vectors.card
    if card is None:
        raise DataError(
            f"nothing says which run made {_where(vectors)}, so no other picture can be compared with them: search by "
            "the name of a picture of the set, or make vectors with `diptych embed`"
        )
    try:
        backbone = load(card.run, device)
    except RunFolderError as error:
        raise RunFolderError(f"{_where(vectors)} was embedded by the run {card.run}, and now: {error}") from error
    if weights_digest(backbone.module) != card.weights or backbone.preprocessing != card.preprocessing:
        raise RunFolderError(
            f"{_where(vectors)} is stale: the run {card.run} has other weights now; embed the pictures again with "
            + _embed_again(vectors, card)
        )
    return backbone


def _row(vectors: Vectors, query: Picture) -> int | None:
    """Return the row of a query by name; None for a picture. A name of the set comes before a file's."""
    if not isinstance(query, str) or (query not in vectors.names and os.path.isfile(query)):
        return None
    try:
        return vectors.row_of(query)
    except DataError as error:
        raise DataError(f"there is no file '{printable(query)}', and in {error}") from error


def _embedded(vectors: Vectors, query: Picture, device: str) -> NDArray[np.float32]:
    """Return the vector ``(1, D)`` of a picture."""
    if isinstance(query, np.ndarray) and query.ndim == 1:
        values = query[None].astype(np.float32)
    else:
        backbone = load_embedder(vectors, device)
        assert vectors.card is not None
        try:
            values = backbone.embed([query], features=vectors.card.features).numpy()
        except BadPicture as bad:
            raise DataError(f"the query {bad.name} is not a picture that can be read ({bad.reason})") from bad
    if values.shape[1] != vectors.dim:
        raise DataError(f"the query has {values.shape[1]} numbers and {_where(vectors)} has vectors of {vectors.dim}")
    if not np.isfinite(values).all():
        raise DataError("the vector of the query holds a NaN or infinite number, so that nothing is like it")
    return values


def _exact(vectors: Vectors) -> str:
    return "exact" if len(vectors) < MANY else "exact; of so many, an index is quicker: add --index NAME.faiss"


def _title(query: Picture) -> str:
    if isinstance(query, str | Path):
        return str(query)
    return "a vector" if isinstance(query, np.ndarray) and query.ndim == 1 else "a picture"


def _where(vectors: Vectors) -> str:
    return str(vectors.path or "the set")


def _embed_again(vectors: Vectors, card: VectorsCard) -> str:
    words = [card.run, card.data]
    for option, value in (("--data-dir", card.data_dir), ("--limit", card.limit), ("--layer", card.features.layer)):
        words += [] if value is None else [option, str(value)]
    words += [] if card.part == "all" else ["--part", card.part]
    words += [] if card.features.kind == "pooled" else ["--features", card.features.kind]
    words += ["--dtype", "float16"] if vectors.values.dtype == np.float16 else []
    return typed("diptych embed", *words, "--out", vectors.path or "FILE.parquet", "--overwrite")
