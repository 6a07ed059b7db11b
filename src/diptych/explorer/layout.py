"""A place on the map for each vector: by principal components at once, or by UMAP.

Vectors are brought to length 1 first, so that what is near on the map is near by the cosine that finds neighbours.

PCA: the two directions of most variance (Pearson 1901, doi 10.1080/14786440109462720), found on at most ``FITTED``
rows, evenly drawn by a fixed seed; all rows are then projected, a block at a time. UMAP (McInnes, Healy and Melville
2018, arXiv 1802.03426) with its authors' package and defaults, save that the metric is the cosine and the seed fixed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from diptych.errors import ConfigError, DataError, suggest
from diptych.vectors.files import Values
from diptych.vectors.neighbours import normalised

Kind = Literal["pca", "umap"]

FITTED = 50_000
"""Rows that components are found on: more would move them by less than a dot."""
BLOCK = 1 << 14
"""Rows projected at a time."""
UMAP_NEIGHBOURS = 15
"""The default of its authors."""
UMAP_LEAST = 5
"""Pictures below which UMAP's spectral start has nothing to work with."""
BLENDED = 3
"""Neighbours whose places a new picture is put between, on a map that has no formula for it."""

Place = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]], tuple[float, float]]
"""Puts a new vector ``(D,)`` on the map, given its nearest neighbours' similarities ``(k,)`` and rows ``(k,)``."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """The map."""

    positions: NDArray[np.float32]
    """``(N, 2)``: x to the right, y up, the larger of both ranges -1..1."""
    sentence: str
    """How it came about, for people."""
    place: Place


def check_layout(kind: Kind, count: int) -> None:
    """Look at what was asked for, before minutes are spent on it.

    Raises:
        ConfigError: there is no such layout, UMAP is not installed, or there are too few pictures for it.
    """
    if kind not in get_args(Kind):
        raise ConfigError(f"unknown --layout '{kind}'{suggest(kind, get_args(Kind))}")
    if kind == "umap" and count < UMAP_LEAST:
        raise ConfigError(f"--layout umap needs {UMAP_LEAST} pictures or more, not {count}: take --layout pca")
    if kind == "umap" and find_spec("umap") is None:
        raise ConfigError(
            "--layout umap needs a package that is not installed: pip install 'diptych[umap]', or take --layout pca"
        )


def lay_out(values: Values, kind: Kind = "pca") -> Layout:
    """Find a place for each vector.

    Args:
        values: ``(N, D)``, finite; N of 1 and more.
        kind: ``pca`` or ``umap``.

    Raises:
        ConfigError: as for ``check_layout``.
        DataError: a vector is not finite.
    """
    check_layout(kind, len(values))
    return _by_pca(values) if kind == "pca" else _by_umap(values)


def unit(values: Values) -> NDArray[np.float32]:
    """Return vectors ``(N, D)`` as float32 of length 1; zeros stay zeros. Raises DataError where one is not finite."""
    found: NDArray[np.float32] = normalised(values).numpy()
    if not np.isfinite(found).all():
        raise DataError("a vector holds NaN or an infinite number: leave such rows out, or embed the pictures again")
    return found


def sample(values: Values, most: int) -> NDArray[np.float32]:
    """Return at most so many vectors, evenly drawn by a fixed seed, of length 1."""
    if len(values) <= most:
        return unit(values)
    rows = np.random.default_rng(0).choice(len(values), most, replace=False)
    return unit(values[np.sort(rows)])  # in order: a memory-mapped file is read once


def _by_pca(values: Values) -> Layout:
    fitted = sample(values, FITTED)
    model = PCA(min(2, *fitted.shape), random_state=0)
    with np.errstate(invalid="ignore"):  # the share of a variance of 0
        model.fit(fitted)

    def project(rows: Values) -> NDArray[np.float32]:
        flat = np.zeros((len(rows), 2), np.float32)
        flat[:, : len(model.components_)] = (unit(rows) - model.mean_) @ model.components_.T
        return flat

    raw = np.concatenate([project(values[start : start + BLOCK]) for start in range(0, len(values), BLOCK)])
    middle, scale = _frame(raw)
    share = model.explained_variance_ratio_.sum()

    def place(
        vector: NDArray[np.float32], similarities: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[float, float]:
        x, y = ((project(vector[None]) - middle) / scale)[0]
        return float(x), float(y)

    return Layout(
        positions=(raw - middle) / scale,
        sentence=f"PCA, {100 * share:.0f} % of variance" if np.isfinite(share) else "PCA, all vectors equal",
        place=place,
    )


def _by_umap(values: Values) -> Layout:
    from umap import UMAP  # an extra, which takes seconds to load

    neighbours = min(UMAP_NEIGHBOURS, len(values) - 1)
    # One job: more would make UMAP take other numbers each time, and warn of it.
    model = UMAP(n_neighbors=neighbours, metric="cosine", random_state=0, n_jobs=1)
    raw = np.asarray(model.fit_transform(unit(values)), np.float32)
    middle, scale = _frame(raw)
    positions = (raw - middle) / scale

    def place(
        vector: NDArray[np.float32], similarities: NDArray[np.float32], rows: NDArray[np.int64]
    ) -> tuple[float, float]:
        weights = np.clip(similarities[:BLENDED], 1e-6, None)
        x, y = np.average(positions[rows[:BLENDED]], axis=0, weights=weights)
        return float(x), float(y)

    return Layout(positions=positions, sentence=f"UMAP, {neighbours} neighbours", place=place)


def _frame(raw: NDArray[np.float32]) -> tuple[NDArray[np.float32], float]:
    """Return the middle and half the larger range: what brings positions to -1..1 without distorting them."""
    low, high = raw.min(axis=0), raw.max(axis=0)
    middle: NDArray[np.float32] = (low + high) / 2
    return middle, float((high - low).max() / 2) or 1.0
