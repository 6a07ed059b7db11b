"""From what a run is asked for to its pictures: where they lie, how they are kept, in what order they come."""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from diptych.data.decoding.pixels import Pixels
from diptych.data.loader import Loader
from diptych.data.quarantine import Quarantine
from diptych.data.sources.chosen import open_source
from diptych.data.sources.shards import count as count_pictures
from diptych.data.sources.shards import find_shards, fingerprint, is_shards
from diptych.data.sources.source import Source, digest
from diptych.data.sources.split import draw
from diptych.data.stores.digests import Digests, Met, digests_of, write_digests
from diptych.data.stores.statistics import SAMPLE, Statistics, measure
from diptych.data.stores.store import DiskStore, MemoryStore, Place, Store, build_memory_store, open_store, plan
from diptych.data.stream import StreamLoader
from diptych.distributed import World, barrier, from_main, greatest
from diptych.errors import DataError, byte_size
from diptych.progress import Terminal
from diptych.runs import RunFolder
from diptych.seeding import generator
from diptych.training.config import RunConfig
from diptych.types import Batch

PLACES: tuple[Place, ...] = ("memory", "disk", "none")
"""From the fastest to the most frugal."""
PORTION = 256
"""Pictures measured at a time."""


class Notebook:
    """Where a run notes which pictures it meets, once it has a folder; before that, nothing is noted."""

    def __init__(self) -> None:
        self._met: Met | None = None

    def open(self, run: RunFolder, world: World) -> None:
        """Note in ``run`` from now on."""
        self._met = Met(run.met(world.rank))

    def add(self, digests: Digests) -> None:
        """Note the pictures of a batch by their hashes."""
        if self._met:
            self._met.add(digests)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The pictures of one run, as one of its processes sees them."""

    name: str
    note: str
    """What was found, for people."""
    fingerprint: str
    """Changes when the pictures do."""
    count: int
    """How many an epoch goes through, what is left over for no batch included."""
    loader: Loader | StreamLoader
    quarantine: Quarantine
    notebook: Notebook
    digests: Digests | None
    """A hash of each picture where all have been decoded; None where they are met one by one."""
    drawn: Callable[[int, int], Iterator[Tensor]]
    """``drawn(n, seed)`` yields n pictures, drawn at random, in portions ``(B, C, S, S)``."""
    kept: Place | Literal["shards"]
    """Where they are kept."""
    name_of: Callable[[int], str] | None
    """Name of the picture at a place in the store; None where a batch brings its names itself."""

    def attach(self, run: RunFolder, world: World) -> None:
        """Write what could not be read, and what is learned from, into the run's folder."""
        if self.digests is None:  # each process meets pictures of its own
            self.notebook.open(run, world)
        if self.digests is not None and world.is_main and not run.pictures.exists():
            write_digests(run, self.digests)
        if self.digests is None or world.is_main:
            self.quarantine.log_to(lambda record: run.append(run.quarantine, record))

    def tell(self, terminal: Terminal) -> None:
        """Say at the end what could not be read, where pictures were decoded as they were needed."""
        if self.digests is None:
            _tell(self.quarantine, "were replaced by others of their batches", terminal)
        if isinstance(self.loader, StreamLoader):
            for reason, count in sorted(self.loader.left_out.items()):
                terminal.say(f"{count} members of the shards were passed over ({reason})")

    def names(self, batch: Batch) -> list[str]:
        """Name the pictures of a batch."""
        return [*map(self.name_of, batch.indices.tolist())] if self.name_of else [*batch.names]

    def some(self, count: int, seed: int) -> Tensor:
        """Draw up to ``count`` pictures at random, ``(n, C, S, S)``."""
        return torch.cat([*self.drawn(count, seed)])

    def measured(self, config: RunConfig, world: World, terminal: Terminal) -> RunConfig:
        """Fill in what ``config`` leaves to be measured from the pictures: the same in every process."""
        if not _is_open(config):
            return config
        found = measured_for(config, (portion.numpy() for portion in self.drawn(SAMPLE, 0)))
        mean, std, low, high = (from_main(part, world) for part in (found.mean, found.std, found.low, found.high))
        found = Statistics(mean=mean, std=std, low=low, high=high, pictures=found.pictures)
        terminal.say(
            f"measured {found.pictures:,} pictures: mean {_listed(found.mean)}, standard deviation {_listed(found.std)}"
            + (f", of values {_listed(found.low)} to {_listed(found.high)}" if found.low else "")
        )
        return with_statistics(config, found)


def open_pictures(
    config: RunConfig,
    world: World,
    terminal: Terminal,
    known_bad: Set[str] = frozenset(),
    begun_with: str | None = None,
    *,
    unread: bool = False,
) -> Pictures:
    """Find, decode and order the pictures of a run.

    Args:
        config: of the run.
        world: the processes that share its batches.
        terminal: where to speak.
        known_bad: names of pictures that the run, which is resumed, could not read before.
        begun_with: the fingerprint of the pictures that it was begun with.
        unread: decode none before it is asked for; ``kept`` says where a run would keep them.

    Raises:
        DataError: they have changed, cannot be found, read or kept as asked, or too many cannot be read.
    """
    if is_shards(config.data):
        return _open_stream(config, world, terminal, known_bad, begun_with)
    source, note = open_source(config.data, config.data_dir, config.tile, config.limit, terminal.downloading())
    terminal.say(note)
    _refuse_changed(config, source.fingerprint, begun_with)
    quarantine = Quarantine(config.data, len(source), config.storage.max_bad, known_bad)
    notebook = Notebook()
    place = plan(
        source, config.image_size, config.pixels, config.storage, key=store_key(config), processes=world.local_size
    )
    place = PLACES[greatest(PLACES.index(place), world)]  # processes that find other free memory must still agree
    store = _keep("none" if unread else place, source, config, world, terminal, quarantine, notebook)
    quarantine.check()
    _tell(quarantine, "are left out", terminal)

    def drawn(count: int, seed: int) -> Iterator[Tensor]:
        places = torch.randperm(len(store), generator=generator(seed))[:count]
        return map(store.read, torch.split(places, PORTION))

    return Pictures(
        name=source.name,
        note=note,
        fingerprint=source.fingerprint,
        count=len(store),
        loader=Loader(store, config.train.batch_size, config.train.seed, rank=world.rank, world=world.size),
        quarantine=quarantine,
        notebook=notebook,
        digests=store.digests if isinstance(store, MemoryStore | DiskStore) else None,
        drawn=drawn,
        name_of=lambda place: source.name_of(int(store.source_indices[place])),
        kept=place,
    )


def _refuse_changed(config: RunConfig, found: str, begun_with: str | None) -> None:
    """Refuse to go on with other pictures, before any is decoded and a store replaced."""
    if begun_with is not None and found != begun_with:
        raise DataError(
            f"the pictures in {config.data} have changed since the run was begun; start again with --overwrite"
        )


def _open_stream(
    config: RunConfig, world: World, terminal: Terminal, known_bad: Set[str], begun_with: str | None
) -> Pictures:
    """Open tar shards, which are read from front to back."""
    shards = find_shards(config.data)
    note = f"{config.data} names {len(shards):,} tar shards, streamed in an order drawn anew each epoch"
    terminal.say(note)
    seen = fingerprint(shards)
    _refuse_changed(config, seen, begun_with)
    count = config.limit
    if count is None:
        count = _counted(shards, terminal)
    elif not any("://" in shard for shard in shards):
        count = min(count, _counted(shards, terminal))
    quarantine, notebook = Quarantine(config.data, count, math.inf, known_bad), Notebook()
    loader = StreamLoader(
        shards,
        count,
        config.train.batch_size,
        config.train.seed,
        config.image_size,
        config.pixels,
        world.rank,
        world.size,
        on_bad=quarantine.add,
        on_seen=notebook.add,
        max_bad=config.storage.max_bad,
    )

    def drawn(count: int, seed: int) -> Iterator[Tensor]:
        with closing(loader.epoch(seed)) as batches:
            for batch in batches:
                yield batch.images[:count]
                count -= len(batch.images)
                if count <= 0:
                    return

    return Pictures(
        name=config.data,
        note=note,
        fingerprint=seen,
        count=count,
        loader=loader,
        quarantine=quarantine,
        notebook=notebook,
        digests=None,
        drawn=drawn,
        name_of=None,
        kept="shards",
    )


def _tell(quarantine: Quarantine, what: str, terminal: Terminal) -> None:
    if quarantine.pictures:
        first = quarantine.pictures[0]
        terminal.say(
            f"{len(quarantine)} of {quarantine.total} pictures could not be read and {what}: {first.name} "
            f"({first.reason}){' and others' if len(quarantine) > 1 else ''}; quarantine.jsonl in the run folder lists "
            "them"
        )


def _counted(shards: list[str], terminal: Terminal) -> int:
    with terminal.bar("counting pictures", len(shards)) as bar:
        count = count_pictures(shards, bar.update)
    terminal.say(f"they hold {count:,} pictures")
    return count


def sample_pictures(config: RunConfig, count: int) -> Tensor:
    """Read ``count`` pictures drawn evenly at random, ``(n, C, S, S)``; those that cannot be read are left out.

    Raises:
        DataError: they cannot be found, or none can be read.
    """
    source, _ = open_source(config.data, config.data_dir, config.tile, config.limit)
    few = draw(source, min(count, len(source)), config.train.seed)
    store = build_memory_store(few, config.image_size, config.pixels, lambda bad: None)
    return store.read(torch.randperm(len(store), generator=generator(config.train.seed)))


def measured_for(config: RunConfig, batches: Iterable[Pixels]) -> Statistics:
    """Measure pictures in the unit that ``config`` asks for."""
    return measure(batches, config.depth, config.views.low, config.views.high)


def with_statistics(config: RunConfig, found: Statistics) -> RunConfig:
    """Fill in the mean, standard deviation and range of each channel where ``config`` leaves them to be measured."""
    if not _is_open(config):
        return config
    names = ("mean", "std", "low", "high")
    return replace(
        config,
        views=replace(config.views, **{name: getattr(config.views, name) or getattr(found, name) for name in names}),
    )


def _is_open(config: RunConfig) -> bool:
    views = config.views
    return not views.mean or (config.depth == "float32" and not views.low)


def _keep(
    place: Place,
    source: Source,
    config: RunConfig,
    world: World,
    terminal: Terminal,
    quarantine: Quarantine,
    notebook: Notebook,
) -> Store:
    """Decode the pictures to where they are kept: each process into its memory, or one for all onto the disk."""
    size, storage = config.image_size, config.storage
    key = store_key(config)
    if place == "disk":
        need = byte_size(len(source) * size * size * config.pixels.bytes)
        terminal.say(f"the pictures are kept in {storage.folder / key}, {need}, and found there again by later runs")
    if place == "none":
        terminal.say("the pictures are decoded anew each epoch (--store none)")
    with terminal.bar("reading pictures", len(source)) as bar:

        def opened() -> Store:
            return open_store(
                place,
                source,
                size,
                config.pixels,
                storage,
                key=key,
                on_bad=quarantine.add,
                on_progress=lambda done, _: bar.update(done),
                on_read=lambda pictures: notebook.add(digests_of(pictures)),
            )

        if place == "disk" and world.local_rank != 0:
            barrier(world)  # the first process of this machine has built it by then
        store = opened()
        if place == "disk" and world.local_rank == 0:
            barrier(world)
    _refuse_unlike(source, store, world)
    return store


def _refuse_unlike(source: Source, store: Store, world: World) -> None:
    """Refuse to train where processes see different pictures: they would share batches that do not fit together."""
    if world.size == 1:
        return
    indices = hashlib.sha256(store.source_indices.numpy().tobytes()).hexdigest()
    seen = int(digest([source.fingerprint, indices])[:12], 16)
    if greatest(seen, world) != -greatest(-seen, world):
        raise DataError(
            f"the processes of this run do not see the same pictures in {source.name}: check that each machine has the "
            "same files, that none is written meanwhile, and start again"
        )


def store_key(config: RunConfig) -> str:
    """Name a disk store after what was asked for: the next run finds it, and one of a changed folder replaces it."""
    path = os.path.abspath(os.path.expanduser(config.data))
    asked = (path if os.path.exists(path) else config.data, config.data_dir, config.limit, config.tile)
    kind = (config.image_size, config.channels, config.depth)
    base = "".join(letter if letter.isalnum() else "-" for letter in os.path.basename(path))[:32].strip("-")
    return f"{base}-{config.image_size}px-{digest([*asked, *kind])[:12]}"


def _listed(values: Iterable[float]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
