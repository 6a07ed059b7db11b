"""Real pictures for the tests of this folder."""

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image


def pixels(seed=0, height=24, width=32):
    """A smooth picture, so that JPEG keeps it nearly as it is; uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.array(small.resize((width, height), Image.Resampling.BICUBIC))


def encoded(kind="JPEG", seed=0, picture=None, **options):
    """Bytes of a picture file."""
    buffer = io.BytesIO()
    (picture or Image.fromarray(pixels(seed))).save(buffer, kind, **options)
    return buffer.getvalue()


def noise(dtype, channels=3, height=50, width=61, seed=0):
    """Values over the whole range of a type; ``(C, H, W)``."""
    rng = np.random.default_rng(seed)
    if np.issubdtype(dtype, np.floating):
        return rng.normal(0, 1000, (channels, height, width)).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, (channels, height, width), dtype=dtype, endpoint=True)


def tiff(picture, separate=False, **options):
    """Bytes of a TIFF of ``(C, H, W)``, written by tifffile."""
    channels = len(picture)
    if channels == 1:
        data = picture[0]
    else:
        data = picture if separate else picture.transpose(1, 2, 0)
        options["planarconfig"] = "separate" if separate else "contig"
    options.setdefault("photometric", "rgb" if channels == 3 else "minisblack")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, data, **options)
    return buffer.getvalue()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour, data, interlaced=False, before=b""):
    """Bytes of a PNG from its parts; ``data`` are rows with their filter bytes."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, int(interlaced))
    chunks = png_chunk(b"IHDR", header) + before + png_chunk(b"IDAT", zlib.compress(data)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
"""First row, first column, step down and step right of each pass of an interlaced PNG."""


def png16(picture, interlaced=False, before=b""):
    """Bytes of a 16-bit PNG of uint16 ``(C, H, W)``: gray, gray and alpha, RGB or RGB and alpha."""
    channels, height, width = picture.shape
    rows = picture.transpose(1, 2, 0).astype(">u2")
    passes = [rows[top::down, left::right] for top, left, down, right in (ADAM7 if interlaced else ((0, 0, 1, 1),))]
    data = b"".join(b"\0" + row.tobytes() for part in passes if part.size for row in part)
    return png(width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], data, interlaced, before)
