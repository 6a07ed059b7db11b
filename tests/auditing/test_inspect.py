"""Every kind of file gives the record that a run's own decoder implies."""

import hashlib
import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from auditing.made import encoded, photo
from diptych.auditing.inspect import inspect_files, inspect_pixels
from diptych.auditing.near import DISTANCE
from diptych.data.decoding.decode import decode
from diptych.data.decoding.pixels import BadPicture


def record_of(content, name="a.jpg"):
    (record,) = inspect_files([(name, content)])
    return record


def tiff(values, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture=photo(), exif=exif, quality=95)


BANDS = np.random.default_rng(0).integers(0, 9999, (48, 64, 13)).astype(np.uint16)
DEEP = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20
KINDS = {
    "jpeg": encoded(),
    "gray jpeg": encoded(picture=photo().convert("L")),
    "turned": turned(6),
    "cmyk": encoded(picture=photo().convert("CMYK")),
    "png": encoded("PNG"),
    "gray png": encoded("PNG", photo().convert("L")),
    "palette": encoded("PNG", photo().convert("P")),
    "transparent": encoded("PNG", photo().convert("RGBA").rotate(20)),
    "transparent colour": encoded("PNG", photo(), transparency=(0, 0, 0)),
    "16-bit png": encoded("PNG", Image.fromarray(DEEP)),
    "bilevel": encoded("PNG", photo().convert("1")),
    "webp": encoded("WEBP"),
    "bmp": encoded("BMP"),
    "gif": encoded("GIF"),
    "ppm": encoded("PPM"),
    "tiff": encoded("TIFF"),
    "16-bit tiff": tiff(DEEP),
    "13 bands": tiff(
        np.random.default_rng(0).integers(0, 9999, (48, 64, 13)).astype(np.uint16), photometric="minisblack"
    ),
    "float": tiff(np.linspace(-1, 1, 3072, dtype=np.float32).reshape(48, 64)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_says_of_a_picture_what_the_decoder_gives(kind):
    record, pixels = record_of(KINDS[kind]), decode(KINDS[kind], "a").astype(np.float64)
    assert record.reason is None
    assert (record.channels, record.height, record.width) == pixels.shape
    assert record.depth == str(decode(KINDS[kind], "a").dtype)
    np.testing.assert_allclose(record.mean, pixels.mean((1, 2)), rtol=1e-6)
    np.testing.assert_allclose(record.std, pixels.std((1, 2)), rtol=1e-5, atol=1e-6)
    assert record.low == tuple(pixels.min((1, 2))) and record.high == tuple(pixels.max((1, 2)))
    assert not record.constant and record.digest == hashlib.sha256(KINDS[kind]).hexdigest()[:32]


def png(head, rows):
    """A PNG by hand, with what Pillow does not write."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", *head))
    return data + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bits_of_colour_stay_sixteen():
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, 3)).astype(">u2")
    record = record_of(png((5, 4, 16, 2, 0, 0, 0), b"".join(b"\0" + row.tobytes() for row in values)))
    assert (record.channels, record.depth) == (3, "uint16")
    np.testing.assert_allclose(record.mean, values.mean((0, 1)), rtol=1e-6)


BAD = {
    "empty": b"",
    "text": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "fits": b"SIMPLE  =                    T" + b" " * 2850,
    "half a jpeg": encoded(picture=photo(0, 640, 480))[:5000],
    "a jpeg without its last bytes": encoded(picture=photo(0, 640, 480))[:-40],
    "a progressive one": encoded(picture=photo(0, 640, 480), progressive=True)[:6000],
    "half a png": encoded("PNG")[:1000],
    "a flipped byte in a png": (lambda c: c[:200] + bytes([c[200] ^ 255]) + c[201:])(encoded("PNG")),
    "half a tiff": tiff(DEEP)[:3000],
    "nan": tiff(np.full((4, 4), np.nan, np.float32)),
    "only a header": encoded()[:30],
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_has_the_reason_that_a_run_would_give(kind):
    with pytest.raises(BadPicture) as bad:
        decode(BAD[kind], "a.jpg")
    assert record_of(BAD[kind]).reason == bad.value.reason


def test_a_bomb_is_told_by_its_header():
    assert "million pixels" in record_of(png((50_000, 50_000, 8, 2, 0, 0, 0), b"")).reason


def test_a_file_that_is_not_there_has_a_reason_and_no_digest(tmp_path):
    record = record_of(tmp_path / "gone.jpg")
    assert record.reason == "cannot be opened (No such file or directory)" and not record.digest


def test_a_path_and_its_content_give_one_record(tmp_path):
    for kind in ("jpeg", "tiff", "13 bands"):
        path = tmp_path / "a.jpg"
        path.write_bytes(KINDS[kind])
        assert record_of(path) == record_of(KINDS[kind])


@pytest.mark.parametrize(
    ("name", "kind", "wrong"),
    [("a.JPG", "jpeg", False), ("a.jpeg", "jpeg", False), ("a.jpg", "png", True), ("a.png", "gif", True),
     ("a.tif", "tiff", False), ("a.jpg", "tiff", True), ("000012", "jpeg", False)],
)  # fmt: skip
def test_a_name_of_another_format_is_noticed(name, kind, wrong):
    assert record_of(KINDS[kind], name).misnamed is wrong


def test_a_turned_picture_looks_like_itself_upright():
    upright = photo()
    lying = record_of(turned(6))
    assert lying.rotated and (lying.width, lying.height) == (48, 64)
    stood = record_of(encoded("PNG", upright.transpose(Image.Transpose.ROTATE_270)))
    assert differing(lying, stood) <= DISTANCE and not stood.rotated


def differing(one, other):
    return bin((one.phash ^ other.phash) & (1 << 64) - 1).count("1")


def test_copies_have_nearly_one_hash_and_other_pictures_have_not():
    picture = photo(0, 400, 300)
    original = record_of(encoded(picture=picture, quality=95))
    for copy in (
        encoded("PNG", picture.resize((120, 90))),
        encoded(picture=picture, quality=25),
        encoded("PNG", picture.point(lambda value: value * 0.6 + 40)),
        encoded("PNG", picture.convert("L")),
    ):
        assert differing(original, record_of(copy)) <= DISTANCE
    others = [record_of(encoded(picture=photo(seed))) for seed in range(1, 30)]
    assert min(differing(original, other) for other in others) > DISTANCE


def test_a_large_jpeg_is_reduced_and_keeps_its_mean():
    picture = photo(0, 1024, 768)
    content = encoded(picture=picture, quality=95)
    record, pixels = record_of(content), decode(content, "a").astype(float)
    assert (record.width, record.height) == (1024, 768)
    np.testing.assert_allclose(record.mean, pixels.mean((1, 2)), atol=0.5)
    np.testing.assert_allclose(record.std, pixels.std((1, 2)), rtol=0.03)


@pytest.mark.parametrize(
    ("picture", "constant"),
    [
        (np.zeros((3, 8, 8), np.uint8), True),
        (np.full((1, 8, 8), 40_000, np.uint16), True),
        (np.zeros((2, 8, 8), np.float32), True),
        (np.linspace(0, 1e-3, 64, dtype=np.float32).reshape(1, 8, 8), False),
        (np.arange(192, dtype=np.uint8).reshape(3, 8, 8), False),
        (np.concatenate([np.zeros((2, 8, 8), np.uint8), np.arange(64, dtype=np.uint8).reshape(1, 8, 8)]), False),
    ],
)
def test_a_picture_of_one_colour_is_noticed(picture, constant):
    (record,) = inspect_pixels([picture])
    assert record.constant is constant


def test_a_worker_loads_no_torch():
    code = "import sys, diptych.auditing.worker; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
