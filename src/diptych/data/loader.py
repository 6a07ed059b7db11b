"""Batches in an order that is a function of (seed, epoch) alone.

The whole state of training on them is therefore (epoch, step): resuming needs nothing else, and every process of a run
computes the same order and takes its own slice of each batch.
"""

from collections.abc import Iterator
from contextlib import closing

import torch
from torch import Tensor

from diptych.data.prefetch import ahead
from diptych.data.stores.memory import MemoryStore
from diptych.data.stores.store import Store
from diptych.errors import DataError
from diptych.seeding import ORDER, generator
from diptych.types import Batch

AHEAD = 2
"""Batches read before the training step asks for them, where that takes time."""
LEAST = 2
"""Pictures a process needs in each batch: batch normalisation has no variance over one."""


class Loader:
    """Hands out the pictures of a store, each at most once an epoch.

    Args:
        store: the pictures.
        batch_size: pictures a step over all processes; what is left over at the end of an epoch is left out of it.
        seed: of the order.
        rank: this process's number, 0 .. world - 1.
        world: number of processes.

    Raises:
        DataError: the store holds less than one batch, a process would get a single picture of each batch, or the
            processes cannot share it evenly.
    """

    def __init__(self, store: Store, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        check_batches(len(store), batch_size, world)
        self.store, self.batch_size, self.seed, self.rank, self.world = store, batch_size, seed, rank, world

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch."""
        return len(self.store) // self.batch_size

    def order(self, epoch: int) -> Tensor:
        """Return the order of all pictures in ``epoch``, ``(N,)`` int64."""
        return torch.randperm(len(self.store), generator=generator(self.seed, ORDER, epoch))

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """Yield this process's part of the batches of ``epoch``, from ``first_step`` on."""
        batches = self._batches(epoch, first_step)
        if isinstance(self.store, MemoryStore):
            yield from batches
            return
        with closing(ahead(batches, AHEAD)) as read:
            yield from read

    def _batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        order = self.order(epoch)
        share = self.batch_size // self.world
        for step in range(first_step, self.steps_per_epoch):
            first = step * self.batch_size + self.rank * share
            indices = order[first : first + share]
            yield Batch(images=self.store.read(indices), indices=indices)


def check_batches(pictures: int, batch_size: int, world: int) -> None:
    """Raise ``DataError`` if ``world`` processes cannot learn from so many pictures in batches of that size."""
    if pictures < LEAST * world:
        need = f"{LEAST} or more" if world == 1 else f"{LEAST * world} or more for {_processes(world)}"
        raise DataError(f"{_pictures(pictures)} cannot be learned from: give {need}")
    if batch_size < LEAST * world:
        raise DataError(
            f"a batch of {batch_size} is too small for {_processes(world)}: batch normalisation needs {LEAST} "
            f"pictures or more in each; type --batch-size {LEAST * world} or more"
        )
    if batch_size > pictures:
        raise DataError(
            f"a batch of {batch_size} is larger than the {_pictures(pictures)} there are; type --batch-size "
            f"{_largest(pictures, world)} or less"
        )
    if batch_size % world:
        raise DataError(
            f"a batch of {batch_size} cannot be shared evenly by {_processes(world)}; type --batch-size "
            f"{_largest(batch_size, world)}"
        )


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"


def _processes(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _largest(count: int, world: int) -> int:
    """The largest batch of at most ``count`` that ``world`` processes share evenly."""
    return count // world * world
