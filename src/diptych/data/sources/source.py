"""A source is a data set that can be indexed: pictures with names and, perhaps, labels.

``Files`` reads encoded pictures wherever they lie (folder, archive, CSV); ``Arrays`` holds decoded ones; ``Subset`` is
some pictures of another source.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from diptych.data.decoding.decode import decode, header, region
from diptych.data.decoding.pixels import BadPicture, Header, Pixels

__all__ = ["Arrays", "BadPicture", "Entry", "Files", "Listing", "Load", "Source", "Subset", "digest"]

Load: TypeAlias = Callable[[str], "bytes | Path"]
"""Finds the encoded picture of a name: its content, or the file that holds it. Raises BadPicture."""


class Source(Protocol):
    """A data set that can be indexed; ``read`` may be called from many threads at once."""

    @property
    def name(self) -> str:
        """For people, such as ``pictures/train``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that labels point to; empty where there are no labels."""

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256 that changes when the pictures do."""

    def __len__(self) -> int:
        """Number of pictures, unreadable ones included."""

    def read(self, index: int, size: int | None = None) -> Pixels:
        """Return picture ``index`` as ``(C, H, W)``, in the channels and the type it has.

        Args:
            index: 0 .. ``len`` - 1.
            size: a hint: the caller will make it ``size`` pixels a side, so a reduced form of at least three times
                that may be returned.

        Raises:
            BadPicture: it cannot be read.
        """

    def header(self, index: int) -> Header:
        """Describe picture ``index`` without decoding its pixels. Raises BadPicture."""

    def region(self, index: int, top: int, left: int, height: int, width: int) -> Pixels:
        """Return a part of picture ``index``, ``(C, height, width)``, without keeping more of it than that needs.

        Raises:
            BadPicture: it cannot be read, or the part reaches beyond it.
        """

    def name_of(self, index: int) -> str:
        """Return the name of picture ``index`` within the source, for people."""

    def label(self, index: int) -> int | None:
        """Return the place of the picture's class in ``classes``, None where it has none."""

    def group(self, index: int) -> str | None:
        """Return what the picture belongs to (a patient, a scene, a lot), None where nothing is known."""


def digest(parts: Iterable[object]) -> str:
    """Return the hexadecimal SHA-256 of ``parts``, each written as text on a line of its own."""
    found = hashlib.sha256()
    for part in parts:
        found.update(f"{part}\n".encode("utf-8", "surrogateescape"))
    return found.hexdigest()


class Entry(NamedTuple):
    """One encoded picture, before it is opened."""

    name: str
    """Its path within the folder or archive, with forward slashes."""
    size: int
    """Bytes."""
    stamp: int
    """Time of change in nanoseconds, or the archive's checksum: what gives a change away without reading."""


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What a folder or an archive holds."""

    entries: list[Entry]
    """Its pictures, sorted by name."""
    load: Load
    """May be called from many threads at once."""
    left_out: list[str] = field(default_factory=list)
    """What was not listed and why, for people."""


class Files:
    """Encoded pictures, opened and decoded when asked for.

    Args:
        name: for people.
        entries: the pictures, sorted by name.
        load: finds one by its name.
        labels: place of each picture's class in ``classes``; None where there are no labels.
        classes: names of the classes.
        groups: what each picture belongs to; None where nothing is known.
        times: when each picture was taken, as it was written; None where nothing is known.
    """

    def __init__(
        self,
        name: str,
        entries: Sequence[Entry],
        load: Load,
        labels: Sequence[int] | None = None,
        classes: tuple[str, ...] = (),
        groups: Sequence[str] | None = None,
        times: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self.classes = classes if labels is not None else ()
        self.fingerprint = digest(tuple(entry) for entry in entries)
        self._entries, self._load, self._labels, self._groups, self._times = entries, load, labels, groups, times

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, index: int, size: int | None = None) -> Pixels:
        """Return picture ``index``. Raises BadPicture."""
        return decode(self._load(self._entries[index].name), self.name_of(index), size)

    def header(self, index: int) -> Header:
        """Describe picture ``index``. Raises BadPicture."""
        return header(self._load(self._entries[index].name), self.name_of(index))

    def region(self, index: int, top: int, left: int, height: int, width: int) -> Pixels:
        """Return a part of picture ``index``. Raises BadPicture."""
        return region(self._load(self._entries[index].name), self.name_of(index), top, left, height, width)

    def entry(self, index: int) -> Entry:
        """Return what is known of picture ``index`` without opening it."""
        return self._entries[index]

    def encoded(self, index: int) -> bytes | Path:
        """Return picture ``index`` as it was found: its content, or the file that holds it. Raises BadPicture."""
        return self._load(self._entries[index].name)

    def name_of(self, index: int) -> str:
        """Return the picture's path within the folder or archive."""
        # A name that is not valid text is still listed and read; people and JSON see it with its odd bytes replaced.
        return self._entries[index].name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def label(self, index: int) -> int | None:
        """Return the place of the picture's class in ``classes``."""
        return None if self._labels is None else self._labels[index]

    def group(self, index: int) -> str | None:
        """Return what the picture belongs to."""
        return None if self._groups is None else self._groups[index]

    def time(self, index: int) -> str | None:
        """Return when the picture was taken, as it was written: a number or a date."""
        return None if self._times is None else self._times[index]


class Arrays:
    """Decoded pictures in memory.

    Args:
        name: for people.
        images: uint8 ``(N, 3, H, W)``.
        labels: ``(N,)``, places in ``classes``.
        classes: names of the classes.
    """

    def __init__(self, name: str, images: NDArray[np.uint8], labels: Sequence[int], classes: tuple[str, ...]) -> None:
        self.name, self.classes = name, classes
        self._images, self._labels = np.ascontiguousarray(images), labels
        self.fingerprint = digest([hashlib.sha256(self._images.data).hexdigest(), images.shape, *labels])

    def __len__(self) -> int:
        return len(self._images)

    def read(self, index: int, size: int | None = None) -> Pixels:
        """Return a copy of picture ``index``, uint8 ``(3, H, W)``."""
        picture: NDArray[np.uint8] = self._images[index].copy()
        return picture

    def header(self, index: int) -> Header:
        """Describe picture ``index``."""
        channels, height, width = self._images.shape[1:]
        return Header(
            format="array", width=width, height=height, channels=channels, depth="uint8", segment=(height, width)
        )

    def region(self, index: int, top: int, left: int, height: int, width: int) -> Pixels:
        """Return a copy of a part of picture ``index``."""
        return self.read(index)[:, top : top + height, left : left + width]

    def name_of(self, index: int) -> str:
        """Return ``class/number``."""
        return f"{self.classes[self._labels[index]]}/{index:05d}"

    def label(self, index: int) -> int | None:
        """Return the place of the picture's class in ``classes``."""
        return self._labels[index]

    def group(self, index: int) -> str | None:
        """Nothing is known of groups."""
        return None


class Subset:
    """Some pictures of another source, in the order of ``indices``."""

    def __init__(self, source: Source, indices: Sequence[int]) -> None:
        self.source, self.indices = source, indices
        self.name, self.classes = source.name, source.classes
        self.fingerprint = digest([source.fingerprint, *indices])

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int, size: int | None = None) -> Pixels:
        """Return picture ``indices[index]`` of the source. Raises BadPicture."""
        return self.source.read(self.indices[index], size)

    def header(self, index: int) -> Header:
        """Describe the picture. Raises BadPicture."""
        return self.source.header(self.indices[index])

    def region(self, index: int, top: int, left: int, height: int, width: int) -> Pixels:
        """Return a part of the picture. Raises BadPicture."""
        return self.source.region(self.indices[index], top, left, height, width)

    def name_of(self, index: int) -> str:
        """Return the picture's name in the source."""
        return self.source.name_of(self.indices[index])

    def label(self, index: int) -> int | None:
        """Return the picture's label in the source."""
        return self.source.label(self.indices[index])

    def group(self, index: int) -> str | None:
        """Return what the picture belongs to, in the source."""
        return self.source.group(self.indices[index])
