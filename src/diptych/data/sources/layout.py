"""What the names of pictures say: which folder is for training, which for testing, and the classes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from diptych.data.sources.source import Files, Listing, Source

EXTENSIONS = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""Names that are listed as pictures; what they hold is found out from their content."""


def is_picture(path: str) -> bool:
    """Whether a path, relative and with forward slashes, is named like a picture and no part of it is hidden."""
    return path.lower().endswith(EXTENSIONS) and not any(map(is_hidden, path.split("/")))


def is_hidden(part: str) -> bool:
    """Whether a file or folder name is one that people do not mean: a leading dot, or what macOS adds to zip files."""
    return part.startswith(".") or part == "__MACOSX"


VALIDATION = ("val", "valid", "validation")
"""Names of a part that is tested on where there is no ``test``, and left out where there is one."""
PARTS = {"train": "train", "training": "train", "test": "test", "testing": "test"} | {name: name for name in VALIDATION}
"""Folder names that divide pictures; they are no classes even where only some of them are there."""


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The pictures that were found."""

    train: Source
    """Those to learn from: all, where they are not divided."""
    test: Source | None
    """Those to test on, where the data divides them."""
    note: str
    """What was found, in a sentence or two for people."""


def choose_parts(names: Collection[str]) -> tuple[str, str] | None:
    """Return the names of the parts to learn from and to test on, None where the names do not divide."""
    test = next((name for name in ("test", *VALIDATION) if name in names), None)
    return ("train", test) if test and "train" in names else None


@dataclass(frozen=True, kw_only=True)
class Part:
    """Pictures that belong together."""

    folder: str
    """Relative path of the folder that holds them, empty for the whole."""
    places: list[int]
    """Where they are in the list of names."""
    labels: list[int] | None
    """Places in the layout's classes; None where there are no labels."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a set of names divides."""

    train: Part
    test: Part | None
    classes: tuple[str, ...]
    """Sorted names, shared by both parts; empty where there are no labels."""
    outside: int
    """Pictures in neither part, where there are two."""
    spare: tuple[str, ...]
    """Folders of validation pictures among those outside."""
    unlabelled: str | None
    """The first picture that keeps a set of class folders from giving labels, for people."""


def arrange(names: Sequence[str]) -> Layout:
    """Divide pictures by their names.

    A folder that holds everything is passed through. Then, where ``train/`` and ``test/`` both hold pictures, those are
    the two parts; ``val/`` (``valid/``, ``validation/``) takes the place of a ``test/`` that is not there. A part has
    labels when each of its pictures lies in a class folder directly (``cat/1.jpg``) and there are two classes or more.

    Args:
        names: relative paths with forward slashes; at least one.
    """
    paths = [PurePosixPath(name).parts for name in names]
    top = _common(paths)
    divided: dict[str, list[int]] = {}
    written: dict[str, str] = {}
    for place, path in enumerate(paths):
        if len(path) > top + 1 and (part := PARTS.get(path[top].casefold())):
            divided.setdefault(part, []).append(place)
            written.setdefault(part, path[top])
    above = "/".join(paths[0][:top])
    chosen = choose_parts(divided)
    if chosen:
        found = [("/".join(filter(None, (above, written[name]))), divided[name], top + 1) for name in chosen]
    else:
        found = [(above, list(range(len(paths))), top)]
    folders = [_class_folders(paths, places, depth) for _, places, depth in found]
    classes = tuple(sorted({name for part in folders if part for name in part}))
    if len(classes) < 2 or all(name.casefold() in PARTS for name in classes):
        classes = ()
    number = {name: label for label, name in enumerate(classes)}
    parts = [
        Part(folder=folder, places=places, labels=[number[name] for name in part] if part and classes else None)
        for (folder, places, _), part in zip(found, folders, strict=True)
    ]
    return Layout(
        train=parts[0],
        test=parts[1] if len(parts) > 1 else None,
        classes=classes,
        outside=len(paths) - sum(len(part.places) for part in parts),
        spare=tuple(sorted(set(divided) - set(chosen))) if chosen else (),
        unlabelled=_stray(names, paths, found),
    )


def divide(name: str, listing: Listing) -> Splits:
    """Divide what a folder, an archive or a list holds into its parts.

    Args:
        name: of the whole, for people.
        listing: its pictures.
    """
    name = name.rstrip("/") or name
    layout = arrange([entry.name for entry in listing.entries])

    def source(part: Part) -> Files:
        entries = [listing.entries[place] for place in part.places]
        full = f"{name}/{part.folder}" if part.folder and layout.test else name
        return Files(full, entries, listing.load, part.labels, layout.classes)

    return Splits(
        train=source(layout.train),
        test=source(layout.test) if layout.test else None,
        note="; ".join([_found(name, layout), *listing.left_out]),
    )


def count(number: int, what: str) -> str:
    """Return ``1 class`` or ``2 classes``."""
    return f"{number} {what}" + ("" if number == 1 else "es" if what.endswith("s") else "s")


def _found(name: str, layout: Layout) -> str:
    train, test = layout.train, layout.test
    if test:
        note = (
            f"{name} holds {train.folder}/ ({count(len(train.places), 'picture')}) and {test.folder}/ "
            f"({len(test.places)}): pretraining uses only {train.folder}/"
        )
        if PurePosixPath(test.folder).name != "test":
            note += f", and {test.folder}/ is tested on, as there is no test/"
        if layout.outside:
            spare = f" (those of {'/, '.join(layout.spare)}/ among them)" if layout.spare else ""
            note += f"; {count(layout.outside, 'picture')} outside both left out{spare}"
    else:
        note = f"{name} holds {count(len(train.places), 'picture')}"
        note += f" in folders of {count(len(layout.classes), 'class')}" if layout.classes else ", without labels"
    if layout.unlabelled:
        note += f"; there are no labels because some pictures, such as {layout.unlabelled}, lie outside class folders"
    return note


def _common(paths: Sequence[tuple[str, ...]]) -> int:
    """Return how many leading folders all paths share."""
    first, last = min(paths), max(paths)  # what the two extremes of the order share, all paths share
    shared = 0
    while shared < min(len(first), len(last)) - 1 and first[shared] == last[shared]:
        shared += 1
    return shared


def _class_folders(paths: Sequence[tuple[str, ...]], places: list[int], depth: int) -> list[str] | None:
    """Return the class folder of each picture, None unless each lies directly in one."""
    if all(len(paths[place]) == depth + 2 for place in places):
        return [paths[place][depth] for place in places]
    return None


def _stray(
    names: Sequence[str], paths: Sequence[tuple[str, ...]], found: list[tuple[str, list[int], int]]
) -> str | None:
    """Return a picture that lies outside class folders although most do not: likely a slip that cost the labels."""
    for _, places, depth in found:
        strays = [place for place in places if len(paths[place]) != depth + 2]
        folders = {paths[place][depth] for place in places if len(paths[place]) == depth + 2}
        if strays and len(strays) < len(places) / 2 and len(folders) > 1:
            return names[strays[0]]
    return None
