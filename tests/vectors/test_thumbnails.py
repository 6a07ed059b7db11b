import io

import numpy as np
import pytest
from PIL import Image
from tiny import paint

from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources.open import open_data
from diptych.vectors.thumbnails import encode, thumbnail


def opened(jpeg):
    return Image.open(io.BytesIO(jpeg), formats=["JPEG"])


def test_a_picture_is_made_small_and_keeps_its_shape(tmp_path):
    Image.new("RGB", (300, 100), (200, 30, 60)).save(tmp_path / "a.png")
    Image.new("L", (20, 10), 90).save(tmp_path / "b.png")
    source = open_data(str(tmp_path)).train
    with opened(thumbnail(source, 0, 60)) as large, opened(thumbnail(source, 1, 60)) as small:
        assert (large.size, large.mode) == ((60, 20), "RGB") and (small.size, small.mode) == ((20, 10), "L")
        assert np.abs(np.asarray(large).astype(int) - (200, 30, 60)).max() <= 4


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (2, "L"), (3, "RGB"), (5, "RGB")])
def test_any_channels_and_types_are_shown(channels, mode):
    ramp = np.broadcast_to(np.linspace(-3, 5, 16, dtype=np.float32), (channels, 16, 16))
    with opened(encode(ramp, 16)) as image:
        shown = np.asarray(image)
        assert image.mode == mode and shown.min() < 10 and shown.max() > 245
    with opened(encode(np.full((channels, 4, 4), 700, np.uint16), 16)) as flat:
        assert np.asarray(flat).max() == 0


def test_a_broken_picture_is_told(tmp_path):
    paint(tmp_path, "a.png")
    source = open_data(str(tmp_path)).train
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(BadPicture):
        thumbnail(source, 0, 8)
