"""Labelled pictures to learn a probe from and to test it on: which ones, how they were split, and what was skipped."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from diptych.data.decoding.pixels import BadPicture, PixelFormat
from diptych.data.sources.by_time import time_split
from diptych.data.sources.chosen import tiled
from diptych.data.sources.open import open_data
from diptych.data.sources.source import Source, digest
from diptych.data.sources.split import draw, stratified_split
from diptych.data.stores.memory import MemoryStore, build_memory_store
from diptych.errors import DataError
from diptych.evaluation.answers import refuse_many, refuse_unanswerable, refuse_unique
from diptych.evaluation.groups import groups_of, together
from diptych.evaluation.random_split import random_split
from diptych.evaluation.targets import Columns, Targets, read_targets
from diptych.progress import Terminal

TEST_FRACTION = 0.2


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where the training and the test pictures come from; every picture has a label, or targets."""

    name: str
    train: Source
    test: Source
    found: str
    """What ``data`` holds, for people."""
    note: str
    """How they were split, for people."""
    fingerprint: str
    targets: Targets | None = None
    """Several labels a picture, or quantities; None where each has one class."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Decoded pictures with what is known of them: places in one list of classes for both parts, or see ``truth``."""

    train: MemoryStore
    test: MemoryStore
    train_labels: Tensor
    """``(N,)`` int64; ``(N, K)`` bool of several labels; ``(N, T)`` float64 of quantities."""
    test_labels: Tensor
    """The same of the test pictures."""
    classes: tuple[str, ...]
    """Those that have training pictures; or the names of the labels, or of the quantities."""
    bad: list[BadPicture]
    """Left out because they could not be read."""
    train_groups: Tensor | None = None
    """``(N,)`` int64, which training pictures belong together, see ``groups.together``; None where none do."""


def open_labelled(
    data: str,
    data_dir: str | None,
    limit: int | None,
    seed: int,
    tile: int | None = None,
    columns: Columns | None = None,
    *,
    by_time: bool = False,
) -> Sources:
    """Find the labelled pictures and split them where ``data`` holds no ``test/``.

    Args:
        data: as for ``open_data``.
        data_dir: as for ``open_data``.
        limit: pictures drawn from each of ``train/`` and ``test/``, or from all where there is no such split.
        seed: of the split.
        tile: pixels a side of the squares that each picture is cut into, as they were for pretraining.
        columns: of a CSV or Parquet file, that hold several labels a picture, or quantities; None for classes.
        by_time: test on the newest pictures instead of such as are drawn at random.

    Raises:
        DataError: there is no such data, it has no labels, one class only, classes that name single pictures, or test
            classes without training pictures; or what the columns hold cannot be learned.
    """
    splits = tiled(open_data(data, data_dir), tile)
    if splits.test is None:
        _refuse_empty_test(Path(data) / "test", splits.train)
    train, test = (_drawn(source, limit) for source in (splits.train, splits.test or splits.train))
    targets = None
    if columns is not None:
        targets = read_targets(data, columns, (train, test))
    else:
        for source in (train, test):
            _refuse_unlabelled(source, splits.note)
        counts = Counter(_names(splits.train))
        refuse_unique(data, counts, "class")
        refuse_many(data, len(counts), "classes")
    drawn = f"; {limit} drawn by a fixed seed" if limit else ""
    if by_time and splits.test is not None:
        raise DataError(f"--split time: {data} says itself what to test on ({splits.note}): leave the option out")
    if by_time:
        parts = time_split(train, TEST_FRACTION)
        train, test = parts.train, parts.test
        note = f"split by time: the pictures of {parts.since} and later are tested on"
        note += f"; {parts.left_out:,} later ones are left out, whose groups are learned from" if parts.left_out else ""
        note += f"{drawn} before the split" if drawn else ""
    elif splits.test is None:
        grouped = any(train.group(index) is not None for index in range(len(train)))
        if targets:
            train, test = random_split(train, targets.of(train), seed, TEST_FRACTION)
        else:
            train, test = stratified_split(train, seed, TEST_FRACTION)
        how = "random" if targets else "stratified"
        note = f"no part to test on: a {how} split by seed {seed}, 80 % to learn from and 20 % to test on"
        note += ", no group parted" if grouped else ""
        note += f"{drawn} before the split" if drawn else ""
    else:
        note = f"the probes learn from {train.name} and are tested on {test.name}"
        note += f"{drawn} from each" if drawn else ""
    if targets:
        targets = targets.learnable(train)
        refuse_unanswerable(targets.names, targets.of(train), targets.of(test))
        note += f"; {targets.note}" if targets.note else ""
    else:
        _class_names(_names(train), _names(test), train.classes)
    prints = [part.fingerprint for part in (splits.train, splits.test) if part]
    return Sources(
        name=data,
        train=train,
        test=test,
        found=splits.note,
        note=note,
        fingerprint=digest([*prints, *(targets.prints if targets else ())]),
        targets=targets,
    )


def read_labelled(sources: Sources, size: int, pixels: PixelFormat, terminal: Terminal) -> Labelled:
    """Decode both parts to ``(C, size, size)`` of the kind ``pixels``, without the pictures that cannot be read.

    Raises:
        DataError: no picture can be read, they do not fit into memory, a class has lost its last training picture, or
            what is left of the targets cannot be learned.
    """
    bad: list[BadPicture] = []
    train, test = (_read(source, size, pixels, bad, terminal) for source in (sources.train, sources.test))
    groups = together(groups_of(sources.train, train))
    if targets := sources.targets:
        truth = [
            targets.of(source, store.source_indices.tolist())
            for source, store in ((sources.train, train), (sources.test, test))
        ]
        refuse_unanswerable(targets.names, *truth)
        return Labelled(
            train=train,
            test=test,
            train_labels=truth[0],
            test_labels=truth[1],
            classes=targets.names,
            bad=bad,
            train_groups=groups,
        )
    train_names, test_names = (
        [names[place] for place in store.source_indices.tolist()]
        for names, store in ((_names(sources.train), train), (_names(sources.test), test))
    )
    classes = _class_names(train_names, test_names, sources.train.classes)
    places = {name: place for place, name in enumerate(classes)}
    return Labelled(
        train=train,
        test=test,
        train_labels=torch.tensor([places[name] for name in train_names]),
        test_labels=torch.tensor([places[name] for name in test_names]),
        classes=classes,
        bad=bad,
        train_groups=groups,
    )


def _read(source: Source, size: int, pixels: PixelFormat, bad: list[BadPicture], terminal: Terminal) -> MemoryStore:
    with terminal.bar("reading pictures", len(source)) as bar:
        return build_memory_store(source, size, pixels, bad.append, lambda done, _: bar.update(done))


def _drawn(source: Source, limit: int | None) -> Source:
    return source if limit is None else draw(source, limit)


def _names(source: Source) -> list[str]:
    """The class of each picture, by name: train/ and test/ may number their classes differently."""
    labels = [source.label(index) for index in range(len(source))]
    return [source.classes[label] for label in labels if label is not None]


def _refuse_empty_test(folder: Path, train: Source) -> None:
    """Refuse to split at random where somebody meant to say what to test on."""
    if folder.is_dir() and not any(train.name_of(index).startswith("test/") for index in range(len(train))):
        raise DataError(
            f"{folder} holds no pictures: put those to test on there, or remove the folder to have a fifth drawn"
        )


def _refuse_unlabelled(source: Source, found: str) -> None:
    if any(source.label(index) is None for index in range(len(source))):
        raise DataError(
            f"{source.name} has no labels, which evaluating needs: put each picture into a folder named after its "
            f"class (CLASS/picture.jpg, two classes or more), or give a CSV file with the header path,label ({found})"
        )


def _class_names(train: Sequence[str], test: Sequence[str], order: Sequence[str]) -> tuple[str, ...]:
    """Return the classes with training pictures, in the source's order."""
    present = set(train)
    if len(present) < 2:
        raise DataError(
            f"evaluating needs two classes or more, and all training pictures show '{next(iter(present))}': add "
            "another class, or raise --limit"
        )
    if missing := sorted(set(test) - present):
        raise DataError(
            f"some test pictures show '{missing[0]}', but no training picture does: add some to the training pictures, "
            "or raise --limit"
        )
    return tuple(name for name in order if name in present)
