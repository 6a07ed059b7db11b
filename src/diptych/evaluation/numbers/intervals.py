"""Intervals for an accuracy, and for the difference of two accuracies on the same test pictures.

They cover the chance in which test pictures were drawn, nothing else: not another seed of pretraining, nor other
training pictures for the probe.
"""

from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``, fractions."""

    low: float
    high: float


def wilson(correct: int, total: int, level: float = 0.95) -> Interval:
    """Wilson's score interval (1927) for a proportion: sound for small totals and near 0 or 1, unlike ±1.96 errors.

    Args:
        correct: pictures classified correctly, 0..total.
        total: pictures, at least 1.
        level: coverage, 0..1.
    """
    z = _z(level)
    p = correct / total
    middle = (p + z**2 / (2 * total)) / (1 + z**2 / total)
    half = z / (1 + z**2 / total) * (p * (1 - p) / total + z**2 / (4 * total**2)) ** 0.5
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def paired_difference(gained: int, lost: int, total: int, level: float) -> Interval:
    """Bonett and Price's adjusted Wald interval for a difference of paired proportions.

    J. Educ. Behav. Stat. 37(4), 2012; recommended by Fagerland, Lydersen and Laake, Stat. Med. 33, 2014. Pictures that
    both classify alike say nothing about the difference, which makes it narrower than two separate intervals suggest.

    Args:
        gained: pictures that the first alone classifies correctly.
        lost: pictures that the second alone classifies correctly.
        total: test pictures.
        level: coverage, 0..1.

    Returns:
        For accuracy of the first - accuracy of the second, -1..1.
    """
    first, second = (gained + 1) / (total + 2), (lost + 1) / (total + 2)
    half = _z(level) * ((first + second - (first - second) ** 2) / (total + 2)) ** 0.5
    return Interval(max(-1.0, first - second - half), min(1.0, first - second + half))


def _z(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2)
