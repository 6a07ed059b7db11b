"""Batches out of tar shards that are read from front to back, in an order that is a function of (seed, epoch) alone.

An epoch is a permutation of the shards, dealt out to the processes. Each process reads its shards one after the other
into a buffer and takes from it at random; when it has been through them it begins again in another order, so that every
process makes the same number of batches. Nothing of this depends on what the pictures hold: to go on at a step, the
same order is walked again by the headers alone, and only the pictures that then lie in the buffer are read. So the
whole state is (epoch, step), as for ``loader.Loader``, and the batches that follow are the same to the bit.
"""

import itertools
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Any

import numpy as np
import torch

from diptych.data.decoding.decode import check_bytes, decode, fit
from diptych.data.decoding.pixels import BadPicture, PixelFormat, Pixels, convert
from diptych.data.loader import check_batches
from diptych.data.prefetch import ahead, decode_all
from diptych.data.sources.shards import Member, members, no_pictures, open_shard, read
from diptych.data.stores.digests import Digests, digest
from diptych.data.stores.lazy import replaced
from diptych.errors import DataError
from diptych.seeding import ORDER, generator
from diptych.types import Batch

BUFFER = 2000
"""Pictures among which the next one is drawn."""
BUFFER_BYTES = 256 << 20
"""Encoded; where pictures are large, fewer of them are in the buffer."""
BATCHES_AHEAD = 3
"""Batches made before the training step asks for them."""
JOB = 8
"""Pictures a thread takes at a time: handing over single small ones would cost as much as decoding them."""
JOB_BYTES = 8 << 20
"""Encoded; a thread takes fewer pictures where they are larger, so that those under way stay few in memory."""
JUDGED_FROM = 1000
"""Pictures read before their share of unreadable ones says anything."""
SHOWN = 10
"""Pictures named when a run is stopped."""
DRAWS = 1024
"""Random numbers drawn at a time: one by one they would cost more than reading headers."""


class StreamLoader:
    """Hands out the pictures of tar shards.

    Args:
        shards: as ``shards.find_shards`` returns them.
        pictures_per_epoch: over all processes; ``shards.count`` counts them.
        batch_size: pictures a step over all processes.
        seed: of the order.
        size: pixels a side; see ``fit``.
        wanted: channels and type.
        rank: this process's number, 0 .. world - 1.
        world: number of processes.
        on_bad: told of each picture or shard that cannot be read, once, when its batch is handed out.
        on_seen: given the hashes of a batch's pictures when it is handed out.
        max_bad: stop if more than this share of the pictures read cannot be; judged at the end of each epoch, and
            before that from ``JUDGED_FROM`` pictures on.
        buffer: pictures among which the next one is drawn.
        buffer_bytes: encoded; the buffer holds fewer pictures where they are larger.
        threads: that decode; as many as there are processors if None. The batches do not depend on it.

    Raises:
        DataError: there are fewer shards than processes, or batches of that size cannot be made.
    """

    def __init__(
        self,
        shards: list[str],
        pictures_per_epoch: int,
        batch_size: int,
        seed: int,
        size: int,
        wanted: PixelFormat,
        rank: int = 0,
        world: int = 1,
        *,
        on_bad: Callable[[BadPicture], None],
        on_seen: Callable[[Digests], None] | None = None,
        max_bad: float = 0.01,
        buffer: int = BUFFER,
        buffer_bytes: int = BUFFER_BYTES,
        threads: int | None = None,
    ) -> None:
        _check(len(shards), pictures_per_epoch, batch_size, world)
        self.shards, self.batch_size, self.seed, self.rank, self.world = shards, batch_size, seed, rank, world
        self.steps_per_epoch = pictures_per_epoch // batch_size
        self.left_out: Counter[str] = Counter()
        """Pictures passed over, counted whenever their shard is walked, by reason: links and devices, unsafe names."""
        self._buffer = buffer, buffer_bytes
        self._size, self._wanted, self._threads = size, wanted, threads or os.cpu_count() or 1
        self._on_bad, self._on_seen, self._max_bad = on_bad, on_seen, max_bad
        self._told: set[str] = set()
        self._first_bad: list[BadPicture] = []
        self._bad = self._read = 0

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[Batch]:
        """Yield this process's part of the batches of ``epoch``, from ``first_step`` on.

        Its indices are running numbers within the epoch.

        Raises:
            DataError: no picture of its shards or of a batch can be read, or too many cannot.
        """
        share = self.batch_size // self.world
        with closing(ahead(self._shares(epoch, first_step), BATCHES_AHEAD)) as shares:
            for step, made in enumerate(shares, first_step):
                self._note(made, share)
                first = step * self.batch_size + self.rank * share
                indices = torch.arange(first, first + share)
                yield Batch(images=torch.from_numpy(made.pictures), indices=indices, names=made.names)
        if first_step == 0:  # what is left of an epoch may be too little to judge by
            self._judge()

    def _shares(self, epoch: int, first_step: int) -> Iterator["_Share"]:
        """Read, decode and assemble this process's share of each batch; the next is read while one is decoded."""
        share = self.batch_size // self.world
        numbers = self.seed, epoch, self.rank, self.world
        with (
            closing(_Walk(self.shards, *numbers, *self._buffer, self.left_out)) as walk,
            ThreadPoolExecutor(self._threads, thread_name_prefix="diptych-decode") as pool,
        ):
            walk.skip(first_step * share)
            jobs = self._jobs(walk, share, self.steps_per_epoch - first_step)
            # A whole share under way, so that no thread waits for the one before to be assembled.
            waiting = max(2 * self._threads, -(-share // JOB))
            parts: list[_Part] = []
            with closing(decode_all(jobs, pool, waiting)) as decoded:
                for part in decoded:
                    parts.append(part)
                    if sum(len(part.pictures) for part in parts) == share:
                        yield _assembled(parts)
                        parts = []

    def _jobs(self, walk: "_Walk", share: int, steps: int) -> Iterator[Callable[[], "_Part"]]:
        for _ in range(steps):
            left = share
            while left:
                samples, damaged = walk.take(min(JOB, left))
                left -= len(samples)
                yield partial(self._decode, samples, damaged)

    def _decode(self, samples: list["_Sample"], damaged: list[BadPicture]) -> "_Part":
        """Decode some pictures of a share; ``damaged`` are the shards found so before them."""
        part = _Part(damaged, names=[sample.name for sample in samples])
        for sample in samples:
            try:
                picture = sample.decode(self._size, self._wanted)
            except BadPicture as bad:
                part.pictures.append(bad)
                part.bad.append(bad)
            else:
                part.pictures.append(picture)
                if self._on_seen:
                    part.digests.append(digest(picture))
        return part

    def _note(self, made: "_Share", share: int) -> None:
        for bad in made.bad:
            if bad.name not in self._told:
                self._told.add(bad.name)
                self._first_bad = [*self._first_bad, bad][:SHOWN]
                self._on_bad(bad)
        if self._on_seen:
            self._on_seen(made.digests)
        self._bad, self._read = self._bad + len(made.bad), self._read + share
        if self._read >= JUDGED_FROM:
            self._judge()

    def _judge(self) -> None:
        if self._bad <= self._max_bad * self._read:
            return
        shown = "; ".join(map(str, self._first_bad))
        more = f"; and {len(self._told) - SHOWN} more" if len(self._told) > SHOWN else ""
        raise DataError(
            f"{self._bad} of the {self._read} pictures read so far cannot be read, more than --max-bad "
            f"{self._max_bad:g} allows: {shown}{more}; to go on without them type --max-bad with a larger share"
        )


@dataclass(slots=True)
class _Sample:
    """A picture in a shard, and its content once that has been read."""

    name: str
    """For people: the shard's, then its own."""
    shard: str
    offset: int
    size: int
    content: bytes | BadPicture | None = None

    @classmethod
    def of(cls, shard: str, member: Member) -> "_Sample":
        """Refer to a member of ``shard``."""
        # People and JSON see a name that is not valid text with its odd bytes replaced.
        name = f"{shard}/{member.name}".encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        return cls(name, shard, member.offset, member.size)

    def load(self, file: IO[bytes]) -> None:
        """Read the content from the open shard."""
        try:
            check_bytes(self.size, self.name)
            self.content = read(file, self.shard, self.offset, self.size)
            if len(self.content) < self.size:
                self.content = BadPicture(self.name, "cut short: the shard ends before it does")
        except BadPicture as bad:
            self.content = BadPicture(self.name, bad.reason)

    def decode(self, size: int, wanted: PixelFormat) -> Pixels:
        """Return the picture ``(C, size, size)``, contiguous. Raises BadPicture."""
        assert self.content is not None, "what is taken from a walk has been read"
        if isinstance(self.content, BadPicture):
            raise self.content
        return np.ascontiguousarray(fit(convert(decode(self.content, self.name, size), wanted, self.name), size))


@dataclass
class _Part:
    """Some pictures of a share."""

    bad: list[BadPicture]
    """Those of them that cannot be read, and shards that were found damaged on the way to them."""
    pictures: list[Pixels | BadPicture] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    """Of those that can be read."""
    names: list[str] = field(default_factory=list)
    """Of all."""


@dataclass(frozen=True)
class _Share:
    """One process's share of a batch."""

    pictures: Pixels
    """``(B, C, S, S)``."""
    digests: Digests
    bad: list[BadPicture]
    """As in its parts; other pictures have taken the places of these."""
    names: tuple[str, ...]
    """Of the pictures that were asked for."""


class _Walk:
    """The pictures of one process in one epoch, in their order; contents are read where ``skip`` has ended."""

    def __init__(
        self,
        shards: list[str],
        seed: int,
        epoch: int,
        rank: int,
        world: int,
        buffer: int,
        buffer_bytes: int,
        left_out: Counter[str],
    ) -> None:
        order = torch.randperm(len(shards), generator=generator(seed, ORDER, epoch)).tolist()
        self._own = [shards[place] for place in order[rank::world]]
        self._keys = seed, ORDER, epoch, rank
        self._most, self._most_bytes, self._left_out = buffer, buffer_bytes, left_out
        self._waiting: list[_Sample] = []
        self._damaged: list[BadPicture] = []
        self._reading = False
        self._samples = self._shuffled()

    def skip(self, count: int) -> None:
        """Pass over the first ``count`` pictures; to be called once, before ``take``."""
        deque(itertools.islice(self._samples, count), maxlen=0)
        self._damaged = []
        self._load_waiting()
        self._reading = True

    def take(self, count: int) -> tuple[list[_Sample], list[BadPicture]]:
        """Return the next pictures, ``count`` or fewer, and the shards that were found damaged on the way to them."""
        samples: list[_Sample] = []
        size = 0
        while len(samples) < count and size < JOB_BYTES:
            samples.append(next(self._samples))
            size += samples[-1].size
        damaged, self._damaged = self._damaged, []
        return samples, damaged

    def close(self) -> None:
        """Close the shard that is being read."""
        self._samples.close()

    def _shuffled(self) -> Generator[_Sample, None, None]:
        draws = _draws(*self._keys)
        held = 0
        for round in itertools.count():
            empty = True
            # A round ends with an empty buffer, so that none of its pictures is seen again before all of them were.
            for sample in itertools.chain(self._walked(round), [None]):
                if sample is not None:
                    self._waiting.append(sample)
                    held, empty = held + sample.size, False
                most = 0 if sample is None else self._most
                while len(self._waiting) > most or held > self._most_bytes:
                    place = next(draws) % len(self._waiting)
                    self._waiting[place], self._waiting[-1] = self._waiting[-1], self._waiting[place]
                    drawn = self._waiting.pop()
                    held -= drawn.size
                    yield drawn
            if empty:
                raise DataError(no_pictures(len(self._own), self._damaged, self._left_out))

    def _walked(self, round: int) -> Iterator[_Sample]:
        """Yield the pictures of all own shards in the order in which they lie there."""
        shards = self._own
        if round:
            order = torch.randperm(len(shards), generator=generator(*self._keys, round)).tolist()
            shards = [shards[place] for place in order]
        for shard in shards:
            try:
                with closing(open_shard(shard)) as file:
                    for member in members(file, shard, self._left_out):
                        sample = _Sample.of(shard, member)
                        if self._reading:
                            sample.load(file)
                        yield sample
            except BadPicture as damaged:
                self._damaged.append(damaged)

    def _load_waiting(self) -> None:
        """Read the contents of all pictures in the buffer, each shard from front to back."""
        ordered = sorted(self._waiting, key=lambda sample: (sample.shard, sample.offset))
        for shard, group in itertools.groupby(ordered, lambda sample: sample.shard):
            samples = list(group)
            try:
                with closing(open_shard(shard)) as file:
                    for sample in samples:
                        sample.load(file)
            except BadPicture as gone:
                for sample in samples:
                    sample.content = BadPicture(sample.name, gone.reason)


def _assembled(parts: list[_Part]) -> _Share:
    found = [picture for part in parts for picture in part.pictures]
    bad = [picture for part in parts for picture in part.bad]
    if all(isinstance(picture, BadPicture) for picture in found):
        raise DataError(f"none of the {len(found)} pictures of a batch can be read; the first, {found[0]}")
    digests = b"".join(one for part in parts for one in part.digests)
    pictures: Any = np.stack(replaced(found))
    names = tuple(name for part in parts for name in part.names)
    return _Share(pictures, np.frombuffer(digests, np.uint64), bad, names)


def _draws(*keys: int) -> Iterator[int]:
    """Yield random numbers so large that their remainder by a buffer's length is as good as uniform."""
    numbers = generator(*keys)
    while True:
        yield from torch.randint(1 << 62, (DRAWS,), generator=numbers).tolist()


def _check(shards: int, pictures: int, batch_size: int, world: int) -> None:
    if shards < world:
        raise DataError(
            f"{shards} shard{'s' if shards > 1 else ''} cannot be shared by {world} processes, which read one each at "
            f"least: start {shards}, or cut the pictures into more shards"
        )
    check_batches(pictures, batch_size, world)
