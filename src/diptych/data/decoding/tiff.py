"""TIFF: many bands, 16 bits and floating point, and pictures far larger than the memory.

A TIFF is stored in segments (strips or tiles). Only those that are needed are decoded, one at a time, so memory is
bounded by one segment and the result: whole-slide scans and GeoTIFFs are cut or reduced without ever being whole.

tifffile reads the structure. Segments are decoded here where a bounded decoder is at hand: Deflate by zlib; LZW,
PackBits, LZMA and Zstandard by the libtiff inside Pillow; JPEG by Pillow. Other compressions need imagecodecs, which is
an extra. What has no segments of a plain kind (bilevel, CCITT fax, YCbCr without JPEG) raises ``NotBySegment`` and is
left to Pillow as a whole.

On damaged input these functions raise whatever they run into; ``decode.py``, which calls them, makes one line of it.
"""

import io
import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from diptych.data.decoding.pixels import (
    TURNS,
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

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_SEGMENT = 1 << 27
"""Bytes of one decoded segment; a segment cannot be read in part."""
MAX_DECODED = 1 << 30
"""Bytes of a picture that is returned as a whole."""
WHOLE = 1 << 26
"""Bytes up to which a picture is not reduced here: resizing it whole, as the caller will, is faster."""
PIECE = 1 << 22
"""Bytes read at once from an uncompressed strip, which can be read in part."""
OVERSAMPLING = 3
"""A reduced picture keeps at least this many times the pixels a side that the caller wants."""
MAX_LEVELS = 32
"""Pages looked at for smaller copies of the picture."""

DEFLATE = {8, 32946, 50013}
LIBTIFF = {5: 5, 32773: 32773, 34925: 34925, 50000: 50000, 34926: 50000}
"""LZW, PackBits, LZMA and Zstandard, which has two numbers: by which number libtiff knows each."""
JPEG = 7
MIN_IS_WHITE, MIN_IS_BLACK, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6
COLOURS = {MIN_IS_WHITE: 1, MIN_IS_BLACK: 1, RGB: 3, PALETTE: 1, CMYK: 4, YCBCR: 3}
"""Samples that the colour itself takes; those beyond are alpha or further bands."""
ASSOCIATED, UNASSOCIATED = 1, 2
"""Kinds of alpha: whether the colours have been multiplied by it."""
REDUCED, MASK = 1, 4
"""Bits of a page's NewSubfileType."""
ADOBE = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00"
"""A JPEG marker that, followed by 0 or 1, says whether three components are RGB or YCbCr."""

Samples = NDArray[Any]
"""Pixels as they are stored, ``(H, W, S)``."""

# tifffile warns through logging of every oddity that it gets over; nobody who trains asked to see them.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


GDAL_NODATA = 42113
"""Tag that holds the value of pixels without data."""


class NotBySegment(Exception):
    """A TIFF that only Pillow may be able to read, as a whole; the text is the reason, should it fail too."""


class Part(NamedTuple):
    """A piece of a picture as it is stored."""

    top: int
    left: int
    pixels: Pixels


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins with ``head`` (4 bytes) is a TIFF."""
    return head in MAGIC


def header(file: IO[bytes]) -> Header:
    """Describe the first page.

    Raises:
        NotBySegment: Pillow must read it.
        Unsupported: its pixels are of a kind that is not read.
    """
    with _opened(file) as opened:
        level = _Level.of(_first(opened), file)
        height, width = upright_size(level.height, level.width, level.orientation)
        return Header(
            format="TIFF",
            width=width,
            height=height,
            channels=level.channels,
            depth=level.depth,
            segment=upright_size(*level.piece, level.orientation),
        )


def read(file: IO[bytes], name: str, size: int | None, max_pixels: int) -> Pixels:
    """Read the first page, or a reduced form of it.

    Args:
        file: positioned anywhere.
        name: for the error.
        size: the shorter side of the result is at least ``OVERSAMPLING`` times this: the smallest copy in the file that
            is large enough, averaged by a whole factor. None reads it as it is.
        max_pixels: width × height of the result above this is refused.

    Returns:
        ``(C, H, W)``, upright. Palettes, CMYK and YCbCr become RGB; an alpha channel of gray or RGB is laid on white;
        further bands are kept. float16 and float64 become float32, whole numbers of 32 bits become uint16.

    Raises:
        NotBySegment: Pillow must read it.
        Unsupported: its pixels have no faithful form.
        BadPicture: it is too large.
    """
    with _opened(file) as opened:
        first = _first(opened)
        level = _Level.of(first, file)
        factor = 1
        if size is not None:
            level = _smallest(level, _copies(opened, first), OVERSAMPLING * size)
            if level.height * level.width * level.pixel_bytes > WHOLE:
                factor = max(1, min(level.height, level.width) // (OVERSAMPLING * size))
        _check_size(level, factor, name, max_pixels)
        if factor == 1:
            pixels = level.region(0, 0, level.height, level.width)
        else:
            pixels = level.reduced(factor)
        return upright(pixels, level.orientation)


def read_region(file: IO[bytes], top: int, left: int, height: int, width: int) -> Pixels:
    """Read a part of the first page, decoding only the segments that it touches.

    Args:
        file: positioned anywhere.
        top: row of the upright picture, from 0.
        left: column.
        height: rows.
        width: columns.

    Returns:
        ``(C, height, width)``, as ``read`` returns it.

    Raises:
        NotBySegment: Pillow must read it.
        Unsupported: its pixels have no faithful form.
        ValueError: it reaches beyond the picture.
    """
    with _opened(file) as opened:
        level = _Level.of(_first(opened), file)
        full = upright_size(level.height, level.width, level.orientation)
        swapped, rows, columns = TURNS.get(level.orientation, (False, False, False))
        top = full[0] - top - height if rows else top
        left = full[1] - left - width if columns else left
        stored = (left, top, width, height) if swapped else (top, left, height, width)
        return upright(level.region(*stored), level.orientation)


@dataclass(frozen=True, kw_only=True)
class _Level:
    """One page, in the terms of its segments; every number has been checked against the others."""

    page: tifffile.TiffPage
    file: IO[bytes]
    file_size: int
    height: int
    width: int
    samples: int
    photometric: int
    compression: int
    predictor: int
    dtype: np.dtype[Any]
    separate: bool
    """Each band has segments of its own."""
    tile: tuple[int, int] | None
    rows_per_strip: int

    @classmethod
    def of(cls, page: tifffile.TiffPage, file: IO[bytes]) -> "_Level":
        samples = int(page.samplesperpixel)
        photometric = int(page.photometric) if 262 in page.tags else RGB if samples == 3 else MIN_IS_BLACK
        if page.dtype is None or page.bitspersample not in (8, 16, 32, 64) or page.dtype.kind not in "uif":
            raise _left(page, f"pixels of {page.bitspersample} bits of this kind are not read")
        level = cls(
            page=page,
            file=file,
            file_size=file.seek(0, io.SEEK_END),
            height=int(page.imagelength),
            width=int(page.imagewidth),
            samples=samples,
            photometric=photometric,
            compression=int(page.compression),
            predictor=int(page.predictor),
            dtype=page.dtype,
            separate=int(page.planarconfig) == 2 and samples > 1,
            tile=(int(page.tilelength), int(page.tilewidth)) if page.is_tiled else None,
            rows_per_strip=int(page.rowsperstrip),
        )
        level._check()
        return level

    def _check(self) -> None:
        if min(self.height, self.width, self.samples, *self.piece) < 1 or int(self.page.imagedepth) != 1:
            raise ValueError("it has no rows, no columns, or more than two dimensions")
        if not self._is_plain():
            raise _left(self.page, "its colours are stored in a way that is not read; save it as gray or RGB")
        if self.compression not in {1, *DEFLATE, *LIBTIFF} and not self._is_plain_jpeg():
            if (reason := _missing_codec(self.compression)) is not None:
                raise _left(self.page, reason)
        elif self.predictor not in (1, 2, 3) or (self.page.fillorder == 2 and self.compression != JPEG):
            raise _left(self.page, "its segments are stored in a way that is not read")
        down, across = self._grid
        wanted = down * across * (self.samples if self.separate else 1)
        if min(len(self.page.dataoffsets), len(self.page.databytecounts)) < wanted:
            raise ValueError(f"{wanted} segments are needed for {self.width} × {self.height}")
        height, width = self.piece
        if height * width * self.samples * self.dtype.itemsize > MAX_SEGMENT:
            raise _left(self.page, f"one of its segments takes more than {MAX_SEGMENT >> 20} MiB; save it in tiles")

    def _is_plain(self) -> bool:
        if self.photometric == YCBCR:
            return self._is_plain_jpeg() and self.samples == 3
        if self.photometric == PALETTE:
            return self.samples == 1 and self.dtype.kind == "u" and self.dtype.itemsize <= 2
        if self.photometric == CMYK:
            return self.samples == 4 and self.dtype == np.uint8 and self.compression != JPEG
        if self.photometric == MIN_IS_WHITE and self.dtype.kind != "u":
            return False
        return self.photometric in COLOURS and self.samples >= COLOURS[self.photometric]

    def _is_plain_jpeg(self) -> bool:
        return (
            self.compression == JPEG
            and self.dtype == np.uint8
            and (self.samples in (1, 3) or self.separate)
            and not (self.photometric == YCBCR and self.separate)
            and self.page.jpegheader is None
        )

    @property
    def orientation(self) -> int:
        value = self.page.tags.valueof(274, 1)
        return value if isinstance(value, int) else 1

    @property
    def depth(self) -> Depth:
        if self.photometric == PALETTE or self.dtype.itemsize == 1:
            return "uint8"
        return "float32" if self.dtype.kind == "f" else "uint16"

    @property
    def channels(self) -> int:
        if self.photometric in (PALETTE, CMYK):
            return 3
        return self.samples - (self._alpha is not None)

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one decoded pixel."""
        return self.channels * np.dtype(self.depth).itemsize

    @property
    def _alpha(self) -> int | None:
        """Kind of alpha that is laid on white; with further bands it stays one of them, and floats have no white."""
        extra = tuple(self.page.extrasamples)
        known = self.photometric in (MIN_IS_WHITE, MIN_IS_BLACK, RGB) and self.dtype.kind == "u"
        if known and self.samples == COLOURS[self.photometric] + 1 and extra[:1] in ((ASSOCIATED,), (UNASSOCIATED,)):
            return int(extra[0])
        return None

    @property
    def _segment(self) -> tuple[int, int]:
        return self.tile or (self.rows_per_strip, self.width)

    @property
    def piece(self) -> tuple[int, int]:
        """Height and width of what is decoded at once."""
        height, width = self._segment
        if self.tile is None and self.compression == 1:
            height = min(height, max(1, PIECE // max(1, width * self.samples * self.dtype.itemsize)))
        return height, width

    @property
    def _grid(self) -> tuple[int, int]:
        height, width = self._segment
        return -(-self.height // height), -(-self.width // width)

    @cached_property
    def _palette(self) -> NDArray[np.uint8]:
        colours: NDArray[Any] = np.array(self.page.colormap)  # (3, 2 ** bits) of 16 bits
        return (colours >> 8).astype(np.uint8)

    def region(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Return a part of the picture as it is stored, ``(C, height, width)``."""
        if min(top, left) < 0 or min(height, width) < 1 or top + height > self.height or left + width > self.width:
            raise ValueError(f"it has {self.width} × {self.height} pixels, which do not reach that far")
        found: Pixels = np.empty((self.channels, height, width), self.depth)
        bad = 0
        for part in self._parts(top, left, height, width):
            row, column = part.top - top, part.left - left
            found[:, row : row + part.pixels.shape[1], column : column + part.pixels.shape[2]] = part.pixels
            bad += self._missing(part.pixels)
        check_finite(bad, found.size)
        return found

    def _missing(self, pixels: Pixels) -> int:
        """Return how many floating-point values are none: NaN, infinite, or what GDAL marks as no data."""
        if pixels.dtype != np.float32:
            return 0
        there = np.isfinite(pixels)
        if GDAL_NODATA in self.page.tags:
            there &= pixels != np.float32(self.page.nodata)
        return pixels.size - int(there.sum())

    def reduced(self, factor: int) -> Pixels:
        """Return the means of squares of ``factor`` pixels a side; what is left over is cut from all sides."""
        height, width = self.height // factor, self.width // factor
        top, left = (self.height - height * factor) // 2, (self.width - width * factor) // 2
        wide: type[Any] = np.float64 if self.depth == "float32" else np.uint64
        sums = np.zeros((self.channels, height, width), wide)
        bad = 0
        for part in self._parts(top, left, height * factor, width * factor):
            bad += self._missing(part.pixels)
            row, rows = _blocks(part.top - top, part.pixels.shape[1], factor)
            column, columns = _blocks(part.left - left, part.pixels.shape[2], factor)
            block = np.add.reduceat(part.pixels, rows, axis=1, dtype=wide)
            block = np.add.reduceat(block, columns, axis=2)
            sums[:, row : row + len(rows), column : column + len(columns)] += block
        check_finite(bad, self.channels * self.height * self.width)
        area = factor * factor
        if self.depth == "float32":
            return (sums / area).astype(np.float32)
        return ((sums + np.uint64(area // 2)) // np.uint64(area)).astype(self.depth)

    def _parts(self, top: int, left: int, height: int, width: int) -> Iterator[Part]:
        """Decode the segments that a region touches, one after the other, and cut each to the region."""
        segment_height, segment_width = self._segment
        piece_height = self.piece[0]
        down, across = self._grid
        planes = self.samples if self.separate else 1
        for row in range(top // segment_height, -(-(top + height) // segment_height)):
            above = row * segment_height
            stop = min(above + segment_height, top + height)
            for first in range(above, stop, piece_height):
                last = min(first + piece_height, above + segment_height, self.height)
                if last <= top or first >= top + height:
                    continue
                for column in range(left // segment_width, -(-(left + width) // segment_width)):
                    start = column * segment_width
                    rows = slice(max(top - first, 0), min(last, top + height) - first)
                    columns = slice(max(left - start, 0), min(start + segment_width, left + width) - start)
                    bands = [
                        self._decoded((plane * down + row) * across + column, first - above, last - first)
                        for plane in range(planes)
                    ]
                    if any(band.shape[0] < rows.stop or band.shape[1] < columns.stop for band in bands):
                        raise ValueError("a segment is smaller than it should be")
                    values = np.concatenate([band[rows, columns] for band in bands], axis=2)
                    yield Part(first + rows.start, start + columns.start, self._colours(values))

    def _decoded(self, index: int, first: int, count: int) -> Samples:
        """Decode rows ``first`` .. ``first + count`` of a segment; all of them where it is compressed or a tile."""
        width = self._segment[1]
        samples = 1 if self.separate else self.samples
        height = self.tile[0] if self.tile else count
        offset, length = int(self.page.dataoffsets[index]), int(self.page.databytecounts[index])
        if offset == length == 0:  # GDAL leaves out segments that hold nothing
            return np.full((height, width, samples), self.page.nodata, self.dtype)
        row_bytes = width * samples * self.dtype.itemsize
        wanted = height * row_bytes
        if self.compression == 1:
            return self._unpacked(self._fetch(offset + first * row_bytes, wanted), height, width, samples, 1)
        data = self._fetch(offset, length)
        if self.compression in DEFLATE:
            plain = zlib.decompressobj().decompress(data, wanted)
        elif self.compression in LIBTIFF:
            plain = _by_libtiff(LIBTIFF[self.compression], data, wanted)
        elif self._is_plain_jpeg():
            return _from_jpeg(data, self.page.jpegtables, self.photometric, samples, (height, width))
        else:
            decoded = np.asarray(self.page.decode(data, index, jpegtables=self.page.jpegtables)[0])
            return decoded.reshape(decoded.shape[-3:]).astype(self.dtype, copy=False)
        return self._unpacked(plain, height, width, samples, self.predictor)

    def _fetch(self, offset: int, length: int) -> bytes:
        if length > 2 * MAX_SEGMENT or offset + length > self.file_size:
            raise ValueError("a segment ends beyond the end of the file")
        self.file.seek(offset)
        data = self.file.read(length)
        if len(data) < length:
            raise ValueError("the file ends within a segment")
        return data

    def _unpacked(self, plain: bytes, height: int, width: int, samples: int, predictor: int) -> Samples:
        """Make samples of decompressed bytes and undo the differences that the predictor took along each row."""
        if len(plain) != height * width * samples * self.dtype.itemsize:
            raise ValueError("a segment holds fewer pixels than it should")
        if predictor == 3:
            return _undo_float_predictor(plain, height, width, samples, self.dtype)
        stored = np.frombuffer(plain, self.dtype.newbyteorder(self.page.parent.byteorder))
        values: Samples = stored.reshape(height, width, samples).astype(self.dtype, copy=False)
        if predictor == 2:
            whole = values.view(f"u{self.dtype.itemsize}")
            values = np.cumsum(whole, axis=1, dtype=whole.dtype).view(self.dtype)
        return values

    def _colours(self, values: Samples) -> Pixels:
        """Turn samples ``(h, w, S)`` into pixels ``(C, h, w)``."""
        if self.photometric == PALETTE:
            palette = self._palette
            if int(values.max()) >= palette.shape[1]:
                raise ValueError("a pixel points beyond the palette")
            return palette[:, values[:, :, 0]]
        if self.photometric == CMYK:
            picture = Image.fromarray(np.ascontiguousarray(values), "CMYK").convert("RGB")
            return np.asarray(picture).transpose(2, 0, 1)
        pixels = _plain(values.transpose(2, 0, 1), self.depth)
        alpha = None
        if self._alpha is not None:
            pixels, alpha = pixels[:-1], pixels[-1]
        if self.photometric == MIN_IS_WHITE:
            pixels = pixels.dtype.type(_white(pixels)) - pixels
        if alpha is None:
            return pixels
        if self._alpha == ASSOCIATED:
            white = _white(pixels)
            laid: Pixels = np.minimum(pixels.astype(np.uint32) + (white - alpha), white).astype(pixels.dtype)
            return laid
        return on_white(pixels, alpha)


def _opened(file: IO[bytes]) -> tifffile.TiffFile:
    file.seek(0)  # tifffile takes the place where it finds the file for its beginning
    return tifffile.TiffFile(file)


def _first(opened: tifffile.TiffFile) -> tifffile.TiffPage:
    page = opened.pages[0]
    assert isinstance(page, tifffile.TiffPage)
    return page


def _copies(opened: tifffile.TiffFile, first: tifffile.TiffPage) -> Iterator[tifffile.TiffPage]:
    """Yield pages that may hold the first one at a lower resolution.

    They hang below it (OME), are marked as reduced (GDAL, libvips), or are tiled as it is (Aperio).
    """
    if first.pages is not None:
        for page in first.pages[:MAX_LEVELS]:
            if isinstance(page, tifffile.TiffPage):
                yield page
    for index in range(1, MAX_LEVELS):
        try:
            page = opened.pages[index]
        except IndexError:
            return
        if isinstance(page, tifffile.TiffPage):
            kind = int(page.subfiletype)
            if not kind & MASK and (kind & REDUCED or (first.is_tiled and page.is_tiled)):
                yield page


def _smallest(full: _Level, copies: Iterator[tifffile.TiffPage], side: int) -> _Level:
    """Return the smallest form whose shorter side is at least ``side``: ``full``, or a copy of its kind and shape."""
    best = full
    for page in copies:
        try:
            level = _Level.of(page, full.file)
        except (NotBySegment, ValueError):  # a copy of another kind; the picture itself can still be read
            continue
        alike = (level.channels, level.depth, level.orientation) == (full.channels, full.depth, full.orientation)
        # Sides are rounded, so the shapes agree to two pixels.
        same_shape = abs(full.height * level.width / full.width - level.height) <= 2
        if alike and same_shape and min(level.height, level.width) >= side and level.width < best.width:
            best = level
    return best


def _check_size(level: _Level, factor: int, name: str, max_pixels: int) -> None:
    height, width = level.height // factor, level.width // factor
    size = height * width * level.pixel_bytes
    if height * width > max_pixels or size > MAX_DECODED:
        limit = f"{max_pixels / 1e6:.0f} million pixels" if height * width > max_pixels else "1 GiB when decoded"
        raise BadPicture(name, f"{width} × {height} is more than {limit}: type --tile 512 to learn from squares of it")


def _left(page: tifffile.TiffPage, reason: str) -> Exception:
    """Return the refusal of a page: Pillow may try it where it keeps every band and bit, which it does up to 8 bits."""
    colours = int(page.samplesperpixel) in (1, 3) or (int(page.photometric), page.samplesperpixel) == (CMYK, 4)
    kept = page.bitspersample in (1, 2, 4, 8) or (page.bitspersample, page.samplesperpixel) == (12, 1)
    decoder = page.compression in {1, 2, 3, 4, 6, JPEG, *DEFLATE, *LIBTIFF}
    return NotBySegment(reason) if colours and kept and decoder else Unsupported(reason)


def _missing_codec(compression: int) -> str | None:
    """Return why segments of this compression cannot be decoded, None where they can."""
    if compression in tifffile.TIFF.DECOMPRESSORS:
        return None
    try:
        method = tifffile.COMPRESSION(compression).name
    except ValueError:
        return f"its compression ({compression}) is not known"
    return f"its {method} compression needs `pip install 'diptych[tiff]'`"


def _blocks(start: int, length: int, factor: int) -> tuple[int, NDArray[np.intp]]:
    """Return the first block that ``start`` .. ``start + length`` touches, and where in it each block begins."""
    first = start // factor
    begins = np.arange(first, -(-(start + length) // factor)) * factor - start
    begins[0] = 0
    return first, begins


def _white(pixels: Pixels) -> int:
    return int(np.iinfo(str(pixels.dtype)).max)


def _plain(values: Samples, depth: Depth) -> Pixels:
    """Bring samples to uint8, uint16 or float32, where they fit."""
    if str(values.dtype) == depth:
        plain: Pixels = values
        return plain
    if depth == "float32":
        with np.errstate(over="ignore"):  # beyond float32 they become infinite, which is refused
            return values.astype(np.float32)
    low, high = int(values.min()), int(values.max())
    if low < 0:
        raise Unsupported("it has negative whole numbers; save it as float32 or without them")
    if high > np.iinfo(depth).max:
        raise Unsupported("its 32-bit pixels go beyond 65535; save it with 16 bits or as float32")
    return values.astype(depth)


def _undo_float_predictor(plain: bytes, height: int, width: int, samples: int, dtype: np.dtype[Any]) -> Samples:
    """Each row holds the highest bytes of all its values, then the next, as differences (TIFF Technical Note 3)."""
    size = dtype.itemsize
    differences = np.frombuffer(plain, np.uint8).reshape(height, size * width, samples)
    summed = np.cumsum(differences, axis=1, dtype=np.uint8).reshape(height, size, width * samples)
    big_endian = np.ascontiguousarray(summed.transpose(0, 2, 1)).view(dtype.newbyteorder(">"))
    return big_endian.reshape(height, width, samples).astype(dtype)


def _by_libtiff(compression: int, data: bytes, wanted: int) -> bytes:
    """Decompress a segment, whatever its pixels are, as one row of ``wanted`` gray pixels of a TIFF made around it."""
    tags = ((256, wanted), (257, 1), (258, 8), (259, compression), (262, 1), (273, 122), (277, 1), (278, 1))
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in (*tags, (279, len(data)))]
    around = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + b"\0\0\0\0"
    with Image.open(io.BytesIO(around + data), formats=("TIFF",)) as picture:
        return picture.tobytes()


def _from_jpeg(
    data: bytes, tables: bytes | None, photometric: int, samples: int, most: tuple[int, int]
) -> NDArray[np.uint8]:
    """Decode a JPEG segment, whose tables may lie elsewhere in the file; uint8 ``(h, w, samples)``."""
    start = data[:2] + (tables[2:-2] if tables else b"")
    if samples == 3 and b"JFIF" not in data[:16]:
        start = start[:2] + ADOBE + (b"\1" if photometric == YCBCR else b"\0") + start[2:]
    with Image.open(io.BytesIO(start + data[2:]), formats=("JPEG",)) as picture:
        if picture.width > most[1] or picture.height > most[0] or picture.mode != ("RGB" if samples == 3 else "L"):
            raise ValueError(f"a segment holds {picture.mode} pixels, {picture.width} × {picture.height}")
        return np.array(picture).reshape(picture.height, picture.width, samples)
