"""Pictures decoded once and held in memory: for sets that fit."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diptych.data.decoding.pixels import BadPicture, PixelFormat
from diptych.data.sources.source import Source
from diptych.data.stores.digests import Digests, digests_of
from diptych.data.stores.reading import read_all
from diptych.errors import DataError, byte_size
from diptych.hardware import free_memory

MEMORY_SHARE = 0.8
"""Of the available memory; the rest is for training."""


@dataclass(frozen=True, kw_only=True)
class MemoryStore:
    """Decoded pictures of one size."""

    images: Tensor
    """``(N, C, S, S)`` uint8, uint16 or float32."""
    source_indices: Tensor
    """``(N,)`` int64: each picture's place in the source it was read from."""

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Tensor) -> Tensor:
        """Return the pictures at ``indices`` (``(B,)`` int64) as ``(B, C, S, S)``."""
        return self.images[indices]

    @property
    def digests(self) -> Digests:
        """A hash ``(N,)`` of each picture's pixels."""
        return digests_of(self.images.numpy())


def build_memory_store(
    source: Source,
    size: int,
    wanted: PixelFormat,
    on_bad: Callable[[BadPicture], None],
    on_progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> MemoryStore:
    """Decode every picture of ``source`` in parallel and resize it with ``fit``.

    Args:
        source: the pictures.
        size: pixels a side.
        wanted: channels and type.
        on_bad: told of each picture that cannot be read, in order; it is left out.
        on_progress: told ``(pictures done, pictures in all)`` now and then.
        threads: as many as there are processors if None, or one where the pictures are tiny.

    Raises:
        DataError: they do not fit into memory, or none can be read.
    """
    total = len(source)
    _check_memory(source.name, total, size, wanted)
    images = torch.empty((total, wanted.channels, size, size), dtype=getattr(torch, wanted.depth))
    rows = images.numpy()
    kept: list[int] = []
    first_bad: BadPicture | None = None
    done = 0
    for chunk in read_all(source, size, wanted, threads):
        for picture in chunk:
            if isinstance(picture, BadPicture):
                first_bad = first_bad or picture
                on_bad(picture)
            else:
                rows[len(kept)] = picture
                kept.append(done)
            done += 1
        if on_progress:
            on_progress(done, total)
    if not kept:
        raise nothing_read(source, first_bad)
    return MemoryStore(images=images[: len(kept)], source_indices=torch.tensor(kept))


def nothing_read(source: Source, first_bad: BadPicture | None) -> DataError:
    """Say that a source gave no picture at all."""
    return DataError(
        f"none of the {len(source)} pictures of {source.name} can be read; the first, {first_bad}"
        if first_bad
        else f"{source.name} holds no pictures"
    )


def usable_memory() -> int | None:
    """Return the bytes that pictures may take, None where the system does not say."""
    free = free_memory()
    return None if free is None else int(free * MEMORY_SHARE)


def _check_memory(name: str, total: int, size: int, wanted: PixelFormat) -> None:
    usable = usable_memory()
    each = wanted.bytes * size * size
    if usable is None or total * each <= usable:
        return
    advice = f"add --limit {usable // each}" if usable >= each else "a machine with more memory can"
    raise DataError(
        f"{total} pictures of {name} at {size} px need {byte_size(total * each)}, and {byte_size(usable)} of memory "
        f"may be used: {advice}"
    )
