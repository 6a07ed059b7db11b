"""An index of vectors by FAISS (Douze et al. 2024, arXiv 2401.08281), for sets too large to be compared one by one.

Vectors of length 1 are divided into cells by k-means (an inverted file) and kept in 8 bits a number; a query is
compared with those of the nearest cells alone. What they propose is ordered by the vectors themselves, so that
similarities are those of exact search; only a neighbour in a cell that was not looked into can be missed. How many
cells are looked into is chosen as the index is built: the fewest that find ``RECALL`` of the nearest, on a sample.

``NAME.faiss`` is memory-mapped; ``NAME.faiss.json`` beside it says of which vectors it is and what it finds.
"""

import hashlib
import warnings
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diptych.config import from_dict, to_dict
from diptych.errors import ConfigError, DataError, RunFolderError, typed
from diptych.progress import Terminal
from diptych.runs import SCHEMA_VERSION, read_json, write_json, writing, writing_errors
from diptych.seeding import DRAW, generator
from diptych.vectors.files import Values
from diptych.vectors.neighbours import BLOCK, SPARE, nearest, normalised, ranked
from diptych.vectors.table import Vectors

SUFFIX = ".faiss"
RECALL = 0.99
"""Share of the nearest that a search should find."""
NEAREST = 10
"""How many of each are asked for to measure it."""
QUERIES = 1000
"""Pictures of the set that it is measured on."""
LEAST = 39
"""Vectors a cell that FAISS asks for to place its centre."""
MOST = 64
"""Vectors a cell that are enough for it."""
KIND = "index of diptych"


@dataclass(frozen=True, kw_only=True)
class IndexCard:
    """What ``NAME.faiss.json`` says."""

    schema_version: int
    weights: str | None
    """Of the network that made the vectors; None where that is not known."""
    vectors: str
    """Hash of all their numbers."""
    rows: int
    dim: int
    bytes: int
    """Of the file: one cut short is known by it."""
    cells: int
    probed: int
    """Cells that a query looks into."""
    recall: float
    """Share of the ``nearest`` found, against exact search."""
    nearest: int
    queries: int
    """Pictures of the set that it was measured on."""
    diptych: str
    faiss: str
    """Versions."""
    stamp: str | None = None
    """Size and time of change of the file of vectors: while they are the same, its numbers need not be read to know."""


class Index:
    """An index that was opened.

    Args:
        path: its file, for people.
        card: what is known of it.
        mapped: of FAISS.
    """

    def __init__(self, path: Path, card: IndexCard, mapped: Any) -> None:
        self.path, self.card, self._mapped = path, card, mapped

    @property
    def sentence(self) -> str:
        """Say what it finds, for people."""
        card = self.card
        return (
            f"by the index {self.path}, which finds {100 * card.recall:.1f} % of the {card.nearest} nearest that exact "
            f"search does, on {card.queries:,} pictures of the set"
        )

    def nearest(
        self, queries: Values, vectors: Values, k: int, *, leave_out: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Find the k rows nearest to each query, as ``neighbours.nearest`` does, or nearly.

        Args:
            queries: ``(M, D)``.
            vectors: those that the index is of.
            k: 1..N, less one where a row is left out.
            leave_out: ``(M,)``, a row for each query; -1 for none.
        """
        rows = proposed(self._mapped, queries, min(k + SPARE, len(vectors)), self.card.probed)
        if leave_out is not None:
            rows[rows == leave_out[:, None]] = -1
        similarities, rows = ranked(queries, vectors, rows)
        similarities, rows = similarities[:, :k].copy(), rows[:, :k].copy()
        short = np.isneginf(similarities).any(axis=1)  # the cells looked into hold fewer than k
        if short.any():
            out = None if leave_out is None else leave_out[short]
            similarities[short], rows[short] = nearest(queries[short], vectors, k, leave_out=out)
        return similarities, rows


def open_index(path: str | Path, vectors: Vectors) -> Index:
    """Open an index, memory-mapped.

    Raises:
        DataError: it is damaged, or of other vectors than these.
        ConfigError: faiss is not installed.
    """
    file, library = Path(path), faiss()
    again = "build it again with " + typed("diptych search", vectors.path or "VECTORS", "--index", path, "--overwrite")
    try:
        values = read_json(_beside(file))
        if values.pop("kind", None) != KIND:
            raise DataError(f"{_beside(file)} is not of an index of diptych; choose another --index")
        if values.get("schema_version") != SCHEMA_VERSION:
            raise DataError(f"{path} was built by another version of diptych; {again}")
        card = from_dict(IndexCard, values)
        size = file.stat().st_size
    except (RunFolderError, ConfigError, OSError) as error:
        raise DataError(
            f"{path} is no whole index: {_beside(file).name} beside it is missing or damaged; {again}"
        ) from (error)
    if card.dim != vectors.dim:
        raise DataError(f"{path} is of vectors of {card.dim} numbers and these have {vectors.dim}; {again}")
    weights = None if vectors.card is None else vectors.card.weights
    same_file = card.stamp is not None and card.stamp == _stamp(vectors)
    same = card.weights == weights and card.rows == len(vectors)
    if not same or not (same_file or card.vectors == digest(vectors.values)):
        what = "of the vectors of other weights" if card.weights != weights else "of other pictures or other features"
        raise DataError(f"{path} is stale: it is {what} than {vectors.path or 'these'}; {again}")
    if size != card.bytes:
        raise DataError(f"{path} is cut short or damaged ({size:,} of {card.bytes:,} bytes); {again}")
    try:
        mapped = library.read_index(str(file), library.IO_FLAG_MMAP | library.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        raise DataError(f"{path} is damaged; {again}") from error
    return Index(file, card, mapped)


def build_index(
    path: str | Path, vectors: Vectors, *, overwrite: bool = False, terminal: Terminal | None = None
) -> Index:
    """Build an index, measure what it finds, write both and open it.

    Args:
        path: ``NAME.faiss``.
        vectors: two or more.
        overwrite: replace an index that is there.
        terminal: where to speak; silent if None.

    Raises:
        DataError: there is one vector; or ``path`` is there already.
        RunFolderError: it cannot be written.
        ConfigError: ``path`` has another ending, or faiss is not installed.
    """
    file, library, terminal = Path(path), faiss(), terminal or Terminal(quiet=True)
    if file.suffix != SUFFIX:
        raise ConfigError(f"--index {path}: an index is a file NAME{SUFFIX}; type {file.with_suffix(SUFFIX)}")
    if len(vectors) < 2:
        raise DataError(f"{vectors.path or 'the set'} has a single vector, which needs no index: leave out --index")
    with writing_errors(file, "choose another --index"):
        is_there = file.exists()
    if is_there and not (overwrite and file.is_file()):
        raise DataError(f"{path} is there already: choose another --index, or add --overwrite to build it anew")
    count = len(vectors)
    cells = max(1, min(int(4 * count**0.5), count // LEAST))
    built = library.index_factory(vectors.dim, f"IVF{cells},SQ8", library.METRIC_INNER_PRODUCT)
    built.cp.min_points_per_centroid = 1
    sample = _drawn(count, MOST * cells, 0)
    terminal.say(f"building an index of {count:,} vectors in {cells:,} cells")
    built.train(normalised(vectors.values[sample]).numpy())
    with terminal.bar("indexing", count) as bar:
        for start in range(0, count, BLOCK):
            built.add(normalised(vectors.values[start : start + BLOCK]).numpy())
            bar.update(min(start + BLOCK, count))
    terminal.say("comparing it with exact search")
    probed, recall, queries, asked = _measured(built, vectors.values, cells)
    with writing_errors(file, "choose another --index"):
        _beside(file).unlink(missing_ok=True)  # so that at no moment it speaks of another file
    with writing(file) as temporary:
        library.write_index(built, str(temporary))
        size = temporary.stat().st_size
    card = IndexCard(
        schema_version=SCHEMA_VERSION,
        weights=None if vectors.card is None else vectors.card.weights,
        vectors=digest(vectors.values),
        rows=count,
        dim=vectors.dim,
        bytes=size,
        cells=cells,
        probed=probed,
        recall=recall,
        nearest=asked,
        queries=queries,
        diptych=metadata.version("diptych"),
        faiss=library.__version__,
        stamp=_stamp(vectors),
    )
    write_json(_beside(file), {"kind": KIND, **to_dict(card)})
    return Index(file, card, library.read_index(str(file), library.IO_FLAG_MMAP | library.IO_FLAG_READ_ONLY))


def _measured(built: Any, values: Values, cells: int) -> tuple[int, float, int, int]:
    """Return the fewest cells, a power of two, that find ``RECALL``, what they find, of how many queries, and of k."""
    rows = _drawn(len(values), QUERIES, 1)
    k = min(NEAREST, len(values) - 1)
    _, truth = nearest(values[rows], values, k, leave_out=rows)
    probed = 1
    while True:
        found = proposed(built, values[rows], min(k + SPARE, len(values)), probed)
        found[found == rows[:, None]] = -1
        _, found = ranked(values[rows], values, found)
        hits = sum(len(np.intersect1d(*both)) for both in zip(found[:, :k], truth, strict=True))
        recall = hits / truth.size
        if recall >= RECALL or probed == cells:
            return probed, recall, len(rows), k
        probed = min(2 * probed, cells)


def proposed(index: Any, queries: Values, count: int, probed: int) -> NDArray[np.int64]:
    """Return the rows ``(M, count)`` that the nearest ``probed`` cells propose; -1 where they hold fewer."""
    library = faiss()
    asked = normalised(queries).numpy()
    _, rows = index.search(asked, count, params=library.SearchParametersIVF(nprobe=probed))
    found: NDArray[np.int64] = rows.astype(np.int64)
    return found


def digest(values: Values) -> str:
    """Return a hash of vectors, 32 hexadecimal digits; read a block at a time."""
    found = hashlib.blake2b(f"{values.dtype} {values.shape}".encode(), digest_size=16)
    for start in range(0, len(values), BLOCK):
        found.update(np.ascontiguousarray(values[start : start + BLOCK]).data)
    return found.hexdigest()


def _stamp(vectors: Vectors) -> str | None:
    if vectors.path is None:
        return None
    status = vectors.path.stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def faiss() -> ModuleType:
    """Return the package, which an index needs and nothing else does.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of its wrapper, SWIG, on every import
            import faiss as library
    except ImportError as error:
        raise ConfigError(
            "an index needs the package faiss: pip install 'diptych[faiss]', or leave out --index"
        ) from error
    return library


def _drawn(count: int, most: int, purpose: int) -> NDArray[np.int64]:
    """Draw rows, sorted; all where there are no more than ``most``."""
    drawn: NDArray[np.int64] = torch.randperm(count, generator=generator(purpose, DRAW))[:most].numpy()
    return np.sort(drawn)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")
