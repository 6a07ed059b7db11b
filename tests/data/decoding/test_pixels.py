import numpy as np
import pytest
from picture_files import noise, pixels
from PIL import Image

from diptych.data.decoding.decode import UPRIGHT
from diptych.data.decoding.pixels import (
    TURNS,
    BadPicture,
    Header,
    PixelFormat,
    Unsupported,
    check_finite,
    convert,
    format_of,
    on_white,
    upright,
    upright_size,
)


def to(picture, channels=None, depth=None):
    wanted = PixelFormat(channels=channels or len(picture), depth=depth or str(picture.dtype))
    return convert(picture, wanted, "x")


def test_what_fits_is_returned_as_it_is():
    for dtype in (np.uint8, np.uint16, np.float32):
        picture = noise(dtype, 4)
        assert to(picture) is picture
        assert format_of(picture) == PixelFormat(channels=4, depth=np.dtype(dtype).name)


def test_8_bits_become_16_and_back_without_loss():
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    deep = to(every, depth="uint16")
    assert deep.dtype == np.uint16 and deep.max() == 65535 and deep.min() == 0
    assert np.array_equal(to(deep, depth="uint8"), every)


def test_16_bits_become_8_by_rounding():
    values = np.array([[[0, 128, 129, 256, 257, 32768, 65406, 65407, 65535]]], np.uint16)
    assert to(values, depth="uint8").ravel().tolist() == [0, 0, 1, 1, 1, 128, 254, 255, 255]


def test_gray_is_repeated_and_rgb_becomes_its_luma():
    gray = noise(np.uint16, 1)
    assert np.array_equal(to(gray, 3), np.repeat(gray, 3, 0))
    assert np.array_equal(to(to(gray, 3), 1), gray)
    rgb = pixels().transpose(2, 0, 1)
    assert np.abs(to(rgb, 1)[0].astype(int) - np.array(Image.fromarray(pixels()).convert("L"))).max() <= 1
    assert to(noise(np.float32, 3), 1).dtype == np.float32


@pytest.mark.parametrize(("channels", "wanted", "typed"), [(4, 3, 4), (2, 1, 2), (13, 3, 13), (3, 4, 3)])
def test_other_channels_are_refused_with_what_to_type(channels, wanted, typed):
    with pytest.raises(BadPicture, match=f"--channels {typed} to learn"):
        to(noise(np.uint8, channels), wanted)


@pytest.mark.parametrize(("dtype", "wanted"), [(np.float32, "uint8"), (np.float32, "uint16"), (np.uint8, "float32")])
def test_floats_and_whole_numbers_do_not_mix(dtype, wanted):
    with pytest.raises(BadPicture, match=f"--depth {np.dtype(dtype).name}"):
        to(noise(dtype), depth=wanted)


def test_upright_is_what_pillow_does():
    picture = Image.fromarray(pixels())
    for orientation in (*range(1, 9), 0, 77):
        turned = picture.transpose(UPRIGHT[orientation]) if orientation in UPRIGHT else picture
        found = upright(pixels().transpose(2, 0, 1), orientation)
        assert np.array_equal(found.transpose(1, 2, 0), np.array(turned))
        assert upright_size(24, 32, orientation) == found.shape[1:]
    assert TURNS.keys() == UPRIGHT.keys()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_on_white_by_a_slow_reference(dtype):
    most = np.iinfo(dtype).max
    colours, alpha = noise(dtype, 3), noise(dtype, 1, seed=1)[0]
    alpha[0], alpha[1], colours[:, 2] = 0, most, most
    found = on_white(colours, alpha)
    share = alpha.astype(np.float64) / most
    assert found.dtype == dtype
    assert np.abs(found - (colours * share + most * (1 - share))).max() <= 0.5 + 1e-6
    assert (found[:, 0] == most).all() and np.array_equal(found[:, 1], colours[:, 1]) and (found[:, 2] == most).all()


def test_check_finite():
    check_finite(0, 10)
    with pytest.raises(Unsupported, match="2 of its 10 values are NaN"):
        check_finite(2, 10)


def test_bytes():
    assert PixelFormat(channels=13, depth="uint16").bytes == 26
    header = Header(format="TIFF", width=3, height=5, channels=2, depth="float32", segment=(5, 3))
    assert header.bytes == 3 * 5 * 2 * 4
