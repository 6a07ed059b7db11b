"""What is uncertain when S seeds each gave an answer to the same M test pictures, and what a comparison can show.

Two things are drawn by chance: which pictures are tested on, and the seeds (which labels were learnt from, how the
probe began). ``resampling`` draws both anew. Accuracies near an edge have too little spread for that, or none. With
several seeds, or groups, pictures are added as Agresti and Coull (1998) add them to one accuracy (two that all seeds
get right, two that none does) and Bonett and Price (2012) to a difference (one gained, one lost). With one seed and no
groups nothing is drawn, and intervals cover the choice of test pictures alone: see ``mean_interval`` and
``paired_gain``. Where test pictures belong to groups, which of these were drawn is the chance that counts.

Simulated at 95 %, intervals cover 93 of 100 or more whether pictures, seeds or both together make the noise
(``tests/evaluation/test_statistics.py``). The price is width with few seeds: two know hardly anything of a third, and
Student's t with one degree of freedom says so. Five are a good number.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from scipy.special import bdtr  # type: ignore[import-untyped]
from torch import Tensor

from diptych.evaluation.numbers.intervals import paired_difference, wilson
from diptych.evaluation.numbers.resampling import (
    METRIC_RESAMPLES,
    Array,
    Metric,
    Resampled,
    draws_of_means,
    draws_of_patterns,
    p_value,
    percentiles,
    resample,
)

POWER = 0.8
"""How often a gain has to be found to be called detectable."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over pictures and seeds, and where it would lie with others of both."""

    value: float
    low: float
    high: float
    level: float
    """Coverage of low..high, 0..1."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"value": self.value, "ci": [self.low, self.high], "level": self.level}


@dataclass(frozen=True, kw_only=True)
class Gain:
    """The first contender - the second. The interval excludes 0 exactly where ``p_value`` < 1 - ``level``."""

    points: float
    """Percentage points for accuracies; the metric's own unit where ``scale`` was 1."""
    low: float
    high: float
    level: float
    """Coverage of low..high, 0..1."""
    p_value: float
    """Two-sided, of no difference: 0..1."""

    @property
    def detectable(self) -> float:
        """The smallest gain that would be found in 80 of 100 such comparisons, with as much noise as this one had."""
        return (self.high - self.low) / 2 * (1 + _z(POWER) / _z(0.5 + self.level / 2))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "points": self.points,
            "ci": [self.low, self.high],
            "level": self.level,
            "p_value": self.p_value,
            "detectable": self.detectable,
        }


def mean_interval(correct: Tensor, level: float = 0.95, seed: int = 0, groups: Tensor | None = None) -> Estimate:
    """Estimate an accuracy, or the mean of another number that every test picture has.

    One seed's accuracy has Wilson's interval.

    Args:
        correct: ``(S, M)``, bool or float: of S seeds on the same M pictures.
        level: coverage, 0..1.
        seed: of the draws.
        groups: see ``resampling.resample``.
    """
    values = _array(correct)
    value = float(values.mean())
    if not _is_binary(values):
        low, high = percentiles(draws_of_means(values, seed, groups), level)
    elif groups is not None:
        low, high = percentiles(draws_of_means(_with_pictures(values, (1, 1, 0, 0)), seed, _added(groups, 4)), level)
        low, high = max(0.0, low), min(1.0, high)
    elif len(values) == 1:
        interval = wilson(int(values.sum()), values.shape[1], level)
        low, high = interval.low, interval.high
    else:
        low, high = percentiles(draws_of_patterns(_with_pictures(values, (1, 1, 0, 0)), seed), level)
        low, high = max(0.0, low), min(1.0, high)
    return Estimate(value=value, low=min(low, value), high=max(high, value), level=level)


def paired_gain(
    first: Tensor,
    second: Tensor,
    level: float = 0.95,
    seed: int = 0,
    scale: float = 100,
    groups: Tensor | None = None,
) -> Gain:
    """Compare two contenders picture by picture and seed by seed.

    With one seed, and no groups, the p-value is exact McNemar's and the interval Bonett and Price's. The two can
    disagree at a borderline, where the more cautious is believed: p is the larger of both tests', and an interval that
    excludes 0 against p is stretched to end at 0.

    Args:
        first: ``(S, M)``, bool or float, higher is better: of S seeds on the same M pictures.
        second: ``(S, M)``, of the same seeds (the same labels learnt from) and pictures.
        level: coverage, 0..1.
        seed: of the draws.
        scale: 100 makes percentage points of accuracies; 1 leaves another number in its unit.
        groups: see ``resampling.resample``.
    """
    a, b = _array(first), _array(second)
    assert a.shape == b.shape
    if not (_is_binary(a) and _is_binary(b)):
        return _gain_from(draws_of_means(a - b, seed, groups), float((a - b).mean()), level, scale)
    if groups is not None:
        draws = draws_of_means(_with_pictures(a - b, (1, -1)), seed, _added(groups, 2))
        return _gain_from(draws.clip(-1, 1), float((a - b).mean()), level, scale)
    if len(a) == 1:
        return _mcnemar(int(((a - b) > 0).sum()), int(((a - b) < 0).sum()), a.shape[1], level, scale)
    draws = draws_of_patterns(_with_pictures(a - b, (1, -1)), seed)
    return _gain_from(draws.clip(-1, 1), float((a - b).mean()), level, scale)


def resampled_metric(metric: Metric, total: int, seed: int = 0, groups: Tensor | None = None) -> Resampled:
    """Draw a metric that is no mean over pictures, such as an average precision: see ``resampling.resample``."""
    return resample(metric, total, METRIC_RESAMPLES, seed, groups)


def bootstrap_metric(drawn: Resampled, level: float = 0.95) -> Estimate:
    """Estimate a metric that is no mean over pictures.

    Draws without a metric (a class that was not drawn) are left out. The others are moved so that their mean is the
    metric of all pictures: metrics that are not linear, such as ECE, change by being resampled, which says nothing of
    the test set.

    Args:
        drawn: from ``resampled_metric``.
        level: coverage, 0..1.
    """
    value = float(drawn.values.mean())
    low, high = percentiles(drawn.draws(), level)
    return Estimate(value=value, low=min(low, value), high=max(high, value), level=level)


def bootstrap_gain(first: Resampled, second: Resampled, level: float = 0.95, scale: float = 100) -> Gain:
    """Compare two contenders by a metric that is no mean over pictures, drawn for both with the same seed."""
    difference = first.minus(second)
    return _gain_from(difference.draws(), float(difference.values.mean()), level, scale)


def labels_needed(curve: Sequence[tuple[float, float]], accuracy: float) -> float | None:
    """Return how many labels a contender needs for an accuracy.

    Between budgets its accuracy is taken to grow with the logarithm of the labels; where it falls from one budget to
    the next, the better of them stands for both.

    Args:
        curve: labels (a number or a fraction, above 0) and accuracy of each budget, in any order.
        accuracy: to be reached, in the curve's unit.

    Returns:
        In the curve's unit. The smallest budget is a bound: so many or fewer. None: more than the largest.
    """
    before: tuple[float, float] | None = None
    for labels, reached in sorted(curve):
        if reached >= accuracy:
            if before is None:
                return labels
            part = (accuracy - before[1]) / (reached - before[1])
            return math.exp((1 - part) * math.log(before[0]) + part * math.log(labels))
        before = (labels, reached if before is None else max(reached, before[1]))
    return None


@dataclass(frozen=True, kw_only=True)
class LabelsNeeded:
    """How many labels another contender needs to do as well; each number is to be read as ``labels_needed`` returns."""

    labels: float | None
    low: float | None
    high: float | None


def labels_interval(gains: Sequence[tuple[float, Gain]]) -> LabelsNeeded:
    """Return how many labels the second contender needs to do as well as the first does with a budget of its own.

    The interval holds the numbers of labels at which the two do not differ clearly: its ends are where the ends of the
    gains' intervals, drawn as curves over the second's labels, cross 0.

    Args:
        gains: labels of the second, and the gain of the first, at its one budget, over the second with so many.
    """
    return LabelsNeeded(
        labels=labels_needed([(labels, -gain.points) for labels, gain in gains], 0),
        low=labels_needed([(labels, -gain.low) for labels, gain in gains], 0),
        high=labels_needed([(labels, -gain.high) for labels, gain in gains], 0),
    )


def _mcnemar(gained: int, lost: int, total: int, level: float, scale: float) -> Gain:
    interval = paired_difference(gained, lost, total, level)
    exact = min(1.0, 2 * float(bdtr(min(gained, lost), gained + lost, 0.5)))
    spread = gained + lost + 2 - (gained - lost) ** 2 / (total + 2)  # Bonett and Price's, for the level that ends at 0
    p = max(exact, 2 * NormalDist().cdf(-abs(gained - lost) / math.sqrt(spread)))
    low, high = (interval.low, interval.high) if p < 1 - level else (min(0.0, interval.low), max(0.0, interval.high))
    return _gain((gained - lost) / total, low, high, p, level, scale)


def _gain_from(draws: Array, value: float, level: float, scale: float) -> Gain:
    p = p_value(draws) if value else 1.0  # draws are never quite balanced about 0
    return _gain(value, *percentiles(draws, level), p, level, scale)


def _gain(value: float, low: float, high: float, p: float, level: float, scale: float) -> Gain:
    return Gain(
        points=scale * value, low=scale * min(low, value), high=scale * max(high, value), level=level, p_value=p
    )


def _with_pictures(values: Array, added: Sequence[float]) -> Array:
    """Append pictures ``(S, M)`` → ``(S, M + A)`` to which every seed gives the same."""
    return np.concatenate([values, np.tile(np.asarray(added, dtype=np.float64), (len(values), 1))], axis=1)


def _added(groups: Tensor, count: int) -> Tensor:
    """Append pictures that stand for themselves."""
    return torch.cat([groups, int(groups.max()) + 1 + torch.arange(count)])


def _array(values: Tensor) -> Array:
    assert values.ndim == 2
    return values.double().numpy()


def _is_binary(values: Array) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def _z(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
