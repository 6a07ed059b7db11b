"""Small pictures of the examples, kept in the index so that a second audit opens nothing for them either."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diptych.auditing.index import Index
from diptych.data.decoding.pixels import BadPicture, Pixels
from diptych.data.sources.source import Source

SIDE = 112
"""Pixels of the longer side; smaller pictures keep their size, and the page enlarges them."""


def make(index: Index, parts: Sequence[Source], result: dict[str, Any]) -> dict[str, bytes]:
    """Return a WebP for the digest of every readable picture among the examples of ``result``."""
    images: dict[str, bytes] = {}
    for finding in result["findings"]:
        for picture in (one for example in finding["examples"] for one in example):
            digest = picture["digest"]
            if digest in images or picture.get("reason"):
                continue
            if image := index.thumbnail(digest) or _read(index, parts, digest):
                images[digest] = image
    index.keep_thumbnails(images)
    return images


def _read(index: Index, parts: Sequence[Source], digest: str) -> bytes | None:
    part, place = index.rows("SELECT part, place FROM good WHERE digest = ? ORDER BY part, name LIMIT 1", [digest])[0]
    try:
        return encode(parts[part].read(place))
    except BadPicture:  # gone since it was inspected
        return None


def encode(picture: Pixels) -> bytes:
    """Make a small WebP of a picture ``(C, H, W)`` of any kind."""
    shown = picture if len(picture) == 3 else picture[:3] if len(picture) > 3 else picture[:1]
    pixels = np.ascontiguousarray(_in_bytes(shown).transpose(1, 2, 0))
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()


def _in_bytes(picture: Pixels) -> NDArray[np.uint8]:
    """Stretch what is not 8 bits from its darkest to its brightest value; for people, never for learning."""
    if picture.dtype == np.uint8:
        return picture  # type: ignore[return-value]
    values = picture.astype(np.float64)
    low, high = values.min(), values.max()
    stretched: NDArray[np.uint8] = np.rint((values - low) * (255 / ((high - low) or 1))).astype(np.uint8)
    return stretched
