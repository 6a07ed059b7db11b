"""What a probe's answers are worth: the numbers that fit the task, and what they are made of."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from sklearn.metrics import average_precision_score, confusion_matrix
from torch import Tensor

from diptych.evaluation.numbers.metrics import (
    ClassMetrics,
    MultilabelMetrics,
    RegressionMetrics,
    class_metrics,
    multilabel_metrics,
    regression_metrics,
)

Metrics = ClassMetrics | MultilabelMetrics | RegressionMetrics


@dataclass(frozen=True, kw_only=True)
class Score:
    """One contender under one probe; contenders are compared picture by picture."""

    answers: Tensor
    """``(M, K)`` logits, or logarithms of probabilities; of quantities ``(M, T)`` in their units."""
    truth: Tensor
    """See ``evaluation.truth``."""
    metrics: Metrics
    parts: dict[str, Any] = field(default_factory=dict)
    """The same by class or label, JSON values."""
    details: dict[str, Any] = field(default_factory=dict)
    """How the probe was fitted."""

    @property
    def value(self) -> float:
        """The headline."""
        value = self.metrics.headline[1]
        assert value is not None  # `pictures.read_labelled` refuses a test without it
        return value

    @property
    def predictions(self) -> Tensor:
        """Of classes: ``(M,)`` int64, places in the list of classes."""
        return self.answers.argmax(dim=1)

    @property
    def correct(self) -> Tensor:
        """Of classes: ``(M,)`` bool, per test picture."""
        return self.predictions == self.truth

    def within(self, kept: Tensor) -> float | None:
        """Return the headline of some test pictures, ``(M,)`` bool; None where they have none."""
        if isinstance(self.metrics, ClassMetrics):
            return self.correct[kept].double().mean().item()
        measure = multilabel_metrics if isinstance(self.metrics, MultilabelMetrics) else regression_metrics
        return measure(self.answers[kept], self.truth[kept]).headline[1]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**self.metrics.to_dict(), **self.parts, **self.details}


def score(logits: Tensor, truth: Tensor, classes: Sequence[str], positive: int | None = None, **details: Any) -> Score:
    """Compare answers with the truth, one class a picture.

    Args:
        logits: ``(M, K)`` float, or logarithms of probabilities, of which some may be -inf; the largest is the answer.
        truth: ``(M,)`` int64, places in ``classes``.
        classes: K names.
        positive: of two classes, the place of the one that binary metrics are about.
        details: how the probe was fitted.

    Returns:
        With the parts ``per_class``: recall, 0..1, None for a class without test pictures; and ``confusion``: counts,
        rows are the truth, columns the predictions.
    """
    counts = confusion_matrix(truth.numpy(), logits.argmax(dim=1).numpy(), labels=range(len(classes)))
    recalls = {
        name: float(row[place] / row.sum()) if row.sum() else None
        for place, (name, row) in enumerate(zip(classes, counts, strict=True))
    }
    return Score(
        answers=logits,
        truth=truth,
        metrics=class_metrics(logits, truth, classes, positive),
        parts={"per_class": recalls, "confusion": counts.tolist()},
        details=details,
    )


def score_labels(logits: Tensor, truth: Tensor, labels: Sequence[str], **details: Any) -> Score:
    """Compare answers with the truth, several labels a picture.

    Args:
        logits: ``(M, K)`` float, finite.
        truth: ``(M, K)`` bool.
        labels: K names.
        details: how the probe was fitted.

    Returns:
        With the part ``per_label``: average precision, 0..1, None for a label that all test pictures have, or none.
    """
    varies = (truth.any(dim=0) & ~truth.all(dim=0)).tolist()
    precisions = {
        name: float(average_precision_score(truth[:, place].numpy(), logits[:, place].numpy())) if known else None
        for place, (name, known) in enumerate(zip(labels, varies, strict=True))
    }
    metrics = multilabel_metrics(logits, truth)
    return Score(answers=logits, truth=truth, metrics=metrics, parts={"per_label": precisions}, details=details)


def score_quantities(answers: Tensor, truth: Tensor, **details: Any) -> Score:
    """Compare quantities ``(M, T)`` with the truth ``(M, T)``, float64 both, and in the same units."""
    return Score(answers=answers, truth=truth, metrics=regression_metrics(answers, truth), details=details)


def per_picture(scores: Sequence[Score]) -> Tensor | None:
    """Return what each seed got of each test picture, ``(S, M)``, whose mean is the headline; None: it is no mean."""
    found = [score.metrics.per_picture for score in scores]
    return torch.stack([values for values in found if values is not None]) if found[0] is not None else None
