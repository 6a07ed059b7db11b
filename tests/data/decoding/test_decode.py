import io
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from picture_files import encoded, noise, pixels, png, png16, png_chunk, tiff
from PIL import Image, ImageFile, ImageOps

from diptych.data.decoding.decode import MAX_BYTES, check_bytes, decode, fit, header, region, to_pixels
from diptych.data.decoding.pixels import BadPicture


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


def test_gray_stays_one_channel():
    gray = Image.fromarray(pixels()).convert("L")
    for kind in ("PNG", "JPEG", "TIFF", "BMP"):
        found = decode(encoded(kind, picture=gray, **({"quality": 95} if kind == "JPEG" else {})), "x")
        assert found.shape == (1, 24, 32)
        assert np.abs(found[0].astype(int) - np.array(gray)).mean() <= (3 if kind == "JPEG" else 0)


def test_palette_and_one_bit():
    palette = Image.fromarray(pixels()).quantize(16)
    assert np.array_equal(rgb(palette), np.array(palette.convert("RGB")))
    for kind in ("PNG", "TIFF"):
        bilevel = Image.fromarray(pixels()).convert("1")
        found = decode(encoded(kind, picture=bilevel), "x")
        assert found.shape == (1, 24, 32) and np.array_equal(found[0], np.array(bilevel) * 255)


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
    found = rgb(picture)
    assert found.shape[2] == (1 if mode == "LA" else 3)
    solid = np.array(Image.fromarray(pixels()).convert(mode).convert("RGB")).astype(int)[:, :, : found.shape[2]]
    assert (found[:, :8] == 255).all()
    assert np.abs(found[:, 8:16] - (solid[:, 8:16] * 128 + 255 * 127) / 255).max() <= 1
    assert np.array_equal(found[:, 16:], solid[:, 16:])


def test_palette_with_transparency_is_laid_on_white():
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 200, 10, 10])
    picture.paste(0, (0, 0, 2, 4))
    found = rgb(picture, transparency=bytes([0, 255]))
    assert (found[:, :2] == 255).all() and (found[:, 2:] == [200, 10, 10]).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_gray_arrives_exactly(kind):
    values = np.array([[0, 256, 257, 32768, 65535]], np.uint16)
    found = decode(encoded(kind, picture=Image.fromarray(values)), "x")
    assert found.dtype == np.uint16 and np.array_equal(found, values[None])


@pytest.mark.parametrize("interlaced", [False, True])
def test_16_bit_rgb_arrives_exactly_although_pillow_has_no_mode_for_it(interlaced):
    values = noise(np.uint16, 3, 13, 11)
    found = decode(png16(values, interlaced), "x")
    assert found.dtype == np.uint16 and np.array_equal(found, values)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_transparency_is_laid_on_white_in_16_bits(channels, interlaced):
    values = noise(np.uint16, channels + 1, 13, 11)
    values[-1, :3], values[-1, 3:6] = 0, 65535
    found = decode(png16(values, interlaced), "x")
    colour, share = values[:-1].astype(float), values[-1] / 65535
    assert found.dtype == np.uint16 and found.shape == (channels, 13, 11)
    assert np.array_equal(found, np.rint(colour * share + 65535 * (1 - share)))
    assert (found[:, :3] == 65535).all() and np.array_equal(found[:, 3:6], values[:-1, 3:6])


def test_16_bit_colour_that_stands_for_transparent():
    values = noise(np.uint16, 3, 5, 4)
    clear = png_chunk(b"tRNS", values[:, 2, 1].astype(">u2").tobytes())
    wanted = values.copy()
    wanted[:, 2, 1] = 65535
    assert np.array_equal(decode(png16(values, before=clear), "x"), wanted)
    gray = png_chunk(b"tRNS", values[:1, 2, 1].astype(">u2").tobytes())
    assert np.array_equal(decode(png16(values[:1], before=gray), "x"), wanted[:1])


def test_16_bit_ppm_and_pgm():
    values = noise(np.uint16, 3, 4, 5)
    big_endian = values.transpose(1, 2, 0).astype(">u2").tobytes()
    assert np.array_equal(decode(b"P6 5 4 65535\n" + big_endian, "x"), values)
    assert np.array_equal(decode(b"P5 5 4 65535\n" + values[0].astype(">u2").tobytes(), "x"), values[:1])
    small = (values >> 6).transpose(1, 2, 0).astype(">u2").tobytes()
    assert np.array_equal(decode(b"P6 5 4 1023\n" + small, "x"), np.rint((values >> 6) / 1023 * 65535))
    assert "damaged" in reason(b"P6 5 4 65535\n" + big_endian[:-1])
    assert "text" in reason(b"P3 1 1 1000\n10 20 30\n")


def test_whole_numbers_of_32_bits_where_they_fit_into_16():
    values = np.array([[0, 7, 65535]], np.int32)
    found = decode(encoded("TIFF", picture=Image.fromarray(values)), "x")
    assert found.dtype == np.uint16 and np.array_equal(found[0], values)
    assert "65535" in reason(encoded("TIFF", picture=Image.fromarray(np.full((3, 3), 1 << 20, np.int32))))
    assert "negative" in reason(encoded("TIFF", picture=Image.fromarray(np.full((3, 3), -1, np.int32))))


def test_floats_arrive_exactly_and_nan_is_counted():
    values = noise(np.float32, 1, 6, 5)
    assert np.array_equal(decode(encoded("TIFF", picture=Image.fromarray(values[0])), "x"), values)
    pfm = b"Pf\n5 6\n-1.0\n" + values[0, ::-1].astype("<f4").tobytes()
    assert np.array_equal(decode(pfm, "x"), values)
    values[0, 0, :2], values[0, 1, 1] = np.nan, np.inf
    for content in (tiff(values), b"Pf\n5 6\n-1.0\n" + values[0, ::-1].astype("<f4").tobytes()):
        assert reason(content).startswith("3 of its 30 values are NaN, infinite")


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


def test_orientation_of_16_bits_and_of_a_bilevel_tiff():
    exif = Image.Exif()
    exif[0x0112] = 6
    values = noise(np.uint16, 3, 4, 7)
    turned = decode(png16(values, before=png_chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))), "x")
    assert np.array_equal(turned, np.rot90(values, -1, (1, 2)))
    bilevel = Image.fromarray(pixels()).convert("1")
    content = encoded("TIFF", picture=bilevel, exif=exif)
    assert np.array_equal(decode(content, "x")[0], np.rot90(np.array(bilevel), -1) * 255)
    assert (header(content, "x").height, header(content, "x").width) == (32, 24)


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
    assert "not a picture" in reason(f"{'SIMPLE  =                    T':80}{'END':80}".ljust(2880).encode())  # FITS
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
    return png(side, side, 8, 2, b"")


def test_more_pixels_than_the_cap_are_refused_from_the_header():
    assert "million pixels" in reason(huge_png(50_000))
    with pytest.raises(BadPicture, match="million pixels"):
        header(huge_png(50_000), "x")
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


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "PPM", "TIFF"])
def test_header_says_what_decode_returns(kind, tmp_path):
    for mode in ("RGB", "L", "RGBA", "LA", "CMYK", "P", "1"):
        try:
            content = encoded(kind, picture=Image.fromarray(pixels()).convert(mode))
        except (OSError, ValueError):  # this format cannot be written in this mode
            continue
        found, wanted = header(content, "x"), decode(content, "x")
        assert (found.channels, found.height, found.width) == wanted.shape and found.depth == str(wanted.dtype)
        assert found.format == kind and found.bytes == wanted.nbytes
        (tmp_path / "x").write_bytes(content)
        assert header(tmp_path / "x", "x") == found


def test_header_of_16_bits_and_of_floats():
    values = noise(np.uint16, 4, 5, 4)
    contents = [png16(values[:count]) for count in (1, 2, 3, 4)]
    contents += [b"P6 1 1 65535\n123456", b"P5 1 1 65535\n12", b"Pf\n1 1\n-1.0\n\0\0\0\0"]
    kinds = [(found.channels, found.depth) for found in (header(content, "x") for content in contents)]
    assert kinds == [(1, "uint16"), (1, "uint16"), (3, "uint16"), (3, "uint16"), (3, "uint16"), (1, "uint16")] + [
        (1, "float32")
    ]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_header_gives_the_upright_size(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
        content = encoded(kind, exif=exif)
        found = header(content, "x")
        assert (3, found.height, found.width) == decode(content, "x").shape


def test_header_needs_no_pixels():
    content = encoded("PNG", picture=Image.fromarray(np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)))
    assert header(content[:100], "x").height == 99


def test_region_is_a_part_of_the_picture():
    for content in (encoded("PNG"), encoded("JPEG"), encoded("TIFF"), encoded("TIFF", compression="tiff_lzw")):
        assert np.array_equal(region(content, "x", 3, 5, 7, 9), decode(content, "x")[:, 3:10, 5:14])
        for outside in ((0, 0, 25, 1), (0, 30, 1, 3), (-1, 0, 3, 3)):
            with pytest.raises(BadPicture, match="do not reach"):
                region(content, "x", *outside)


def test_a_hint_of_the_size_reduces_a_jpeg_to_no_less_than_three_times_that():
    content = encoded("JPEG", picture=Image.fromarray(pixels(0, 600, 800)), quality=95)
    assert decode(content, "x").shape == (3, 600, 800)
    assert decode(content, "x", size=32).shape == (3, 150, 200)
    assert decode(content, "x", size=201).shape == (3, 600, 800)
    near = fit(decode(content, "x", size=32), 32).astype(int) - fit(decode(content, "x"), 32)
    assert np.abs(near).mean() < 1


def test_an_open_picture():
    with Image.open(io.BytesIO(encoded("PNG"))) as picture:
        assert np.array_equal(to_pixels(picture).transpose(1, 2, 0), pixels())
    with pytest.raises(ValueError, match="NaN"):
        to_pixels(Image.fromarray(np.full((2, 2), np.nan, np.float32)))


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


def test_fit_of_rgb_is_that_of_pillow_bit_for_bit():
    image = np.ascontiguousarray(pixels(0, 60, 90).transpose(2, 0, 1))
    box = (15.0, 0.0, 75.0, 60.0)
    wanted = Image.fromarray(pixels(0, 60, 90)).resize((16, 16), Image.Resampling.BICUBIC, box, 3.0)
    assert np.array_equal(fit(image, 16).transpose(1, 2, 0), np.array(wanted))


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_fit_treats_each_channel_alone(channels):
    image = noise(np.uint8, channels)
    found = fit(image, 16)
    assert found.shape == (channels, 16, 16) and found.dtype == np.uint8
    for place in range(channels):
        assert np.array_equal(found[place], fit(np.repeat(image[place : place + 1], 3, 0), 16)[0])


def test_fit_keeps_16_bits_and_floats():
    """A ramp stays a ramp, with steps far below what 8 bits would hold."""
    ramp = np.broadcast_to(np.arange(30_000, 30_064, dtype=np.uint16), (2, 64, 64))
    found = fit(ramp, 32)
    assert found.dtype == np.uint16
    assert np.abs(found[:, :, 4:28].astype(float) - (30_000.5 + 2 * np.arange(4, 28))).max() <= 1
    floats = fit(ramp.astype(np.float32) / 1000, 32)
    assert floats.dtype == np.float32 and np.abs(floats[:, :, 4:28] - found[:, :, 4:28] / 1000).max() < 0.002
    edge = np.zeros((1, 16, 16), np.uint16)
    edge[:, :, 8:] = 65535  # where the bicubic kernel overshoots, nothing may wrap round
    steep = fit(edge, 12)[0, 0].astype(int)
    assert steep[:4].max() < 8000 and steep[8:].min() > 57000
