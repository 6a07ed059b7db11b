"""What the map of some vectors needs beside them, found again by their card: pictures, parts, the backbone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diptych.data.decoding.decode import decode
from diptych.data.sources.source import Source, Subset
from diptych.errors import UserError
from diptych.explorer.scene import Embed
from diptych.progress import Terminal
from diptych.vectors.pictures import Joined, pictures_of, places
from diptych.vectors.search import load_embedder
from diptych.vectors.table import Vectors

MOST_PIXELS = 1 << 26
"""Width × height of a picture from outside: a small file may hold any number, and each takes up to 25 bytes here."""


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What is at hand; what is not was said."""

    pictures: Source | None
    """Picture i belongs to vector i."""
    splits: Sequence[str] | None
    """The part of each picture (train, test)."""
    embed: Embed | None
    """Makes a vector of a picture from outside."""


def surroundings(vectors: Vectors, device: str, terminal: Terminal) -> Surroundings:
    """Find the pictures of some vectors and the network that made them; a map can be shown without either.

    Args:
        vectors: of ``read_vectors``.
        device: for the network.
        terminal: where what is missing is said.
    """
    pictures, splits = _pictures(vectors, terminal)
    return Surroundings(pictures=pictures, splits=splits, embed=_embedder(vectors, device, terminal))


def _pictures(vectors: Vectors, terminal: Terminal) -> tuple[Source | None, Sequence[str] | None]:
    if vectors.card is None:
        terminal.say("nothing says which pictures these vectors are of, so none is shown")
        return None, None
    try:
        source = pictures_of(vectors.card)
        where = places(source, vectors.names)
    except UserError as error:
        terminal.say(f"no pictures are shown: {error}")
        return None, None
    joined = source.source if isinstance(source, Subset) else source
    splits = None
    if isinstance(joined, Joined):
        rows = [source.indices[place] for place in where] if isinstance(source, Subset) else where
        splits = [joined.part(row) for row in rows]
    return Subset(source, where), splits


def _embedder(vectors: Vectors, device: str, terminal: Terminal) -> Embed | None:
    try:
        backbone = load_embedder(vectors, device)
    except UserError as error:
        terminal.say(f"pictures from outside have no place on this map: {error}")
        return None
    choice = vectors.card.features if vectors.card else None
    assert choice is not None

    def embed(content: bytes) -> NDArray[np.float32]:
        # Of the size that the others were decoded for: a JPEG of the set is to be found at its own place.
        picture = decode(content, "the picture", backbone.preprocessing.image_size, MOST_PIXELS)
        values: NDArray[np.float32] = backbone.embed([picture.transpose(1, 2, 0)], features=choice).numpy()[0]
        return values

    return embed
