"""What a picture is made of: how many channels, and the type of their values."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8 | np.uint16 | np.float32]
"""A picture ``(C, H, W)``: uint8 0..255, uint16 0..65535, or float32 of any finite values."""
Depth: TypeAlias = Literal["uint8", "uint16", "float32"]

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in gray (ITU-R BT.601), as Pillow and torchvision have them."""


class BadPicture(Exception):
    """A picture that cannot be read; callers leave it out, count it and go on."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class Unsupported(ValueError):
    """Pixels that have no faithful form of a kind that is read; the text says why and what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """What an encoded picture says of itself before any pixel is decoded."""

    format: str
    """Found from the content: ``JPEG``, ``PNG``, ``TIFF``, …"""
    width: int
    """Pixels, once upright."""
    height: int
    channels: int
    """As ``decode`` returns them: gray has one; palettes, CMYK and YCbCr become three."""
    depth: Depth
    segment: tuple[int, int]
    """Height and width of the pieces that can be decoded alone: the whole picture unless it is a TIFF."""

    @property
    def bytes(self) -> int:
        """Bytes of the decoded picture."""
        return self.width * self.height * self.channels * np.dtype(self.depth).itemsize


@dataclass(frozen=True, kw_only=True)
class PixelFormat:
    """What every picture of one run is brought to."""

    channels: int = 3
    depth: Depth = "uint8"

    def __str__(self) -> str:
        return f"{self.channels} channel{'s' if self.channels > 1 else ''} of {self.depth}"

    @property
    def bytes(self) -> int:
        """Bytes of one pixel."""
        return self.channels * np.dtype(self.depth).itemsize


BAND = 1 << 18
"""Pixels whose transparency is dealt with at a time."""
TURNS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""By EXIF orientation: whether rows and columns are swapped, then rows reversed, then columns reversed."""


def upright(picture: Pixels, orientation: int) -> Pixels:
    """Turn a picture ``(C, H, W)`` as its EXIF orientation asks (1..8; anything else leaves it as it is)."""
    swapped, rows, columns = TURNS.get(orientation, (False, False, False))
    turned = picture.transpose(0, 2, 1) if swapped else picture
    facing: Pixels = turned[:, :: -1 if rows else 1, :: -1 if columns else 1]
    return facing


def upright_size(height: int, width: int, orientation: int) -> tuple[int, int]:
    """Return height and width as they are once the picture is upright."""
    return (width, height) if TURNS.get(orientation, (False,))[0] else (height, width)


def check_finite(bad: int, total: int) -> None:
    """Raise ``Unsupported`` where ``bad`` of ``total`` values are NaN or infinite."""
    if bad:
        raise Unsupported(
            f"{bad} of its {total} values are NaN, infinite or marked as no data; fill them with a number, or leave "
            "the picture out"
        )


def on_white(colours: Pixels, alpha: NDArray[Any]) -> Pixels:
    """Lay transparent pixels on white.

    Args:
        colours: uint8 or uint16 ``(C, H, W)``, not multiplied by ``alpha``.
        alpha: of the same type, ``(H, W)``; 0 is transparent.
    """
    white = np.uint32(np.iinfo(str(colours.dtype)).max)
    laid: Pixels = np.empty_like(colours)
    rows = max(1, BAND // alpha.shape[1])
    for top in range(0, len(alpha), rows):  # as a whole, 32 bits a value would take many times the picture
        band = slice(top, top + rows)
        weight = alpha[band].astype(np.uint32)
        # 65535² + 32767 still fits into 32 bits.
        mixed = (colours[:, band] * weight + white * (white - weight) + white // np.uint32(2)) // white
        laid[:, band] = mixed.astype(colours.dtype)
    return laid


def format_of(picture: Pixels) -> PixelFormat:
    """Return what a picture ``(C, H, W)`` is made of."""
    depth: Depth = "uint8" if picture.dtype == np.uint8 else "uint16" if picture.dtype == np.uint16 else "float32"
    return PixelFormat(channels=len(picture), depth=depth)


def convert(picture: Pixels, wanted: PixelFormat, name: str) -> Pixels:
    """Bring a picture to the channels and the type that a run learns from; one that has them is returned as it is.

    One channel is repeated to make three; three give one by their luma. 8 bits become 16 by repeating the byte
    (× 257), 16 become 8 by rounding; nothing is ever clipped. No other change is made up.

    Args:
        picture: ``(C, H, W)``.
        wanted: channels and type.
        name: for the error.

    Raises:
        BadPicture: its channels or values have no faithful form of that kind.
    """
    depth = str(picture.dtype)
    if depth != wanted.depth:
        picture = _in_depth(picture, wanted.depth, name)
    channels = len(picture)
    if channels == wanted.channels:
        return picture
    if channels == 1 and wanted.channels == 3:
        return np.repeat(picture, 3, axis=0)
    if channels == 3 and wanted.channels == 1:
        gray = np.tensordot(np.array(LUMA, np.float32), picture.astype(np.float32), 1)[None]
        return gray if picture.dtype == np.float32 else np.rint(gray).astype(picture.dtype)
    raise BadPicture(
        name,
        f"it has {_channels(channels)} and this run takes {wanted.channels}: type --channels {channels} to learn "
        f"from pictures of its kind",
    )


def _in_depth(picture: Pixels, depth: Depth, name: str) -> Pixels:
    if picture.dtype == np.uint8 and depth == "uint16":
        return picture.astype(np.uint16) * np.uint16(257)
    if picture.dtype == np.uint16 and depth == "uint8":
        return ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if picture.dtype == np.float32:
        raise BadPicture(name, "floating-point pixels have no known range in whole numbers: type --depth float32")
    raise BadPicture(name, f"its pixels are {picture.dtype} and this run takes float32: type --depth {picture.dtype}")


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"
