"""Pictures and their masks, paired by name: ``DATA/images/a.jpg`` and ``DATA/masks/a.png``.

Both folders may be divided alike, as pictures to pretrain on may (``layout.arrange``): ``images/train/a.jpg`` and
``masks/train/a.png``, beside ``test/`` or ``val/``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from diptych.data.sources.folder import scan
from diptych.data.sources.layout import arrange, count
from diptych.data.sources.source import Entry, Files, Source, Subset, digest
from diptych.data.sources.split import draw
from diptych.errors import DataError, printable
from diptych.seeding import SPLIT, generator

IMAGES, MASKS = "images", "masks"
TEST_FRACTION = 0.2
_STREAM = 4
"""Parts this stream of random numbers from those of the other splits."""


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pictures, and in the same order their masks."""

    images: Source
    masks: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.masks)

    def subset(self, places: Sequence[int]) -> "Pairs":
        """Return some of them, in the order of ``places``."""
        return Pairs(images=Subset(self.images, places), masks=tuple(self.masks[place] for place in places))


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Where the training and the test pictures come from."""

    name: str
    train: Pairs
    test: Pairs
    note: str
    """How they were split, for people."""
    fingerprint: str


def open_pairs(data: str, limit: int | None, seed: int) -> Paired:
    """Find pictures with masks, and split them 80/20 where ``data`` holds no part to test on.

    Args:
        data: a folder that holds ``images/`` and ``masks/``.
        limit: pictures drawn from each part, or from all where there are no parts.
        seed: of the split.

    Raises:
        DataError: there are no such folders, a picture has no mask or a mask no picture, or a part has fewer than two.
    """
    root = Path(data).expanduser()
    for folder in (IMAGES, MASKS):
        if not (root / folder).is_dir():
            raise DataError(
                f"there is no folder {root / folder}: to segment, put pictures into {root / IMAGES} and for each of "
                f"them a PNG of class numbers with the same name into {root / MASKS}"
            )
    images, masks = scan(root / IMAGES), scan(root / MASKS)
    of_image, of_mask = (
        _by_stem(root / folder, listing.entries) for folder, listing in ((IMAGES, images), (MASKS, masks))
    )
    _refuse_single(of_image, of_mask, root / IMAGES, "has no mask", f"add {MASKS}/NAME.png, or remove it")
    _refuse_single(of_mask, of_image, root / MASKS, "belongs to no picture", f"add {IMAGES}/NAME, or remove it")
    stems = [_stem(entry.name) for entry in images.entries]
    every = Pairs(
        images=Files(f"{data.rstrip('/')}/{IMAGES}", images.entries, images.load),
        masks=tuple(root / MASKS / of_mask[stem] for stem in stems),
    )
    layout = arrange([entry.name for entry in images.entries])
    parts = [every.subset(part.places) for part in (layout.train, layout.test) if part]
    parts = [part if limit is None else _drawn(part, limit) for part in parts]
    drawn = "" if limit is None else f"; {limit} drawn by a fixed seed"
    if layout.test:
        note = f"the probe learns from {layout.train.folder}/ and is tested on {layout.test.folder}/"
        note += f"{drawn} from each" if drawn else ""
        note += f"; {count(layout.outside, 'picture')} outside both left out" if layout.outside else ""
    else:
        parts = _split(parts[0], seed)
        note = f"no part to test on: a random split by seed {seed}, 80 % to learn from and 20 % to test on"
        note += f"{drawn} before the split" if drawn else ""
    train, test = parts
    for part, what in ((train, "learn from"), (test, "test on")):
        if len(part) < 2:
            raise DataError(
                f"{data} leaves {count(len(part), 'picture')} to {what}, and two or more are needed: add pictures with "
                "masks, or raise --limit"
            )
    listed = Files(MASKS, masks.entries, masks.load)
    return Paired(
        name=data, train=train, test=test, note=note, fingerprint=digest([every.images.fingerprint, listed.fingerprint])
    )


def _stem(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(""))


def _by_stem(folder: Path, entries: Sequence[Entry]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        stem = _stem(entry.name)
        if stem in found:
            raise DataError(
                f"{folder} holds both {printable(found[stem])} and {printable(entry.name)}: which belongs to the mask "
                "or picture of that name is not known; remove one of them"
            )
        found[stem] = entry.name
    return found


def _refuse_single(ours: dict[str, str], theirs: dict[str, str], folder: Path, what: str, advice: str) -> None:
    alone = [stem for stem in ours if stem not in theirs]
    if alone:
        more = f" (and {len(alone) - 1} more)" if len(alone) > 1 else ""
        raise DataError(
            f"{folder / printable(ours[alone[0]])} {what}{more}: {advice.replace('NAME', printable(alone[0]))}"
        )


def _drawn(pairs: Pairs, limit: int) -> Pairs:
    chosen = draw(pairs.images, limit)
    return pairs if chosen is pairs.images else pairs.subset(_places(chosen))


def _places(chosen: Source) -> Sequence[int]:
    assert isinstance(chosen, Subset)
    return chosen.indices


def _split(pairs: Pairs, seed: int) -> list[Pairs]:
    order = torch.randperm(len(pairs), generator=generator(seed, SPLIT, _STREAM)).tolist()
    tested = round(TEST_FRACTION * len(pairs))
    return [pairs.subset(sorted(order[tested:])), pairs.subset(sorted(order[:tested]))]
