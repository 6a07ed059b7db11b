"""All that a page shows of one set of pictures, whether a server hands it out or an export writes it down."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources.source import Source
from diptych.errors import DataError
from diptych.explorer.later import Later
from diptych.explorer.layout import Kind, Layout, check_layout, lay_out
from diptych.explorer.schemes import Scheme, schemes_of
from diptych.vectors.neighbours import nearest
from diptych.vectors.table import Vectors
from diptych.vectors.thumbnails import thumbnail

NEIGHBOURS = 12
"""Shown of each picture."""

Embed = Callable[[bytes], NDArray[np.float32]]
"""Turns the content of a picture's file into a vector ``(D,)``, by the backbone that made the others; may raise
BadPicture."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """A set of pictures and its map."""

    title: str
    vectors: Vectors
    pictures: Source | None
    """Picture i belongs to vector i; None where they are not at hand."""
    layout: Later[Layout]
    schemes: dict[str, Scheme]
    """What the points can be coloured by, by name."""
    embed: Embed | None
    """None where no picture from outside can be placed."""

    def about(self, *, places: bool) -> dict[str, Any]:
        """Return what the page has to know first, as JSON values; ``places``: whether it may send pictures in."""
        return {
            "title": self.title,
            "count": len(self.vectors),
            "layout": self.layout.value().sentence,
            "pictures": self.pictures is not None,
            "places": places,
            "schemes": [
                {"name": scheme.name, "title": scheme.title, "quick": scheme.quick} for scheme in self.schemes.values()
            ],
        }

    def positions(self) -> bytes:
        """Return x and y of each picture in turn, float32, little-endian."""
        return self.layout.value().positions.astype("<f4").tobytes()

    def names(self) -> str:
        """Return the names of all pictures as a JSON list in ASCII."""
        return json.dumps([*self.vectors.names])

    def picture(self, row: int, side: int) -> bytes | None:
        """Return a small JPEG of a picture, None where it cannot be read."""
        if self.pictures is None:
            return None
        try:
            return thumbnail(self.pictures, row, side)
        except BadPicture:
            return None

    def neighbours(self, first: int, end: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the nearest other pictures of those from ``first`` to ``end``: similarities ``(M, k)`` and rows."""
        k = min(NEIGHBOURS, len(self.vectors) - 1)
        if k == 0:
            return np.empty((end - first, 0), np.float32), np.empty((end - first, 0), np.int64)
        values = self.vectors.values
        return nearest(values[first:end], values, k, leave_out=np.arange(first, end))

    def place(self, content: bytes) -> dict[str, Any]:
        """Find where a picture from outside belongs.

        Args:
            content: of the file.

        Returns:
            ``x`` and ``y`` on the map, ``rows`` and ``similarities`` of its nearest pictures.

        Raises:
            DataError: it is no picture, or not of a kind that the backbone takes.
        """
        assert self.embed is not None
        try:
            vector = self.embed(content)
        except BadPicture as bad:
            raise DataError(f"this file has no place on the map: {bad.reason}; try another one") from bad
        if not np.isfinite(vector).all():
            raise DataError("this file has no place on the map: its vector is not finite; try another one")
        values = self.vectors.values
        similarities, rows = nearest(vector[None], values, min(NEIGHBOURS, len(values)))
        x, y = self.layout.value().place(vector, similarities[0], rows[0])
        return {"x": x, "y": y, **listed(similarities[0], rows[0])}


def listed(similarities: NDArray[np.float32], rows: NDArray[np.int64]) -> dict[str, Any]:
    """Return neighbours ``(k,)`` as JSON values."""
    return {"rows": rows.tolist(), "similarities": [round(value, 6) for value in similarities.tolist()]}


def compose(
    vectors: Vectors,
    pictures: Source | None,
    *,
    layout: Kind = "pca",
    splits: Sequence[str | None] | None = None,
    embed: Embed | None = None,
    title: str | None = None,
) -> Scene:
    """Lay out a set of pictures by PCA; what takes longer waits until it is asked for, and so does UMAP.

    Args:
        vectors: of the pictures.
        pictures: picture i belongs to vector i; None where they are not at hand.
        layout: ``pca`` or ``umap``.
        splits: the part of each picture (train, test); None where they are not divided.
        embed: makes a vector of a picture from outside; None where the backbone is not at hand.
        title: for people; found from the pictures if None.

    Raises:
        DataError: there is no picture, or there are not as many as there are vectors; or a vector is not finite.
        ConfigError: there is no such layout, it is not installed, or there are too few pictures for it.
    """
    if len(vectors) == 0:
        raise DataError(f"{vectors.path or 'the vectors'}: there is no picture to show; embed some first")
    if pictures is not None and len(pictures) != len(vectors):
        raise DataError(f"{pictures.name} holds {len(pictures):,} pictures, but there are {len(vectors):,} vectors")
    check_layout(layout, len(vectors))
    places = Later(f"the map by {layout.upper()}", lambda: lay_out(vectors.values, layout))
    if layout == "pca":
        places.value()
    return Scene(
        title=title or (pictures.name if pictures is not None else str(vectors.path or "vectors")),
        vectors=vectors,
        pictures=pictures,
        layout=places,
        schemes={scheme.name: scheme for scheme in schemes_of(vectors, splits)},
        embed=embed,
    )
