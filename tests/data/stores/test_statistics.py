import numpy as np
import pytest

from diptych.data.stores.statistics import measure


@pytest.mark.parametrize(("depth", "full"), [("uint8", 255), ("uint16", 65535)])
def test_whole_numbers_are_measured_in_parts_of_their_range(depth, full):
    pictures = np.random.default_rng(0).integers(0, full + 1, (7, 4, 6, 6)).astype(depth)
    found = measure([pictures[:3], pictures[3:]], depth)
    assert np.allclose(found.mean, (pictures / full).mean((0, 2, 3)), rtol=1e-5)
    assert np.allclose(found.std, (pictures / full).std((0, 2, 3)), rtol=1e-5)
    assert found.low == found.high == () and found.pictures == 7


def test_floating_point_is_measured_from_its_lowest_to_its_highest_value():
    pictures = np.random.default_rng(0).normal(1000, 0.5, (5, 2, 8, 8)).astype(np.float32)
    pictures[:, 1] *= -3
    found = measure(iter([pictures[:1], pictures[1:]]), "float32")
    low, high = pictures.min((0, 2, 3)), pictures.max((0, 2, 3))
    assert np.allclose(found.low, low, rtol=1e-5) and np.allclose(found.high, high, rtol=1e-5)
    unit = (pictures.astype(float) - low[:, None, None]) / (high - low)[:, None, None]
    assert np.allclose(found.mean, unit.mean((0, 2, 3)), rtol=1e-3)
    assert np.allclose(found.std, unit.std((0, 2, 3)), rtol=1e-3)


def test_a_channel_that_never_varies_is_harmless():
    found = measure([np.full((2, 1, 4, 4), 7, np.float32)], "float32")
    assert (found.mean, found.std, found.low, found.high) == ((0.0,), (1.0,), (7.0,), (14.0,))
    assert measure([np.full((2, 1, 4, 4), 51, np.uint8)], "uint8").mean == (0.2,)


def test_a_range_that_is_given_is_the_unit():
    pictures = np.random.default_rng(0).random((4, 2, 8, 8)).astype(np.float32)
    found = measure([pictures], "float32", (0.0, -1.0), (100.0, 1.0))
    assert found.low == (0.0, -1.0) and found.high == (100.0, 1.0)
    assert np.allclose(found.mean, [pictures[:, 0].mean() / 100, (pictures[:, 1].mean() + 1) / 2], rtol=1e-4)


@pytest.mark.parametrize("value", [1e9, -3e38, 16_777_216.0])
def test_large_values_keep_a_range(value):
    pictures = np.full((2, 1, 4, 4), value, np.float32)
    found = measure([pictures], "float32")
    assert found.low[0] < found.high[0] and np.isfinite([*found.low, *found.high, *found.mean, *found.std]).all()
