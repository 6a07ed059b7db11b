import io
import logging
import os
import struct
import subprocess
import sys
import textwrap
import zlib

import numpy as np
import pytest
import tifffile
from picture_files import encoded, noise, pixels, tiff
from PIL import Image, ImageOps

from diptych.data.decoding import tiff as module
from diptych.data.decoding.decode import decode, fit, header, region
from diptych.data.decoding.pixels import BadPicture

LAYOUTS = [
    {},
    {"rowsperstrip": 7},
    {"tile": (32, 16)},
    {"rowsperstrip": 7, "compression": "zlib"},
    {"tile": (32, 16), "compression": "zlib", "predictor": True},
    {"rowsperstrip": 7, "compression": "zlib", "predictor": True, "byteorder": ">"},
    {"tile": (16, 32), "byteorder": ">", "bigtiff": True},
]


def read(content, size=None):
    return decode(content, "x.tif", size)


def reason(content, size=None):
    with pytest.raises(BadPicture) as caught:
        read(content, size)
    assert caught.value.name == "x.tif" and "\n" not in caught.value.reason
    return caught.value.reason


def pages(*pictures, **options):
    """A file of several pages ``(C, H, W)``; the options of each beside it."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for picture, own in pictures:
            data = picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)
            kind = "rgb" if len(picture) == 3 else "minisblack"
            writer.write(data, photometric=kind, metadata=None, **options, **own)
    return buffer.getvalue()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_every_band_and_bit_arrives(dtype, channels, separate, layout):
    layout = {key: value for key, value in layout.items() if not (key == "predictor" and dtype == np.float32)}
    picture = noise(dtype, channels)
    content = tiff(picture, separate, **layout)
    found = read(content)
    assert found.dtype == dtype and np.array_equal(found, picture)
    about = header(content, "x")
    assert (about.channels, about.height, about.width, about.depth) == (*picture.shape, np.dtype(dtype).name)
    assert np.array_equal(region(content, "x", 5, 7, 33, 21), picture[:, 5:38, 7:28])
    assert np.array_equal(region(content, "x", 49, 60, 1, 1), picture[:, 49:, 60:])


@pytest.mark.parametrize("compression", ["tiff_lzw", "packbits", "tiff_adobe_deflate", "lzma", "zstd"])
def test_compressions_without_imagecodecs(compression):
    """Pillow writes what tifffile cannot without it, and the pixels tell whether each was undone."""
    for picture in (Image.fromarray(pixels()), Image.fromarray(noise(np.uint16, 1)[0])):
        options = {"tiffinfo": {317: 2}} if compression in ("tiff_lzw", "tiff_adobe_deflate") else {}
        for extra in ({}, options):
            content = encoded("TIFF", picture=picture, compression=compression, **extra)
            wanted = np.array(picture)
            wanted = wanted[None] if wanted.ndim == 2 else wanted.transpose(2, 0, 1)
            assert np.array_equal(read(content), wanted)
            assert np.array_equal(region(content, "x", 2, 3, 9, 8), wanted[:, 2:11, 3:11])
            if compression == "zstd":  # its other number
                assert np.array_equal(read(patched(content, 259, 34926)), wanted)


def test_jpeg_within_a_tiff_is_read_as_libtiff_reads_it():
    for mode in ("RGB", "L", "YCbCr"):
        content = encoded("TIFF", picture=Image.fromarray(pixels()).convert(mode), compression="jpeg", quality=90)
        with Image.open(io.BytesIO(content)) as picture:
            wanted = np.array(picture.convert("L" if mode == "L" else "RGB"))
        found = read(content)
        assert np.array_equal(found[0] if mode == "L" else found.transpose(1, 2, 0), wanted)
        assert np.array_equal(region(content, "x", 2, 3, 9, 8), found[:, 2:11, 3:11])


def patched(content, code, *values, page=0):
    """The file with the first values of a tag replaced, of 16 bits or 32 as the tag has them."""
    changed = bytearray(content)
    with tifffile.TiffFile(io.BytesIO(content)) as opened:
        tag = opened.pages[page].tags[code]
    form = f"<{len(values)}{'H' if tag.dtype == 3 else 'I'}"
    changed[tag.valueoffset : tag.valueoffset + struct.calcsize(form)] = struct.pack(form, *values)
    return bytes(changed)


def with_segment(content, data):
    """The file with the data of its only segment replaced."""
    return patched(patched(content, 273, len(content)), 279, len(data)) + data


def test_the_predictor_of_floats():
    """Written by hand after TIFF Technical Note 3, because tifffile writes it with imagecodecs only."""
    picture = noise(np.float32, 2, 4, 5)
    rows = []
    for row in np.ascontiguousarray(picture.transpose(1, 2, 0)):
        planes = row.astype(">f4").view(np.uint8).reshape(5, 2, 4).transpose(2, 0, 1)  # highest bytes first
        rows.append(np.diff(planes.reshape(-1, 2), axis=0, prepend=np.zeros((1, 2), np.uint8)).tobytes())
    plain = patched(patched(tiff(picture.view(np.int32), compression="zlib", predictor=True), 317, 3), 339, 3, 3)
    assert np.array_equal(read(with_segment(plain, zlib.compress(b"".join(rows)))), picture)


def test_other_kinds_of_numbers():
    whole = np.array([[[0, 3, 32767]]])
    for dtype in (np.int16, np.int32, np.uint32):
        found = read(tiff(whole.astype(dtype)))
        assert found.dtype == np.uint16 and np.array_equal(found, whole)
    small = read(tiff(np.array([[[0, 127]]], np.int8)))
    assert small.dtype == np.uint8 and small.ravel().tolist() == [0, 127]
    for dtype in (np.float16, np.float64):
        found = read(tiff(noise(np.float32, 1).clip(-9, 9).astype(dtype)))
        assert found.dtype == np.float32
    assert "negative" in reason(tiff(np.array([[[-1, 5]]], np.int16)))
    assert "65535" in reason(tiff(np.array([[[1, 65536]]], np.uint32)))
    assert "infinite" in reason(tiff(np.array([[[1e300, 5]]])))
    assert reason(tiff(np.ones((1, 4, 4), np.complex64)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero(dtype):
    picture = noise(dtype, 1)
    assert np.array_equal(read(tiff(picture, photometric="miniswhite")), np.iinfo(dtype).max - picture)


def test_palette():
    colours = np.random.default_rng(0).integers(0, 256, (3, 256), dtype=np.uint16)
    picture = noise(np.uint8, 1)
    content = tiff(picture, photometric="palette", colormap=colours * 257)
    assert np.array_equal(read(content), colours[:, picture[0]])
    assert header(content, "x").channels == 3


def test_cmyk():
    content = encoded("TIFF", picture=Image.fromarray(pixels()).convert("CMYK"))
    assert np.array_equal(read(content).transpose(1, 2, 0), pixels())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_laid_on_white(channels, dtype):
    picture, most = noise(dtype, channels + 1), np.iinfo(dtype).max
    kind = "rgb" if channels == 3 else "minisblack"
    share = picture[-1] / most
    found = read(tiff(picture, photometric=kind, extrasamples=["unassalpha"]))
    wanted = picture[:-1] * share + most * (1 - share)
    assert found.shape[0] == channels and np.abs(found - wanted).max() <= 0.5 + 1e-6
    multiplied = picture.copy()
    multiplied[:-1] = np.rint(picture[:-1] * share)
    found = read(tiff(multiplied, photometric=kind, extrasamples=["assocalpha"]))
    assert found.dtype == dtype and np.abs(found - wanted).max() <= 1


def test_a_band_that_is_no_alpha_is_kept():
    infrared = noise(np.uint8, 4)
    assert np.array_equal(read(tiff(infrared, photometric="rgb", extrasamples=["unspecified"])), infrared)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of_a_picture_and_of_its_regions(orientation):
    content = tiff(noise(np.uint16, 4), tile=(16, 16), extratags=[(274, 3, 1, orientation, True)])
    stored = Image.fromarray(noise(np.uint16, 4)[2].astype(np.int32))
    stored.getexif()[0x0112] = orientation
    wanted = np.array(ImageOps.exif_transpose(stored))
    found, about = read(content), header(content, "x")
    assert np.array_equal(found[2], wanted)
    assert (about.height, about.width) == found.shape[1:]
    assert np.array_equal(region(content, "x", 3, 20, 17, 25), found[:, 3:20, 20:45])


def test_a_codec_that_is_missing_is_named():
    if not module._missing_codec(34887):  # LERC
        pytest.skip("imagecodecs is installed")
    content = tiff(noise(np.uint8))
    assert "LERC compression needs `pip install 'diptych[tiff]'`" in reason(patched(content, 259, 34887))
    assert "12345" in reason(patched(content, 259, 12345))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.95])
def test_cut_short(layout, share):
    content = tiff(noise(np.uint8), **layout)
    assert reason(content[: int(len(content) * share)])


def test_any_flipped_byte_gives_a_picture_or_one_line(caplog):
    """Every byte of the header and the tags, one at a time."""
    small = tiff(noise(np.uint16, 2, 8, 8), compression="zlib", tile=(16, 16), metadata=None)
    with tifffile.TiffFile(io.BytesIO(small)) as opened:
        data = range(opened.pages[0].dataoffsets[0], len(small))
    for place in sorted(set(range(len(small))) - set(data)):
        for value in (0x00, 0x7F, 0xFF):
            damaged = bytearray(small)
            damaged[place] = value
            try:
                assert read(bytes(damaged), 2).ndim == 3
            except BadPicture as error:
                assert "\n" not in str(error)
    logging.getLogger("tifffile").warning("still heard by whoever asks")
    assert "still heard" in caplog.text


def test_a_segment_that_would_inflate_to_more_than_it_should_does_not():
    plain = tiff(noise(np.uint8, 1, 16, 16), compression="zlib")
    assert (read(with_segment(plain, zlib.compress(bytes(1 << 26), 9))) == 0).all()


def test_what_gdal_marks_as_no_data_is_no_number(tmp_path):
    values = np.linspace(-1, 1, 400, dtype=np.float32).reshape(20, 20)
    values[3, 4] = -9999
    path = tmp_path / "x.tif"
    for extra in ([], [(42113, "s", 0, "-9999", True)]):
        tifffile.imwrite(path, values, extratags=extra, photometric="minisblack")
        if extra:
            with pytest.raises(BadPicture, match="1 of its 400 values are NaN, infinite or marked as no data"):
                decode(path, "x")
        else:
            assert decode(path, "x").min() == -9999


def test_nan_is_counted_over_all_segments():
    picture = noise(np.float32, 2, 40, 40)
    picture[0, 0, 0], picture[1, 39, 39] = np.nan, -np.inf
    assert reason(tiff(picture, tile=(16, 16))).startswith("2 of its 3200 values are NaN, infinite")


def test_segments_that_were_left_out_hold_nothing():
    """As GDAL writes them: no place and no bytes."""
    content = tiff(noise(np.uint8, 1, 32, 32) | 1, tile=(16, 16))
    found = read(patched(patched(content, 324, 0), 325, 0))
    assert (found[:, :16, :16] == 0).all() and (found[:, 16:] > 0).all()


@pytest.fixture
def reducing(monkeypatch):
    """Reduce small pictures too, as large ones are."""
    monkeypatch.setattr(module, "WHOLE", 0)


@pytest.mark.parametrize("layout", LAYOUTS[:4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_reduced_picture_is_the_mean_of_blocks(reducing, dtype, layout):
    picture = noise(dtype, 2, 100, 131)
    found = read(tiff(picture, **layout), 8)  # 24 pixels are wanted: the factor is 4
    middle = picture[:, :, 1:129].reshape(2, 25, 4, 32, 4).astype(np.float64)
    wanted = middle.mean((2, 4))
    assert found.dtype == dtype and found.shape == (2, 25, 32)
    assert np.abs(found - wanted).max() <= (1e-3 if dtype == np.float32 else 0.5)


def test_a_reduced_picture_is_near_what_resizing_the_whole_gives(reducing, monkeypatch):
    picture = pixels(0, 300, 400).transpose(2, 0, 1)
    content = tiff(picture, tile=(64, 64))
    reduced = read(content, 16)
    assert reduced.shape == (3, 50, 66)
    assert np.abs(fit(reduced, 16).astype(int) - fit(picture, 16)).mean() < 1


@pytest.mark.parametrize("kind", ["marked", "below", "tiled"])
def test_the_smallest_copy_that_is_large_enough_is_read(kind):
    full, half, quarter = (np.full((3, 200 // n, 260 // n), n, np.uint8) for n in (1, 2, 4))
    if kind == "marked":
        content = pages((full, {}), (half, {"subfiletype": 1}), (quarter, {"subfiletype": 1}))
    elif kind == "tiled":
        content = pages((full, {}), (half, {}), (quarter, {}), tile=(32, 32))
    else:
        content = pages((full, {"subifds": 2}), (half, {"subfiletype": 1}), (quarter, {"subfiletype": 1}))
    assert [int(read(content, size).max()) for size in (16, 17, 33, 34)] == [4, 2, 2, 1]
    assert read(content).shape == (3, 200, 260)


def test_other_pages_are_not_taken_for_copies():
    full = np.full((3, 200, 260), 1, np.uint8)
    others = [
        (np.full((3, 100, 130), 9, np.uint8), {}),  # a second photograph
        (np.full((3, 100, 100), 9, np.uint8), {"subfiletype": 1}),  # the label of a slide
        (np.full((1, 100, 130), 9, np.uint8), {"subfiletype": 1}),  # of another kind
        (np.full((3, 100, 130), 9, np.uint8), {"subfiletype": 1}),  # to be made a mask
    ]
    content = patched(pages((full, {}), *others), 254, 5, page=4)
    assert read(content, 10).max() == 1


def claiming(content, codes, value):
    """The file with tags replaced by a number of 32 bits, whatever they were."""
    changed = bytearray(content)
    with tifffile.TiffFile(io.BytesIO(content)) as opened:
        for code in codes:
            tag = opened.pages[0].tags[code]
            changed[tag.offset + 2 : tag.offset + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(changed)


def test_a_header_that_claims_too_much_is_refused():
    content = tiff(noise(np.uint16, 2, 32, 32), tile=(32, 32), compression="zlib")
    huge = claiming(content, (256, 257), 100_000)
    assert "segments are needed" in reason(huge) and "segments are needed" in reason(huge, 32)
    assert "save it in tiles" in reason(claiming(content, (322, 323), 1 << 20))
    assert reason(claiming(content, (256, 257), 0))


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """20,000 × 20,000 pixels in tiles of 512, each of one value: 400 MB when decoded."""
    path = tmp_path_factory.mktemp("scan") / "scan.tif"
    tiles = (np.full((512, 512), place % 251, np.uint8) for place in range(40 * 40))
    tifffile.imwrite(
        path, tiles, shape=(20_000, 20_000), dtype=np.uint8, tile=(512, 512), compression="zlib", photometric=1
    )
    return path


def test_without_a_size_a_scan_is_refused_with_what_to_type(scan):
    with pytest.raises(BadPicture, match="20000 × 20000 is more than 179 million pixels: type --tile 512"):
        decode(scan, "scan.tif")


def test_a_scan_is_read_in_bounded_memory(scan):
    """In a process whose address space has no room for a tenth of the decoded picture."""
    work = f"""
        import resource, pathlib, numpy
        from diptych.data.decoding.decode import decode, header, region
        path = pathlib.Path({str(scan)!r})
        header(path, "x"), region(path, "x", 0, 0, 8, 8)  # everything is imported
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20), used + (32 << 20)))
        part = region(path, "x", 10_200, 5_000, 600, 700)
        assert part.shape == (1, 600, 700) and part[0, 0, 0] == (19 * 40 + 9) % 251, part[0, 0, 0]
        small = decode(path, "x", size=32)
        assert small.shape == (1, 96, 96), small.shape
        try:
            numpy.ones(40 << 20, numpy.uint8)
        except MemoryError:
            print("bounded")
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(work)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stdout == "bounded\n", done.stderr


def test_the_reduced_scan_is_right(scan):
    small = decode(scan, "x", size=32)
    factor = 20_000 // 96
    rows = (np.arange(96) * factor + (20_000 - 96 * factor) // 2 + factor // 2) // 512
    wanted = (rows[:, None] * 40 + rows[None]) % 251
    inside = np.isclose(small[0], wanted)  # blocks that straddle two tiles are a mean of both
    assert inside.mean() > 0.3 and (small[0] <= 250).all()
