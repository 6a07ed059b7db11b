"""64-bit hashes of decoded pictures: by them an evaluation tells which of its pictures were learned from.

A hash is the same wherever the picture was read from (folder, archive, a copy under another name).
"""

import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diptych.data.decoding.pixels import Pixels
from diptych.errors import RunFolderError
from diptych.runs import RunFolder, writing, writing_errors

Digests = NDArray[np.uint64]
MERGE = 1 << 16
"""New hashes that are kept apart before they are sorted in with the others."""


def digest(picture: Pixels) -> bytes:
    """Return the 8 bytes that stand for a picture's pixels."""
    return hashlib.blake2b(np.ascontiguousarray(picture).data, digest_size=8).digest()


def digests_of(pictures: Pixels) -> Digests:
    """Return a hash ``(N,)`` of each picture of ``(N, C, S, S)``."""
    return np.frombuffer(b"".join(map(digest, pictures)), dtype=np.uint64)


def write_digests(run: RunFolder, digests: Digests) -> None:
    """Write the hashes of all pictures that a run learns from."""
    with writing(run.pictures) as temporary, open(temporary, "wb") as file:
        np.save(file, digests, allow_pickle=False)


def read_digests(run: RunFolder) -> Digests:
    """Read the hashes of the pictures that a run has learned from, written whole or as they were met.

    Raises:
        RunFolderError: they are missing or damaged.
    """
    met = [_read_met(path) for path in sorted(run.path.glob(f"{run.pictures.stem}-*.u64"))]
    try:
        if not met or run.pictures.exists():
            with open(run.pictures, "rb") as file:  # np.load would take an archive of arrays too
                met.append(np.lib.format.read_array(file, allow_pickle=False))
    except (OSError, ValueError, EOFError) as error:
        raise RunFolderError(
            f"cannot read {run.pictures}, which lists the pictures of pretraining; pretrain again with --overwrite"
        ) from error
    return np.concatenate(met)


class Met:
    """Hashes of the pictures that one process has met so far, appended to a file as they come.

    A set that is read anew each epoch is never whole in memory; its hashes are, at 8 bytes a picture.

    Args:
        path: of the file; hashes that it holds already are not written again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = np.empty(0, np.uint64)
        if path.exists():
            self._known = np.unique(_read_met(path))
            with writing_errors(path):
                os.truncate(path, path.stat().st_size // 8 * 8)  # what a kill cut short would shift all that follow
        self._recent = np.empty(0, np.uint64)

    def add(self, digests: Digests) -> None:
        """Note the pictures of a batch."""
        new = np.setdiff1d(digests, self._recent)
        places = np.searchsorted(self._known, new)
        inside = places < len(self._known)
        inside[inside] = self._known[places[inside]] == new[inside]
        new = new[~inside]
        if not len(new):
            return
        with writing_errors(self.path), open(self.path, "ab") as file:
            file.write(new.tobytes())
        self._recent = np.union1d(self._recent, new)
        if len(self._recent) > max(MERGE, len(self._known) // 8):
            self._known, self._recent = np.union1d(self._known, self._recent), self._recent[:0]


def _read_met(path: Path) -> Digests:
    """Read appended hashes; a last one cut short by a kill is left out."""
    content = path.read_bytes()
    return np.frombuffer(content[: len(content) // 8 * 8], dtype=np.uint64)
