"""Pictures decoded anew each time they are asked for: for sets that fit neither into memory nor on the disk."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from diptych.data.decoding.pixels import BadPicture, PixelFormat, Pixels
from diptych.data.sources.source import Source
from diptych.data.stores.memory import nothing_read
from diptych.data.stores.reading import read_one


class LazyStore:
    """Reads pictures from their source.

    A picture that cannot be read gives its place in the batch to the next one that can, so that the same indices
    always give the same batch; where no picture of the batch can be read, the next one of the source takes all places.

    Args:
        source: the pictures.
        size: pixels a side.
        wanted: channels and type.
        on_bad: told of each picture that cannot be read, every time.
        on_read: given each batch ``(B, C, S, S)``.
    """

    def __init__(
        self,
        source: Source,
        size: int,
        wanted: PixelFormat,
        on_bad: Callable[[BadPicture], None],
        on_read: Callable[[Pixels], None] | None = None,
    ) -> None:
        self.source_indices = torch.arange(len(source))
        self._source, self._size, self._wanted = source, size, wanted
        self._on_bad, self._on_read = on_bad, on_read
        self._pool = ThreadPoolExecutor(os.cpu_count() or 1)

    def __len__(self) -> int:
        return len(self._source)

    def read(self, indices: Tensor) -> Tensor:
        """Return the pictures at ``indices`` (``(B,)`` int64) as ``(B, C, S, S)``.

        Raises:
            DataError: no picture at all can be read.
        """
        wanted = self._size, self._wanted
        found = list(self._pool.map(lambda index: read_one(self._source, index, *wanted), indices.tolist()))
        bad = [picture for picture in found if isinstance(picture, BadPicture)]
        for picture in bad:
            self._on_bad(picture)
        if len(bad) == len(found):
            found = [self._next_good(int(indices[-1]), bad[0])] * len(found)
        pictures = np.stack(replaced(found))
        if self._on_read:
            self._on_read(pictures)
        return torch.from_numpy(pictures)

    def _next_good(self, index: int, first_bad: BadPicture) -> Pixels:
        """Return the first picture behind ``index`` that can be read, round the end: of a batch, none could."""
        for step in range(1, len(self)):
            picture = read_one(self._source, (index + step) % len(self), self._size, self._wanted)
            if not isinstance(picture, BadPicture):
                return picture
            self._on_bad(picture)
        raise nothing_read(self._source, first_bad)


def replaced(found: list[Pixels | BadPicture]) -> list[Pixels]:
    """Give the place of each picture that cannot be read to the next one that can, round the end."""
    whole: list[Pixels] = []
    for place in range(len(found)):
        taken = next(picture for picture in found[place:] + found[:place] if not isinstance(picture, BadPicture))
        whole.append(taken)
    return whole
