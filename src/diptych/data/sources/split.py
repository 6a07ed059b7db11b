"""Choosing pictures: some of many, and which to learn from and which to test on.

Where pictures belong to groups (a patient, a scene, a lot), a group is never parted: a test on the same patient would
praise a model for knowing the patient. No group-wise split can hit the fraction of every class exactly; ours goes
through the groups in random order and takes what brings the classes nearer to it, as iterative stratification does
(Sechidis, Tsoumakas and Vlahavas 2011), but for whole groups.
"""

from collections import Counter
from collections.abc import Iterable

import torch

from diptych.data.sources.source import Source, Subset
from diptych.errors import DataError
from diptych.seeding import DRAW, SPLIT, generator

ATTEMPTS = 20
"""Orders of the groups that are tried until every class is in both parts."""
PASSES = 10
"""Times that the groups of one order are gone through again at most."""


def draw(source: Source, limit: int, seed: int = 0) -> Source:
    """Return ``limit`` pictures drawn evenly at random, in their old order; all of them where there are no more.

    Args:
        source: the pictures.
        limit: how many, at least 1.
        seed: fixed, so that the same command always draws the same pictures, whatever the run's own seed.

    Raises:
        DataError: ``limit`` is below 1.
    """
    if limit < 1:
        raise DataError(f"--limit {limit} leaves no pictures; give 1 or more, or leave it out")
    if limit >= len(source):
        return source
    chosen = torch.randperm(len(source), generator=generator(seed, DRAW))[:limit]
    return Subset(source, sorted(chosen.tolist()))


def stratified_split(source: Source, seed: int, test_fraction: float = 0.2) -> tuple[Source, Source]:
    """Split labelled pictures into ``(train, test)``, each class by the same fraction and with a picture in both.

    Where the source knows groups, all pictures of a group are on one side, and the fraction is met as nearly as whole
    groups allow; a picture without a group is a group of its own.

    Args:
        source: pictures that all have labels.
        seed: which pictures go where.
        test_fraction: share of each class to test on, above 0 and below 1.

    Raises:
        DataError: a picture has no label, a class has a single picture or group, or the groups leave no split with
            every class in both parts.
    """
    members: dict[int, list[int]] = {}
    for index in range(len(source)):
        label = source.label(index)
        if label is None:
            raise DataError(
                f"{source.name} cannot be split by class: {source.name_of(index)} has no label; put every picture into "
                "a folder named after its class, or list them in a CSV file with the header path,label"
            )
        members.setdefault(label, []).append(index)
    for label, indices in members.items():
        if len(indices) == 1:
            raise DataError(
                f"class '{source.classes[label]}' of {source.name} has a single picture "
                f"({source.name_of(indices[0])}), which cannot be both learned from and tested on; add pictures to the "
                "class, remove it, or raise --limit"
            )
    if any(source.group(index) is not None for index in range(len(source))):
        test = _whole_groups(source, members, seed, test_fraction)
    else:
        test = _by_class(members, seed, test_fraction)
    train = [index for index in range(len(source)) if index not in test]
    return Subset(source, train), Subset(source, sorted(test))


def _by_class(members: dict[int, list[int]], seed: int, test_fraction: float) -> set[int]:
    """Return the pictures to test on: of each class its share, whatever the other classes are."""
    test: set[int] = set()
    for label, indices in members.items():
        shuffled = torch.randperm(len(indices), generator=generator(seed, SPLIT, label)).tolist()
        test.update(indices[place] for place in shuffled[: _share(len(indices), test_fraction)])
    return test


def _share(size: int, test_fraction: float) -> int:
    """Return how many of a class's pictures to test on, leaving one on either side."""
    return min(max(round(size * test_fraction), 1), size - 1)


def _whole_groups(source: Source, members: dict[int, list[int]], seed: int, test_fraction: float) -> set[int]:
    """Return the pictures to test on: whole groups."""
    groups: dict[object, list[int]] = {}
    for index in range(len(source)):
        name = source.group(index)
        groups.setdefault(index if name is None else name, []).append(index)
    counts = [Counter(source.label(index) for index in indices) for indices in groups.values()]
    spread = Counter(label for count in counts for label in count)
    for label, indices in members.items():
        if spread[label] == 1:
            raise DataError(
                f"class '{source.classes[label]}' of {source.name}: all its pictures belong to the group "
                f"'{source.group(indices[0])}', which cannot be both learned from and tested on; add pictures of "
                "another group, remove the class, or raise --limit"
            )
    sizes = {label: len(indices) for label, indices in members.items()}
    for attempt in range(ATTEMPTS):
        order = torch.randperm(len(counts), generator=generator(seed, SPLIT, attempt)).tolist()
        balance = _Balance(sizes, test_fraction)
        chosen = _choose_groups(counts, order, balance)
        if not (missing := balance.missing()):
            return {index for place, indices in enumerate(groups.values()) if place in chosen for index in indices}
    raise DataError(
        f"{source.name} cannot be split by groups: class '{source.classes[missing[0]]}' is left on one side only, as "
        "its groups hold other classes too; add pictures of other groups, or remove the class"
    )


class _Balance:
    """How far the pictures taken for the test are from the share wanted of each class."""

    def __init__(self, sizes: dict[int, int], test_fraction: float) -> None:
        self._sizes, self._taken = sizes, dict.fromkeys(sizes, 0)
        self._wanted = {label: _share(size, test_fraction) for label, size in sizes.items()}

    def change(self, count: Counter[int | None], sign: int, must: bool) -> float:
        """Return by how much the squared error of the shares grows when a group is taken (1) or given back (-1).

        Args:
            count: pictures of the group by class.
            sign: 1 or -1.
            must: whether a class that is on one side only counts more than any share.
        """
        change = 0.0
        for label, number in count.items():
            assert label is not None
            before = self._taken[label]
            after = before + sign * number
            change += self._error(label, after, must) - self._error(label, before, must)
        return change

    def move(self, count: Counter[int | None], sign: int) -> None:
        """Take a group, or give it back."""
        for label, number in count.items():
            assert label is not None
            self._taken[label] += sign * number

    def missing(self) -> list[int]:
        """Return the classes that are on one side only."""
        return [label for label, size in self._sizes.items() if not 0 < self._taken[label] < size]

    def _error(self, label: int, taken: int, must: bool) -> float:
        size = self._sizes[label]
        alone = len(self._sizes) if must and not 0 < taken < size else 0
        return ((taken - self._wanted[label]) / size) ** 2 + alone


def _choose_groups(counts: list[Counter[int | None]], order: list[int], balance: _Balance) -> set[int]:
    """Return the places of the groups to test on."""
    chosen: set[int] = set()

    def go_through(places: Iterable[int], must: bool) -> bool:
        moved = False
        for place in places:
            sign = -1 if place in chosen else 1
            if balance.change(counts[place], sign, must) < 0:
                balance.move(counts[place], sign)
                chosen.symmetric_difference_update({place})
                moved = True
        return moved

    # First what fits the shares; then, smallest groups first, what a class needs to be on both sides at all.
    go_through(order, must=False)
    smallest = sorted(order, key=lambda place: counts[place].total())
    for _ in range(PASSES):
        if not go_through(smallest, must=True):
            break
    return chosen
