"""How many pictures each class has: which of two is the positive one, and when top-1 misleads."""

from collections.abc import Sequence

import torch
from torch import Tensor

from diptych.errors import printable

COMMONEST = 0.5
"""A class with a larger share of the pictures is named …"""
EVEN = 1.5
"""… if the share is also so many times an even one: of two classes one nearly always has more than half."""
TIMES = 10
"""Classes are imbalanced, too, if the commonest has more than so many times the pictures of the rarest."""


def positive_class(train_labels: Tensor, classes: Sequence[str]) -> int | None:
    """Choose the class of two that a binary metric is about: the rarer in training, or of a tie the last by name.

    Args:
        train_labels: ``(N,)`` int64, places in ``classes``.
        classes: None is returned where they are not two.
    """
    if len(classes) != 2:
        return None
    counts = torch.bincount(train_labels, minlength=2).tolist()
    last = max((0, 1), key=lambda place: classes[place])
    return last if counts[0] == counts[1] else counts.index(min(counts))


def imbalance(labels: Tensor, classes: Sequence[str]) -> str | None:
    """Say in a sentence what a skewed number of pictures per class does to top-1, and what to read instead.

    Args:
        labels: ``(M,)`` int64, places in ``classes``; classes without pictures play no part.
        classes: names.
    """
    counts = torch.bincount(labels, minlength=len(classes))
    present = counts.nonzero()[:, 0].tolist()
    most, least = max(present, key=counts.__getitem__), min(present, key=counts.__getitem__)
    share, times = counts[most].item() / len(labels), counts[most].item() / counts[least].item()
    common, rare = printable(classes[most]), printable(classes[least])
    instead = "read the balanced accuracy or macro-F1 instead of top-1"
    if len(present) > 1 and share > COMMONEST and share > EVEN / len(present):
        return f"{100 * share:.1f} % of the pictures are '{common}', so always answering that scores as much: {instead}"
    if times > TIMES:
        return f"'{common}' has {times:.0f} times the pictures of '{rare}', which hardly counts in top-1: {instead}"
    return None
