import math
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, t
from torch import Tensor

from diptych.evaluation.numbers import resampling
from diptych.evaluation.numbers.intervals import paired_difference, wilson
from diptych.evaluation.numbers.statistics import (
    Gain,
    bootstrap_gain,
    bootstrap_metric,
    labels_interval,
    labels_needed,
    mean_interval,
    paired_gain,
    resampled_metric,
)


@pytest.fixture
def fewer_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that repeat a comparison hundreds of times."""
    monkeypatch.setattr(resampling, "RESAMPLES", 400)


def detectable(total: int, discordant: float, level: float = 0.95, power: float = 0.8) -> float:
    """Return the smallest gain, in percentage points, that McNemar's test finds so often.

    Connor's formula (1987, Biometrics 43, 207) solved for the gain. It is about one seed, or seeds without noise of
    their own, and takes for granted that ``discordant`` is known; ``Gain.detectable`` is what a comparison measured.

    Args:
        total: test pictures.
        discordant: fraction that exactly one contender gets right, 0..1. It cannot be less than the gain, so a gain
            that would have to be larger is taken to consist of such pictures alone.
        level: coverage of the interval that has to exclude 0, 0..1.
        power: how often, 0.5..1.

    Returns:
        0..100; 100 where nothing less would be found.
    """
    z, z_power = NormalDist().inv_cdf(0.5 + level / 2), NormalDist().inv_cdf(power)
    if total <= z**2:  # even if every picture were gained, √M would be no more than z
        return 100.0
    unit = (z * math.sqrt(total) + z_power * math.sqrt(total - z**2 + z_power**2)) / (total + z_power**2)
    gain = unit * math.sqrt(discordant)
    return 100 * min(1.0, gain if gain <= discordant else unit**2)


def answers(
    random: np.random.Generator, seeds: int, total: int, skill: float = 0.8, pictures: float = 2, own: float = 0
) -> tuple[Tensor, float]:
    """Correct answers (S, M) of a probit with random pictures and seeds, and the accuracy that they estimate."""
    z = skill + pictures * random.normal(size=total) + own * random.normal(size=(seeds, 1))
    accuracy = NormalDist().cdf(skill / (2 + pictures**2 + own**2 - 1) ** 0.5)
    return torch.tensor(z + random.normal(size=(seeds, total)) > 0), accuracy


def two_contenders(random: np.random.Generator, seeds: int, total: int, gain: float, differ: float) -> list[Tensor]:
    """Correct answers (S, M), one contender alone right on about ``differ``: half by picture, half by seed."""
    drawn = np.where(random.random((seeds, total)) < 0.5, random.random(total), random.random((seeds, total)))
    base = random.random(total) < 0.6
    gained, lost = drawn < (differ + gain) / 2, drawn > 1 - (differ - gain) / 2
    return [torch.tensor((base | gained) & ~lost), torch.tensor((base & ~gained) | lost)]


def counted(gained: int, lost: int, total: int) -> tuple[Tensor, Tensor]:
    first, second = torch.zeros(2, 1, total)
    first[:, :gained], second[:, gained : gained + lost] = 1, 1
    return first, second


def excludes_zero(gain: Gain) -> bool:
    return gain.low > 0 or gain.high < 0


def test_one_seed_has_wilsons_interval() -> None:
    found = mean_interval(torch.tensor([[True] * 9 + [False] * 3]), level=0.9)
    assert found.value == 0.75
    assert (found.low, found.high) == (wilson(9, 12, 0.9).low, wilson(9, 12, 0.9).high)
    assert found.to_dict() == {"value": 0.75, "ci": [found.low, found.high], "level": 0.9}


@pytest.mark.parametrize(("pictures", "own"), [(2, 0.25), (0.2, 0.0)], ids=["both matter", "both together alone"])
def test_several_seeds_agree_with_the_two_way_table_of_variances(pictures: float, own: float) -> None:
    # an independent reference: mean squares of pictures, seeds and their interaction, and Student's t by Satterthwaite
    x, _ = answers(np.random.default_rng(3), 6, 900, pictures=pictures, own=own)
    y = np.concatenate([x.numpy(), np.ones((6, 2)), np.zeros((6, 2))], axis=1)
    seeds, total = y.shape
    rows, columns = y.mean(axis=1), y.mean(axis=0)
    rest = ((y - rows[:, None] - columns + y.mean()) ** 2).sum() / ((seeds - 1) * (total - 1))
    by_seed, by_picture = rows.var(ddof=1) / seeds, columns.var(ddof=1) / total
    variance = by_picture + max(0, by_seed - rest / (seeds * total))
    freedom = variance**2 / (by_seed**2 / (seeds - 1) + by_picture**2 / (total - 1))
    found = mean_interval(x)
    assert found.high - found.low == pytest.approx(2 * t.ppf(0.975, freedom) * variance**0.5, rel=0.07)
    assert found.value == pytest.approx(x.double().mean().item())


@pytest.mark.usefixtures("fewer_draws")
@pytest.mark.parametrize(
    ("seeds", "total", "own"), [(5, 200, 0.1), (5, 500, 0.3), (3, 150, 0.1)], ids=["both", "seeds rule", "three"]
)
def test_intervals_cover(seeds: int, total: int, own: float) -> None:
    random = np.random.default_rng(0)
    hits = []
    for repeat in range(250):
        x, accuracy = answers(random, seeds, total, own=own)
        found = mean_interval(x, seed=repeat)
        hits.append(found.low <= accuracy <= found.high)
    assert 0.92 < np.mean(hits) < 0.98


def test_twelve_pictures_say_little() -> None:
    for seeds in (1, 5):
        all_right = mean_interval(torch.ones(seeds, 12))
        assert all_right.high == all_right.value == 1
        assert all_right.low < 0.85
    half = mean_interval(torch.tensor([[True, False] * 6]).repeat(5, 1))
    assert half.high - half.low > 0.4
    first, second = counted(4, 0, 12)  # 33 points
    assert paired_gain(first, second).p_value > 0.05
    assert detectable(12, discordant=0.5) > 40


def test_errors_of_a_quantity_have_intervals_too() -> None:
    random = np.random.default_rng(1)
    errors = torch.tensor(random.gamma(2, 3, size=(1, 400)))
    found = mean_interval(errors)
    assert found.high - found.low == pytest.approx(2 * 1.96 * errors.std().item() / 20, rel=0.07)
    better = paired_gain(errors, errors - 0.1 - 0.01 * torch.tensor(random.normal(size=(1, 400))), scale=1)
    assert better.points == pytest.approx(0.1, abs=0.002)
    assert 0.098 < better.low < better.high < 0.102
    assert better.p_value < 0.001


@pytest.mark.parametrize("seeds", [1, 5])
def test_the_same_answers_are_no_difference(seeds: int) -> None:
    x, _ = answers(np.random.default_rng(2), seeds, 50)
    found = paired_gain(x, x)
    assert (found.points, found.p_value) == (0, 1)
    assert found.low < 0 < found.high
    errors = paired_gain(x * 0.3, x * 0.3, scale=1)  # no zeros and ones: nothing is added, and nothing varies
    assert (errors.points, errors.low, errors.high, errors.p_value) == (0, 0, 0, 1)


def test_mcnemars_test_by_hand() -> None:
    # 8 gained and 1 lost: 2 · (1 + 9) / 2^9
    found = paired_gain(*counted(8, 1, 500))
    assert found.p_value == pytest.approx(20 / 512)
    interval = paired_difference(8, 1, 500, 0.95)
    assert (found.low, found.high) == (pytest.approx(100 * interval.low), pytest.approx(100 * interval.high))
    assert found.points == pytest.approx(1.4)
    # 6 gained: exactly 2 / 2^6 = 0.03125, but Bonett and Price's interval ends at 0 for 0.0323
    z = 6 / (8 - 36 / 202) ** 0.5
    assert paired_gain(*counted(6, 0, 200)).p_value == pytest.approx(2 * NormalDist().cdf(-z))
    assert found.to_dict() == {
        "points": found.points,
        "ci": [found.low, found.high],
        "level": 0.95,
        "p_value": found.p_value,
        "detectable": found.detectable,
    }


@pytest.mark.parametrize("level", [0.9, 0.95, 0.968])
def test_interval_and_p_value_never_contradict(level: float) -> None:
    for total in (14, 200):
        for gained in range(14):
            for lost in range(14 - gained):
                found = paired_gain(*counted(gained, lost, total), level=level)
                assert excludes_zero(found) == (found.p_value < 1 - level)
                assert found.low <= found.points <= found.high
                assert found.p_value >= binomtest(gained, gained + lost).pvalue - 1e-9 if gained + lost else True


@pytest.mark.usefixtures("fewer_draws")
def test_interval_and_p_value_never_contradict_over_seeds() -> None:
    random = np.random.default_rng(4)
    decided = set()
    for repeat in range(80):
        first, second = two_contenders(random, 3, 40, gain=0.05 * (repeat % 4), differ=0.3)
        found = paired_gain(first, second, seed=repeat)
        assert excludes_zero(found) == (found.p_value < 0.05)
        mirrored = paired_gain(second, first, seed=repeat)
        assert mirrored.points == pytest.approx(-found.points)
        decided.add(found.p_value < 0.05)
    assert decided == {True, False}


@pytest.mark.usefixtures("fewer_draws")
@pytest.mark.parametrize("seeds", [1, 5])
def test_equally_good_contenders_are_told_apart_in_few_repeats(seeds: int) -> None:
    random = np.random.default_rng(5)
    gains = [paired_gain(*two_contenders(random, seeds, 200, gain=0, differ=0.2), seed=r) for r in range(200)]
    assert np.mean([not excludes_zero(gain) for gain in gains]) >= 0.95


@pytest.mark.usefixtures("fewer_draws")
def test_a_planted_gain_is_found_as_often_as_said() -> None:
    random = np.random.default_rng(6)
    total = next(m for m in range(100, 5000, 10) if detectable(m, discordant=0.2) <= 5)
    one = [paired_gain(*two_contenders(random, 1, total, gain=0.05, differ=0.2)) for _ in range(200)]
    assert np.mean([gain.points for gain in one]) == pytest.approx(5, abs=0.4)
    assert 0.72 < np.mean([gain.low > 0 for gain in one]) < 0.88


@pytest.mark.usefixtures("fewer_draws")
def test_the_noise_of_a_comparison_tells_what_others_will_find() -> None:
    random = np.random.default_rng(7)
    pilots = [paired_gain(*two_contenders(random, 5, 300, gain=0, differ=0.2)).detectable for _ in range(30)]
    gain = float(np.median(pilots)) / 100
    found = [paired_gain(*two_contenders(random, 5, 300, gain=gain, differ=0.2), seed=r) for r in range(100)]
    assert 0.7 < np.mean([each.low > 0 for each in found]) < 0.92


@pytest.mark.usefixtures("fewer_draws")
def test_shuffled_labels_leave_chance_in_the_interval() -> None:
    random = np.random.default_rng(7)
    hits = []
    for repeat in range(100):
        truth, predictions = random.integers(4, size=120), random.integers(4, size=(3, 120))
        found = mean_interval(torch.tensor(predictions == truth), seed=repeat)
        hits.append(found.low <= 0.25 <= found.high)
    assert sum(hits) >= 92


@pytest.mark.parametrize(("total", "discordant"), [(200, 0.2), (1000, 0.15), (10_000, 0.3)])
def test_detectable_inverts_connors_number_of_pictures(total: int, discordant: float) -> None:
    gain = detectable(total, discordant, level=0.975, power=0.9) / 100
    z, z_power = 2.241403, 1.281552
    needed = (z * discordant**0.5 + z_power * (discordant - gain**2) ** 0.5) ** 2 / gain**2
    assert needed == pytest.approx(total, rel=1e-4)


def test_a_gain_needs_as_many_pictures_that_differ() -> None:
    # where only the gained ones differ, discordant = gain
    gain = detectable(100, discordant=0.01) / 100
    needed = (1.959964 * gain**0.5 + 0.841621 * (gain - gain**2) ** 0.5) ** 2 / gain**2
    assert needed == pytest.approx(100, rel=1e-4)
    assert detectable(2, discordant=0.5) == 100


def test_labels_are_interpolated_by_their_logarithm() -> None:
    curve = [(0.1, 0.7), (0.01, 0.5), (1.0, 0.8)]
    assert labels_needed(curve, 0.6) == pytest.approx(10**-1.5)
    assert labels_needed(curve, 0.7) == pytest.approx(0.1)
    assert labels_needed(curve, 0.4) == 0.01
    assert labels_needed(curve, 0.81) is None
    # 5 % did worse than 1 %: what was reached stays reached
    assert labels_needed([(1, 0.6), (5, 0.5), (10, 0.7)], 0.65) == pytest.approx(50**0.5)


def test_an_interval_of_labels() -> None:
    def gain(points: float) -> Gain:
        return Gain(points=points, low=points - 2, high=points + 2, level=0.95, p_value=0.5)

    curve = [(100, 55.0), (1000, 65.0), (10_000, 70.0)]
    found = labels_interval([(labels, gain(62 - accuracy)) for labels, accuracy in curve])
    assert found.labels == labels_needed(curve, 62)
    assert found.low == pytest.approx(labels_needed(curve, 60))
    assert found.high == pytest.approx(labels_needed(curve, 64))
    far = labels_interval([(labels, gain(69 - accuracy)) for labels, accuracy in curve])
    assert far.labels is not None and far.high is None


def test_any_metric_can_be_resampled() -> None:
    random = np.random.default_rng(8)
    x, y = (torch.tensor(random.normal(size=(3, 150)) + shift) for shift in (0.3, 0.0))
    x += torch.tensor([[0.0], [0.1], [0.2]])

    def mean(values: Tensor) -> resampling.Metric:
        return lambda weights: weights @ values.T / weights.sum(dim=1, keepdim=True)

    drawn = [resampled_metric(mean(values), 150) for values in (x, y)]
    found, exact = bootstrap_metric(drawn[0]), mean_interval(x)
    assert found.value == pytest.approx(exact.value)
    assert found.high - found.low == pytest.approx(exact.high - exact.low, rel=0.25)  # 500 draws against 4,000
    gain, paired = bootstrap_gain(*drawn, scale=1), paired_gain(x, y, scale=1)
    assert gain.points == pytest.approx(paired.points)
    assert gain.high - gain.low == pytest.approx(paired.high - paired.low, rel=0.25)
    assert excludes_zero(gain) == (gain.p_value < 0.05)


def test_draws_without_a_metric_are_left_out_and_bias_is_taken_off() -> None:
    rare = torch.tensor([1.0] + [0.0] * 19, dtype=torch.float64)

    def distinct(weights: Tensor) -> Tensor:
        # the share of pictures drawn at least once: 1 of all, 0.64 of a draw; NaN where the rare one was not drawn
        share = (weights > 0).double().mean(dim=1)
        return share.where(weights @ rare > 0, torch.nan)[:, None]

    found = bootstrap_metric(resampled_metric(distinct, 20))
    assert found.value == 1
    assert found.low < 1 < found.high


def grouped_answers(random: np.random.Generator, seeds: int, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Correct answers (S, M) where a group's pictures are mostly right or mostly wrong, and the groups (M,)."""
    groups = np.repeat(np.arange(len(sizes)), sizes)
    skill = random.uniform(0.4, 1, len(sizes))
    return torch.tensor(random.random((seeds, len(groups))) < skill[groups]), torch.tensor(groups)


@pytest.mark.usefixtures("fewer_draws")
@pytest.mark.parametrize(("seeds", "count"), [(1, 20), (3, 20), (1, 5)])
def test_of_groups_whole_ones_are_drawn(seeds: int, count: int) -> None:
    random = np.random.default_rng(0)
    sizes = [10 + 5 * (number % 5) for number in range(count)]
    alarms, false, covered = 0, 0, 0
    for repeat in range(200):
        (x, groups), (y, _) = (grouped_answers(random, seeds, sizes) for _ in range(2))
        alarms += paired_gain(x, y, seed=repeat).p_value < 0.05
        false += paired_gain(x, y, seed=repeat, groups=groups).p_value < 0.05
        found = mean_interval(x, seed=repeat, groups=groups)
        covered += found.low <= 0.7 <= found.high
    assert alarms > 40  # what comes of taking them for independent
    assert false <= 16 and covered >= 182


def test_few_seeds_and_few_groups_have_students_interval() -> None:
    ratios: dict[str, list[float]] = {"seeds": [], "groups": []}
    for repeat in range(12):
        random = np.random.default_rng(repeat)
        own = torch.tensor(random.normal(size=6))
        exact = 2 * t.ppf(0.975, 5) * own.std().item() / 6**0.5
        rows = own[:, None] + 1e-4 * torch.tensor(random.normal(size=(6, 200)))
        groups = torch.arange(6).repeat_interleave(7)
        for name, found in (
            ("seeds", mean_interval(rows, seed=repeat)),
            ("groups", mean_interval(own[groups][None], seed=repeat, groups=groups)),
        ):
            ratios[name].append((found.high - found.low) / exact)
    for several in ratios.values():
        assert np.mean(several) == pytest.approx(1, abs=0.03)


def test_one_picture_a_group_is_no_group() -> None:
    x, y = two_contenders(np.random.default_rng(1), 3, 300, gain=0.05, differ=0.3)
    alone = torch.arange(300)
    for values in ((x, y), (x + 0.5, y + 0.25)):
        plain, whole = (paired_gain(*values, groups=groups) for groups in (None, alone))
        assert whole.points == pytest.approx(plain.points)
        assert whole.high - whole.low == pytest.approx(plain.high - plain.low, rel=0.06)


def test_a_resampled_metric_of_groups_is_that_of_whole_ones() -> None:
    x, groups = grouped_answers(np.random.default_rng(2), 2, [12] * 25)
    values = x.double() + 0.1  # neither 0 nor 1: without the pictures that are added to accuracies

    def mean(weights: Tensor) -> Tensor:
        for row in weights:
            assert all(len(set(row[groups == group].tolist())) == 1 for group in range(25))
        return weights @ values.T / weights.sum(dim=1, keepdim=True)

    found, exact = bootstrap_metric(resampled_metric(mean, 300, groups=groups)), mean_interval(values, groups=groups)
    assert found.value == pytest.approx(exact.value)
    assert found.high - found.low == pytest.approx(exact.high - exact.low, rel=0.25)
