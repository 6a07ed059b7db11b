"""Draws of a mean over S seeds of M test pictures, as it would be with other pictures and other seeds.

Both are drawn anew, independently of each other, as in Owen's pigeonhole bootstrap (2007, arXiv 0712.1111). Where
pictures belong to groups (a patient, a scene), whole groups are drawn: pictures of one patient are right or wrong
together, and counted as independent they would promise a certainty that another patient does not keep. Three
deviations, for few seeds and few groups:

- A bootstrap of S seeds spreads as if it divided by S where it should divide by S - 1, so the seeds' part is widened by
  √(S / (S - 1)) (Davison and Hinkley 1997, "Bootstrap methods and their application", sections 2.3 and 3.8); and the
  pictures' part likewise, by their number or that of the groups. Groups of unequal size n count as (Σ n)² / Σ n².
- Chance that belongs to a seed and a picture together is in both parts, and in the pigeonhole bootstrap three times
  (Owen's theorem 3). Here it counts once: row means alone are drawn for the seeds, less that part of their variance.
- Five seeds know their own spread badly. Each draw's distance from the mean is multiplied by √(ν / χ²(ν)), which makes
  Student's t of what would be a normal distribution; ν is Satterthwaite's (1946), few where seeds or few groups are the
  larger part and many where pictures are.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RESAMPLES = 4000
"""Draws of means. The smallest p-value is 2 / 4001."""
METRIC_RESAMPLES = 500
"""Draws of other metrics, which take longer."""

Array = NDArray[np.float64]
Metric = Callable[[Tensor], Tensor]
"""Weights ``(B, M)`` float64, how often each test picture was drawn → the metric of each seed ``(B, S)``, or NaN."""

_WEIGHTS_AT_ONCE = 2**20  # 8 MiB of float64; metrics hold several of that size


def percentiles(draws: Array, level: float) -> tuple[float, float]:
    """Return the k-th draw from either end, k the largest whole number of which 2 k / (B + 1) < 1 - level.

    The lower end is above 0 exactly where fewer than k draws are not, which is ``p_value`` < 1 - level; the upper end
    likewise. Draws too few for the level (k = 0) say nothing: the ends are infinite.
    """
    tails = 2 * np.arange(1, len(draws) + 1) / (len(draws) + 1)
    k = int((tails < 1 - level).sum())
    ordered = np.sort(draws)
    return (float(ordered[k - 1]), float(ordered[-k])) if k else (-np.inf, np.inf)


def p_value(draws: Array) -> float:
    """Return the two-sided p-value of 0, from draws ``(B,)`` about the estimate."""
    beyond = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
    return min(1.0, 2 * (beyond + 1) / (len(draws) + 1))


def draws_of_patterns(values: Array, seed: int) -> Array:
    """Draw the mean of ``(S, M)`` values of which few columns differ: 2^S patterns of right and wrong, or 3^S.

    How often each pattern is drawn is multinomial, which is the same as drawing pictures and far quicker.
    """
    random = np.random.default_rng(seed)
    total = values.shape[1]
    patterns, counts = np.unique(values.T, axis=0, return_counts=True)
    resampled = random.multinomial(total, counts / total, size=RESAMPLES) @ patterns / total
    return _draws(resampled, values.mean(axis=1), total, random)


def draws_of_means(values: Array, seed: int, groups: Tensor | None = None) -> Array:
    """Draw the mean of any ``(S, M)`` values; ``groups`` are those of ``resample``."""
    columns = torch.from_numpy(values.T)
    sizes = torch.ones(len(columns), dtype=torch.float64) if groups is None else groups.bincount().double()
    if groups is not None:  # what a group adds to the sum is all that a draw of it asks for
        columns = torch.zeros(len(sizes), len(values), dtype=torch.float64).index_add_(0, groups, columns)

    def means(weights: Tensor) -> Tensor:
        return weights @ columns / (weights @ sizes)[:, None]

    return replace(resample(means, len(sizes), RESAMPLES, seed), units=_units(sizes)).draws()


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """A metric with other pictures; where two are of the same pictures and ``seed``, by the same draws of them."""

    values: Array
    """``(S,)``, of each seed on the pictures as they are."""
    resampled: Array
    """``(B, S)``, on pictures drawn anew; NaN where the metric is not defined."""
    units: float
    """Pictures, or groups, that were drawn."""
    seed: int

    def minus(self, other: "Resampled") -> "Resampled":
        """Return the difference of two metrics."""
        assert (self.units, self.seed) == (other.units, other.seed)
        return replace(self, values=self.values - other.values, resampled=self.resampled - other.resampled)

    def draws(self) -> Array:
        """Draw the mean over seeds, with other pictures and other seeds."""
        known = self.resampled[np.isfinite(self.resampled).all(axis=1)]
        return _draws(known, self.values, self.units, np.random.default_rng((self.seed, 1)))


def resample(metric: Metric, total: int, resamples: int, seed: int, groups: Tensor | None = None) -> Resampled:
    """Measure on pictures drawn anew.

    Args:
        metric: finite for weights of one.
        total: M, test pictures.
        resamples: how often.
        seed: of the draws.
        groups: ``(M,)`` int64, the group of each picture, counted from 0; None where each stands for itself.
    """
    random = np.random.default_rng(seed)
    places = torch.arange(total) if groups is None else groups
    sizes = places.bincount()
    values = metric(torch.ones(1, total, dtype=torch.float64))[0].double().numpy()
    assert np.isfinite(values).all()
    drawn = (part if groups is None else part[:, places] for part in _weights(len(sizes), total, resamples, random))
    resampled = np.concatenate([metric(part).double().numpy() for part in drawn])
    return Resampled(values=values, resampled=resampled, units=_units(sizes.double()), seed=seed)


def _units(sizes: Tensor) -> float:
    """Return how many groups of equal size tell as much as those of ``sizes``."""
    return float(sizes.sum().square() / sizes.square().sum())


def _weights(total: int, pictures: int, resamples: int, random: np.random.Generator) -> Iterator[Tensor]:
    """Draw pictures, or groups of them, with replacement: counts ``(B, total)``, a part of B at a time."""
    rows = max(1, _WEIGHTS_AT_ONCE // pictures)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = random.integers(total, size=(size, total)) + total * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * total)
        yield torch.from_numpy(counts.reshape(size, total).astype(np.float64))


def _draws(resampled: Array, values: Array, units: float, random: np.random.Generator) -> Array:
    """Draw the mean over seeds, with other pictures and other seeds.

    Args:
        resampled: ``(B, S)``, of each seed on pictures drawn anew.
        values: ``(S,)``, of each seed on the pictures as they are.
        units: pictures, or groups.
        random: of the seeds and the tails.

    Returns:
        ``(B,)``.
    """
    draws, seeds = resampled.shape
    distance = resampled.mean(axis=1) - resampled.mean()
    if units > 1:
        distance = distance * (units / (units - 1)) ** 0.5
    by_pictures = float(distance.var())
    own, drawn = 0.0, 0.0  # the seeds' part of the mean's variance, without and with what belongs to pictures too
    if seeds > 1 and (drawn := float(values.var(ddof=1) / seeds)):
        both = resampled - resampled.mean(axis=0) - (resampled.mean(axis=1) - resampled.mean())[:, None]
        own = max(0.0, drawn - float(both.var(axis=0).sum()) / (seeds - 1) / seeds)
        weights = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)
        widen = (seeds / (seeds - 1) * own / drawn) ** 0.5
        distance = distance + widen * (weights @ (values - values.mean())) / seeds
    if by_pictures + own:
        few = by_pictures**2 / max(1, units - 1) + (drawn**2 / (seeds - 1) if drawn else 0.0)
        freedom = (by_pictures + own) ** 2 / few
        distance = distance * np.sqrt(freedom / random.chisquare(freedom, draws))
    return np.asarray(values.mean() + distance)
