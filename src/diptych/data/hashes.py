"""What a picture looks like in a few numbers: its lowest spatial frequencies, and the 64-bit hash made of them.

The perceptual hash is the DCT hash of Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash
Functions": the picture in gray at 32 × 32 pixels, the 8 × 8 lowest frequencies of its cosine transform, and a bit for
each: is it above their median? On the 60,000 pictures of CIFAR-10 it proposes fewer wrong pairs than the difference
hash (dHash) at every distance.

This module loads no torch: the worker processes of the audit import it.
"""

import numpy as np
from numpy.typing import NDArray

SIDE = 32
"""Pixels a side of the gray picture that is looked at."""
LOW = 8
"""Frequencies a side that are kept of it."""
FLAT = 0.005
"""A picture whose values deviate from their mean by less than this part of its type's range looks constant."""

_COSINES = np.cos(np.pi * (np.arange(SIDE) + 0.5) * np.arange(LOW)[:, None] / SIDE)


def waves(grays: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the lowest frequencies ``(N, LOW, LOW)`` of gray pictures ``(N, SIDE, SIDE)``, vertical ones first."""
    found: NDArray[np.float64] = _COSINES @ grays.astype(np.float64) @ _COSINES.T
    return found


def perceptual_hashes(grays: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Hash gray pictures ``(N, SIDE, SIDE)``; alike pictures differ in few of the 64 bits."""
    low = waves(grays).reshape(len(grays), LOW * LOW)
    # The first is the mean brightness, which says nothing about what is seen.
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    packed: NDArray[np.int64] = np.packbits(bits, axis=1).view(">i8").ravel().astype(np.int64)
    return packed
