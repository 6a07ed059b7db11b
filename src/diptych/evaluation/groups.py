"""Test pictures that belong together (a patient, a scene, the tiles of one picture), and what that does to intervals.

Such pictures are right or wrong together: what is drawn by chance is the group. See ``numbers.resampling``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from diptych.data.sources.source import Source
from diptych.data.stores.memory import MemoryStore
from diptych.errors import printable

FEW = 50
"""Test pictures, or groups of them, below which intervals are so wide that it is said."""


def groups_of(source: Source, store: MemoryStore) -> list[str | None]:
    """Return what each picture of a store belongs to; None where nothing is known."""
    return [source.group(place) for place in store.source_indices.tolist()]


def together(groups: Sequence[str | None]) -> Tensor | None:
    """Number the groups of M pictures from 0, ``(M,)`` int64; a picture without a group is one of its own.

    Returns:
        None where there is nothing to draw but pictures: each stands for itself, or all are of one group.
    """
    places: dict[object, int] = {}
    numbers = [places.setdefault(place if name is None else name, len(places)) for place, name in enumerate(groups)]
    return torch.tensor(numbers) if 1 < len(places) < len(numbers) else None


def grouping(groups: Sequence[str | None]) -> list[str]:
    """Say in sentences what intervals rest on, where that is not simply many test pictures."""
    said, numbers = [], together(groups)
    drawn, what = (len(groups), "pictures") if numbers is None else (int(numbers.max()) + 1, "groups")
    if numbers is not None:
        said.append(
            f"the {len(groups):,} test pictures belong to {drawn:,} groups, which intervals take as drawn whole"
        )
    elif len(groups) > 1 and groups[0] is not None and len(set(groups)) == 1:
        said.append(
            f"all test pictures belong to the group '{printable(groups[0])}': intervals say nothing of other groups"
        )
    if drawn < FEW:
        said.append(f"{drawn} {what} to test on are few: intervals are wide, and small gains cannot be shown")
    return said
