"""Which pictures to test on where there are no classes: at random, groups whole, labels as evenly as is simple."""

import torch
from torch import Tensor

from diptych.data.sources.source import Source, Subset
from diptych.errors import DataError
from diptych.evaluation.groups import take_whole
from diptych.evaluation.truth import strata
from diptych.seeding import SPLIT, generator

_STREAM = 3
"""Parts this stream of random numbers from those of the other splits."""


def random_split(source: Source, truth: Tensor, seed: int, test_fraction: float = 0.2) -> tuple[Source, Source]:
    """Split pictures into ``(train, test)``.

    Args:
        source: N pictures.
        truth: ``(N, T)``, see ``truth``: where there are no groups, of each of its strata the same fraction is taken.
        seed: which pictures go where.
        test_fraction: share to test on, above 0 and below 1; met as nearly as whole groups allow.

    Raises:
        DataError: all pictures belong to one group.
    """
    groups: dict[object, list[int]] = {}
    for index in range(len(source)):
        name = source.group(index)
        groups.setdefault(index if name is None else name, []).append(index)
    if len(groups) == 1 and len(source) > 1:
        raise DataError(
            f"all pictures of {source.name} belong to the group '{source.group(0)}', which cannot be both learned from "
            "and tested on; add pictures of another group"
        )
    test = (
        _by_stratum(strata(truth), seed, test_fraction)
        if len(groups) == len(source)
        else _whole(list(groups.values()), len(source), seed, test_fraction)
    )
    train = [index for index in range(len(source)) if index not in test]
    return Subset(source, train), Subset(source, sorted(test))


def _by_stratum(alike: Tensor, seed: int, test_fraction: float) -> set[int]:
    test: set[int] = set()
    for number in sorted(set(alike.tolist())):
        rows = (alike == number).nonzero()[:, 0]
        order = torch.randperm(len(rows), generator=generator(seed, SPLIT, number, _STREAM))
        test.update(rows[order[: round(len(rows) * test_fraction)]].tolist())
    return test


def _whole(groups: list[list[int]], total: int, seed: int, test_fraction: float) -> set[int]:
    numbers = torch.empty(total, dtype=torch.int64)
    for number, places in enumerate(groups):
        numbers[places] = number
    alike = torch.zeros(total, dtype=torch.int64)  # whatever their class
    taken = take_whole(alike, numbers, test_fraction, generator(seed, SPLIT, _STREAM))
    return set(taken.nonzero()[:, 0].tolist())
