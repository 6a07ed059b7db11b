"""Decodes the pictures of a source in parallel, in order, with a bounded number of them in memory."""

import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import TypeAlias

from diptych.data.decoding.decode import fit
from diptych.data.decoding.pixels import BadPicture, PixelFormat, Pixels, convert
from diptych.data.prefetch import decode_all
from diptych.data.sources.source import Source

CHUNK = 32
"""Pictures a thread takes at a time: handing over single small ones would cost as much as decoding them."""
CHUNK_BYTES = 1 << 19
"""A chunk holds fewer pictures where they are large, so that those waiting stay few in memory."""
QUICK = 5e-4
"""Seconds: pictures that decode faster spend their time in Python, and threads would only wait for each other."""
PROBE = 8
"""Pictures timed to find that out."""

Decoded: TypeAlias = list[Pixels | BadPicture]


def read_one(source: Source, index: int, size: int, wanted: PixelFormat) -> Pixels | BadPicture:
    """Return picture ``index`` as ``(C, size, size)`` of the ``wanted`` kind, or why it cannot be read."""
    try:
        return fit(convert(source.read(index, size), wanted, source.name_of(index)), size)
    except BadPicture as bad:
        return bad


def read_all(source: Source, size: int, wanted: PixelFormat, threads: int | None = None) -> Iterator[Decoded]:
    """Yield all pictures of ``source`` in order, in chunks.

    Args:
        source: the pictures.
        size: pixels a side; see ``fit``.
        wanted: channels and type.
        threads: as many as there are processors if None, or one where the pictures are tiny.
    """
    probed = min(PROBE, len(source))
    first, seconds = _probe(source, size, wanted, probed)
    yield first
    threads = threads or (1 if seconds < QUICK else os.cpu_count() or 1)
    each = max(1, min(CHUNK, CHUNK_BYTES // (wanted.bytes * size * size)))

    def read_chunk(start: int) -> Decoded:
        return [read_one(source, index, size, wanted) for index in range(start, min(start + each, len(source)))]

    jobs = (partial(read_chunk, start) for start in range(probed, len(source), each))
    with ThreadPoolExecutor(threads) as pool, closing(decode_all(jobs, pool, 2 * threads + 1)) as chunks:
        yield from chunks


def _probe(source: Source, size: int, wanted: PixelFormat, count: int) -> tuple[Decoded, float]:
    """Decode the first ``count`` pictures here; returns them and the median seconds that one which can be read took."""
    decoded: Decoded = []
    seconds: list[float] = []
    for index in range(count):
        began = time.perf_counter()
        decoded.append(read_one(source, index, size, wanted))
        if not isinstance(decoded[-1], BadPicture):
            seconds.append(time.perf_counter() - began)
    return decoded, statistics.median(seconds) if seconds else QUICK
