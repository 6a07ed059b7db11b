"""A folder of pictures, nested or flat."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from diptych.data.sources.layout import EXTENSIONS, count, is_hidden, is_picture
from diptych.data.sources.source import Entry, Listing
from diptych.errors import DataError
from diptych.runs import MARKER


def scan(root: Path) -> Listing:
    """List the pictures below ``root`` without opening them; each file once, however many names it has.

    Hidden files and folders are left out, and so are run folders of our own. Links are followed, but a folder is
    entered once, so that a loop of links ends. Of a file's names the one without links stands; of hard links, the one
    that is met first.

    Raises:
        DataError: ``root`` cannot be read, or holds no pictures.
    """
    walk = _Walk(root)
    entries = sorted(walk)
    if not entries:
        raise DataError(_nothing(root, walk.other, walk.left_out))
    left_out = sorted(walk.left_out)
    if walk.repeated:
        left_out.append(f"{count(walk.repeated, 'more name')} of files that are listed already left out (links)")
    return Listing(entries=entries, load=lambda name: root / name, left_out=left_out)


class _Walk:
    """Yields the pictures below a folder and keeps what was left out."""

    def __init__(self, root: Path) -> None:
        self.root = os.fspath(root)
        self._prefix = os.path.join(self.root, "")
        self.left_out: list[str] = []
        self.other: str | None = None
        """A file that is no picture, for people."""
        self.repeated = 0
        """Names left out because their file is listed under another."""
        self._entered: set[str] = set()
        """Folders, by their path without links."""
        self._several: set[tuple[int, int]] = set()
        """Device and number of the listed files that have hard links; the others need not be remembered."""
        self._files: list[str] = []
        """Links to files, kept until every folder has been entered."""

    def __iter__(self) -> Iterator[Entry]:
        waiting = [("", os.path.realpath(self.root))]
        links: list[str] = []
        while waiting or links:
            if waiting:
                folder, real = waiting.pop()
            else:  # links last: a folder that can be reached without one keeps its own path
                folder = links.pop()
                real = os.path.realpath(self._full(folder))
            if real in self._entered:
                continue
            below: list[tuple[str, str]] = []
            for member, path in self._members(folder, real):
                if _is_folder(member):
                    if member.is_symlink():
                        links.append(path)
                    else:
                        below.append((path, f"{real}/{member.name}"))
                elif not path.lower().endswith(EXTENSIONS):
                    self.other = self.other or path
                elif member.is_symlink():
                    self._files.append(path)
                elif entry := self._entry(path):
                    yield entry
            waiting += reversed(below)
        targets: set[str] = set()
        for path in self._files:
            real = os.path.realpath(self._full(path))
            above, name = os.path.split(real)
            listed = real in targets or (above in self._entered and is_picture(name))
            if listed and os.path.exists(real):
                self.repeated += 1
                continue
            targets.add(real)
            if entry := self._entry(path):
                yield entry

    def _full(self, path: str) -> str:
        return self._prefix + path if path else self.root

    def _members(self, folder: str, real: str) -> "list[tuple[os.DirEntry[str], str]]":
        """Enter a folder; return what lies in it and is not hidden, in order, with its path below the root."""
        try:
            with os.scandir(self._full(folder)) as found:
                members = sorted(found, key=lambda member: member.name)
        except OSError as error:
            if not folder:
                raise DataError(
                    f"cannot read the folder {self.root} ({error.strerror}); check its permissions"
                ) from error
            self.left_out.append(f"the folder {folder} could not be read ({error.strerror})")
            return []
        if folder and any(member.name == MARKER for member in members):
            return []  # a run that lies among the pictures: what it drew is not among them
        self._entered.add(real)
        above = f"{folder}/" if folder else ""
        return [(member, above + member.name) for member in members if not is_hidden(member.name)]

    def _entry(self, path: str) -> Entry | None:
        """Describe a file; None for one that is listed already, and for what is no file, such as a pipe."""
        try:
            status = os.stat(self._full(path))
        except OSError:
            return Entry(path, 0, 0)  # such as a dangling link: listed, to be reported when it is read
        if not stat.S_ISREG(status.st_mode):
            return None
        if status.st_nlink > 1:
            identity = (status.st_dev, status.st_ino)
            if identity in self._several:
                self.repeated += 1
                return None
            self._several.add(identity)
        return Entry(path, status.st_size, status.st_mtime_ns)


def _is_folder(member: "os.DirEntry[str]") -> bool:
    try:
        return member.is_dir()
    except OSError:  # a link that points to itself
        return False


def _nothing(root: Path, other: str | None, left_out: list[str]) -> str:
    if left_out:
        return f"no pictures can be seen in {root}: {left_out[0]}; check its permissions"
    if other is None:
        return f"the folder {root} is empty; give one that holds pictures"
    return (
        f"the folder {root} holds no pictures (it has {other}, but nothing named .jpg, .png, .webp, .tif, .bmp or "
        ".gif); give one that does"
    )
