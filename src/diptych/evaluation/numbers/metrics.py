"""Numbers that fit the task: of one class per picture, of several labels per picture, of quantities.

Scikit-learn computes them; where it would warn of a number that does not exist (the AUROC of a label that no test
picture has), the number is None instead. Calibration error is the exception, which scikit-learn has not:

ECE is the expected calibration error of Guo et al. 2017 (arXiv 1706.04599, equation 3), the mean over bins of
|accuracy - confidence|, weighted by their pictures. Deviation: 15 bins of equal mass instead of equal width, because
probes are confident and would leave most bins of the paper empty and one with nearly all pictures; equal confidences
stay in one bin, so that the order of the pictures plays no part.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import spearmanr  # type: ignore[import-untyped]
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    recall_score,
    roc_auc_score,
    root_mean_squared_error,
)
from torch import Tensor

Task = Literal["classes", "multilabel", "regression"]

BINS = 15
"""Of the calibration error."""


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """One class per picture. Every number is 0..1, and higher is better save for ``ece``."""

    top1: float
    """Fraction classified correctly. As good as always answering the commonest class is as bad as knowing nothing."""
    top5: float | None
    """Fraction of which the class is among the five most likely; 5 / K is chance. None for five classes or fewer."""
    balanced_accuracy: float
    """Mean recall over the classes that have test pictures: 1 / K is chance, however many pictures each class has."""
    macro_f1: float
    """Mean over those classes of the harmonic mean of precision and recall: a class never answered counts 0."""
    ece: float
    """Expected calibration error of the most likely class: 0 is good; above about 0.1 a confidence cannot be quoted."""
    auroc: float | None
    """Of two classes: how often a positive picture scores above a negative one; 0.5 is chance. Else None."""
    average_precision: float | None
    """Of two classes: mean precision as recall grows; chance is the positive class's share of the test. Else None."""
    positive: str | None
    """The class that ``auroc`` and ``average_precision`` are about."""
    per_picture: Tensor
    """``(M,)`` float32: 1 where classified correctly; its mean is ``top1``."""

    @property
    def headline(self) -> tuple[str, float]:
        """The number that verdicts compare by."""
        return "top1", self.top1

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return _without_pictures(self)


@dataclass(frozen=True, kw_only=True)
class MultilabelMetrics:
    """Several labels per picture. Every number is 0..1, and higher is better save for ``ece``.

    Labels that all test pictures have, or none, count in ``exact_match`` and ``ece`` alone.
    """

    macro_average_precision: float | None
    """Mean over labels of the average precision; chance is the mean share of pictures that have a label."""
    micro_average_precision: float | None
    """The same of all (picture, label) pairs in one ranking: common labels weigh more."""
    macro_auroc: float | None
    """Mean over labels of how often a picture that has it scores above one that has not: 0.5 is chance."""
    micro_auroc: float | None
    """The same of all pairs in one ranking: knowing which labels are common already lifts it above 0.5."""
    macro_f1: float | None
    """Mean over labels of F1 at probability 0.5: 0 for a label never answered."""
    exact_match: float
    """Fraction of pictures of which every label is right at 0.5; falls with the number of labels."""
    ece: float
    """Expected calibration error over all pairs: 0 is good; labels that are rare keep it small by themselves."""
    labels: int
    """How many labels some test pictures have and others have not."""

    @property
    def headline(self) -> tuple[str, float | None]:
        """The number that verdicts compare by: for its interval see ``macro_average_precision``."""
        return "macro_average_precision", self.macro_average_precision

    @property
    def per_picture(self) -> None:
        """The headline is no mean over pictures."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return _without_pictures(self)


@dataclass(frozen=True, kw_only=True)
class RegressionMetrics:
    """Quantities. Lists have one number per target; the other numbers are their means."""

    r2: float | None
    """1 is perfect, 0 as good as always answering the test pictures' mean, below 0 worse. None: no target varies."""
    mae: float
    """Mean absolute error, in the targets' units: 0 is perfect. A mean of different units means little."""
    rmse: float
    """Root of the mean squared error, in the targets' units: above ``mae`` where a few errors are large."""
    spearman: float | None
    """Rank correlation, -1..1: 1 is the right order, 0 none. None: no target whose truth and predictions vary."""
    r2_per_target: list[float | None]
    mae_per_target: list[float]
    rmse_per_target: list[float]
    spearman_per_target: list[float | None]
    per_picture: Tensor | None
    """``(M,)`` float32 whose mean is ``r2``, for its interval: what each picture adds, the mean over targets that vary.

    That is 1 - e² / V + (1 - R²) · ((y - ȳ)² / V - 1) for an error e, with V the variance of the truth y: the first
    order (infinitesimal jackknife, Efron 1982) of what R² becomes where pictures are drawn anew, and V with them.
    """

    @property
    def headline(self) -> tuple[str, float | None]:
        """The number that verdicts compare by."""
        return "r2", self.r2

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return _without_pictures(self)


def class_metrics(logits: Tensor, truth: Tensor, classes: Sequence[str], positive: int | None = None) -> ClassMetrics:
    """Measure predictions of one class per picture.

    Args:
        logits: ``(M, K)`` float, or log-probabilities, of which some may be -inf.
        truth: ``(M,)`` int64, below K.
        classes: K names.
        positive: of two classes, the place of the positive one: see ``imbalance.positive_class``.
    """
    log_p = logits.double().log_softmax(dim=1)
    confidence, predictions = log_p.exp().max(dim=1)
    correct = predictions == truth
    present = np.unique(truth.numpy())
    answers = {"labels": present, "average": "macro", "zero_division": 0}
    auroc = precision = None
    if positive is not None and len(present) == 2:
        is_positive = (truth == positive).numpy()
        # a difference of logarithms orders pictures that probabilities, rounded to 1, no longer tell apart
        score = torch.nan_to_num(log_p[:, positive] - log_p[:, 1 - positive]).numpy()
        auroc = float(roc_auc_score(is_positive, score))
        precision = float(average_precision_score(is_positive, score))
    return ClassMetrics(
        top1=correct.double().mean().item(),
        top5=_top(5, log_p, truth) if len(classes) > 5 else None,
        balanced_accuracy=float(recall_score(truth.numpy(), predictions.numpy(), **answers)),
        macro_f1=float(f1_score(truth.numpy(), predictions.numpy(), **answers)),
        ece=calibration_error(confidence, correct),
        auroc=auroc,
        average_precision=precision,
        positive=None if positive is None else classes[positive],
        per_picture=correct.float(),
    )


def multilabel_metrics(logits: Tensor, truth: Tensor) -> MultilabelMetrics:
    """Measure predictions of several labels per picture.

    Args:
        logits: ``(M, K)`` float: a label is answered where its logit is 0 or more. Some may be infinite.
        truth: ``(M, K)`` bool.
    """
    logits = torch.nan_to_num(logits.double())
    varies = truth.any(dim=0) & ~truth.all(dim=0)
    scores, labels = logits[:, varies].numpy(), truth[:, varies].numpy()
    pairs = list(zip(labels.T, scores.T, strict=True))
    return MultilabelMetrics(
        macro_average_precision=_mean([float(average_precision_score(*pair)) for pair in pairs]),
        micro_average_precision=float(average_precision_score(labels.ravel(), scores.ravel())) if pairs else None,
        macro_auroc=_mean([float(roc_auc_score(*pair)) for pair in pairs]),
        micro_auroc=float(roc_auc_score(labels.ravel(), scores.ravel())) if pairs else None,
        macro_f1=_mean([float(f1_score(label, score >= 0, zero_division=0)) for label, score in pairs]),
        exact_match=((logits >= 0) == truth).all(dim=1).double().mean().item(),
        ece=calibration_error(logits.sigmoid().flatten(), truth.flatten()),
        labels=len(pairs),
    )


def regression_metrics(predictions: Tensor, truth: Tensor) -> RegressionMetrics:
    """Measure predicted quantities ``(M, T)`` against the truth ``(M, T)``, finite floats."""
    found, true = predictions.double(), truth.double()
    targets = list(zip(true.numpy().T, found.numpy().T, strict=True))
    r2 = [float(r2_score(*target)) if np.ptp(target[0]) else None for target in targets]
    mae = [float(mean_absolute_error(*target)) for target in targets]
    rmse = [float(root_mean_squared_error(*target)) for target in targets]
    ranks = [float(spearmanr(*target).statistic) if all(map(np.ptp, target)) else None for target in targets]
    varies = torch.tensor([value is not None for value in r2])
    explained = _shares_of_r2(found[:, varies], true[:, varies]).mean(dim=1).float() if varies.any() else None
    return RegressionMetrics(
        r2=_mean(r2),
        mae=float(np.mean(mae)),
        rmse=float(np.mean(rmse)),
        spearman=_mean(ranks),
        r2_per_target=r2,
        mae_per_target=mae,
        rmse_per_target=rmse,
        spearman_per_target=ranks,
        per_picture=explained,
    )


def _shares_of_r2(found: Tensor, true: Tensor) -> Tensor:
    """Return ``(M, T)``: see ``RegressionMetrics.per_picture``."""
    variance = true.var(dim=0, correction=0)
    missed, spread = (found - true).square() / variance, (true - true.mean(dim=0)).square() / variance
    return 1 - missed + missed.mean(dim=0) * (spread - 1)


def macro_average_precision(logits: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """The headline of multilabel predictions for many resamplings of the test pictures at once.

    For one seed ``lambda weights: macro_average_precision(logits, truth, weights)[:, None]`` is what
    ``statistics.bootstrap_metric`` takes; several are stacked in that last dimension.

    Args:
        logits: ``(M, K)`` float.
        truth: ``(M, K)`` bool.
        weights: ``(B, M)`` float64, how often each picture counts.

    Returns:
        ``(B,)`` float64; labels that no picture drawn has, or that all have, are left out of the mean.
    """
    values = [_average_precision(scores, label, weights) for scores, label in zip(logits.T, truth.T, strict=True)]
    return torch.stack(values).nanmean(dim=0)


def calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Return the ECE of confidences ``(M,)`` 0..1 in answers that were ``correct`` ``(M,)`` bool, 0..1."""
    confidence = confidence.double()
    edges = np.unique(np.quantile(confidence.numpy(), np.linspace(0, 1, BINS + 1)[1:-1]))
    places = torch.bucketize(confidence, torch.from_numpy(edges))
    gaps = torch.bincount(places, weights=correct.double() - confidence)
    return (gaps.abs().sum() / len(confidence)).item()


def _top(k: int, scores: Tensor, truth: Tensor) -> float:
    """Fraction of which fewer than k classes come first; of equal scores the first class does, as in ``argmax``."""
    own = scores.gather(1, truth[:, None])
    earlier = torch.arange(scores.shape[1]) < truth[:, None]
    rank = ((scores > own) | ((scores == own) & earlier)).sum(dim=1)
    return (rank < k).double().mean().item()


def _average_precision(scores: Tensor, label: Tensor, weights: Tensor) -> Tensor:
    """Weighted average precision ``(B,)`` of one label, NaN where all pictures drawn have it or none has.

    Precision × the gain in recall, summed over thresholds; pictures of equal score pass the same threshold.
    """
    order = scores.argsort(descending=True)
    is_last = torch.cat([scores[order].diff() != 0, torch.tensor([True])])  # of those with its score
    drawn, relevant = weights[:, order], label[order].double()
    answered, found = drawn.cumsum(dim=1)[:, is_last], (drawn * relevant).cumsum(dim=1)[:, is_last]
    gained = found.diff(dim=1, prepend=torch.zeros(len(weights), 1, dtype=found.dtype))
    total, pictures = found[:, -1], answered[:, -1]
    precision = (gained * found / answered.clamp_min(1)).sum(dim=1) / total.clamp_min(1)
    return precision.where((total > 0) & (total < pictures), torch.nan)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _without_pictures(metrics: ClassMetrics | MultilabelMetrics | RegressionMetrics) -> dict[str, Any]:
    return {name: value for name, value in vars(metrics).items() if name != "per_picture"}
