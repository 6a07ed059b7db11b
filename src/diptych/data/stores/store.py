"""Decoded pictures of one size: in memory, in a memory-mapped file, or decoded anew each time they are asked for.

``plan`` chooses where, ``open_store`` makes it. Every kind hands out the same pictures in the same order.
"""

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol, TypeAlias

from torch import Tensor
from tyro.conf import arg

from diptych.data.decoding.pixels import BadPicture, PixelFormat, Pixels
from diptych.data.sources.source import Source
from diptych.data.stores.disk import DiskStore, build_disk_store, is_made_from, locked, open_disk_store
from diptych.data.stores.lazy import LazyStore
from diptych.data.stores.memory import MemoryStore, build_memory_store, usable_memory
from diptych.errors import ConfigError, DataError, byte_size

__all__ = ["DiskStore", "LazyStore", "MemoryStore", "Store", "StoreConfig", "build_memory_store", "open_store", "plan"]

Place: TypeAlias = Literal["memory", "disk", "none"]

MIN_FREE = 1 << 30
"""Bytes left on a disk that a store is written to."""
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Where decoded pictures are kept, and how many may be unreadable; it changes speed and never the pictures."""

    store: Literal["auto", "memory", "disk", "none"] = "auto"
    """Decode once into memory or into a file on disk, or anew each epoch (none); auto takes the first that fits."""
    store_dir: Annotated[str | None, arg(metavar="FOLDER")] = None
    """Where disk stores are kept, for the next run too; ~/.cache/diptych/stores if not given."""
    memory_limit: Annotated[str | None, arg(metavar="SIZE")] = None
    """Most memory for pictures, such as 8GB; four fifths of what is available if not given."""
    max_bad: float = 0.01
    """Stop if more than this share of the pictures cannot be read."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_bad <= 1:
            raise ConfigError(f"--max-bad must be a share of the pictures, 0..1, not {self.max_bad}")
        if self.memory_limit is not None:
            parse_bytes(self.memory_limit)

    @property
    def folder(self) -> Path:
        """Where disk stores are kept."""
        return (
            Path(os.path.expanduser(self.store_dir))
            if self.store_dir
            else Path.home() / ".cache" / "diptych" / "stores"
        )

    def memory(self) -> int | None:
        """Return the bytes that pictures may take in memory, None where nothing is known."""
        if self.memory_limit is not None:
            return parse_bytes(self.memory_limit)
        return usable_memory()


class Store(Protocol):
    """Decoded pictures ``(C, S, S)`` of one kind and size."""

    @property
    def source_indices(self) -> Tensor:
        """``(N,)`` int64: each picture's place in the source it was read from."""

    def __len__(self) -> int: ...

    def read(self, indices: Tensor) -> Tensor:
        """Return the pictures at ``indices`` (``(B,)`` int64) as ``(B, C, S, S)``."""


def plan(source: Source, size: int, wanted: PixelFormat, config: StoreConfig, *, key: str, processes: int = 1) -> Place:
    """Choose where the pictures of ``source`` are kept.

    Args:
        source: the pictures.
        size: pixels a side.
        wanted: channels and type.
        config: what the user asks for.
        key: as for ``open_store``.
        processes: how many of them on this machine will hold the pictures, each for itself if in memory.

    Raises:
        DataError: the memory or the disk asked for does not hold them.
    """
    need = len(source) * size * size * wanted.bytes
    limit = config.memory()
    if config.store in ("memory", "auto") and (limit is None or need * processes <= limit):
        return "memory"
    if config.store == "memory":
        raise DataError(
            f"{len(source)} pictures at {size} px need {byte_size(need)} of memory in each process, and "
            f"{byte_size((limit or 0) / processes)} may be used: type --store disk, or a smaller "
            "--image-size or --limit"
        )
    free = free_disk(config.folder)
    fits = need + MIN_FREE <= free or is_made_from(config.folder / key, source, size, wanted)
    if config.store == "none" or (config.store == "auto" and not fits):
        return "none"
    if not fits:
        raise DataError(
            f"{len(source)} pictures at {size} px need {byte_size(need)} of disk, and {config.folder} has "
            f"{byte_size(free)} free: type --store none, or --store-dir with a folder on a larger disk"
        )
    return "disk"


def open_store(
    place: Place,
    source: Source,
    size: int,
    wanted: PixelFormat,
    config: StoreConfig,
    *,
    key: str,
    on_bad: Callable[[BadPicture], None],
    on_progress: Callable[[int, int], None] | None = None,
    on_read: Callable[[Pixels], None] | None = None,
) -> Store:
    """Make the store that ``plan`` chose, or open the one that lies on disk from an earlier run.

    Args:
        place: where.
        source: the pictures.
        size: pixels a side.
        wanted: channels and type.
        config: what the user asks for.
        key: names what the user asked for, so that a later run finds the store again; for the disk alone.
        on_bad: told of each picture that cannot be read.
        on_progress: told ``(pictures done, pictures in all)`` now and then.
        on_read: given each batch ``(B, C, S, S)`` where pictures are decoded anew each time.

    Raises:
        DataError: none of the pictures can be read.
        RunFolderError: the disk cannot be written, or is full.
    """
    if place == "memory":
        return build_memory_store(source, size, wanted, on_bad, on_progress)
    if place == "none":
        return LazyStore(source, size, wanted, on_bad, on_read)
    folder, memory = config.folder / key, config.memory()
    with locked(folder):  # of two runs that begin together, one builds
        store = open_disk_store(folder, source, size, wanted, memory)
        if store is None:
            build_disk_store(folder, source, size, wanted, on_bad, on_progress)
            store = open_disk_store(folder, source, size, wanted, memory)
            assert store is not None, "what was just built can be opened"
        else:
            for bad in store.bad:
                on_bad(bad)
    return store


def free_disk(folder: Path) -> int:
    """Return the free bytes of the disk that ``folder``, which need not be there yet, lies on."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def parse_bytes(text: str) -> int:
    """Read a size such as ``8GB``, ``512 MiB`` or ``1000000``.

    Raises:
        ConfigError: it is none.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    if not match or len(match[1]) > 18 or match[2].upper() not in UNITS:
        raise ConfigError(f"--memory-limit cannot be '{text}': type a size such as 8GB or 512MB")
    return int(float(match[1]) * UNITS[match[2].upper()])
