"""Training pictures that are held out, so that a probe's settings are chosen on what it has not learned from."""

import torch
from torch import Tensor

from diptych.evaluation.groups import take_whole
from diptych.evaluation.truth import strata
from diptych.seeding import SPLIT, generator

HELD_OUT = 0.2
"""Share of the training pictures."""
_STREAM = 1
"""Parts this stream of random numbers from those of the other splits."""


def hold_out(
    labels: Tensor, seed: int, fraction: float = HELD_OUT, groups: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Split pictures in two: ``(rows to fit on, rows held out)``, int64 and sorted.

    Pictures of one group (a patient, a scene) stay together: half of a patient is too easily told by the other half,
    and settings chosen so would trust the features too much. Where that leaves nothing to hold out, as where each
    class is a single group, and where there are no groups, they are split by class: a class of two or more pictures
    has at least one on each side; one with a single picture keeps it for fitting.

    Args:
        labels: ``(N,)`` classes, or see ``truth``; what stands for classes there is told by ``truth.strata``.
        seed: the same one holds out the same pictures.
        fraction: 0..1, of the pictures of each class; met as nearly as whole groups allow.
        groups: ``(N,)`` int64, from 0; None where each picture stands for itself.
    """
    alike = strata(labels)
    is_held = torch.zeros(len(alike), dtype=torch.bool) if groups is None else whole(alike, groups, seed, fraction)
    if not is_held.any():
        for label in set(alike.tolist()):
            rows = (alike == label).nonzero()[:, 0]
            count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
            order = torch.randperm(len(rows), generator=generator(seed, SPLIT, label, _STREAM))
            is_held[rows[order[:count]]] = True
    return (~is_held).nonzero()[:, 0], is_held.nonzero()[:, 0]


def whole(labels: Tensor, groups: Tensor, seed: int, fraction: float = HELD_OUT) -> Tensor:
    """Tell which rows ``(N,)`` bool are held out where groups stay whole, as ``groups.take_whole`` takes them."""
    return take_whole(labels, groups, fraction, generator(seed, SPLIT, 0, 0, _STREAM))
