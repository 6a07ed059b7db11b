"""One picture's content becomes one ``Record``: what it is, what it holds, and what it looks like.

A file is read once and decoded once, and to its end: only so is one found that is cut short. Whether a picture can be
used is for ``data.decode.decode`` to say. Eight-bit gray and RGB files, nearly all there are, stay inside Pillow, whose
histogram gives exact statistics several times faster than an array does; every other kind of picture and every failure
goes through ``decode``, so that the audit gives the reason that a run would give.

A JPEG of more than twice ``LEAST`` pixels is reduced by its own decoder to a half, a quarter or an eighth. That reads
every byte all the same and takes less than half the time; the statistics are then those of the reduced picture, whose
mean is the same and whose deviation and range are slightly smaller, as they are for a network that gets it resized.

16 × 16 gray pixels are kept beside the perceptual hash of ``data.hashes``, and decide (``near.py``).

This module loads no torch: the worker processes import it.
"""

import base64
import hashlib
import io
import math
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from diptych.data.decoding.decode import FORMATS, MAX_PIXELS, ORIENTATION, check_bytes, decode, header
from diptych.data.decoding.pixels import LUMA, BadPicture, Pixels, upright, upright_size
from diptych.data.decoding.tiff import is_tiff
from diptych.data.hashes import FLAT, SIDE, perceptual_hashes

SIGNATURE = 16
"""Pixels a side of the gray picture that is kept."""
DIGITS = 32
"""Hexadecimal digits kept of a SHA-256."""
FIRST = 1 << 20
"""Bytes read at first."""
BLOCK = 1 << 20
"""Pixels taken at once where statistics are made in floating point."""
LEAST = 128
"""Pixels that the shorter side of a JPEG keeps when its decoder reduces it."""
WHOLE = 1 << 28
"""Bytes of a decoded TIFF above which a reduced form of it is looked at."""
REDUCED = 512
"""Pixels a side that such a form is good for."""
SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "MPO": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm"),
}
"""Which names a format goes by."""
KNOWN = frozenset(suffix for suffixes in SUFFIXES.values() for suffix in suffixes)
TURNED = range(2, 9)
"""EXIF orientations of pictures that must be turned."""
PIXELS = "pixels"
"""The format of a picture that is in memory already, and has no file."""


class Record(NamedTuple):
    """What is known of a picture; all but the first three are empty where it cannot be read."""

    reason: str | None
    """Why it cannot be read; None if it can."""
    format: str
    """Found from its content, such as JPEG; empty where it is none that we read."""
    digest: str
    """The first ``DIGITS`` of the SHA-256 of the file's content, or of the pixels where there is no file."""
    mode: str = ""
    """How the file keeps its pixels, in Pillow's words, such as CMYK; empty for a TIFF, and where there is no file."""
    width: int = 0
    """Pixels, once upright."""
    height: int = 0
    channels: int = 0
    """As a run would see it."""
    depth: str = ""
    """uint8, uint16 or float32."""
    mean: tuple[float, ...] = ()
    """A channel each, in the values of ``depth``, and so are the next three."""
    std: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    constant: bool = False
    """Whether all its pixels are nearly the same."""
    rotated: bool = False
    """Whether its EXIF data say that it must be turned."""
    misnamed: bool = False
    """Whether its name belongs to another format."""
    phash: int = 0
    """Perceptual hash, 64 bits as a signed number."""
    signature: str = ""
    """``SIGNATURE`` × ``SIGNATURE`` gray values (uint8) in base64."""


@dataclass(frozen=True, kw_only=True)
class _Look:
    """A record to be completed together with others: what remains is cheaper for many at once."""

    known: Record
    gray: bytes = b""
    """``SIDE`` × ``SIDE`` uint8."""
    histogram: Sequence[int] = ()
    """256 counts a channel, for 8-bit pictures from Pillow."""


def inspect_files(files: Sequence[tuple[str, bytes | Path]]) -> list[Record]:
    """Inspect encoded pictures, each under its name."""
    return _complete([_look_at_file(name, encoded) for name, encoded in files])


def inspect_pixels(pictures: Sequence[Pixels]) -> list[Record]:
    """Inspect pictures ``(C, H, W)`` that are decoded already."""
    looks = []
    for picture in pictures:
        content = f"{picture.shape} {picture.dtype}".encode() + np.ascontiguousarray(picture).tobytes()
        looks.append(_look_at_pixels(picture, Record(None, PIXELS, _digest(content))))
    return _complete(looks)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def _look_at_file(name: str, encoded: bytes | Path) -> _Look:
    try:
        content = _content(name, encoded)
    except BadPicture as bad:
        return _Look(known=Record(bad.reason, "", ""))
    if content is None:
        return _look_at_tiff(name, encoded)
    known = Record(None, "", _digest(content))
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as picture:
            format_ = picture.format or ""
            known = known._replace(format=format_, mode=picture.mode, misnamed=_is_misnamed(name, format_))
            orientation = Image.Image.getexif(picture).get(ORIENTATION, 1)
            if orientation in TURNED:
                known = known._replace(rotated=True)
            if _is_plain(picture):
                return _look_at_plain(picture, orientation, known)
    except Exception:  # whatever it is, `decode` says it in a run's words
        pass
    try:
        return _look_at_pixels(decode(content, name), known)
    except BadPicture as bad:
        return _Look(known=Record(bad.reason, known.format, known.digest, known.mode))


def _content(name: str, encoded: bytes | Path) -> bytes | None:
    """Read a picture as a whole; None if it is a TIFF, which may be larger than the memory."""
    if isinstance(encoded, bytes):
        return None if is_tiff(encoded[:4]) else encoded
    try:
        with open(encoded, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(FIRST) or b""
            if is_tiff(first[:4]):
                return None
            check_bytes(size, name)
            # Nearly every file comes with the first read; a second one would only find its end.
            return first if len(first) == size else first + file.readall()
    except OSError as error:
        raise BadPicture(name, f"cannot be opened ({error.strerror})") from error


def _look_at_tiff(name: str, encoded: bytes | Path) -> _Look:
    """A TIFF may be larger than the memory: hashed as it is read, and if it is large, decoded to a reduced form."""
    with open(encoded, "rb") if isinstance(encoded, Path) else io.BytesIO(encoded) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
    known = Record(None, "TIFF", digest, misnamed=_is_misnamed(name, "TIFF"))
    try:
        told = header(encoded, name)
        look = _look_at_pixels(decode(encoded, name, None if told.bytes <= WHOLE else REDUCED), known)
        return _Look(known=look.known._replace(width=told.width, height=told.height), gray=look.gray)
    except BadPicture as bad:
        return _Look(known=Record(bad.reason, "TIFF", digest))


def _is_misnamed(name: str, format_: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    return suffix in KNOWN and suffix not in SUFFIXES.get(format_, ())


def _is_plain(picture: Image.Image) -> bool:
    """Whether Pillow's own pixels are what ``decode`` returns: 8 bits, gray or RGB, nothing to be made of them."""
    if picture.mode not in ("L", "RGB") or picture.has_transparency_data:
        return False
    if picture.width * picture.height > MAX_PIXELS:
        return False
    if picture.format == "PNG":  # Pillow shows 16 bits of colour as 8
        return isinstance(picture, ImageFile.ImageFile) and picture.tile[0].args == picture.mode
    return picture.format in ("JPEG", "MPO", "WEBP", "BMP")


def _look_at_plain(picture: Image.Image, orientation: int, known: Record) -> _Look:
    width, height = picture.size
    if width >= 2 * LEAST <= height:  # only JPEG heeds it
        picture.draft(None, (LEAST, LEAST))
    picture.load()
    histogram = picture.histogram()
    small = picture if picture.size == (SIDE, SIDE) else _shrink(picture)
    gray = small.convert("L").tobytes()
    if known.rotated:
        turned = upright(np.frombuffer(gray, np.uint8).reshape(1, SIDE, SIDE), orientation)
        gray = np.ascontiguousarray(turned).tobytes()
        height, width = upright_size(height, width, orientation)
    channels = len(histogram) // 256
    known = known._replace(width=width, height=height, channels=channels, depth="uint8")
    return _Look(known=known, gray=gray, histogram=histogram)


def _shrink(picture: Image.Image) -> Image.Image:
    return picture.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0)


def _look_at_pixels(picture: Pixels, known: Record) -> _Look:
    channels, height, width = picture.shape
    mean, std, low, high = zip(*map(_statistics, picture), strict=True)
    known = known._replace(
        width=width, height=height, channels=channels, depth=str(picture.dtype), mean=mean, std=std, low=low, high=high
    )
    # Reduced channel by channel: in floating point, a whole picture would take many times its own memory.
    small = np.stack([np.asarray(_shrink(_as_image(channel)), np.float32) for channel in picture])
    gray = np.tensordot(LUMA if channels == 3 else [1 / channels] * channels, small, 1)
    # A picture of 8 bits gets the values that its file would get; others are stretched.
    darkest, brightest = (0.0, 255.0) if picture.dtype == np.uint8 else (float(gray.min()), float(gray.max()))
    scaled = np.rint((gray - darkest) * (255 / ((brightest - darkest) or 1.0)))
    return _Look(known=known, gray=scaled.astype(np.uint8).tobytes())


def _as_image(channel: NDArray[Any]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(channel if channel.dtype == np.uint8 else channel.astype(np.float32)))


def _statistics(channel: NDArray[Any]) -> tuple[float, float, float, float]:
    """Return mean, standard deviation, lowest and highest value, some rows at a time."""
    height, width = channel.shape
    rows = max(1, BLOCK // width)
    blocks = [channel[top : top + rows] for top in range(0, height, rows)]
    mean = sum(float(block.sum(dtype=np.float64)) for block in blocks) / channel.size
    spread = sum(float(np.square(block - mean, dtype=np.float64).sum()) for block in blocks) / channel.size
    return mean, math.sqrt(spread), float(channel.min()), float(channel.max())


def _complete(looks: Sequence[_Look]) -> list[Record]:
    """Hash all, and turn histograms into statistics."""
    good = [look for look in looks if look.gray]
    if not good:
        return [look.known for look in looks]
    grays = np.frombuffer(b"".join(look.gray for look in good), np.uint8).reshape(-1, SIDE, SIDE)
    hashes = iter(perceptual_hashes(grays).tolist())
    signatures = iter(_signatures(grays))
    statistics = _from_histograms([look.histogram for look in good if look.histogram])
    records = []
    for look in looks:
        record = look.known
        if look.gray:
            mean, std, low, high = record.mean, record.std, record.low, record.high
            if look.histogram:
                mean, std, low, high = next(statistics)
            record = record._replace(
                mean=mean,
                std=std,
                low=low,
                high=high,
                constant=_is_constant(record.depth, std, low + high),
                phash=next(hashes),
                signature=base64.b64encode(next(signatures)).decode(),
            )
        records.append(record)
    return records


def _signatures(grays: NDArray[np.uint8]) -> NDArray[np.uint8]:
    sums = np.zeros((len(grays), SIGNATURE, SIGNATURE), np.uint16)
    step = SIDE // SIGNATURE
    for row in range(step):
        for column in range(step):
            sums += grays[:, row::step, column::step]
    return (sums // step**2).astype(np.uint8)


def _from_histograms(histograms: Sequence[Sequence[int]]) -> Iterator[tuple[tuple[float, ...], ...]]:
    """Yield each picture's mean, standard deviation, lowest and highest value, a channel each."""
    joined = b"".join(array("Q", histogram).tobytes() for histogram in histograms)
    counts = np.frombuffer(joined, np.uint64).reshape(-1, 256).astype(np.float64)
    levels = np.arange(256.0)
    pixels = counts.sum(1)
    mean = counts @ levels / pixels
    std = np.sqrt(np.maximum(counts @ levels**2 / pixels - mean**2, 0))
    there = counts > 0
    found = np.stack([mean, std, there.argmax(1), 255 - there[:, ::-1].argmax(1)])
    first = 0
    for histogram in histograms:
        last = first + len(histogram) // 256
        mean_, std_, low, high = found[:, first:last].tolist()
        yield tuple(mean_), tuple(std_), tuple(low), tuple(high)
        first = last


def _is_constant(depth: str, std: Sequence[float], extremes: Sequence[float]) -> bool:
    # Floating-point values have no range of their own: against the largest that the picture holds.
    full = {"uint8": 255.0, "uint16": 65535.0}.get(depth) or max(map(abs, extremes))
    return max(std) <= FLAT * full
