"""What a probe's answers are worth: accuracy with its interval, per class, and which classes are mistaken."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sklearn.metrics import confusion_matrix
from torch import Tensor

from diptych.evaluation.numbers.intervals import Interval, wilson
from diptych.evaluation.numbers.metrics import ClassMetrics, class_metrics


@dataclass(frozen=True, kw_only=True)
class Score:
    """One contender under one probe."""

    predictions: Tensor
    """``(M,)`` int64, places in the list of classes."""
    correct: Tensor
    """``(M,)`` bool, per test picture; contenders are compared picture by picture."""
    ci95: Interval
    """Wilson's, of the accuracy."""
    metrics: ClassMetrics
    per_class: dict[str, float | None]
    """Recall, 0..1; None for a class without test pictures."""
    confusion: list[list[int]]
    """Counts; rows are the truth, columns the predictions."""
    details: dict[str, Any] = field(default_factory=dict)
    """How the probe was fitted."""

    @property
    def top1(self) -> float:
        """Fraction of test pictures classified correctly, 0..1."""
        return self.metrics.top1

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "top1": self.top1,
            "ci95": [self.ci95.low, self.ci95.high],
            **self.metrics.to_dict(),
            "per_class": self.per_class,
            "confusion": self.confusion,
            **self.details,
        }


def score(logits: Tensor, truth: Tensor, classes: Sequence[str], positive: int | None = None, **details: Any) -> Score:
    """Compare answers with the truth.

    Args:
        logits: ``(M, K)`` float, or logarithms of probabilities, of which some may be -inf; the largest is the answer.
        truth: ``(M,)`` int64, places in ``classes``.
        classes: K names.
        positive: of two classes, the place of the one that binary metrics are about.
        details: how the probe was fitted.
    """
    predictions = logits.argmax(dim=1)
    counts = confusion_matrix(truth.numpy(), predictions.numpy(), labels=range(len(classes)))
    correct = predictions == truth
    return Score(
        predictions=predictions,
        correct=correct,
        ci95=wilson(int(correct.sum()), len(correct)),
        metrics=class_metrics(logits, truth, classes, positive),
        per_class={
            name: float(row[place] / row.sum()) if row.sum() else None
            for place, (name, row) in enumerate(zip(classes, counts, strict=True))
        },
        confusion=counts.tolist(),
        details=details,
    )
