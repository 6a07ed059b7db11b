"""Draws of a mean over S seeds of M test pictures, as it would be with other pictures and other seeds.

Both are drawn anew, independently of each other, as in Owen's pigeonhole bootstrap (2007, arXiv 0712.1111). Three
deviations, for few seeds:

- A bootstrap of S seeds spreads as if it divided by S where it should divide by S - 1, so the seeds' part is widened by
  √(S / (S - 1)) (Davison and Hinkley 1997, "Bootstrap methods and their application", sections 2.3 and 3.8).
- Chance that belongs to a seed and a picture together is in both parts, and in the pigeonhole bootstrap three times
  (Owen's theorem 3). Here it counts once: row means alone are drawn for the seeds, less that part of their variance.
- Five seeds know their own spread badly. Each draw's distance from the mean is multiplied by √(ν / χ²(ν)), which makes
  Student's t of what would be a normal distribution; ν is Satterthwaite's (1946), few where seeds are the larger part
  and many where pictures are.
"""

from collections.abc import Callable, Iterator

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


def draws_of_means(values: Array, seed: int) -> Array:
    """Draw the mean of any ``(S, M)`` values."""
    columns = torch.from_numpy(values.T)

    def means(weights: Tensor) -> Tensor:
        return weights @ columns / len(columns)

    return draws_of_metric(means, len(columns), RESAMPLES, seed)[1]


def draws_of_metric(metric: Metric, total: int, resamples: int, seed: int) -> tuple[Array, Array]:
    """Return the metric of each seed on all pictures ``(S,)``, and draws of their mean."""
    random = np.random.default_rng(seed)
    values = metric(torch.ones(1, total, dtype=torch.float64))[0].double().numpy()
    assert np.isfinite(values).all()
    resampled = np.concatenate([metric(part).double().numpy() for part in _weights(total, resamples, random)])
    return values, _draws(resampled[np.isfinite(resampled).all(axis=1)], values, total, random)


def _weights(total: int, resamples: int, random: np.random.Generator) -> Iterator[Tensor]:
    """Draw pictures with replacement so many times over: counts ``(B, M)``, a part at a time."""
    rows = max(1, _WEIGHTS_AT_ONCE // total)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = random.integers(total, size=(size, total)) + total * np.arange(size)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=size * total)
        yield torch.from_numpy(counts.reshape(size, total).astype(np.float64))


def _draws(resampled: Array, values: Array, total: int, random: np.random.Generator) -> Array:
    """Draw the mean over seeds, with other pictures and other seeds.

    Args:
        resampled: ``(B, S)``, of each seed on pictures drawn anew.
        values: ``(S,)``, of each seed on the pictures as they are.
        total: pictures.
        random: of the seeds and the tails.

    Returns:
        ``(B,)``.
    """
    draws, seeds = resampled.shape
    distance = resampled.mean(axis=1) - resampled.mean()
    by_pictures = float(distance.var())
    own, drawn = 0.0, 0.0  # the seeds' part of the mean's variance, without and with what belongs to pictures too
    if seeds > 1 and (drawn := float(values.var(ddof=1) / seeds)):
        both = resampled - resampled.mean(axis=0) - distance[:, None]
        own = max(0.0, drawn - float(both.var(axis=0).sum()) / (seeds - 1) / seeds)
        weights = random.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)
        widen = (seeds / (seeds - 1) * own / drawn) ** 0.5
        distance = distance + widen * (weights @ (values - values.mean())) / seeds
    if by_pictures + own:
        few = by_pictures**2 / max(1, total - 1) + (drawn**2 / (seeds - 1) if drawn else 0.0)
        freedom = (by_pictures + own) ** 2 / few
        distance = distance * np.sqrt(freedom / random.chisquare(freedom, draws))
    return np.asarray(values.mean() + distance)
