"""The pictures that several runs are compared on without labels, and the views that are made of them.

All runs see the same pictures: drawn once, decoded to each run's own size and kind, without those that one of them
cannot read. All see the same views: the same draws of one set of augmentations, normalised as each run has it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diptych.data.decoding.pixels import BadPicture, PixelFormat
from diptych.data.sources.chosen import first_of, open_source
from diptych.data.sources.shards import find_shards, is_shards
from diptych.data.sources.shards import fingerprint as fingerprint_of
from diptych.data.sources.source import Source
from diptych.data.sources.split import draw
from diptych.data.stores.memory import build_memory_store
from diptych.errors import DataError
from diptych.evaluation.choosing.candidates import Origin
from diptych.frozen import FrozenBackbone
from diptych.progress import Terminal
from diptych.seeding import VIEWS, generator
from diptych.views.config import ViewsConfig, for_channels
from diptych.views.pipeline import ViewMaker

LEAST = 16
"""Pictures to choose by, at least: of fewer, no number means anything."""
VIEWED, VIEWS_EACH = 1000, 10
"""Pictures of which views are made, at most, and how many of each, an even number. The LiDAR paper has 1,000 and 50."""
AT_ONCE = 128
"""Pictures whose views are embedded at a time."""

Format = tuple[int, PixelFormat]
"""Pixels a side, channels and type."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The pictures, for each format that a run takes."""

    data: str
    fingerprint: str
    """Of all pictures that ``data`` names."""
    images: Mapping[Format, Tensor]
    """``(N, C, S, S)``: row i is the same picture in all of them."""
    seed: int

    @property
    def count(self) -> int:
        """How many pictures there are."""
        return len(next(iter(self.images.values())))


def read_sample(
    origins: Sequence[Origin],
    data: str | None,
    data_dir: str | None,
    pictures: int,
    seed: int,
    terminal: Terminal,
    note: Callable[[str], None],
) -> Sample:
    """Draw pictures and decode them for each run.

    Args:
        origins: the runs.
        data: pictures to choose by; those that the runs learned from if None.
        data_dir: where the archive of a named data set lies.
        pictures: how many to draw.
        seed: of the draw.
        terminal: where progress is shown.
        note: told what is to be known of the pictures, in sentences.

    Raises:
        DataError: the runs learned from different pictures, these are gone, or too few can be read.
    """
    opened, found, fingerprint = _opened(origins, data, data_dir, pictures, seed)
    if data is None and fingerprint != origins[0].fingerprint:
        note(f"the pictures in {opened} have changed since {origins[0].folder.path} learned from them")
    if is_shards(opened):
        note(f"the first {len(found):,} pictures of {opened} are looked at, not a draw from all: shards have no index")
    bad: list[BadPicture] = []
    stores = {}
    for size, pixels in dict.fromkeys(origin.format for origin in origins):
        with terminal.bar("reading pictures", len(found)) as bar:
            stores[size, pixels] = build_memory_store(found, size, pixels, bad.append, lambda done, _: bar.update(done))
    if names := {one.name for one in bad}:  # each of them is met once for every format
        note(f"{len(names)} pictures could not be read and are left out (first {bad[0].name}: {bad[0].reason})")
    shared = set.intersection(*(set(store.source_indices.tolist()) for store in stores.values()))
    if len(shared) < LEAST:
        raise DataError(
            f"choosing takes {LEAST} pictures or more, and {opened} gives {len(shared)}: name others with --data DIR"
        )
    kept = torch.tensor(sorted(shared))
    return Sample(
        data=opened,
        fingerprint=fingerprint,
        images={key: store.images[torch.isin(store.source_indices, kept)] for key, store in stores.items()},
        seed=seed,
    )


def _opened(
    origins: Sequence[Origin], data: str | None, data_dir: str | None, pictures: int, seed: int
) -> tuple[str, Source, str]:
    """Return the data's name, the pictures drawn from it, and the fingerprint of all that it names."""
    first = origins[0]
    tile = first.card.preprocessing.tile
    for other in origins[1:]:
        if data is None and other.fingerprint != first.fingerprint:
            raise DataError(
                f"{first.folder.path} and {other.folder.path} learned from different pictures: name those that they "
                "shall be compared on with --data DIR"
            )
        if other.card.preprocessing.tile != tile:
            raise DataError(
                f"{first.folder.path} and {other.folder.path} cut pictures into tiles of different sizes and see no "
                "picture alike: choose among runs of one --tile"
            )
    opened = data or first.data
    place, limit = (data_dir, None) if data else (data_dir or first.data_dir, first.limit)
    try:
        if is_shards(opened):
            shards = find_shards(opened)
            return opened, first_of(shards, pictures), fingerprint_of(shards)
        source, _ = open_source(opened, place, tile, limit)
    except DataError as error:
        if data:
            raise
        raise DataError(
            f"the pictures that {first.folder.path} learned from cannot be opened ({error}): say where they lie, or "
            "name others like them, with --data DIR"
        ) from error
    return opened, draw(source, pictures, seed), source.fingerprint


def shared_views(origins: Sequence[Origin]) -> tuple[ViewsConfig, str]:
    """Return the augmentations whose views are compared, for the channels of each run, and which these are, in words.

    They are what the runs learned from, where all learned from the same. ``patches`` learns from no views and has no
    say unless it is alone.
    """
    asked = {_whole(origin.views) for origin in origins if origin.method != "patches"}
    asked = asked or {_whole(origin.views) for origin in origins}
    if len(asked) == 1:
        return asked.pop(), "as the runs were trained with"
    return _whole(ViewsConfig()), "by SimSiam's augmentations, as the runs were trained with different ones"


def _whole(views: ViewsConfig) -> ViewsConfig:
    """Return two full-size views without what belongs to one set of pictures, or to small views."""
    plain = ViewsConfig()
    small = {"local_views": 0, "local_size": plain.local_size, "local_scale": plain.local_scale}
    return replace(views, mean=(), std=(), low=(), high=(), global_views=2, **small)  # type: ignore[arg-type]


@torch.inference_mode()
def view_features(backbone: FrozenBackbone, images: Tensor, views: ViewsConfig, seed: int) -> Tensor:
    """Embed ``VIEWS_EACH`` views of each of the first ``VIEWED`` pictures.

    Args:
        backbone: which takes them.
        images: ``(N, C, S, S)`` of its own format.
        views: from ``shared_views``.
        seed: the same views for every backbone, as far as sizes and channels are the same.

    Returns:
        ``(n, q, D)`` float32 on the CPU.
    """
    made, images = backbone.preprocessing, images[:VIEWED]
    fitting, _ = for_channels(views, made.channels)
    own = replace(fitting, mean=made.mean, std=made.std, low=made.low, high=made.high)
    maker = ViewMaker(own, made.image_size, backbone.device)
    columns = []
    for pair in range(VIEWS_EACH // 2):
        rows = []
        for first in range(0, len(images), AT_ONCE):
            batch = images[first : first + AT_ONCE].to(backbone.device)
            both = maker(batch, generator(seed, VIEWS, pair), (first, len(images)))
            rows.append(torch.stack([_embedded(backbone, view) for view in both], dim=1))
        columns.append(torch.cat(rows))
    return torch.cat(columns, dim=1)


def _embedded(backbone: FrozenBackbone, view: Tensor) -> Tensor:
    features: Tensor = backbone.module(view.contiguous(memory_format=torch.channels_last))
    return features.float().cpu()
