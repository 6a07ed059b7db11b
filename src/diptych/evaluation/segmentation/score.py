"""Intersection over union: how well predicted regions cover the true ones, and how sure that is.

A class's IoU is the pixels that are rightly given to it, over those that are its own or given to it, counted over all
test pictures (Everingham et al. 2010, the PASCAL VOC challenge). mIoU is the mean over the classes that test masks
show; 1 is perfect, and a constant answer reaches its class's share of the pixels divided by the number of classes. A
class that is predicted and nowhere true takes IoU from those that it covers, and is no zero of its own.

Pixels of one picture are not independent, so intervals come from drawing whole test pictures (or groups of them) anew,
the same for all contenders; a draw's mean is over the classes that it shows.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diptych.evaluation.numbers.headline import MIOU
from diptych.evaluation.numbers.resampling import Resampled
from diptych.evaluation.numbers.statistics import Estimate, Gain, resampled_metric
from diptych.evaluation.segmentation.masks import IGNORED


@dataclass(frozen=True, kw_only=True)
class PixelScore:
    """What predicted masks are worth, picture by picture; pixels of which nothing is known do not count."""

    right: Tensor
    """``(M, K)`` float64: pixels rightly given to each class."""
    true: Tensor
    """``(M, K)`` float64: pixels of each class."""
    given: Tensor
    """``(M, K)`` float64: pixels given to each class."""

    @property
    def per_class(self) -> list[float | None]:
        """IoU of each class over all pictures, 0..1; None where no picture shows it."""
        found = self._ious(torch.ones(1, len(self.true), dtype=torch.float64))[0]
        return [None if value != value else value for value in found.tolist()]

    @property
    def pixel_accuracy(self) -> float:
        """Part of the pixels that are given to their class, 0..1."""
        return float(self.right.sum() / self.true.sum())

    def resampled(self, groups: Tensor | None = None) -> Resampled:
        """Draw the mIoU with other test pictures; ``groups`` are those of ``resampling.resample``."""
        return resampled_metric(
            lambda weights: self._ious(weights).nanmean(dim=1, keepdim=True), len(self.true), groups=groups
        )

    def _ious(self, weights: Tensor) -> Tensor:
        """Return IoUs ``(B, K)`` of pictures drawn as often as weights ``(B, M)`` say, NaN of classes not shown."""
        right, true, given = (weights @ counts for counts in (self.right, self.true, self.given))
        return torch.where(true > 0, right / (true + given - right), torch.nan)

    def to_dict(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "pixel_accuracy": self.pixel_accuracy,
            "per_class": dict(zip(classes, self.per_class, strict=True)),
        }


def score(predicted: Tensor, masks: Tensor, classes: int) -> PixelScore:
    """Count pixels.

    Args:
        predicted: ``(M, S, S)`` uint8, places of classes.
        masks: ``(M, S, S)`` uint8, places of classes or 255.
        classes: K.
    """
    right, true, given = (torch.zeros(len(masks), classes, dtype=torch.float64) for _ in range(3))
    for row, (answer, mask) in enumerate(zip(predicted, masks, strict=True)):
        known = mask != IGNORED
        answer, mask = answer[known].long(), mask[known].long()
        right[row] = mask[answer == mask].bincount(minlength=classes)
        true[row] = mask.bincount(minlength=classes)
        given[row] = answer.bincount(minlength=classes)
    return PixelScore(right=right, true=true, given=given)


def within(estimate: Estimate) -> Estimate:
    """Cut an interval to what an IoU can be: draws may lie beyond."""
    return replace(estimate, low=max(0.0, estimate.low), high=min(1.0, estimate.high))


def possible(gain: Gain) -> Gain:
    """Cut an interval to what two IoUs can differ by."""
    return replace(gain, low=max(-MIOU.scale, gain.low), high=min(MIOU.scale, gain.high))
