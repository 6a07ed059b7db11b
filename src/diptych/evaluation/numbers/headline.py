"""The number that verdicts compare by, and how it is written: one for each kind of task (see ``metrics.py``)."""

from dataclasses import dataclass

MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class Headline:
    """One number that says what answers are worth; higher is better."""

    key: str
    """In JSON, and in ``metrics.py``."""
    name: str
    """On axes and in captions."""
    column: str
    """In tables, with its unit."""
    prefix: str
    """What a sentence says before the number; empty where the number alone is understood."""
    scale: float
    """100 where it is written in per cent, else 1."""
    decimals: int
    """Written behind the point."""
    unit: str
    """What a sentence says after a gain."""
    gains: str
    """What gains are given in."""
    lowest: float | None
    """The least it can be; None: there is no such bound. The greatest is 1."""
    second: str
    """The number that stands beside it in tables, by its key …"""
    second_column: str
    """… and there."""

    def number(self, value: float | None) -> str:
        """Write it without a unit: ``66.1``, ``0.612``; a dash where there is none."""
        return MISSING if value is None else f"{self.scale * value:.{self.decimals}f}"

    def written(self, value: float | None, space: str = " ") -> str:
        """Write it: ``66.1 %``, ``0.612``."""
        return self.number(value) + (f"{space}%" if self.scale == 100 and value is not None else "")

    def between(self, low: float, high: float) -> str:
        """Write an interval without a unit: ``61.0 to 71.2``."""
        return f"{self.number(low)} to {self.number(high)}"

    def signed(self, gain: float) -> str:
        """Write a gain, in points or the number's own unit, with its sign, which is kept where it rounds to zero."""
        return f"{gain:+.{self.decimals}f}"


TOP1 = Headline(
    key="top1",
    name="top-1 accuracy",
    column="top-1 %",
    prefix="",
    scale=100,
    decimals=1,
    unit=" points",
    gains="points",
    lowest=0.0,
    second="balanced_accuracy",
    second_column="balanced %",
)
PRECISION = Headline(
    key="macro_average_precision",
    name="mean average precision",
    column="mean AP %",
    prefix="mean average precision ",
    scale=100,
    decimals=1,
    unit=" points",
    gains="points",
    lowest=0.0,
    second="macro_auroc",
    second_column="AUROC %",
)
R2 = Headline(
    key="r2",
    name="R²",
    column="R²",
    prefix="R² ",
    scale=1,
    decimals=3,  # as fine as a tenth of a per cent
    unit="",
    gains="R²",
    lowest=None,
    second="spearman",
    second_column="Spearman",
)
MIOU = Headline(
    key="miou",
    name="mean IoU",
    column="mIoU %",
    prefix="mean IoU ",
    scale=100,
    decimals=1,
    unit=" points",
    gains="points",
    lowest=0.0,
    second="pixel_accuracy",
    second_column="pixels right %",
)
HEADLINES = {"classes": TOP1, "multilabel": PRECISION, "regression": R2, "segmentation": MIOU}
"""By the kind of task, as results name it."""
