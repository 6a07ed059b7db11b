"""Headlines of evaluations (``evaluation.numbers.headline``) as pages write them: with a real minus sign."""

from collections.abc import Sequence

from diptych.evaluation.numbers.headline import Headline
from diptych.markup import MINUS, SPACE


def written(headline: Headline, value: float | None) -> str:
    """Write the number: ``66.1 %``, ``−0.120``."""
    return headline.written(value, SPACE).replace("-", MINUS)


def between(headline: Headline, interval: Sequence[float]) -> str:
    """Write its interval: ``61.0 to 71.2``."""
    return headline.between(*interval).replace("-", MINUS)


def gained(headline: Headline, gain: float) -> str:
    """Write a gain without its unit: ``+7.1``, ``−0.012``."""
    return headline.signed(gain).replace("-", MINUS)


def axis(headline: Headline) -> str:
    """Name an axis: ``top-1 accuracy, %``."""
    return headline.name + (", %" if headline.scale == 100 else "")


def caption(headline: Headline) -> str:
    """Begin a sentence with its name."""
    return headline.name[:1].upper() + headline.name[1:]
