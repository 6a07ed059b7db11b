"""Answers that nothing can be learned from, refused before any picture is read."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from diptych.errors import DataError

FEW = 20
"""So many names may each have a single picture."""
MOST = 20_000
"""Classes or labels that a probe is fitted to at most: most sets have far fewer, and most mistakes more."""


def refuse_unique(data: str, counts: Mapping[str, int], called: str) -> None:
    """Refuse names that tell pictures apart instead of saying what they show.

    Args:
        data: as the user named it.
        counts: pictures of each class or label.
        called: ``class`` or ``label``.

    Raises:
        DataError: more than half of many names have a single picture.
    """
    single = [name for name, count in counts.items() if count == 1]
    if len(counts) > FEW and 2 * len(single) > len(counts):
        plural = f"{called}es" if called == "class" else f"{called}s"
        raise DataError(
            f"{len(single):,} of the {len(counts):,} {plural} of {data} have a single picture (such as '{single[0]}'), "
            "as names of files or numbers have: use another column, or --targets COLUMN for numbers"
        )


def refuse_many(data: str, count: int, called: str) -> None:
    """Refuse more outputs than a probe has use for.

    Raises:
        DataError: there are more than ``MOST``.
    """
    if count > MOST:
        raise DataError(
            f"{data} has {count:,} {called}, and a probe learns {MOST:,} at most: use a column with fewer, or "
            "--targets COLUMN for numbers"
        )


def refuse_unanswerable(names: Sequence[str], train: Tensor, test: Tensor) -> None:
    """Refuse quantities that do not vary, labels of which none varies, and parts too small to tell.

    Args:
        names: of the quantities or labels.
        train: ``(N, T)`` float64 or ``(N, K)`` bool, of the pictures to learn from.
        test: the same of those to test on.

    Raises:
        DataError: the first of these that is found.
    """
    for part, truth in (("learn from", train), ("test on", test)):
        if len(truth) < 2:
            raise DataError(
                f"there {'is 1 picture' if len(truth) else 'are 0 pictures'} to {part}, and two are needed at least: "
                "add rows, or raise --limit"
            )
        varies = (truth != truth[0]).any(dim=0)
        if truth.dtype == torch.bool:
            if not varies.any():
                raise DataError(
                    f"the {len(truth):,} pictures to {part} all have the same labels: add others, or raise --limit"
                )
        elif not varies.all():
            place = varies.tolist().index(False)
            raise DataError(
                f"'{names[place]}' is {truth[0, place].item():g} for all {len(truth):,} pictures to {part}, so that it "
                "cannot be told: leave it out of --targets, or raise --limit"
            )
