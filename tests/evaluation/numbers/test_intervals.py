import numpy as np
import pytest

from diptych.evaluation.numbers.intervals import paired_difference, wilson


def test_wilson_by_hand() -> None:
    # 0 of 10: from 0 to z² / (n + z²) = 3.8415 / 13.8415
    nothing = wilson(0, 10)
    assert nothing.low == pytest.approx(0)
    assert nothing.high == pytest.approx(0.27753, abs=1e-5)
    # the well-known example of Newcombe 1998 (Stat. Med. 17, 857), 81 of 263: 0.2553 to 0.3662
    found = wilson(81, 263)
    assert (found.low, found.high) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))


def test_wilson_is_symmetric() -> None:
    low, high = wilson(3, 17), wilson(14, 17)
    assert low.low == pytest.approx(1 - high.high)
    assert low.high == pytest.approx(1 - high.low)


def test_wilson_covers() -> None:
    random = np.random.default_rng(0)
    for p, n in ((0.1, 100), (0.5, 50), (0.9, 400)):
        draws = random.binomial(n, p, 4000)
        found = [wilson(int(k), n) for k in draws]
        assert 0.93 < np.mean([i.low <= p <= i.high for i in found]) < 0.97


def test_paired_difference_by_hand() -> None:
    # Bonett and Price: (gained + 1) / (n + 2) = 0.21, (lost + 1) / (n + 2) = 0.11, n + 2 = 100
    found = paired_difference(gained=20, lost=10, total=98, level=0.95)
    half = 1.959964 * ((0.21 + 0.11 - 0.1**2) / 100) ** 0.5
    assert (found.low, found.high) == (pytest.approx(0.1 - half, abs=1e-6), pytest.approx(0.1 + half, abs=1e-6))


@pytest.mark.parametrize("level", [0.95, 0.975])
def test_paired_difference_covers(level: float) -> None:
    random = np.random.default_rng(1)
    for gained, lost, n in ((0.2, 0.1, 200), (0.05, 0.05, 300), (0.3, 0.0, 100)):
        counts = random.multinomial(n, (gained, lost, 1 - gained - lost), 4000)
        found = [paired_difference(int(g), int(b), n, level) for g, b, _ in counts]
        coverage = np.mean([i.low <= gained - lost <= i.high for i in found])
        assert level - 0.015 < coverage < level + 0.02
