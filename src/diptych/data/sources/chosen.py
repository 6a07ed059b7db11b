"""The pictures that a run learns from: those found at ``data``, cut into tiles and drawn from as asked."""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from itertools import islice

from diptych.data.decoding.decode import check_bytes
from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources.open import Splits, open_data
from diptych.data.sources.shards import Member, find_shards, is_shards, members, no_pictures, open_shard, read
from diptych.data.sources.source import Entry, Files, Source
from diptych.data.sources.split import draw
from diptych.data.sources.tiles import Tiles
from diptych.errors import DataError

SAMPLE = 256
"""Pictures of tar shards that are looked at before a run."""


def open_source(
    data: str,
    data_dir: str | None = None,
    tile: int | None = None,
    limit: int | None = None,
    on_download: Callable[[int, int], None] | None = None,
) -> tuple[Source, str]:
    """Find the pictures to learn from; none is decoded yet.

    Args:
        data: as for ``open_data``.
        data_dir: as for ``open_data``.
        tile: pixels a side of the squares that each picture is cut into; whole pictures if None.
        limit: how many to draw, evenly at random; all if None.
        on_download: as for ``open_data``.

    Returns:
        The pictures, and what was found, for people. Of tar shards, which are not indexed, the first ``SAMPLE``.

    Raises:
        DataError: there is no such data, or it cannot be read, or holds no pictures.
    """
    if is_shards(data):
        for option, given in (("--tile", tile), ("--data-dir", data_dir)):
            if given is not None:
                raise DataError(f"{option} is not for tar shards: leave it out")
        return first_of(find_shards(data), min(limit or SAMPLE, SAMPLE)), f"the first pictures of {data}"
    splits = open_data(data, data_dir, on_download)
    source, note = splits.train, splits.note
    if tile is not None:
        whole = len(source)
        source = Tiles(source, tile)
        note += f"; {whole:,} pictures are cut into {len(source):,} tiles of {tile} px"
    return (source if limit is None else draw(source, limit)), note


def first_of(shards: list[str], count: int) -> Source:
    """Return the first ``count`` pictures of tar shards as a source.

    Raises:
        DataError: there is none.
    """
    found: list[tuple[str, Member]] = []
    bad: list[BadPicture] = []
    left_out = Counter[str]()
    for shard in shards:
        try:
            with closing(open_shard(shard)) as file:
                found += ((shard, member) for member in islice(members(file, shard, left_out), count - len(found)))
        except BadPicture as error:
            bad.append(error)
        if len(found) == count:
            break
    if not found:
        raise DataError(no_pictures(len(shards), bad, left_out))

    def load(name: str) -> bytes:
        shard, member = found[int(name.partition(":")[0])]
        check_bytes(member.size, name)
        with closing(open_shard(shard)) as file:
            return read(file, shard, member.offset, member.size)

    entries = [Entry(f"{place}:{member.name}", member.size, 0) for place, (_, member) in enumerate(found)]
    return Files(shards[0], entries, load)


def tiled(splits: Splits, tile: int | None) -> Splits:
    """Cut both parts into tiles."""
    if tile is None:
        return splits
    test = Tiles(splits.test, tile) if splits.test else None
    return Splits(train=Tiles(splits.train, tile), test=test, note=f"{splits.note}; cut into tiles of {tile} px")
