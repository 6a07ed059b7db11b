from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from diptych.data.sources.source import Entry, Files
from diptych.errors import DataError
from diptych.evaluation.random_split import random_split


def files(count: int, groups: Sequence[str] | None = None) -> Files:
    return Files("x", [Entry(f"{n:03}", 1, 1) for n in range(count)], lambda name: b"", groups=groups)


def quantities(count: int) -> Tensor:
    return torch.arange(count, dtype=torch.float64)[:, None]


def names(source: object) -> set[str]:
    return {source.name_of(index) for index in range(len(source))}  # type: ignore[attr-defined, arg-type]


def test_a_fifth_is_tested_on_by_the_seed() -> None:
    train, test = random_split(files(50), quantities(50), 0)
    assert (len(train), len(test)) == (40, 10) and names(train).isdisjoint(names(test))
    assert names(random_split(files(50), quantities(50), 0)[1]) == names(test)
    assert names(random_split(files(50), quantities(50), 1)[1]) != names(test)


def test_rare_labels_are_on_both_sides() -> None:
    truth = torch.zeros(100, 2, dtype=torch.bool)
    truth[:60, 0], truth[55:60, 1] = True, True
    for seed in range(5):
        _, test = random_split(files(100), truth, seed)
        tested = truth[[int(name) for name in sorted(names(test))]]
        assert tested.sum(dim=0).tolist() == [12, 1] and len(test) == 20


def test_groups_are_not_parted() -> None:
    groups = [f"g{n // 4}" for n in range(40)]
    for seed in range(5):
        train, test = random_split(files(40, groups), quantities(40), seed)
        sides = [{part.group(index) for index in range(len(part))} for part in (train, test)]
        assert len(test) == 8 and sides[0].isdisjoint(sides[1])
    _, test = random_split(files(9, ["big"] * 5 + ["less"] * 4), quantities(9), 0)
    assert len(test) == 4  # no group is small enough: the least is taken


def test_one_group_is_refused() -> None:
    with pytest.raises(DataError, match="all pictures of x belong to the group 'g', which cannot be both"):
        random_split(files(9, ["g"] * 9), quantities(9), 0)
