"""Choosing pictures: some of many, and which to learn from and which to test on."""

import torch

from diptych.data.source import Source, Subset
from diptych.errors import DataError
from diptych.seeding import DRAW, SPLIT, generator


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

    Args:
        source: pictures that all have labels.
        seed: which pictures go where.
        test_fraction: share of each class to test on, above 0 and below 1.

    Raises:
        DataError: a picture has no label, or a class has a single picture.
    """
    members: dict[int, list[int]] = {}
    for index in range(len(source)):
        label = source.label(index)
        if label is None:
            raise DataError(
                f"{source.name} cannot be split by class: {source.name_of(index)} has no label; put every picture into "
                "a folder named after its class, or list them in a CSV file with the header file,label"
            )
        members.setdefault(label, []).append(index)
    train: list[int] = []
    test: list[int] = []
    for label, indices in sorted(members.items()):
        if len(indices) == 1:
            raise DataError(
                f"class '{source.classes[label]}' of {source.name} has a single picture "
                f"({source.name_of(indices[0])}), which cannot be both learned from and tested on; add pictures to the "
                "class, remove it, or raise --limit"
            )
        shuffled = torch.randperm(len(indices), generator=generator(seed, SPLIT, label)).tolist()
        count = min(max(round(len(indices) * test_fraction), 1), len(indices) - 1)
        test += [indices[place] for place in shuffled[:count]]
        train += [indices[place] for place in shuffled[count:]]
    return Subset(source, sorted(train)), Subset(source, sorted(test))
