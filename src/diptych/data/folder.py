"""A folder of pictures, nested or flat."""

import os
from pathlib import Path

from diptych.data.decode import read_file
from diptych.data.layout import is_hidden, is_picture
from diptych.data.source import Entry, Listing
from diptych.errors import DataError
from diptych.runs import MARKER


def scan(root: Path) -> Listing:
    """List the pictures below ``root`` without opening them.

    Hidden files and folders are left out, and so are run folders of our own. Links to files are followed; links to
    folders too, but each folder is entered once, so that a loop of links ends.

    Raises:
        DataError: ``root`` cannot be read, or holds no pictures.
    """
    entries: list[Entry] = []
    left_out: list[str] = []
    other: str | None = None
    visited: set[str] = set()
    waiting, links = [""], list[str]()
    while waiting or links:
        folder = (waiting or links).pop()  # links last: a folder that can be reached without one keeps its own path
        if (real := os.path.realpath(root / folder)) in visited:
            continue
        visited.add(real)
        try:
            with os.scandir(root / folder) as found:
                members = sorted(found, key=lambda member: member.name)
        except OSError as error:
            if not folder:
                raise DataError(f"cannot read the folder {root} ({error.strerror}); check its permissions") from error
            left_out.append(f"the folder {folder} could not be read ({error.strerror})")
            continue
        if folder and any(member.name == MARKER for member in members):
            continue  # a run that lies among the pictures: what it drew is not among them
        for member in members:
            path = f"{folder}/{member.name}" if folder else member.name
            if is_hidden(member.name):
                continue
            if member.is_dir():
                (links if member.is_symlink() else waiting).append(path)
            elif not is_picture(path):
                other = other or path
            elif (entry := _entry(member, path)) is not None:
                entries.append(entry)
    if not entries:
        raise DataError(_nothing(root, other, left_out))
    return Listing(entries=sorted(entries), load=lambda name: read_file(root / name, name), left_out=sorted(left_out))


def _entry(member: "os.DirEntry[str]", path: str) -> Entry | None:
    """Describe a file; a dangling link is listed, to be reported when it is read; a pipe or a device is not a file."""
    try:
        status = member.stat()
    except OSError:
        return Entry(path, 0, 0)
    return Entry(path, status.st_size, status.st_mtime_ns) if member.is_file() else None


def _nothing(root: Path, other: str | None, left_out: list[str]) -> str:
    if left_out:
        return f"no pictures can be seen in {root}: {left_out[0]}; check its permissions"
    if other is None:
        return f"the folder {root} is empty; give one that holds pictures"
    return (
        f"the folder {root} holds no pictures (it has {other}, but nothing named .jpg, .png, .webp, .tif, .bmp or "
        ".gif); give one that does"
    )
