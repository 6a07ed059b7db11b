"""From an encoded picture to RGB pixels. The content decides the format, never the file's name.

Formats come from an allow-list, because Pillow's rarer decoders are where its vulnerabilities are found. The size is
checked in the header, before any pixel is decoded.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

# Pillow opens the MPO files of stereo cameras and phones as the JPEG that they begin with.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 178_956_970
"""Width × height above this is refused: what Pillow itself takes for a decompression bomb (twice its warning)."""
MAX_BYTES = 1 << 30
"""Encoded size above this is refused."""
MAX_REASON = 120
"""Characters kept of what a decoder says."""
REDUCING_GAP = 3.0
"""Large pictures are first reduced by a whole factor, to at least 3 times the size wanted, which Pillow's documentation
calls close to the fair result and faster."""
ORIENTATION = 0x0112
"""EXIF tag: how the camera was held."""
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadPicture(Exception):
    """A picture that cannot be read; callers leave it out, count it and go on."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


def decode(encoded: bytes | Path, name: str, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode a picture, upright and in RGB.

    Grayscale is repeated three times; transparent pixels are laid on white; 16 bits are scaled to 8; CMYK is converted;
    of an animation the first frame is taken.

    Args:
        encoded: the file's content, or where it lies.
        name: for the error.
        max_pixels: width × height above this is refused.

    Returns:
        uint8 ``(3, H, W)``, values 0..255, lying in memory as ``(H, W, 3)``.

    Raises:
        BadPicture: it is missing, empty, not a picture, cut short, damaged or too large.
    """
    content = read_file(encoded, name) if isinstance(encoded, Path) else encoded
    if not content:
        raise BadPicture(name, "the file is empty")
    try:
        with _without_pillow_warnings(), Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            width, height = picture.size
            if width * height > max_pixels:
                raise BadPicture(name, _too_large(f"{width} × {height}", max_pixels))
            picture.load()
            return to_rgb(picture)
    except BadPicture:
        raise
    except UnidentifiedImageError as error:
        raise BadPicture(name, f"not a picture, or in a format that is not read ({', '.join(FORMATS)} are)") from error
    except Image.DecompressionBombError as error:
        raise BadPicture(name, _too_large("it", max_pixels)) from error
    except _Unsupported as error:
        raise BadPicture(name, str(error)) from error
    except MemoryError as error:
        raise BadPicture(name, "too large for the memory that is free") from error
    except Exception as error:  # on damaged input Pillow's decoders raise whatever their parsing runs into
        detail = " ".join(str(error).split())[:MAX_REASON] or type(error).__name__
        raise BadPicture(name, f"cut short or damaged ({detail})") from error


def to_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """Return an open picture upright and in RGB, uint8 ``(3, H, W)``; see ``decode`` for what becomes of other modes.

    Raises:
        ValueError: its pixels have no faithful RGB form.
    """
    pixels: NDArray[np.uint8] = np.array(_rgb(_upright(picture)))
    return pixels.transpose(2, 0, 1)


def read_file(path: Path, name: str) -> bytes:
    """Return the content of a file of at most ``MAX_BYTES``.

    Raises:
        BadPicture: it is missing, larger, or may not be read.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadPicture(name, f"cannot be opened ({error.strerror})") from error
    check_bytes(len(content), name)
    return content


def check_bytes(size: int, name: str) -> None:
    """Raise ``BadPicture`` where an encoded picture claims more than ``MAX_BYTES``."""
    if size > MAX_BYTES:
        raise BadPicture(name, f"the file is larger than {MAX_BYTES >> 20} MiB")


def fit(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Resize the largest centred square of a picture to ``size`` × ``size`` pixels (bicubic, antialiased).

    Args:
        image: uint8 ``(3, H, W)``.
        size: pixels a side.

    Returns:
        uint8 ``(3, size, size)``; ``image`` itself where it has that size already.
    """
    _, height, width = image.shape
    if height == width == size:
        return image
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    box = (left, top, left + side, top + side)
    return np.array(picture.resize((size, size), Image.Resampling.BICUBIC, box, REDUCING_GAP)).transpose(2, 0, 1)


class _Unsupported(ValueError):
    """Pixels of a kind that has no faithful RGB form."""


def _too_large(what: str, max_pixels: int) -> str:
    return f"{what} is more than {max_pixels / 1e6:.0f} million pixels"


def _upright(picture: Image.Image) -> Image.Image:
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing about the pixels, which are whole
        return picture
    return picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture


def _rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB" and not picture.has_transparency_data:
        return picture
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        return _from_16_bits(np.asarray(picture)).convert("RGB")
    if picture.mode == "F":
        raise _Unsupported("floating-point pixels have no known range; save the picture with 8 or 16 bits")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def _from_16_bits(values: NDArray[np.integer]) -> Image.Image:
    """Scale 0..65535 to 0..255, rounding; Pillow's own conversion would clip everything above 255."""
    if values.min() < 0 or values.max() > 65535:
        raise _Unsupported("32-bit pixels have no known range; save the picture with 8 or 16 bits")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


_lock = threading.Lock()
_decoding = 0
_quiet = warnings.catch_warnings()


@contextlib.contextmanager
def _without_pillow_warnings() -> Iterator[None]:
    """Ignore warnings raised inside Pillow while any thread decodes, and leave the filters as they were afterwards.

    Warning filters belong to the whole process, so ``catch_warnings`` in each thread would restore them out of order:
    the first thread in sets them, the last one out restores them.
    """
    global _decoding, _quiet
    with _lock:
        _decoding += 1
        if _decoding == 1:
            _quiet = warnings.catch_warnings()
            _quiet.__enter__()
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _lock:
            _decoding -= 1
            if _decoding == 0:
                _quiet.__exit__(None, None, None)
