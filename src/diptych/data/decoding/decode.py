"""From an encoded picture to pixels in its own channels and type. The content decides the format, never the name.

Formats come from an allow-list, because Pillow's rarer decoders are where its vulnerabilities are found. The size is
checked in the header, before any pixel is decoded. TIFFs are read by ``tiff.py``, all else by Pillow, whose silent
reduction of 16-bit colours to 8 bits is got round here. Whatever goes wrong in a decoder becomes a ``BadPicture``.
"""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from diptych.data.decoding import tiff
from diptych.data.decoding.crashes import named
from diptych.data.decoding.pixels import (
    BadPicture,
    Depth,
    Header,
    Pixels,
    Unsupported,
    check_finite,
    on_white,
    upright,
    upright_size,
)

__all__ = ["BadPicture", "check_bytes", "decode", "fit", "header", "read_file", "region", "to_pixels"]

# Pillow opens the MPO files of stereo cameras and phones as the JPEG that they begin with.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 178_956_970
"""Width × height above this is refused: what Pillow itself takes for a decompression bomb (twice its warning)."""
MAX_DEEP_PIXELS = MAX_PIXELS // 4
"""The same for PNG and PPM of 16 bits a colour: to decode one takes some 30 bytes a pixel."""
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
"""What undoes it, where a picture stays inside Pillow."""
KINDS: dict[str, tuple[int, Depth]] = {
    "1": (1, "uint8"),
    "L": (1, "uint8"),
    "LA": (1, "uint8"),
    "I": (1, "uint16"),
    "F": (1, "float32"),
}
"""Channels and type that Pillow's modes become; those which are not here become RGB of 8 bits."""


def decode(encoded: bytes | Path, name: str, size: int | None = None, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode a picture, upright, in the channels and the type it has.

    Gray has one channel; palettes, CMYK and YCbCr become RGB; transparent pixels are laid on white; further bands of a
    TIFF are kept. 16 bits stay 16 bits. Of an animation or a file of many pages the first one is taken.

    Args:
        encoded: the file's content, or where it lies.
        name: for the error.
        size: the caller will make it ``size`` pixels a side, so a reduced form whose shorter side is at least
            ``REDUCING_GAP`` times that will do: of a JPEG, which then decodes faster, and of a TIFF, which then may be
            larger than the memory.
        max_pixels: width × height above this is refused.

    Returns:
        ``(C, H, W)``.

    Raises:
        BadPicture: it is missing, empty, not a picture, cut short, damaged or too large, or its pixels are of a kind
            that has no faithful form.
    """
    with _reading(encoded, name) as (file, is_tiff):
        return named(name, lambda: _decoded(file, is_tiff, name, size, max_pixels))


def _decoded(file: IO[bytes], is_tiff: bool, name: str, size: int | None, max_pixels: int) -> Pixels:
    if is_tiff:
        try:
            return tiff.read(file, name, size, max_pixels)
        except tiff.NotBySegment as error:
            return _whole_tiff(file, name, max_pixels, error)
    return _decode(file, name, size, max_pixels)


def region(encoded: bytes | Path, name: str, top: int, left: int, height: int, width: int) -> Pixels:
    """Decode a part of a picture; of a TIFF only the segments that it touches, of others the whole, to be cut.

    Args:
        encoded: the file's content, or where it lies.
        name: for the error.
        top: row of the upright picture, from 0.
        left: column.
        height: rows.
        width: columns.

    Returns:
        ``(C, height, width)``, as ``decode`` has it.

    Raises:
        BadPicture: as ``decode``, or it reaches beyond the picture.
    """
    with _reading(encoded, name) as (file, is_tiff):
        if is_tiff:
            try:
                return named(name, lambda: tiff.read_region(file, top, left, height, width))
            except tiff.NotBySegment:
                pass
        whole = decode(encoded, name)
        part: Pixels = whole[:, top : top + height, left : left + width].copy()
        if min(top, left) < 0 or part.shape[1:] != (height, width):
            raise BadPicture(name, f"it has {whole.shape[2]} × {whole.shape[1]} pixels, which do not reach that far")
        return part


def header(encoded: bytes | Path, name: str) -> Header:
    """Describe a picture without decoding its pixels.

    Raises:
        BadPicture: it is missing, empty, not a picture or too large, or its header is damaged.
    """
    with _reading(encoded, name) as (file, is_tiff):
        if is_tiff:
            try:
                return tiff.header(file)
            except tiff.NotBySegment as error:
                with _opened_tiff(file, name, error) as picture:
                    return _header(picture, name)
        with Image.open(file, formats=FORMATS) as picture:
            return _header(picture, name)


def to_pixels(picture: Image.Image) -> Pixels:
    """Return an open picture upright, ``(C, H, W)``; see ``decode`` for what becomes of its mode.

    Raises:
        ValueError: its pixels have no faithful form.
    """
    return upright(_native(picture), _orientation(picture))


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


def fit(image: Pixels, size: int) -> Pixels:
    """Resize the largest centred square of a picture to ``size`` × ``size`` pixels (bicubic, antialiased).

    Args:
        image: ``(C, H, W)``, uint8, uint16 or float32.
        size: pixels a side.

    Returns:
        ``(C, size, size)`` of the same type; ``image`` itself where it has that size already.
    """
    channels, height, width = image.shape
    if height == width == size:
        return image
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    box = (left, top, left + side, top + side)
    if channels == 3 and image.dtype == np.uint8:
        resized: NDArray[np.uint8] = _resized(image.transpose(1, 2, 0), size, box).transpose(2, 0, 1)
        return resized
    if image.dtype == np.uint16:  # Pillow resizes 16 bits as floats only, which hold them exactly
        values = np.stack([_resized(channel.astype(np.float32), size, box) for channel in image])
        whole: NDArray[np.uint16] = np.rint(values).clip(0, 65535).astype(np.uint16)  # bicubic overshoots at edges
        return whole
    real: NDArray[np.float32] = np.stack([_resized(channel, size, box) for channel in image])
    return real.clip(image.min(), image.max())  # bicubic overshoots at edges; near the largest float, to infinity


def _resized(pixels: NDArray[Any], size: int, box: tuple[float, float, float, float]) -> NDArray[Any]:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    return np.array(picture.resize((size, size), Image.Resampling.BICUBIC, box, REDUCING_GAP))


def _decode(file: IO[bytes], name: str, size: int | None, max_pixels: int) -> Pixels:
    with Image.open(file, formats=FORMATS) as picture:
        _check_pixels(picture, name, max_pixels)
        if size is not None:  # only JPEG heeds it: its decoder can halve the size up to three times
            least = int(REDUCING_GAP * size)
            picture.draft(None, (least, least))
        deep = _sixteen_bits(picture, file)
        if deep is not None:
            return upright(deep, _orientation(picture))
        picture.load()
        return to_pixels(picture)


def _check_pixels(picture: Image.Image, name: str, max_pixels: int) -> None:
    width, height = picture.size
    if width * height > max_pixels:
        raise BadPicture(name, _too_large(f"{width} × {height}", max_pixels))


def _whole_tiff(file: IO[bytes], name: str, max_pixels: int, reason: Exception) -> Pixels:
    with _opened_tiff(file, name, reason) as picture:
        _check_pixels(picture, name, max_pixels)
        picture.load()
        return to_pixels(picture)


def _opened_tiff(file: IO[bytes], name: str, reason: Exception) -> Image.Image:
    """Open a TIFF with Pillow; ``reason`` is why that is needed, and what is said where Pillow cannot do it either."""
    check_bytes(file.seek(0, io.SEEK_END), name)
    file.seek(0)
    try:
        return Image.open(file, formats=("TIFF",))
    except UnidentifiedImageError as error:
        raise BadPicture(name, str(reason)) from error


def _header(picture: Image.Image, name: str) -> Header:
    _check_pixels(picture, name, MAX_PIXELS)
    width, height = picture.size
    if picture.format != "TIFF":  # Pillow tells the size of an upright TIFF, and of all others as they are stored
        height, width = upright_size(height, width, _orientation(picture))
    channels, depth = KINDS.get(picture.mode.partition(";")[0], (3, "uint8"))
    if _is_deep(picture):
        channels, depth = 1 if _raw_mode(picture).startswith("LA") else 3, "uint16"
    elif picture.mode.startswith("I"):
        depth = "uint16"
    return Header(
        format=str(picture.format),
        width=width,
        height=height,
        channels=channels,
        depth=depth,
        segment=(height, width),
    )


def _raw_mode(picture: Image.Image) -> str:
    """Return how Pillow unpacks the pixels, such as ``RGB;16B``."""
    args = picture.tile[0].args if isinstance(picture, ImageFile.ImageFile) and picture.tile else None
    found = args[0] if isinstance(args, tuple) and args else args
    return str(found)


def _is_deep(picture: Image.Image) -> bool:
    """Whether a PNG or PPM has 16-bit pixels of a kind that Pillow reduces to 8."""
    if picture.format == "PNG":
        return _raw_mode(picture) in ("RGB;16B", "RGBA;16B", "LA;16B")
    return picture.format == "PPM" and picture.mode == "RGB" and _largest(picture) > 255


def _largest(picture: Image.Image) -> int:
    """Return the value that stands for white in a PPM."""
    assert isinstance(picture, ImageFile.ImageFile)
    args = picture.tile[0].args
    return int(args[-1]) if isinstance(args, tuple) and picture.tile[0].codec_name != "raw" else 255


def _sixteen_bits(picture: Image.Image, file: IO[bytes]) -> Pixels | None:
    """Decode 16-bit colours, None where the picture has none.

    Pillow has no 16-bit mode for them. It does unpack them, though, to either their high or their low bytes.
    """
    if not _is_deep(picture):
        return None
    if picture.width * picture.height > MAX_DEEP_PIXELS:
        raise Unsupported(_too_large(f"with 16 bits a colour, {picture.width} × {picture.height}", MAX_DEEP_PIXELS))
    assert isinstance(picture, ImageFile.ImageFile)
    if picture.format == "PPM":
        return _deep_ppm(picture, file)
    transparent = picture.info.get("transparency")
    mode = _raw_mode(picture)
    if mode == "LA;16B":  # two values of 16 bits are as long as four of 8
        picture.tile = [picture.tile[0]._replace(args="RGBA")]
        values = np.array(picture).view(">u2").astype(np.uint16)
    else:
        high = np.array(picture).astype(np.uint16)
        file.seek(0)
        with Image.open(file, formats=("PNG",)) as again:
            again.tile = [again.tile[0]._replace(args=mode[:-1] + "L")]
            values = high << 8 | np.asarray(again)
    planes = values.transpose(2, 0, 1)
    if len(planes) != 3:
        return on_white(planes[:-1], planes[-1])
    if transparent is not None:
        planes[:, (planes == np.array(transparent, np.uint16)[:, None, None]).all(0)] = 65535
    return planes


def _deep_ppm(picture: ImageFile.ImageFile, file: IO[bytes]) -> Pixels:
    tile = picture.tile[0]
    if tile.codec_name != "ppm":
        raise Unsupported("a PPM of more than 8 bits that is written as text is not read; save it as PNG")
    file.seek(tile.offset)
    width, height = picture.size
    values = np.frombuffer(file.read(width * height * 6), ">u2").reshape(height, width, 3).transpose(2, 0, 1)
    largest = _largest(picture)
    if largest == 65535:
        return values.astype(np.uint16)
    return np.rint(values.clip(max=largest) * (65535 / largest)).astype(np.uint16)


def _too_large(what: str, max_pixels: int) -> str:
    return f"{what} is more than {max_pixels / 1e6:.0f} million pixels"


def _orientation(picture: Image.Image) -> int:
    try:
        # Not the PNG reader's own getexif, which decodes the pixels to look for EXIF behind them.
        orientation = Image.Image.getexif(picture).get(ORIENTATION, 1)
    except Exception:  # damaged EXIF says nothing about the pixels, which are whole
        return 1
    return orientation if isinstance(orientation, int) else 1


def _native(picture: Image.Image) -> Pixels:
    mode = picture.mode
    if mode == "I" or mode.startswith("I;16"):
        return _from_16_bits(np.array(picture), picture.info.get("transparency"))[None]
    if mode == "F":
        values: NDArray[np.float32] = np.array(picture)
        check_finite(values.size - int(np.isfinite(values).sum()), values.size)
        return values[None]
    channels = KINDS.get(mode, (3, ""))[0]
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    wanted = "L" if channels == 1 else "RGB"
    pixels: NDArray[np.uint8] = np.array(picture if picture.mode == wanted else picture.convert(wanted))
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _from_16_bits(values: NDArray[np.integer], transparent: object) -> NDArray[np.uint16]:
    if values.min() < 0 or values.max() > 65535:
        raise Unsupported("32-bit pixels have no known range; save the picture with 8 or 16 bits")
    found = values.astype(np.uint16)
    if isinstance(transparent, int):
        found[found == transparent] = 65535
    return found


@contextlib.contextmanager
def _reading(encoded: bytes | Path, name: str) -> Iterator[tuple[IO[bytes], bool]]:
    """Open a picture, say whether it is a TIFF, and make a BadPicture of whatever goes wrong with it."""
    try:
        with _without_pillow_warnings(), _opened(encoded, name) as file:
            head = file.read(4)
            if not head:
                raise BadPicture(name, "the file is empty")
            is_tiff = tiff.is_tiff(head)
            if not is_tiff:  # a TIFF may be larger, being read by segment
                check_bytes(file.seek(0, io.SEEK_END), name)
            file.seek(0)
            yield file, is_tiff
    except BadPicture:
        raise
    except UnidentifiedImageError as error:
        raise BadPicture(name, f"not a picture, or in a format that is not read ({', '.join(FORMATS)} are)") from error
    except Image.DecompressionBombError as error:
        raise BadPicture(name, _too_large("it", MAX_PIXELS)) from error
    except Unsupported as error:
        raise BadPicture(name, str(error)) from error
    except MemoryError as error:
        raise BadPicture(name, "too large for the memory that is free") from error
    except Exception as error:  # on damaged input decoders raise whatever their parsing runs into
        detail = " ".join(str(error).split())[:MAX_REASON] or type(error).__name__
        raise BadPicture(name, f"cut short or damaged ({detail})") from error


def _opened(encoded: bytes | Path, name: str) -> IO[bytes]:
    if isinstance(encoded, bytes):
        return io.BytesIO(encoded)
    try:
        return open(encoded, "rb")
    except OSError as error:
        raise BadPicture(name, f"cannot be opened ({error.strerror})") from error


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
