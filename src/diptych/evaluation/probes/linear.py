"""The linear probe: multinomial logistic regression to convergence on standardised, frozen features.

Minimised is  mean cross-entropy + l2 / 2 · ‖W‖²  (the bias is free), which is scikit-learn's objective with
C = 1 / (l2 · N). The L2 strength is the one with the lowest cross-entropy on a stratified fifth of the *training*
pictures, along a path from strong to weak; the probe is then fitted again on all of them. Test pictures play no part.

Of several labels a picture, each has a logistic regression of its own: the cross-entropies are summed, so that none
knows of another. They share one L2 strength, because a rare label has too few pictures held out to choose its own.

Why not scikit-learn's solver: features are so correlated that plain L-BFGS needs hundreds of iterations. The penalty
does not change when features are rotated, so we rotate them to their principal axes; there the Hessian is close to
diagonal (Böhning 1992: at uniform predictions it is (1/K)(I - 1/K) ⊗ covariance, for a label by itself 1/4), and
scaling each axis by its root makes L-BFGS converge in tens of iterations. The minimum is the same.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from diptych.errors import DataError, byte_size
from diptych.evaluation.features import Features
from diptych.evaluation.probes.holding_out import hold_out
from diptych.evaluation.truth import loss as loss_of
from diptych.hardware import free_memory

L2_GRID = tuple(10.0 ** (half / 2) for half in range(4, -13, -1))
"""From 100 (all but a constant prediction) to 1e-6 (all but unpenalised), in half decades."""
PATIENCE = 3
"""Steps along the path without a better held-out cross-entropy, after which weaker penalties are not tried."""
TOLERANCE = 1e-4
"""Converged: no entry of the gradient, in the scaled coordinates, is larger."""
MAX_ITERATIONS = 1000
HISTORY = 100
"""Steps that L-BFGS remembers, each by two copies of the weights."""


@dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """A fitted probe and how it was come by."""

    logits: Tensor
    """``(M, K)`` float32, of the test pictures."""
    l2: float
    at_edge: bool
    """The chosen strength is the grid's strongest or weakest: a better one may lie outside."""
    iterations: int
    """Of the last fit, on all training pictures."""
    converged: bool
    """Every fit reached the tolerance."""


@dataclass(frozen=True)
class Solution:
    """A minimum: logits are ``x @ weights + bias``."""

    weights: Tensor
    """``(D, K)`` float32."""
    bias: Tensor
    """``(K,)`` float32."""
    iterations: int
    converged: bool


@dataclass(frozen=True, kw_only=True)
class Planes:
    """A fitted probe itself: what turns features into logits."""

    scaler: StandardScaler
    solution: Solution
    l2: float
    converged: bool
    """Every fit reached the tolerance."""

    def logits(self, values: Tensor) -> Tensor:
        """Return the logits ``(M, K)`` float32 of features ``(M, D)``."""
        return _standardise(self.scaler, values) @ self.solution.weights + self.solution.bias


class Problem:
    """Logistic regression on one set of features, for any L2 strength.

    Args:
        values: ``(N, D)`` float32, standardised.
        labels: ``(N,)`` int64, below ``classes``; or ``(N, K)`` bool, each label a problem of its own.
        classes: K.
    """

    def __init__(self, values: Tensor, labels: Tensor, classes: int) -> None:
        self._axes, self._variances = principal_axes(values)
        self._x = values @ self._axes
        self._several = labels.ndim == 2
        self._labels = labels.float() if self._several else labels
        self._rows = torch.arange(len(labels))
        self._flatness = 4 if self._several else classes
        self._coefficients = torch.zeros(self._x.shape[1], classes)  # where the next solution starts from
        self._bias = torch.zeros(classes)

    def solve(self, l2: float, max_iterations: int = MAX_ITERATIONS) -> Solution:
        """Minimise for one strength, starting from the last solution."""
        scale = (self._variances / self._flatness + l2).rsqrt()[:, None]
        scaled, bias = self._coefficients / scale, self._bias.clone()  # L-BFGS changes both in place
        optimizer = torch.optim.LBFGS(
            [scaled, bias],
            max_iter=max_iterations,
            history_size=HISTORY,
            tolerance_grad=TOLERANCE,
            tolerance_change=0,
            line_search_fn="strong_wolfe",
        )

        @torch.no_grad()
        def loss() -> Tensor:
            coefficients = scale * scaled
            likelihood, surprise = self._likelihood(torch.addmm(bias, self._x, coefficients))
            slope = surprise / len(self._x)
            gradient = (slope.T @ self._x).T  # several times as fast as x.T @ slope: rows are read in their order
            scaled.grad = (scale * (gradient + l2 * coefficients)).contiguous()
            bias.grad = slope.sum(dim=0)
            # float64 sums: near the minimum steps change the loss by less than float32 resolves
            return l2 / 2 * coefficients.square().sum(dtype=torch.float64) - likelihood / len(self._x)

        optimizer.step(loss)  # type: ignore[no-untyped-call]
        loss()  # the line search need not end where it looked last
        assert scaled.grad is not None and bias.grad is not None
        steepest = max(scaled.grad.abs().max().item(), bias.grad.abs().max().item())
        self._coefficients, self._bias = scale * scaled, bias
        return Solution(
            weights=self._axes @ self._coefficients,
            bias=self._bias,
            iterations=optimizer.state[scaled]["n_iter"],
            converged=steepest <= TOLERANCE,
        )

    def _likelihood(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logarithm of the likelihood, float64, and probabilities minus the truth ``(N, K)``."""
        if self._several:
            log_p = F.logsigmoid(logits) * self._labels + F.logsigmoid(-logits) * (1 - self._labels)
            return log_p.sum(dtype=torch.float64), logits.sigmoid() - self._labels
        # by its parts, as log_softmax takes thrice the time on rows this short
        log_p = logits - logits.logsumexp(dim=1, keepdim=True)
        likelihood = log_p[self._rows, self._labels].sum(dtype=torch.float64)
        surprise = log_p.exp_()
        surprise[self._rows, self._labels] -= 1
        return likelihood, surprise


def principal_axes(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return orthonormal axes ``(D, R)`` that span the rows, R = min(N, D), and the variance ``(R,)`` along each.

    The penalised solution lies in the span of the rows, so fewer pictures than features lose nothing.
    """
    basis = torch.linalg.qr(x.T).Q if len(x) < x.shape[1] else None
    spanned = x if basis is None else x @ basis
    variances, axes = torch.linalg.eigh((spanned.T @ spanned / len(x)).double())
    rotation = axes.to(x.dtype) if basis is None else basis @ axes.to(x.dtype)
    return rotation, variances.clamp_min(0).to(x.dtype)


def fit_linear(train: Features, test: Tensor, classes: int, seed: int) -> LinearProbe:
    """Choose the L2 strength on held-out training pictures, fit on all of them, predict the test pictures.

    Args:
        train: as for ``fit_planes``.
        test: ``(M, D)`` features.
        classes: as for ``fit_planes``.
        seed: as for ``fit_planes``.

    Raises:
        DataError: as ``fit_planes``.
    """
    planes = fit_planes(train, classes, seed)
    return LinearProbe(
        logits=planes.logits(test),
        l2=planes.l2,
        at_edge=planes.l2 in (L2_GRID[0], L2_GRID[-1]),
        iterations=planes.solution.iterations,
        converged=planes.converged,
    )


def fit_planes(train: Features, classes: int, seed: int) -> Planes:
    """Choose the L2 strength on held-out training pictures, and fit on all of them.

    Args:
        train: ``(N, D)`` features with labels below ``classes``, or ``(N, classes)`` bool.
        classes: how many there are.
        seed: of the split that chooses the strength.

    Raises:
        DataError: no class has two training pictures, so that none can be held out, or there are more weights than fit
            into memory.
    """
    _check_memory(train.values, classes)
    kept, held = hold_out(train.labels, seed, groups=train.groups)
    if not len(held):
        raise DataError(
            "every class has a single training picture, which leaves none to choose the linear probe's L2 strength on: "
            "label two or more of each"
        )
    return chosen_planes(train, kept, held, classes)


def chosen_planes(train: Features, kept: Tensor, held: Tensor, classes: int) -> Planes:
    """Choose the L2 strength by fits on the rows ``kept`` and their loss on those ``held``, and fit on all of them."""
    l2, path_converged = _choose_l2(train, kept, held, classes)
    scaler = StandardScaler().fit(train.values.numpy())
    solution = Problem(_standardise(scaler, train.values), train.labels, classes).solve(l2)
    return Planes(scaler=scaler, solution=solution, l2=l2, converged=path_converged and solution.converged)


def _choose_l2(train: Features, kept: Tensor, held: Tensor, classes: int) -> tuple[float, bool]:
    """Return the best strength on the held-out rows, and whether every fit on the way converged."""
    scaler = StandardScaler().fit(train.values[kept].numpy())
    problem = Problem(_standardise(scaler, train.values[kept]), train.labels[kept], classes)
    unseen = _standardise(scaler, train.values[held])
    losses: list[float] = []
    converged = True
    for l2 in L2_GRID:
        solution = problem.solve(l2)
        converged &= solution.converged
        losses.append(loss_of(unseen @ solution.weights + solution.bias, train.labels[held]).item())
        if len(losses) - 1 - int(np.argmin(losses)) >= PATIENCE:
            break
    return L2_GRID[int(np.argmin(losses))], converged


def _standardise(scaler: StandardScaler, values: Tensor) -> Tensor:
    return torch.from_numpy(scaler.transform(values.numpy()))


def _check_memory(values: Tensor, classes: int) -> None:
    """Refuse what would only fail after minutes: L-BFGS keeps its weights many times over."""
    free, (rows, width) = free_memory(), values.shape
    needed = 4 * classes * (2 * HISTORY * min(rows, width) + 4 * rows)
    if free is not None and needed > free:
        raise DataError(
            f"a linear probe of {classes:,} outputs on {width:,} features has {classes * width:,} weights, and to fit "
            f"them takes {byte_size(needed)} where {byte_size(free)} are free: leave it out with --probes knn, or name "
            "a column with fewer classes"
        )
