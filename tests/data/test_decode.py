import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from picture_files import encoded, pixels
from PIL import Image, ImageFile, ImageOps

from diptych.data.decode import MAX_BYTES, BadPicture, check_bytes, decode, fit


def reason(content, **options):
    with pytest.raises(BadPicture) as caught:
        decode(content, "x.jpg", **options)
    assert caught.value.name == "x.jpg" and "\n" not in caught.value.reason
    return caught.value.reason


def rgb(picture=None, kind="PNG", **options):
    return decode(encoded(kind, picture=picture, **options), "x").transpose(1, 2, 0)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
def test_lossless_formats_come_back_exactly(kind):
    assert np.array_equal(rgb(kind=kind, **({"lossless": True} if kind == "WEBP" else {})), pixels())


def test_jpeg_is_close_and_writable():
    found = decode(encoded("JPEG", quality=95), "x")
    assert found.shape == (3, 24, 32) and found.dtype == np.uint8 and found.flags.writeable
    assert np.abs(found.transpose(1, 2, 0).astype(int) - pixels()).mean() < 3


def test_gray_becomes_three_equal_channels():
    gray = Image.fromarray(pixels()).convert("L")
    assert all(np.array_equal(channel, np.array(gray)) for channel in rgb(gray).transpose(2, 0, 1))


def test_palette_and_one_bit():
    palette = Image.fromarray(pixels()).quantize(16)
    assert np.array_equal(rgb(palette), np.array(palette.convert("RGB")))
    assert set(np.unique(rgb(Image.fromarray(pixels()).convert("1")))) == {0, 255}


def test_cmyk_jpeg():
    found = rgb(Image.fromarray(pixels()).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(found.astype(int) - pixels()).mean() < 4


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_are_laid_on_white(mode):
    picture = Image.fromarray(pixels()).convert(mode)
    alpha = np.full((24, 32), 255, np.uint8)
    alpha[:, :16] = 0
    alpha[:, 8:16] = 128
    picture.putalpha(Image.fromarray(alpha))
    found, solid = rgb(picture), np.array(Image.fromarray(pixels()).convert(mode).convert("RGB")).astype(int)
    assert (found[:, :8] == 255).all()
    assert np.abs(found[:, 8:16] - (solid[:, 8:16] * 128 + 255 * 127) / 255).max() <= 1
    assert np.array_equal(found[:, 16:], solid[:, 16:])


def test_palette_with_transparency_is_laid_on_white():
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 200, 10, 10])
    picture.paste(0, (0, 0, 2, 4))
    found = rgb(picture, transparency=bytes([0, 255]))
    assert (found[:, :2] == 255).all() and (found[:, 2:] == [200, 10, 10]).all()


def test_16_bits_are_scaled_not_clipped():
    values = np.array([[0, 256, 257, 32768, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert rgb(Image.fromarray(values), kind)[0, :, 0].tolist() == [0, 1, 1, 128, 255]
    big_endian = b"P5 5 1 65535\n" + values.astype(">u2").tobytes()
    assert decode(big_endian, "x.pgm")[0, 0].tolist() == [0, 1, 1, 128, 255]


def test_pixels_without_a_known_range_are_refused():
    assert "floating-point" in reason(encoded("TIFF", picture=Image.fromarray(np.ones((3, 3), np.float32))))
    assert "32-bit" in reason(encoded("TIFF", picture=Image.fromarray(np.full((3, 3), 1 << 20, np.int32))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_exif_orientation_is_undone(orientation, kind):
    """The reference is Pillow's own ImageOps.exif_transpose."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(kind, exif=exif)
    with Image.open(io.BytesIO(content)) as picture:
        wanted = np.array(ImageOps.exif_transpose(picture))
    assert np.array_equal(decode(content, "x").transpose(1, 2, 0), wanted)
    assert wanted.shape[:2] == ((24, 32) if orientation < 5 else (32, 24))


def test_damaged_exif_does_not_cost_the_picture_and_does_not_warn():
    exif = Image.Exif()
    exif[0x010E] = "a long description " * 4
    whole = encoded("JPEG", exif=exif.tobytes())
    cut = encoded("JPEG", exif=exif.tobytes()[:-40])
    assert np.array_equal(decode(whole, "x"), decode(cut, "x"))


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    assert decode(buffer.getvalue(), "x")[:, 0, 0].tolist() == [255, 0, 0]


def test_the_content_decides_not_the_name(tmp_path):
    path = tmp_path / "really-a-png.jpg"
    path.write_bytes(encoded("PNG"))
    assert np.array_equal(decode(path, path.name).transpose(1, 2, 0), pixels())


def test_what_is_not_a_picture():
    assert reason(b"") == "the file is empty"
    assert "not a picture" in reason(b"just some text, no picture at all")
    assert "not a picture" in reason(b'<svg xmlns="http://www.w3.org/2000/svg"/>')
    assert "not a picture" in reason(encoded("ICO"))  # a format of Pillow's that is not on our list


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_cut_short(kind, share):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encoded(kind, picture=noise)
    reason(content[: int(len(content) * share)])


def test_png_with_a_wrong_checksum():
    content = bytearray(encoded("PNG"))
    content[content.index(b"IDAT") + 10] ^= 0xFF
    assert "damaged" in reason(bytes(content))


def test_nothing_here_makes_pillow_accept_cut_files():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def huge_png(side):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def test_more_pixels_than_the_cap_are_refused_from_the_header():
    assert "million pixels" in reason(huge_png(50_000))
    assert "9600 × 9600" in reason(
        huge_png(9_600), max_pixels=90_000_000
    )  # here Pillow warns; it must not come through
    assert "32 × 24" in reason(encoded("PNG"), max_pixels=24 * 32 - 1)
    assert decode(encoded("PNG"), "x", max_pixels=24 * 32).shape == (3, 24, 32)


def test_warning_filters_are_as_before_even_after_threads():
    before = list(warnings.filters)
    contents = [huge_png(9_600), encoded("JPEG")] * 20

    def attempt(content):
        try:
            decode(content, "x", max_pixels=90_000_000)
        except BadPicture:
            pass

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attempt, contents))
    assert warnings.filters == before
    with pytest.raises(UserWarning):
        warnings.warn("still an error under pytest", UserWarning, stacklevel=1)


def test_a_missing_file(tmp_path):
    with pytest.raises(BadPicture, match="No such file"):
        decode(tmp_path / "missing.jpg", "missing.jpg")


def test_an_unreadable_file(tmp_path, request):
    path = tmp_path / "secret.jpg"
    path.write_bytes(encoded())
    path.chmod(0)
    request.getfixturevalue("nobody")
    with pytest.raises(BadPicture, match="Permission denied"):
        decode(path, "secret.jpg")


def test_more_bytes_than_the_cap():
    check_bytes(MAX_BYTES, "x")
    with pytest.raises(BadPicture, match="larger than 1024 MiB"):
        check_bytes(MAX_BYTES + 1, "x")


def test_fit_leaves_the_right_size_alone():
    image = decode(encoded("PNG", picture=Image.fromarray(pixels(0, 32, 32))), "x")
    assert fit(image, 32) is image


@pytest.mark.parametrize(("height", "width"), [(24, 32), (32, 24), (31, 64), (8, 200), (2000, 1500), (1, 1)])
def test_fit_is_the_centred_square(height, width):
    image = np.ascontiguousarray(pixels(0, height, width).transpose(2, 0, 1))
    found = fit(image, 16)
    side = min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    square = Image.fromarray(pixels(0, height, width)).transform(
        (side, side), Image.Transform.EXTENT, (left, top, left + side, top + side), Image.Resampling.BILINEAR
    )
    wanted = np.array(square.resize((16, 16), Image.Resampling.BICUBIC))
    assert found.shape == (3, 16, 16) and found.dtype == np.uint8
    assert np.abs(found.transpose(1, 2, 0).astype(int) - wanted).max() <= 6
