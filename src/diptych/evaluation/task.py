"""What is asked about pictures: one class each, several labels each, or quantities. Chosen once, by their type.

A task says how probes answer, and which numbers their answers are worth. How pictures are drawn and split, and what
probes lower, follows from the truth itself (``truth.py``).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from diptych.evaluation.features import Features
from diptych.evaluation.numbers.headline import HEADLINES, Headline
from diptych.evaluation.numbers.imbalance import positive_class
from diptych.evaluation.numbers.metrics import Task as Kind
from diptych.evaluation.numbers.scores import Score, score, score_labels, score_quantities
from diptych.evaluation.pictures import Labelled
from diptych.evaluation.probes import knn, linear, ridge
from diptych.evaluation.probes.holding_out import HELD_OUT

_LEAST_SHARE = 1e-9
"""Shares of neighbours nearer to 0 or 1 count as this far from it: none is certain, and equal ones stay equal."""


class Task(ABC):
    """One kind of question.

    Args:
        names: of the classes, the labels or the quantities.
    """

    kind: ClassVar[Kind]
    called: ClassVar[str]
    """What the names are, in JSON and for people."""
    linear_settings: ClassVar[dict[str, Any]]
    """How the linear probe is fitted, for people."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    @property
    def headline(self) -> Headline:
        """What verdicts compare by."""
        return HEADLINES[self.kind]

    @abstractmethod
    def knn(self, train: Features, test: Tensor) -> tuple[Tensor, knn.Neighbors]:
        """Return the neighbours' answers for test features ``(M, D)``, and the neighbours."""

    @abstractmethod
    def linear(self, train: Features, test: Tensor, seed: int) -> tuple[Tensor, dict[str, Any]]:
        """Return the linear probe's answers for test features ``(M, D)``, and how it was fitted. Raises DataError."""

    @abstractmethod
    def score(self, answers: Tensor, truth: Tensor, **details: Any) -> Score:
        """Return what answers are worth."""


class Classes(Task):
    """One class a picture.

    Args:
        names: of the classes.
        labels: ``(N,)`` int64, of all training pictures: of two classes the rarer one is the positive one.
    """

    kind = "classes"
    called = "classes"
    linear_settings: ClassVar[dict[str, Any]] = {
        "objective": "mean cross-entropy + l2/2 · squared weights, on standardised features",
        "l2_chosen_on": f"{HELD_OUT:.0%} of the training pictures",
        "l2_grid": list(linear.L2_GRID),
        "tolerance": linear.TOLERANCE,
        "max_iterations": linear.MAX_ITERATIONS,
    }

    def __init__(self, names: Sequence[str], labels: Tensor) -> None:
        super().__init__(names)
        self._positive = positive_class(labels, self.names)

    def knn(self, train: Features, test: Tensor) -> tuple[Tensor, knn.Neighbors]:
        """Let them vote."""
        return knn.classify(train, test, len(self.names))

    def linear(self, train: Features, test: Tensor, seed: int) -> tuple[Tensor, dict[str, Any]]:
        """Fit logistic regression."""
        return _logistic(train, test, len(self.names), seed)

    def score(self, answers: Tensor, truth: Tensor, **details: Any) -> Score:
        """Count."""
        return score(answers, truth, self.names, self._positive, **details)


class Labels(Task):
    """Several labels a picture, or none."""

    kind = "multilabel"
    called = "labels"
    linear_settings: ClassVar[dict[str, Any]] = Classes.linear_settings | {
        "objective": "mean cross-entropy of each label + l2/2 · squared weights, on standardised features"
    }

    def knn(self, train: Features, test: Tensor) -> tuple[Tensor, knn.Neighbors]:
        """Take the share of the neighbours that have a label."""
        neighbors = knn.nearest(train.values, test)
        return torch.logit(knn.mean(neighbors, train.labels), eps=_LEAST_SHARE), neighbors

    def linear(self, train: Features, test: Tensor, seed: int) -> tuple[Tensor, dict[str, Any]]:
        """Fit a logistic regression of each label."""
        return _logistic(train, test, len(self.names), seed)

    def score(self, answers: Tensor, truth: Tensor, **details: Any) -> Score:
        """Rank."""
        return score_labels(answers, truth, self.names, **details)


class Quantities(Task):
    """Numbers of each picture."""

    kind = "regression"
    called = "targets"
    linear_settings: ClassVar[dict[str, Any]] = {
        "objective": "half the mean squared error + l2/2 · squared weights, on standardised features",
        "l2_chosen_on": f"{HELD_OUT:.0%} of the training pictures",
        "l2_grid": list(linear.L2_GRID),
    }

    def knn(self, train: Features, test: Tensor) -> tuple[Tensor, knn.Neighbors]:
        """Take the neighbours' mean."""
        neighbors = knn.nearest(train.values, test)
        return knn.mean(neighbors, train.labels), neighbors

    def linear(self, train: Features, test: Tensor, seed: int) -> tuple[Tensor, dict[str, Any]]:
        """Fit ridge regression."""
        fitted = ridge.fit_ridge(train, test, seed)
        return fitted.answers, {"l2": fitted.l2, "l2_at_edge": fitted.at_edge}

    def score(self, answers: Tensor, truth: Tensor, **details: Any) -> Score:
        """Measure the errors."""
        return score_quantities(answers, truth, **details)


def task_of(pictures: Labelled) -> Task:
    """Return the task that the truth about pictures is made for."""
    truth = pictures.train_labels
    if truth.ndim == 1:
        return Classes(pictures.classes, truth)
    return Labels(pictures.classes) if truth.dtype == torch.bool else Quantities(pictures.classes)


def _logistic(train: Features, test: Tensor, outputs: int, seed: int) -> tuple[Tensor, dict[str, Any]]:
    fitted = linear.fit_linear(train, test, outputs, seed)
    how = {"l2": fitted.l2, "l2_at_edge": fitted.at_edge}
    return fitted.logits, how | {"iterations": fitted.iterations, "converged": fitted.converged}
