"""Label budgets: which of the training pictures lend their labels to the probes.

The subsets of one seed are nested (the 1 % are part of the 5 %), stratified, and a function of the labels and the seed
alone, so that every contender, and every other run evaluated on the same pictures, meets the same ones.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diptych.errors import ConfigError, DataError
from diptych.evaluation.truth import strata
from diptych.seeding import SPLIT, generator

LEAST = 2
"""Pictures of a class that a budget takes at least, where there are as many: one to fit on, one to choose by."""
_STREAM = 2
"""Parts this stream of random numbers from those of the other splits."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How many labels may be used."""

    told: str
    """As it was typed: ``1%``, ``500``."""
    share: float | None = None
    """Of all training pictures, above 0 and at most 1; None where a number of pictures was given."""
    pictures: int | None = None
    """How many; None where a share was given."""

    def of(self, total: int) -> float:
        """Return the share 0..1 of ``total`` training pictures.

        Raises:
            DataError: more pictures are asked for than there are.
        """
        if self.share is not None:
            return self.share
        assert self.pictures is not None
        if self.pictures > total:
            raise DataError(
                f"--labels {self.pictures}: there are {total} pictures to learn from; give that many or fewer, or 100%"
            )
        return self.pictures / total


ALL = Budget(told="100%", share=1.0)


def parse_budgets(text: str) -> tuple[Budget, ...]:
    """Read ``1%,10%,100%`` or ``50,500`` (numbers of pictures), smallest first as they have to be.

    Raises:
        ConfigError: something else was typed, a share out of range, or one budget twice.
    """
    budgets = []
    for word in text.replace(" ", "").split(","):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", word)
        value = float(match[1]) if match else 0.0
        if not match or not value or (match[2] and value > 100) or not (match[2] or value.is_integer()):
            raise ConfigError(
                f"--labels cannot be '{text}': give shares above 0% and up to 100%, or whole numbers of pictures, such "
                "as 1%,10%,100% or 50,500"
            )
        if match[2]:
            budgets.append(Budget(told=f"{value:g}%", share=value / 100))
        else:
            budgets.append(Budget(told=f"{int(value)}", pictures=int(value)))
    if repeated := [budget.told for place, budget in enumerate(budgets) if budget in budgets[:place]]:
        raise ConfigError(f"--labels names {repeated[0]} twice: once is enough")
    return tuple(budgets)


def ordered(budgets: Sequence[Budget], total: int) -> list[Budget]:
    """Return budgets from the smallest to the largest, for ``total`` training pictures.

    Raises:
        DataError: as for ``Budget.of``.
    """
    return sorted(budgets, key=lambda budget: budget.of(total))


def subset(labels: Tensor, budget: Budget, seed: int) -> Tensor:
    """Return the rows whose labels may be used, ``(n,)`` int64, sorted.

    Of each class its share is taken, and at least two pictures: a class that is rare has more than its share where the
    budget is small.

    Args:
        labels: ``(N,)`` int64, of all training pictures; what stands for classes otherwise is told by ``truth.strata``.
        budget: how many.
        seed: which.
    """
    share = budget.of(len(labels))
    if share == 1:
        return torch.arange(len(labels))
    taken = []
    labels = strata(labels)
    for label in sorted(set(labels.tolist())):
        rows = (labels == label).nonzero()[:, 0]
        count = min(len(rows), max(LEAST, math.floor(share * len(rows) + 0.5)))
        order = torch.randperm(len(rows), generator=generator(seed, SPLIT, label, _STREAM))
        taken.append(rows[order[:count]])
    return torch.cat(taken).sort().values
