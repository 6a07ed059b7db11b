"""The pictures that vectors are of: both parts of a set in one row, and found again by a card."""

import bisect
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from diptych.backbones.feature_choice import POOLED
from diptych.data.decoding.pixels import Header, Pixels
from diptych.data.sources.chosen import tiled
from diptych.data.sources.open import Splits, open_data
from diptych.data.sources.source import Source, digest
from diptych.data.sources.split import draw
from diptych.errors import ConfigError, DataError, suggest, typed
from diptych.frozen import load, open_finished, weights_digest
from diptych.vectors.table import VectorsCard, card_of

Part: TypeAlias = Literal["all", "train", "test"]


class Joined:
    """Several sources one after the other, with the classes of all.

    Where a name occurs in several of them, all names are written behind the name of their part: ``test/cat/00001``.

    Args:
        name: for people.
        parts: the sources by the names of their parts.
    """

    def __init__(self, name: str, parts: dict[str, Source]) -> None:
        self.name, self._parts, self._words = name, [*parts.values()], [*parts]
        self.classes = tuple(dict.fromkeys(word for part in self._parts for word in part.classes))
        places = {word: place for place, word in enumerate(self.classes)}
        self._labels = [[places[word] for word in part.classes] for part in self._parts]
        self.fingerprint = digest([part.fingerprint for part in self._parts])
        self._ends = [*accumulate(map(len, self._parts))]
        self._prefixes = [f"{word}/" if _share_a_name(self._parts) else "" for word in parts]

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, index: int, size: int | None = None) -> Pixels:
        """Return picture ``index``. Raises BadPicture."""
        part, within = self._place(index)
        return self._parts[part].read(within, size)

    def header(self, index: int) -> Header:
        """Describe picture ``index``. Raises BadPicture."""
        part, within = self._place(index)
        return self._parts[part].header(within)

    def region(self, index: int, top: int, left: int, height: int, width: int) -> Pixels:
        """Return a part of picture ``index``. Raises BadPicture."""
        part, within = self._place(index)
        return self._parts[part].region(within, top, left, height, width)

    def name_of(self, index: int) -> str:
        """Return the picture's name in its part, perhaps behind the part's."""
        part, within = self._place(index)
        return self._prefixes[part] + self._parts[part].name_of(within)

    def label(self, index: int) -> int | None:
        """Return the place of the picture's class in ``classes``: parts may number their own differently."""
        part, within = self._place(index)
        label = self._parts[part].label(within)
        return None if label is None else self._labels[part][label]

    def group(self, index: int) -> str | None:
        """Return what the picture belongs to, in its part."""
        part, within = self._place(index)
        return self._parts[part].group(within)

    def part(self, index: int) -> str:
        """Return the name of the part that picture ``index`` is of."""
        return self._words[self._place(index)[0]]

    def _place(self, index: int) -> tuple[int, int]:
        part = bisect.bisect_right(self._ends, index)
        return part, index - (self._ends[part - 1] if part else 0)


def open_pictures(
    data: str, data_dir: str | None = None, part: Part = "all", tile: int | None = None, limit: int | None = None
) -> tuple[Source, str]:
    """Find the pictures to embed; none is decoded yet.

    Args:
        data: as for ``open_data``.
        data_dir: as for ``open_data``.
        part: ``train`` for those to learn from, ``test`` for those to test on, or both, where ``data`` divides them.
        tile: pixels a side of the squares that each picture is cut into.
        limit: how many are drawn, evenly at random by a fixed seed; all if None.

    Returns:
        The pictures, and what was found, for people.

    Raises:
        DataError: there is no such data, it cannot be read, holds no pictures, or no part to test on.
        ConfigError: there is no such part.
    """
    if part not in get_args(Part):
        raise ConfigError(f"unknown --part '{part}'{suggest(part, get_args(Part))}")
    splits = tiled(open_data(data, data_dir), tile)
    source, note = _of(splits, part, data)
    return (source if limit is None else draw(source, limit)), note


def pictures_of(card: VectorsCard) -> Source:
    """Find the pictures of some vectors again.

    Raises:
        DataError: there are none at the place that the card names, or others than were embedded.
    """
    tile = card.preprocessing.tile
    source, _ = open_pictures(card.data, card.data_dir, card.part, tile, card.limit)  # type: ignore[arg-type]
    if source.fingerprint != card.fingerprint:
        raise DataError(
            f"the pictures of {card.data} have changed since they were embedded: embed them again with "
            + typed("diptych embed", card.run, card.data, "--out", "FILE")
        )
    return source


def is_fresh(file: Path, run: str, data: str) -> bool:
    """Whether a file holds the vectors of ``data`` by the run as it is now, of all pictures and as the network ends."""
    card, _, _ = card_of(file)
    if card is None or (card.data, card.part, card.limit, card.features) != (data, "all", None, POOLED):
        return False
    _, about = open_finished(run)
    if card.preprocessing != about.preprocessing:
        return False
    source, _ = open_pictures(data, card.data_dir, tile=about.preprocessing.tile)
    return weights_digest(load(run, "cpu").module) == card.weights and source.fingerprint == card.fingerprint


def places(source: Source, names: Sequence[str], rows: Sequence[int] | None = None) -> list[int]:
    """Return where in ``source`` the pictures of vectors lie: in its order, some perhaps left out.

    Args:
        source: what ``pictures_of`` returned.
        names: ``Vectors.names``.
        rows: those that are asked for, ascending; all if None. A few are found at once, however many there are.

    Raises:
        DataError: a name is not there, or not in this order.
    """
    found: list[int] = []
    left_out, most = 0, max(0, len(source) - len(names))
    for row in range(len(names)) if rows is None else rows:
        near = range(row + left_out, min(row + most + 1, len(source)))
        place = next((place for place in near if source.name_of(place) == names[row]), None)
        if place is None:
            raise DataError(
                f"{source.name} holds no '{names[row]}' at its place among the vectors: embed the pictures again"
            )
        left_out = place - row
        found.append(place)
    return found


def _of(splits: Splits, part: Part, data: str) -> tuple[Source, str]:
    if splits.test is None:
        if part == "test":
            raise DataError(f"{data} holds no part to test on ({splits.note}): leave out --part test")
        return splits.train, splits.note
    if part != "all":
        source = splits.train if part == "train" else splits.test
        return source, f"{splits.note}; only those to {'learn from' if part == 'train' else 'test on'} are embedded"
    return Joined(data, {"train": splits.train, "test": splits.test}), f"{splits.note}; both are embedded"


def _share_a_name(parts: Sequence[Source]) -> bool:
    met: set[str] = set()
    for part in parts:
        names = {part.name_of(index) for index in range(len(part))}
        if not met.isdisjoint(names):
            return True
        met |= names
    return False
