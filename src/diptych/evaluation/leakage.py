"""Test pictures of which the answer has leaked: met in training as a copy, as nearly the same picture, or as one group.

A probe that has learned from a picture is not tested on it. Krizhevsky's CIFAR-10 itself has such pictures (Barz and
Denzler 2019, "Do we train on test data? Purging CIFAR of near-duplicates", arXiv 1902.00423, who look at the features
of a network trained with labels, and judge by eye; here no labels are asked and no person).

Whether a backbone saw the test pictures, without their labels, during pretraining is another question, and is told by
the hashes that a run keeps.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diptych.data.stores.memory import MemoryStore
from diptych.evaluation.near import Near, near_pairs

NAMED = 3
"""Groups that a sentence names."""

Groups = Sequence[str | None]
"""What each picture of a store belongs to; None where nothing is known."""


@dataclass(frozen=True, kw_only=True)
class SharedGroup:
    """A group (a patient, a scene, a lot) with pictures in both parts."""

    name: str
    train: int
    """Pictures to learn from."""
    test: int
    """Pictures to test on."""


@dataclass(frozen=True, kw_only=True)
class Leaks:
    """What the test pictures share with the training pictures; all places are those in the two stores."""

    pictures: int
    """Test pictures in all, M."""
    copies: Tensor
    """``(P, 2)`` int64: a test picture, and the first training picture of exactly the same pixels."""
    near: Near
    """Pairs that look the same but have other pixels; test pictures with an exact copy are not among them."""
    groups: tuple[SharedGroup, ...]
    """Sorted by name."""
    grouped: Tensor
    """``(M,)`` bool: the test picture's group has training pictures."""

    @property
    def copied(self) -> Tensor:
        """``(M,)`` bool: a training picture has exactly the same pixels."""
        return self._mask(self.copies)

    @property
    def alike(self) -> Tensor:
        """``(M,)`` bool: no training picture has the same pixels, but one looks the same."""
        return self._mask(self.near.pairs)

    @property
    def tainted(self) -> Tensor:
        """``(M,)`` bool: any of the three; to score without them, index by its opposite."""
        return self.copied | self.alike | self.grouped

    def sentences(self) -> list[str]:
        """Say what was found, for people; nothing where nothing was."""
        total = f"of {self.pictures:,} test pictures"
        said = []
        if copied := int(self.copied.sum()):
            are = "is an exact copy" if copied == 1 else "are exact copies"
            said.append(f"{copied:,} {total} {are} of training pictures")
        if alike := int(self.alike.sum()):
            are = "looks like a training picture" if alike == 1 else "look like training pictures"
            said.append(f"{alike:,} {total} {are} but for compression, brightness, a small cut or mirroring")
        if self.groups:
            names = ", ".join(f"'{group.name}'" for group in self.groups[:NAMED])
            names += ", …" if len(self.groups) > NAMED else ""
            have = "1 group has" if len(self.groups) == 1 else f"{len(self.groups):,} groups have"
            grouped = int(self.grouped.sum())
            said.append(
                f"{have} training pictures too ({names}): {grouped:,} {total} {'is' if grouped == 1 else 'are'} no "
                "test of new ones"
            )
        if len(said) > 1:
            tainted = int(self.tainted.sum())
            said.append(
                f"{tainted:,} {total} have leaked in one of these ways or several; {self.pictures - tainted:,} have not"
            )
        return said

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values: the numbers, and the pairs as ``[test, train]``, places in the stores."""
        return {
            "test_pictures": self.pictures,
            "tainted": int(self.tainted.sum()),
            "copied": int(self.copied.sum()),
            "alike": int(self.alike.sum()),
            "grouped": int(self.grouped.sum()),
            "copies": self.copies.tolist(),
            "near": [
                {"test": test, "train": train, "likeness": round(likeness, 3)}
                for (test, train), likeness in zip(self.near.pairs.tolist(), self.near.likeness.tolist(), strict=True)
            ],
            "groups": [{"name": group.name, "train": group.train, "test": group.test} for group in self.groups],
        }

    def _mask(self, pairs: Tensor) -> Tensor:
        return torch.zeros(self.pictures, dtype=torch.bool).index_fill_(0, pairs[:, 0], True)


def find_leaks(
    train: MemoryStore,
    test: MemoryStore,
    train_groups: Groups,
    test_groups: Groups,
    features: tuple[Tensor, Tensor] | None = None,
) -> Leaks:
    """Look for test pictures that were met in training.

    Args:
        train: N pictures that the probes learn from.
        test: M pictures that they are tested on, of the same size.
        train_groups: N names; a picture of None is in no group.
        test_groups: M names.
        features: ``(N, D)`` and ``(M, D)`` float32 of a backbone, which propose pairs to compare beside those that the
            pixels propose: pictures moved farther than two of 32 pixels are found by them alone.
    """
    copies = _copies(train, test)
    near = near_pairs(train.images, test.images, features)
    others = ~torch.isin(near.pairs[:, 0], copies[:, 0])
    near = Near(pairs=near.pairs[others], likeness=near.likeness[others])
    learned, tested = (Counter(name for name in names if name is not None) for names in (train_groups, test_groups))
    groups = tuple(
        SharedGroup(name=name, train=learned[name], test=tested[name]) for name in sorted(learned.keys() & tested)
    )
    grouped = torch.tensor([name is not None and name in learned for name in test_groups])
    return Leaks(pictures=len(test), copies=copies, near=near, groups=groups, grouped=grouped)


def _copies(train: MemoryStore, test: MemoryStore) -> Tensor:
    """Pair each test picture with the first training picture of its pixels, where there is one."""
    known, first = np.unique(train.digests, return_index=True)
    asked = test.digests
    places = np.searchsorted(known, asked).clip(max=len(known) - 1)
    found = np.flatnonzero(known[places] == asked)
    return torch.from_numpy(np.stack([found, first[places[found]]], 1).astype(np.int64))
