"""Small pictures for people to look at: on pages and in the explorer, never for learning."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diptych.data.decoding.pixels import Pixels
from diptych.data.sources.source import Source

MIME = "image/jpeg"
"""What every thumbnail is."""
QUALITY = 85


def thumbnail(source: Source, index: int, side: int) -> bytes:
    """Return a small JPEG of a picture.

    Args:
        source: where the picture lies.
        index: its place there.
        side: pixels of the longer side at most; a smaller picture keeps its size.

    Raises:
        BadPicture: it cannot be read.
    """
    return encode(source.read(index, side), side)


def encode(picture: Pixels, side: int) -> bytes:
    """Make a small JPEG of a picture ``(C, H, W)``: its first three channels, or the first one where it has two."""
    shown = _in_bytes(picture[:3] if len(picture) >= 3 else picture[:1])
    pixels = np.ascontiguousarray(shown.transpose(1, 2, 0))
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    image.thumbnail((side, side), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, subsampling=0)  # halved, colours blur small pictures
    return buffer.getvalue()


def _in_bytes(picture: Pixels) -> NDArray[np.uint8]:
    """Stretch what is not 8 bits from its darkest to its brightest value."""
    if picture.dtype == np.uint8:
        return picture  # type: ignore[return-value]
    values = picture.astype(np.float64)
    low, high = values.min(), values.max()
    stretched: NDArray[np.uint8] = np.rint((values - low) * (255 / ((high - low) or 1))).astype(np.uint8)
    return stretched
