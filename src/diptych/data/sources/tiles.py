"""One huge picture as many: the squares of a grid laid over every picture of a source.

A scan of 20,000 pixels a side, shrunk to 224, shows nothing of its cells; cut into tiles it is thousands of pictures.
The grid begins at the top left corner. What is left over at the right and at the bottom, less than a tile, is left
out; a picture that is narrower or lower than a tile keeps its whole width or height there.

All tiles of one picture belong to one group, so that none of them is learned from while another one is tested on.
"""

import bisect
import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from diptych.data.decoding.pixels import BadPicture, Header, Pixels
from diptych.data.sources.source import Source, digest

CHUNK = 64
"""Headers that a thread reads at a time."""
SMALL = 1 << 26
"""Bytes up to which a picture is decoded as a whole, although a part of it could be read alone."""
KEPT = 1 << 28
"""Bytes of decoded pictures kept, because the tile that is asked for next is most often a neighbour."""


class _Box(NamedTuple):
    """A part of a picture, in pixels."""

    top: int
    left: int
    height: int
    width: int


class Tiles:
    """The squares of ``tile`` × ``tile`` pixels of every picture of another source.

    A picture whose header cannot be read stays as one entry, which raises the reason when it is read.

    Args:
        source: the pictures; their headers are read here, in threads.
        tile: pixels a side.
    """

    def __init__(self, source: Source, tile: int) -> None:
        self.source, self.tile = source, tile
        self.name, self.classes = source.name, source.classes
        self.fingerprint = digest([source.fingerprint, "tiles", tile])
        self._headers = _headers(source)
        self._ends = list(itertools.accumulate(self._count(header) for header in self._headers))
        self._kept = _Kept()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def read(self, index: int, size: int | None = None) -> Pixels:
        """Return tile ``index``. Raises BadPicture."""
        return self._cut(index, self._box(index))

    def header(self, index: int) -> Header:
        """Describe tile ``index``. Raises BadPicture."""
        whole, box = self._header(index), self._box(index)
        return Header(
            format=whole.format,
            width=box.width,
            height=box.height,
            channels=whole.channels,
            depth=whole.depth,
            segment=(box.height, box.width),
        )

    def region(self, index: int, top: int, left: int, height: int, width: int) -> Pixels:
        """Return a part of tile ``index``. Raises BadPicture."""
        box = self._box(index)
        if min(top, left) < 0 or min(height, width) < 1 or top + height > box.height or left + width > box.width:
            raise BadPicture(self.name_of(index), f"it has {box.width} × {box.height} pixels")
        return self._cut(index, _Box(box.top + top, box.left + left, height, width))

    def name_of(self, index: int) -> str:
        """Return the picture's name and the tile's place in it, such as ``slide.tif@r3,c7``, both from 0."""
        picture, place = self._place(index)
        name, header = self.source.name_of(picture), self._headers[picture]
        if isinstance(header, str):
            return name
        row, column = divmod(place, _across(header.width, self.tile))
        return f"{name}@r{row},c{column}"

    def label(self, index: int) -> int | None:
        """Return the picture's label."""
        return self.source.label(self._place(index)[0])

    def group(self, index: int) -> str:
        """Return what the picture belongs to; where nothing is known, the picture itself."""
        picture = self._place(index)[0]
        group = self.source.group(picture)
        return self.source.name_of(picture) if group is None else group

    def _count(self, header: Header | str) -> int:
        if isinstance(header, str):
            return 1
        return _across(header.height, self.tile) * _across(header.width, self.tile)

    def _place(self, index: int) -> tuple[int, int]:
        """Return the picture of a tile, and the tile's place in it."""
        if not 0 <= index < len(self):
            raise IndexError(f"tile {index} of {len(self)}")
        picture = bisect.bisect_right(self._ends, index)
        return picture, index - (self._ends[picture - 1] if picture else 0)

    def _header(self, index: int) -> Header:
        header = self._headers[self._place(index)[0]]
        if isinstance(header, str):
            raise BadPicture(self.name_of(index), header)
        return header

    def _box(self, index: int) -> _Box:
        header, tile = self._header(index), self.tile
        row, column = divmod(self._place(index)[1], _across(header.width, tile))
        return _Box(row * tile, column * tile, min(tile, header.height), min(tile, header.width))

    def _cut(self, index: int, wanted: _Box) -> Pixels:
        """Cut ``wanted`` from what has to be decoded for it, which is kept for its neighbours."""
        picture, header = self._place(index)[0], self._header(index)
        decoded = _decoded_for(wanted, header)
        try:
            if decoded == wanted:
                return self.source.region(picture, *wanted)
            if decoded == (0, 0, header.height, header.width):
                found = self._kept.get((picture, decoded), lambda: self.source.read(picture))
            else:
                found = self._kept.get((picture, decoded), lambda: self.source.region(picture, *decoded))
        except BadPicture as error:
            raise BadPicture(self.name_of(index), error.reason) from error
        if found.shape[1:] != (decoded.height, decoded.width):
            raise BadPicture(self.name_of(index), "its size is not the one that its header names")
        top, left = wanted.top - decoded.top, wanted.left - decoded.left
        part: Pixels = found[:, top : top + wanted.height, left : left + wanted.width].copy()
        return part


class _Kept:
    """The pictures last decoded, up to ``KEPT`` bytes; each is decoded once, however many threads ask for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[object, Future[Pixels]] = OrderedDict()

    def get(self, key: object, decode: Callable[[], Pixels]) -> Pixels:
        with self._lock:
            future = self._found.get(key)
            first = future is None
            if future is None:
                future = self._found[key] = Future()
            self._found.move_to_end(key)
        if not first:
            return future.result()
        try:
            future.set_result(decode())
        except BaseException as error:
            with self._lock:
                del self._found[key]
            future.set_exception(error)
            raise
        self._drop_oldest()
        return future.result()

    def _drop_oldest(self) -> None:
        with self._lock:
            done = {key: future.result().nbytes for key, future in self._found.items() if future.done()}
            excess = sum(done.values()) - KEPT
            for key, size in list(done.items())[:-1]:
                if excess <= 0:
                    return
                del self._found[key]
                excess -= size


def _decoded_for(wanted: _Box, header: Header) -> _Box:
    """Return what is decoded to get ``wanted``: the whole picture, the rows that it lies in, or just itself."""
    height, width = header.segment
    if header.bytes <= SMALL or (height >= header.height and width >= header.width):
        return _Box(0, 0, header.height, header.width)
    if width >= header.width:  # strips: every tile of a row of tiles needs the same ones
        return _Box(wanted.top, 0, wanted.height, header.width)
    return wanted


def _across(length: int, tile: int) -> int:
    return max(1, length // tile)


def _headers(source: Source) -> list[Header | str]:
    """Return each picture's header, or why it cannot be read."""

    def of(start: int) -> list[Header | str]:
        return [_header(source, index) for index in range(start, min(start + CHUNK, len(source)))]

    with ThreadPoolExecutor() as pool:
        return list(itertools.chain.from_iterable(pool.map(of, range(0, len(source), CHUNK))))


def _header(source: Source, index: int) -> Header | str:
    try:
        return source.header(index)
    except BadPicture as error:
        return error.reason
