"""Pictures that belong together (a patient, a scene, the tiles of one picture), and what that does.

Test pictures of a group are right or wrong together: what is drawn by chance is the group (``numbers.resampling``).
And what is tested on, or chosen by, is apart from what is learned from only where groups stay whole.
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


def take_whole(labels: Tensor, groups: Tensor, fraction: float, random: torch.Generator) -> Tensor:
    """Take whole groups, about a share of all rows: ``(N,)`` bool.

    Groups are taken in random order, each that brings the number of rows nearer to the share wanted and leaves every
    class a row; where none does, the first of the smallest that leave every class one, if there is such a group.

    Args:
        labels: ``(N,)`` int64 classes.
        groups: ``(N,)`` int64, from 0.
        fraction: 0..1.
        random: of the order.
    """
    members = torch.split(groups.argsort(stable=True), torch.bincount(groups).tolist())
    left, wanted, taken = torch.bincount(labels), fraction * len(labels), 0
    is_taken = torch.zeros(len(labels), dtype=torch.bool)
    possible: list[int] = []
    for place in torch.randperm(len(members), generator=random).tolist():
        rows = members[place]
        after = left - torch.bincount(labels[rows], minlength=len(left))
        if not len(rows) or not bool((after[left > 0] > 0).all()):
            continue
        possible.append(place)
        if abs(taken + len(rows) - wanted) < abs(taken - wanted):
            is_taken[rows] = True
            left, taken = after, taken + len(rows)
    if not taken and possible:
        is_taken[members[min(possible, key=lambda place: (len(members[place]), place))]] = True
    return is_taken
