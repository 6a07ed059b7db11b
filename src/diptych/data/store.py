"""Pictures decoded once, resized to one size, and held in memory as bytes."""

import hashlib
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diptych.data.decode import fit
from diptych.data.source import BadPicture, Source
from diptych.errors import DataError, RunFolderError
from diptych.runs import writing

CHUNK = 32
"""Pictures a thread takes at a time: handing over single small ones would cost as much as decoding them."""
CHUNK_BYTES = 8 << 20
"""A chunk holds fewer pictures where they are large, so that those waiting stay few in memory."""
QUICK = 5e-4
"""Seconds: pictures that decode faster spend their time in Python, and threads would only wait for each other."""
PROBE = 8
"""Pictures timed to find that out."""
MEMORY_SHARE = 0.8
"""Of the available memory; the rest is for training."""

Decoded = list[NDArray[np.uint8] | BadPicture]


@dataclass(frozen=True, kw_only=True)
class Store:
    """Decoded pictures of one size."""

    images: Tensor
    """``(N, 3, S, S)`` uint8, values 0..255."""
    source_indices: Tensor
    """``(N,)`` int64: each picture's place in the source it was read from."""

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Tensor) -> Tensor:
        """Return the pictures at ``indices`` (``(B,)`` int64) as uint8 ``(B, 3, S, S)``."""
        return self.images[indices]

    def digests(self) -> NDArray[np.uint64]:
        """Return a 64-bit hash ``(N,)`` of each picture's pixels.

        It is the same wherever the picture was read from (folder, archive, a copy under another name).
        """
        hashes = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in self.images.numpy())
        return np.frombuffer(b"".join(hashes), dtype=np.uint64)


def build_store(
    source: Source,
    size: int,
    on_bad: Callable[[BadPicture], None],
    on_progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Store:
    """Decode every picture of ``source`` in parallel and resize it with ``fit``.

    Args:
        source: the pictures.
        size: pixels a side.
        on_bad: told of each picture that cannot be read, in order; it is left out.
        on_progress: told ``(pictures done, pictures in all)`` now and then.
        threads: as many as there are processors if None, or one where the pictures are tiny.

    Raises:
        DataError: the pictures do not fit into memory, or none can be read.
    """
    total = len(source)
    _check_memory(source.name, total, size)
    images = torch.empty((total, 3, size, size), dtype=torch.uint8)
    rows = images.numpy()
    kept: list[int] = []
    first_bad: BadPicture | None = None
    done = 0
    for chunk in _in_parallel(source, size, threads):
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
        raise DataError(
            f"none of the {total} pictures of {source.name} can be read; the first, {first_bad}"
            if first_bad
            else f"{source.name} holds no pictures"
        )
    return Store(images=images[: len(kept)], source_indices=torch.tensor(kept))


def write_digests(path: Path, store: Store) -> None:
    """Write the hashes of the pictures in ``store``, so that an evaluation can tell which ones were seen."""
    with writing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, store.digests(), allow_pickle=False)


def read_digests(path: Path) -> NDArray[np.uint64]:
    """Read what ``write_digests`` wrote.

    Raises:
        RunFolderError: it is missing or damaged.
    """
    try:
        found: NDArray[np.uint64] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RunFolderError(
            f"cannot read {path}, which lists the pictures of pretraining; pretrain again with --overwrite"
        ) from error
    return found


def available_memory() -> int | None:
    """Return the bytes that could be taken without swapping, None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:  # not Linux: what is installed is the best known bound
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _check_memory(name: str, total: int, size: int) -> None:
    available = available_memory()
    each = 3 * size * size
    if available is None or total * each <= available * MEMORY_SHARE:
        return
    fitting = int(available * MEMORY_SHARE)
    smaller = int((fitting / (3 * total)) ** 0.5)
    ways = [("--limit", fitting // each, 1), ("--image-size", smaller, 8)]
    advice = " or ".join(f"{option} {value}" for option, value, least in ways if value >= least)
    raise DataError(
        f"{total} pictures of {name} at {size} px need {total * each / 1e9:.1f} GB, and {available / 1e9:.1f} GB of "
        f"memory are available: add {advice or 'memory'}"
    )


def _in_parallel(source: Source, size: int, threads: int | None) -> Iterator[Decoded]:
    """Yield decoded chunks in order, with a bounded number of them waiting."""
    probed = min(PROBE, len(source))
    first, seconds = _probe(source, size, probed)
    yield first
    threads = threads or (1 if seconds < QUICK else os.cpu_count() or 1)
    each = max(1, min(CHUNK, CHUNK_BYTES // (3 * size * size)))

    def decode_chunk(start: int) -> Decoded:
        return [_read(source, index, size) for index in range(start, min(start + each, len(source)))]

    pool = ThreadPoolExecutor(threads)
    waiting: deque[Future[Decoded]] = deque()
    try:
        for start in range(probed, len(source), each):
            waiting.append(pool.submit(decode_chunk, start))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _probe(source: Source, size: int, count: int) -> tuple[Decoded, float]:
    """Decode the first ``count`` pictures here; returns them and the median seconds that one which can be read took."""
    decoded: Decoded = []
    seconds: list[float] = []
    for index in range(count):
        began = time.perf_counter()
        decoded.append(_read(source, index, size))
        if not isinstance(decoded[-1], BadPicture):
            seconds.append(time.perf_counter() - began)
    return decoded, statistics.median(seconds) if seconds else QUICK


def _read(source: Source, index: int, size: int) -> NDArray[np.uint8] | BadPicture:
    try:
        return fit(source.read(index), size)
    except BadPicture as bad:
        return bad
