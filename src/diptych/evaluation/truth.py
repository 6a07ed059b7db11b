"""What is known of pictures, in one tensor. Its type says what it is.

- ``(N,)`` int64: the class of each picture,
- ``(N, K)`` bool: which of K labels it has,
- ``(N, T)`` float64: T quantities, in their own units.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def strata(truth: Tensor) -> Tensor:
    """Return ``(N,)`` int64: pictures of one number are alike, and a draw takes the same part of each number.

    Classes are their own strata. Of several labels it is the rarest that a picture has, the first step of iterative
    stratification (Sechidis, Tsoumakas and Vlahavas 2011) without its iterations; pictures without labels are one
    stratum, together with those that would be alone in theirs. Quantities have no strata: they are drawn at random.
    """
    if not truth.ndim == 2:
        return truth
    if truth.dtype != torch.bool:
        return torch.zeros(len(truth), dtype=torch.int64)
    order = truth.sum(dim=0).argsort(stable=True)
    labels = truth.shape[1]
    rarest = torch.cat([truth[:, order], torch.ones(len(truth), 1, dtype=torch.bool)], dim=1).int().argmax(dim=1)
    found = torch.cat([order, torch.tensor([labels])])[rarest]
    alone = torch.bincount(found, minlength=labels + 1)[found] == 1
    return found.masked_fill(alone, labels)


def loss(outputs: Tensor, truth: Tensor) -> Tensor:
    """Return what a probe lowers, a mean over pictures (and labels, or quantities), as a scalar.

    Args:
        outputs: ``(N, K)`` float.
        truth: cross-entropy is taken of classes and of labels, the squared error of quantities, here of any float type.
    """
    if truth.ndim == 1:
        return F.cross_entropy(outputs, truth)
    if truth.dtype == torch.bool:
        return F.binary_cross_entropy_with_logits(outputs, truth.to(outputs.dtype))
    return F.mse_loss(outputs, truth)


def standardised(truth: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return quantities ``(N, T)`` with mean 0 and variance 1, float32, and what brings answers back to their units.

    One that does not vary becomes 0. Classes and labels stay as they are.
    """
    if truth.dtype != torch.float64:
        return truth, lambda answers: answers
    mean, spread = truth.mean(dim=0), truth.std(dim=0, correction=0)
    spread = spread.where(spread > 0, 1.0)
    return ((truth - mean) / spread).float(), lambda answers: answers.double() * spread + mean
