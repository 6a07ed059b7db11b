"""Pictures and their masks, paired by name: ``DATA/images/a.jpg`` and ``DATA/masks/a.png``.

Both folders may be divided alike, as pictures to pretrain on may (``layout.arrange``): ``images/train/a.jpg`` and
``masks/train/a.png``, beside ``test/`` or ``val/``.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from diptych.data.sources.folder import scan
from diptych.data.sources.layout import Part, arrange, count
from diptych.data.sources.source import Entry, Files, Source, Subset, digest
from diptych.data.sources.split import draw
from diptych.errors import DataError, printable
from diptych.evaluation.random_split import random_split

IMAGES, MASKS = "images", "masks"


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Pictures, and in the same order their masks."""

    images: Source
    """Their groups are folders, where those were asked for."""
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
    drawn: bool
    """Whether chance chose which pictures are learned from: then it may have left a class to the test alone."""
    fingerprint: str


def open_pairs(data: str, limit: int | None, seed: int, *, by_folder: bool = False) -> Paired:
    """Find pictures with masks, and split them 80/20 where ``data`` holds no part to test on.

    Args:
        data: a folder that holds ``images/`` and ``masks/``.
        limit: pictures drawn from each part, or from all where there are no parts.
        seed: of the split.
        by_folder: pictures of one folder belong together, and are split as one.

    Raises:
        DataError: there are no such folders, a picture has no mask or a mask no picture, a part has fewer than two, or
            all belong together.
    """
    root = Path(os.path.expanduser(data))
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
    for stem in of_image.keys() - of_mask.keys():
        if (root / MASKS / f"{stem}.png").is_file():  # one file may be the mask of several pictures, by links
            of_mask[stem] = f"{stem}.png"
    _refuse_single(of_image, of_mask, root / IMAGES, "has no mask", f"add {MASKS}/NAME.png, or remove it")
    _refuse_single(of_mask, of_image, root / MASKS, "belongs to no picture", f"add {IMAGES}/NAME, or remove it")
    stems = [_stem(entry.name) for entry in images.entries]
    layout = arrange([entry.name for entry in images.entries])
    found = [part for part in (layout.train, layout.test) if part]
    groups = _folders(images.entries, found) if by_folder else None
    every = Pairs(
        images=Files(f"{data.rstrip('/')}/{IMAGES}", images.entries, images.load, groups=groups),
        masks=tuple(root / MASKS / of_mask[stem] for stem in stems),
    )
    parts = [every.subset(part.places) for part in found]
    parts = [part if limit is None else _drawn(part, limit) for part in parts]
    drawn = "" if limit is None else f"; {limit} drawn by a fixed seed"
    if layout.test:
        note = f"the probe learns from {layout.train.folder}/ and is tested on {layout.test.folder}/"
        note += f"{drawn} from each" if drawn else ""
        note += f"; {count(layout.outside, 'picture')} outside both left out" if layout.outside else ""
        if shared := len(set.intersection(*(_groups(part.images) for part in parts))):
            note += f"; {count(shared, 'folder')} in both parts, so that the test is no test of new ones"
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
        name=data,
        train=train,
        test=test,
        note=note,
        drawn=layout.test is None or limit is not None,
        fingerprint=digest([every.images.fingerprint, listed.fingerprint]),
    )


def shows_masks(data: str) -> bool:
    """Whether a folder holds pictures and masks, and no other folders: labels it has none."""
    root = Path(data)
    if not (
        (root / IMAGES).is_dir() and (root / MASKS).is_dir()
    ):  # most: not every file of a large folder is looked at
        return False
    try:
        return {member.name for member in root.iterdir() if member.is_dir() and member.name[0] != "."} == {
            IMAGES,
            MASKS,
        }
    except OSError:
        return False


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
    alike = torch.zeros(len(pairs), 1, dtype=torch.bool)  # what they show is not known yet
    return [pairs.subset(_places(part)) for part in random_split(pairs.images, alike, seed)]


def _folders(entries: Sequence[Entry], parts: Sequence[Part]) -> list[str]:
    """Return the folder of each picture, below that of its part."""
    found = [str(PurePosixPath(entry.name).parent) for entry in entries]
    for part in parts:
        for place in part.places:
            found[place] = str(PurePosixPath(found[place]).relative_to(part.folder))
    return found


def _groups(source: Source) -> set[str]:
    return {group for place in range(len(source)) if (group := source.group(place)) is not None}
