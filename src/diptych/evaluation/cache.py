"""Features that were computed once are kept in the run folder and read again: ``RUN/features/<key>.safetensors``.

The key is a hash of all that features depend on: the weights, the preprocessing, the choice of features, the pixels of
every picture, and the versions of what computes them (a network is what its library makes of its name). So nothing here
can be out of date; files that have not been used for longest go first.
"""

import hashlib
import os
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diptych.frozen import save_weights

COMPUTED_BY = ("diptych", "torch", "timm")
"""Packages whose other versions may compute other features of the same weights and pictures."""
LIMIT = 2 * 10**9
"""Bytes that all files of a run may take together."""


class FeatureCache:
    """Features of one run's evaluations, on disk.

    Args:
        folder: where; made when something is kept.
        limit: bytes in all.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self.folder, self.limit = folder, limit

    def get(self, parts: tuple[object, ...], compute: Callable[[], Tensor]) -> Tensor:
        """Return what ``compute`` gives, ``(N, D)`` float32, without computing it where that was done before.

        Args:
            parts: all that it depends on; equal parts have equal ``repr``.
            compute: called where there is no file, or a damaged one.

        Raises:
            RunFolderError: the folder cannot be written.
        """
        versions = [metadata.version(package) for package in COMPUTED_BY]
        key = hashlib.sha256(repr((versions, parts)).encode()).hexdigest()[:32]
        path = self.folder / f"{key}.safetensors"
        try:
            values = load_file(path)["features"]
            os.utime(path)
        except (OSError, SafetensorError, KeyError):
            values = compute()
            if values.nbytes <= self.limit:
                save_weights(path, {"features": values})
                self._prune(path)
        return values

    def _prune(self, kept: Path) -> None:
        """Delete what has not been used for longest, until all fits."""
        files = sorted(self.folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        files.sort(key=lambda path: path != kept)  # the newest first, whatever the clock says
        total = 0
        for path in files:
            total += path.stat().st_size
            if total > self.limit and path != kept:
                path.unlink(missing_ok=True)


def digest_of(tensor: Tensor) -> str:
    """Return a hash of stored pictures ``(N, C, S, S)``, or of other numbers: their type, shape and bytes."""
    state = hashlib.blake2b(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), digest_size=16)
    for part in torch.split(tensor, 4096):
        state.update(part.contiguous().view(torch.uint8).numpy().data)
    return state.hexdigest()
