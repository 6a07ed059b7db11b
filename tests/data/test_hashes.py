import numpy as np
from scipy.fft import dctn

from diptych.data.hashes import perceptual_hashes


def test_the_hash_is_that_of_its_definition():
    grays = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    for gray, found in zip(grays, perceptual_hashes(grays), strict=True):
        low = dctn(gray.astype(float), norm=None)[:8, :8].ravel() / 4
        bits = "".join("1" if wave > np.median(low[1:]) else "0" for wave in low)
        assert int(bits, 2) == int(found) & (1 << 64) - 1
