"""Pictures decoded once into a packed file that is memory-mapped: for sets larger than memory, and for the next run.

::

    STORE/  pixels.bin           the pictures, one after the other: C × S × S values each
            source_indices.npy   each one's place in its source
            digests.npy          a hash of each one's pixels
            store.json           what it was made from; written last

The folder is built beside its place and renamed, so that a store is there whole or not at all. One that does not
belong to the pictures as they are now, or is damaged, is built again.
"""

import contextlib
import fcntl
import json
import mmap
import os
import shutil
import socket
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diptych.data.decoding.pixels import BadPicture, PixelFormat, Pixels
from diptych.data.sources.source import Source
from diptych.data.stores.digests import Digests, digest
from diptych.data.stores.memory import nothing_read
from diptych.data.stores.reading import read_all
from diptych.hardware import is_alive
from diptych.runs import sync_folder, writing_errors

VERSION = 1
"""Changes when the same source would give other pixels: older stores are then built again."""
CHECKED = 32
"""Pictures, spread evenly, whose pixels are compared with their hashes when a store is opened."""
ADVICE = "type --store-dir with a folder on another disk, or --store none"
HELD = 1 << 28
"""Bytes of the file that may stay in this process's memory; the system's cache may hold more, and gives way."""


class DiskStore:
    """A store that lies on disk.

    Args:
        folder: of the store.
        card: what ``store.json`` says.
        memory: bytes of the file that may stay in this process's memory.
    """

    def __init__(self, folder: Path, card: dict[str, Any], memory: int | None) -> None:
        self.folder = folder
        self.bad = [BadPicture(name, reason) for name, reason in card["bad"]]
        self.source_indices = torch.from_numpy(np.load(folder / "source_indices.npy", allow_pickle=False))
        self.digests: Digests = np.load(folder / "digests.npy", allow_pickle=False)
        with open(folder / "pixels.bin", "rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        shape = (card["pictures"], card["channels"], card["size"], card["size"])
        self._rows = np.frombuffer(self._map, card["depth"]).reshape(shape)
        self._held, self._most = 0, min(HELD, memory // 8 if memory else HELD)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: Tensor) -> Tensor:
        """Return the pictures at ``indices`` (``(B,)`` int64) as ``(B, C, S, S)``."""
        return torch.from_numpy(self._copied(indices.numpy()))

    def is_whole(self) -> bool:
        """Whether a sample of the pictures has the pixels that were written."""
        places = np.unique(np.linspace(0, len(self) - 1, CHECKED).astype(int))
        return all(digest(self._copied(place)) == self.digests[place].tobytes() for place in places)

    def _copied(self, places: NDArray[np.int64] | np.int64) -> Pixels:
        pictures: Pixels = self._rows[places]
        self._held += pictures.nbytes
        if self._held > self._most and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._held = 0
        return pictures


def open_disk_store(
    folder: Path, source: Source, size: int, wanted: PixelFormat, memory: int | None = None
) -> DiskStore | None:
    """Open the store in ``folder`` if it holds these pictures as they are now and is whole; else return None."""
    try:
        card = _card(folder)
        if not _made_from(source, size, wanted).items() <= card.items():
            return None
        store = DiskStore(folder, card, memory)
        return store if len(store) == len(store.source_indices) == len(store.digests) and store.is_whole() else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None


def is_made_from(folder: Path, source: Source, size: int, wanted: PixelFormat) -> bool:
    """Whether ``folder`` holds a store of these pictures as they are now; what it holds is not looked at."""
    try:
        return _made_from(source, size, wanted).items() <= _card(folder).items()
    except (OSError, ValueError, AttributeError):
        return False


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep every other process from building a store at ``folder`` meanwhile."""
    with writing_errors(folder, ADVICE):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_name(f".{folder.name}.lock"), "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def build_disk_store(
    folder: Path,
    source: Source,
    size: int,
    wanted: PixelFormat,
    on_bad: Callable[[BadPicture], None],
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Decode every picture of ``source`` in parallel into a new store at ``folder``, which replaces an earlier one.

    Args:
        folder: of the store.
        source: the pictures.
        size: pixels a side.
        wanted: channels and type.
        on_bad: told of each picture that cannot be read, in order; it is left out.
        on_progress: told ``(pictures done, pictures in all)`` now and then.

    Raises:
        DataError: none can be read.
        RunFolderError: the disk cannot be written, or is full.
    """
    temporary = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}.tmp")
    with writing_errors(folder, ADVICE):
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        temporary.mkdir()
        try:
            _write(temporary, source, size, wanted, on_bad, on_progress)
            _put_in_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _write(
    folder: Path,
    source: Source,
    size: int,
    wanted: PixelFormat,
    on_bad: Callable[[BadPicture], None],
    on_progress: Callable[[int, int], None] | None,
) -> None:
    kept, digests, bad = array("q"), bytearray(), list[BadPicture]()
    done = 0
    with open(folder / "pixels.bin", "wb") as file:
        for chunk in read_all(source, size, wanted):
            for picture in chunk:
                if isinstance(picture, BadPicture):
                    bad.append(picture)
                    on_bad(picture)
                else:
                    file.write(np.ascontiguousarray(picture).data)
                    digests += digest(picture)
                    kept.append(done)
                done += 1
            if on_progress:
                on_progress(done, len(source))
        file.flush()
        os.fsync(file.fileno())
    if not kept:
        raise nothing_read(source, bad[0] if bad else None)
    np.save(folder / "source_indices.npy", np.frombuffer(kept, np.int64), allow_pickle=False)
    np.save(folder / "digests.npy", np.frombuffer(digests, np.uint64), allow_pickle=False)
    card = _made_from(source, size, wanted)
    card |= {"pictures": len(kept), "bad": [(picture.name, picture.reason) for picture in bad]}
    with open(folder / "store.json", "w", encoding="utf-8") as text:
        json.dump(card, text, indent=1, ensure_ascii=False)
        text.flush()
        os.fsync(text.fileno())
    sync_folder(folder)


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Rename; what lay there before is moved away first, and stays readable to a run that has it open."""
    if folder.exists():
        old = temporary.with_suffix(".old")
        os.rename(folder, old)
        shutil.rmtree(old, ignore_errors=True)
    os.rename(temporary, folder)
    sync_folder(folder.parent)


def _remove_leftovers(folder: Path) -> None:
    """Remove what killed builds of this machine left behind."""
    for path in folder.parent.glob(f".{folder.name}.{socket.gethostname()}.*"):
        if not is_alive(path.name.split(".")[-2]):
            shutil.rmtree(path, ignore_errors=True)


def _card(folder: Path) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((folder / "store.json").read_text(encoding="utf-8"))
    return card


def _made_from(source: Source, size: int, wanted: PixelFormat) -> dict[str, Any]:
    return {
        "version": VERSION,
        "fingerprint": source.fingerprint,
        "size": size,
        "channels": wanted.channels,
        "depth": wanted.depth,
    }
