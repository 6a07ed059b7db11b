"""What a probe's predictions are worth: accuracy with its interval, per class, and which classes are mistaken."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix
from torch import Tensor

from diptych.evaluation.intervals import Interval, paired_difference, wilson


@dataclass(frozen=True, kw_only=True)
class Score:
    """One contender under one probe."""

    correct: Tensor
    """``(M,)`` bool, per test picture; differences are taken picture by picture."""
    ci95: Interval
    """Wilson's, of the accuracy."""
    per_class: dict[str, float | None]
    """Recall, 0..1; None for a class without test pictures."""
    confusion: list[list[int]]
    """Counts; rows are the truth, columns the predictions."""
    details: dict[str, Any] = field(default_factory=dict)
    """How the probe was fitted."""

    @property
    def top1(self) -> float:
        """Fraction of test pictures classified correctly, 0..1."""
        return self.correct.double().mean().item()

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes that have test pictures, 0..1: guessing the commonest class gains nothing."""
        return float(np.mean([recall for recall in self.per_class.values() if recall is not None]))

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "top1": self.top1,
            "ci95": [self.ci95.low, self.ci95.high],
            "balanced_accuracy": self.balanced_accuracy,
            "per_class": self.per_class,
            "confusion": self.confusion,
            **self.details,
        }


def score(predictions: Tensor, truth: Tensor, classes: Sequence[str], **details: Any) -> Score:
    """Compare predictions ``(M,)`` with the truth ``(M,)``, both int64 places in ``classes``."""
    counts = confusion_matrix(truth.numpy(), predictions.numpy(), labels=range(len(classes)))
    correct = predictions == truth
    return Score(
        correct=correct,
        ci95=wilson(int(correct.sum()), len(correct)),
        per_class={
            name: float(row[place] / row.sum()) if row.sum() else None
            for place, (name, row) in enumerate(zip(classes, counts, strict=True))
        },
        confusion=counts.tolist(),
        details=details,
    )


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Accuracy of the pretrained backbone - that of the network as training began, in percentage points."""

    points: float
    low: float
    high: float
    level: float
    """Coverage of low..high, 0..1."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"points": self.points, "ci": [self.low, self.high], "level": self.level}


def difference(first: Score, second: Score, level: float) -> Difference:
    """Compare two scores on the same test pictures, picture by picture."""
    gained = int((first.correct & ~second.correct).sum())
    lost = int((second.correct & ~first.correct).sum())
    total = len(first.correct)
    interval = paired_difference(gained, lost, total, level)
    return Difference(
        points=100 * (gained - lost) / total, low=100 * interval.low, high=100 * interval.high, level=level
    )
