"""From what a user typed to pictures: a data set's name, a folder, an archive, a manifest or a list.

Every source found here can be indexed; data that can only be streamed is not opened here.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from diptych.data.sources.archive import open_tar, open_zip
from diptych.data.sources.cifar10 import open_cifar10
from diptych.data.sources.folder import scan
from diptych.data.sources.hub import PREFIX, open_hub
from diptych.data.sources.layout import EXTENSIONS, Splits, count, divide
from diptych.data.sources.manifest import open_list, open_manifest
from diptych.data.sources.photos import open_photos
from diptych.data.sources.shards import is_shards
from diptych.data.sources.source import Source
from diptych.errors import DataError, suggest

__all__ = ["NAMES", "Splits", "open_data"]

NAMES = ("cifar10", "photos")
TARS = (".tar", ".tar.gz", ".tgz")
MANIFESTS = (".csv", ".parquet")
LISTS = (".txt", ".lst")


def open_data(data: str, data_dir: str | None = None, on_download: Callable[[int, int], None] | None = None) -> Splits:
    """Find the pictures that ``data`` names; none is opened yet.

    Args:
        data: ``cifar10``, ``photos``, ``hub:`` and the name of a Hugging Face dataset, or the path of a folder, a .zip,
            .tar, .tar.gz or .tgz archive, a .csv or .parquet manifest (columns ``path``, perhaps ``label``, ``group``
            and ``split``) or a .txt or .lst list (one path a line).
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
    if data.startswith(PREFIX):
        return open_hub(data)
    if is_shards(data):
        raise DataError(
            f"{data} names tar shards, which are for pretrain and preview: give a folder or one archive here"
        )
    return _open_path(data, Path(os.path.expanduser(data)))


def _open_path(data: str, path: Path) -> Splits:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DataError(_missing(path, data)) from error
    except OSError as error:
        raise DataError(f"cannot read {data} ({error.strerror}); check its permissions") from error
    kind = path.name.lower()
    if path.is_dir():
        return divide(data, scan(path))
    if kind.endswith(".zip"):
        return divide(data, open_zip(path))
    if kind.endswith(TARS):
        return divide(data, open_tar(path))
    if kind.endswith(MANIFESTS):
        return open_manifest(path)
    if kind.endswith(LISTS):
        return divide(data, open_list(path))
    if kind.endswith(EXTENSIONS):
        raise DataError(f"{data} is a single picture; give the folder that holds your pictures: {path.parent}")
    raise DataError(
        f"{data} is not a folder, a .zip, .tar, .tar.gz or .tgz archive, a .csv or .parquet manifest, or a .txt or "
        ".lst list of pictures; give one of these"
    )


def _named(title: str, train: Source, test: Source, data: str) -> str:
    classes = count(len(train.classes), "class")
    note = f"{title}: {len(train)} pictures to learn from and {len(test)} to test on, {classes}"
    return note + (f" (for the folder of that name type ./{data})" if Path(data).exists() else "")


def _missing(path: Path, data: str) -> str:
    try:
        beside = [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    except OSError:
        hub = f"; for the Hugging Face dataset type {PREFIX}{data}" if re.fullmatch(r"[\w.-]+/[\w.-]+", data) else ""
        return f"there is no {data}, nor a folder {path.parent} it could lie in{hub}"
    known = [*NAMES, *beside] if path.parent == Path() else beside
    close = suggest(path.name, known)
    return f"there is no {data}" + (
        close
        if "did you mean" in close
        else f"; give a folder, an archive, a manifest (.csv, .parquet), a list (.txt), {PREFIX}NAME, or one of "
        f"{', '.join(NAMES)}"
    )
