import numpy as np
import pytest
import torch

from diptych.evaluation.numbers.resampling import draws_of_patterns, p_value, percentiles, resample


@pytest.mark.parametrize("level", [0.9, 0.95, 0.975])
@pytest.mark.parametrize("count", [399, 400], ids=["p can be 0.05 exactly", "p cannot"])
def test_the_ends_cross_zero_where_p_crosses_the_level(count: int, level: float) -> None:
    for below in range(30):
        draws = np.arange(count) - below + 0.5
        is_clear = p_value(draws) < 1 - level
        assert is_clear == (percentiles(draws, level)[0] > 0)
        assert is_clear == (percentiles(-draws, level)[1] < 0)
        assert p_value(-draws) == p_value(draws) == pytest.approx(2 * (below + 1) / (count + 1))


def test_too_few_draws_for_a_level_say_nothing() -> None:
    assert percentiles(np.arange(1.0, 20), 0.95) == (-np.inf, np.inf)


def test_patterns_are_drawn_as_pictures_are() -> None:
    random = np.random.default_rng(0)
    correct = (random.random((4, 300)) < np.linspace(0.6, 0.75, 4)[:, None]).astype(float)
    columns = torch.tensor(correct.T)
    drawn = resample(lambda weights: weights @ columns / 300, 300, 2000, seed=1)
    values, by_picture = drawn.values, drawn.draws()
    by_pattern = draws_of_patterns(correct, seed=2)
    assert values == pytest.approx(correct.mean(axis=1))
    assert by_pattern.mean() == pytest.approx(by_picture.mean(), abs=0.005)
    wide = percentiles(by_pattern, 0.9)
    assert np.subtract(*percentiles(by_picture, 0.9)) == pytest.approx(np.subtract(*wide), rel=0.1)
    assert np.array_equal(by_pattern, draws_of_patterns(correct, seed=2))
