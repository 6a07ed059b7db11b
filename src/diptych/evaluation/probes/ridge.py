"""The linear probe of quantities: ridge regression in closed form on standardised, frozen features.

Minimised is, for each quantity,  half the mean squared error + l2 / 2 · ‖w‖²  (the bias is free), which is
scikit-learn's ``Ridge`` with alpha = l2 · N. Along the principal axes of the features every strength is one division
away, so the whole path costs one decomposition. As with classes, the strength is the best one on a fifth of the
*training* pictures, here by the squared error of the standardised quantities together, and the probe is then fitted
again on all of them.
"""

from dataclasses import dataclass

from torch import Tensor

from diptych.errors import DataError
from diptych.evaluation.features import Features
from diptych.evaluation.probes.holding_out import hold_out
from diptych.evaluation.probes.linear import L2_GRID, principal_axes


@dataclass(frozen=True, kw_only=True)
class RidgeProbe:
    """A fitted probe and how it was come by."""

    answers: Tensor
    """``(M, T)`` float64, of the test pictures, in the quantities' units."""
    l2: float
    at_edge: bool
    """The chosen strength is the grid's strongest or weakest: a better one may lie outside."""


class RidgeProblem:
    """Ridge regression on one set of features, for any L2 strength.

    Args:
        values: ``(N, D)``, as they are.
        truth: ``(N, T)``, in any units; one that does not vary is answered by itself.
    """

    def __init__(self, values: Tensor, truth: Tensor) -> None:
        x, self._truth_mean, self._mean = values.double(), truth.double().mean(dim=0), values.double().mean(dim=0)
        spread, self.truth_spread = x.std(dim=0, correction=0), truth.double().std(dim=0, correction=0)
        self._spread = spread.where(spread > 0, 1.0)
        x = (x - self._mean) / self._spread
        self._axes, self._variances = principal_axes(x)
        self._covariance = (x @ self._axes).T @ (truth.double() - self._truth_mean) / len(x)

    def answer(self, l2: float, values: Tensor) -> Tensor:
        """Return what the minimum of one strength answers for features ``(M, D)``: ``(M, T)`` float64."""
        weights = self._covariance / (self._variances + l2)[:, None]
        return ((values.double() - self._mean) / self._spread) @ self._axes @ weights + self._truth_mean


def fit_ridge(train: Features, test: Tensor, seed: int) -> RidgeProbe:
    """Choose the L2 strength on held-out training pictures, fit on all of them, answer for the test pictures.

    Args:
        train: ``(N, D)`` features with quantities ``(N, T)``.
        test: ``(M, D)`` features.
        seed: of the split that chooses the strength.

    Raises:
        DataError: there is a single picture, so that none can be held out.
    """
    kept, held = hold_out(train.labels, seed, groups=train.groups)
    if not len(held):
        raise DataError("a single labelled picture leaves none to choose the linear probe's L2 strength on: label more")
    problem = RidgeProblem(train.values[kept], train.labels[kept])
    spread = problem.truth_spread.where(problem.truth_spread > 0, 1.0)
    losses = [
        ((problem.answer(l2, train.values[held]) - train.labels[held]) / spread).square().mean().item()
        for l2 in L2_GRID
    ]
    l2 = L2_GRID[losses.index(min(losses))]
    answers = RidgeProblem(train.values, train.labels).answer(l2, test)
    return RidgeProbe(answers=answers, l2=l2, at_edge=l2 in (L2_GRID[0], L2_GRID[-1]))
