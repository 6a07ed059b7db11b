"""From what a user typed to pictures: a data set's name, a folder, an archive or a CSV file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from diptych.data.archive import open_tar, open_zip
from diptych.data.cifar10 import open_cifar10
from diptych.data.folder import scan
from diptych.data.labels import open_csv
from diptych.data.layout import EXTENSIONS, Layout, Part, arrange
from diptych.data.photos import open_photos
from diptych.data.source import Files, Listing, Source
from diptych.errors import DataError, suggest

NAMES = ("cifar10", "photos")
TARS = (".tar", ".tar.gz", ".tgz")


@dataclass(frozen=True, kw_only=True)
class Splits:
    """The pictures that were found."""

    train: Source
    """Those to learn from: all, where they are not divided."""
    test: Source | None
    """Those to test on, where the data divides them."""
    note: str
    """What was found, in a sentence or two for people."""


def open_data(data: str, data_dir: str | None = None, on_download: Callable[[int, int], None] | None = None) -> Splits:
    """Find the pictures that ``data`` names; none is opened yet.

    Args:
        data: ``cifar10``, ``photos``, or the path of a folder, a .zip, .tar, .tar.gz or .tgz archive, or a CSV file
            with the header ``file,label``.
        data_dir: where the archive of ``cifar10`` lies or is put; for no other data.
        on_download: told ``(bytes done, bytes in all)`` while ``cifar10`` is downloaded.

    Raises:
        DataError: there is no such data, or it cannot be read, or holds no pictures.
    """
    if data == "cifar10":
        train, test = open_cifar10(data_dir, on_download=on_download)
        return Splits(train=train, test=test, note=_named("CIFAR-10", train, test, data))
    if data_dir is not None:
        raise DataError(f"--data-dir says where the files of cifar10 lie; with {data} leave it out")
    if data == "photos":
        train, test = open_photos()
        return Splits(train=train, test=test, note=_named("photos", train, test, data))
    path = Path(data).expanduser()
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(_missing(path, data)) from error
    except OSError as error:
        raise DataError(f"cannot read {data} ({error.strerror}); check its permissions") from error
    if path.is_dir():
        return _divide(data, scan(path))
    kind = path.name.lower()
    if kind.endswith(".zip"):
        return _divide(data, open_zip(path))
    if kind.endswith(TARS):
        return _divide(data, open_tar(path))
    if kind.endswith(".csv"):
        source, repeated = open_csv(path)
        note = f"{data} lists {_count(len(source), 'picture')} of {_count(len(source.classes), 'class')}"
        return Splits(
            train=source, test=None, note=note + (f"; {_count(repeated, 'repeated row')} left out" if repeated else "")
        )
    if kind.endswith(EXTENSIONS):
        raise DataError(f"{data} is a single picture; give the folder that holds your pictures: {path.parent}")
    raise DataError(f"{data} is not a folder, a .zip, .tar, .tar.gz or .tgz archive, or a .csv file; give one of these")


def _divide(data: str, listing: Listing) -> Splits:
    """Divide what a folder or an archive holds into its parts."""
    name = data.rstrip("/") or data
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


def _found(name: str, layout: Layout) -> str:
    train, test = layout.train, layout.test
    if test:
        note = (
            f"{name} holds {train.folder}/ ({_count(len(train.places), 'picture')}) and {test.folder}/ "
            f"({len(test.places)}): pretraining uses only {train.folder}/"
        )
        if layout.outside:
            note += f"; {_count(layout.outside, 'picture')} outside both left out"
    else:
        note = f"{name} holds {_count(len(train.places), 'picture')}"
        note += f" in folders of {_count(len(layout.classes), 'class')}" if layout.classes else ", without labels"
    if layout.unlabelled:
        note += f"; there are no labels because some pictures, such as {layout.unlabelled}, lie outside class folders"
    return note


def _named(title: str, train: Source, test: Source, data: str) -> str:
    classes = _count(len(train.classes), "class")
    note = f"{title}: {len(train)} pictures to learn from and {len(test)} to test on, {classes}"
    return note + (f" (for the folder of that name type ./{data})" if Path(data).exists() else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "es" if what.endswith("s") else "s")


def _missing(path: Path, data: str) -> str:
    try:
        beside = [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return f"there is no {data}, nor a folder {path.parent} it could lie in"
    known = [*NAMES, *beside] if path.parent == Path() else beside
    close = suggest(path.name, known)
    return f"there is no {data}" + (
        close if "did you mean" in close else f"; give a folder, an archive, or one of {', '.join(NAMES)}"
    )
