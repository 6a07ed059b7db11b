"""Real pictures for the tests of this folder."""

import io

import numpy as np
from PIL import Image


def pixels(seed=0, height=24, width=32):
    """A smooth picture, so that JPEG keeps it nearly as it is; uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return np.array(small.resize((width, height), Image.Resampling.BICUBIC))


def encoded(kind="JPEG", seed=0, picture=None, **options):
    """Bytes of a picture file."""
    buffer = io.BytesIO()
    (picture or Image.fromarray(pixels(seed))).save(buffer, kind, **options)
    return buffer.getvalue()
