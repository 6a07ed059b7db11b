"""Pictures decoded anew each time they are asked for: for sets that fit neither into memory nor on the disk."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from diptych.data.decoding.pixels import BadPicture, PixelFormat, Pixels
from diptych.data.sources.source import Source
from diptych.data.stores.reading import read_one
from diptych.errors import DataError


class LazyStore:
    """Reads pictures from their source.

    A picture that cannot be read gives its place in the batch to the next one that can, so that the same indices
    always give the same batch.

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
            DataError: none of them can be read.
        """
        wanted = self._size, self._wanted
        found = list(self._pool.map(lambda index: read_one(self._source, index, *wanted), indices.tolist()))
        bad = [picture for picture in found if isinstance(picture, BadPicture)]
        for picture in bad:
            self._on_bad(picture)
        if len(bad) == len(found):
            raise DataError(f"none of the {len(found)} pictures of a batch can be read; the first, {bad[0]}")
        pictures = np.stack(replaced(found))
        if self._on_read:
            self._on_read(pictures)
        return torch.from_numpy(pictures)


def replaced(found: list[Pixels | BadPicture]) -> list[Pixels]:
    """Give the place of each picture that cannot be read to the next one that can, round the end."""
    whole: list[Pixels] = []
    for place in range(len(found)):
        taken = next(picture for picture in found[place:] + found[:place] if not isinstance(picture, BadPicture))
        whole.append(taken)
    return whole
