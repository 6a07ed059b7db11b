"""The index of an audit: what is known of every picture, on disk, so that no picture is opened twice.

SQLite, one row a picture, written in batches: a kill loses the last batch at most, and the next audit goes on from
there. A picture whose size and time of change (in an archive: its checksum) are as they were is not opened again; one
that could not be opened at all is tried again, since permission to read it changes neither.
"""

import base64
import contextlib
import json
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from diptych.auditing.inspect import Record
from diptych.data.sources.source import Files, Source, Subset
from diptych.errors import RunFolderError
from diptych.runs import writing_errors

VERSION = 1
"""Of the tables; an index of another version is made anew."""
DECODERS = ("pillow", "tifffile", "imagecodecs")
"""Packages that decide what can be read: with another version of one, every picture is inspected again."""

PARTS = ("train", "test")
"""Names of the parts of a data set, in the order of their numbers."""
STATISTICS = ("mean", "std", "low", "high")
"""Lists of a number a channel, kept together as JSON."""
TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE listed (part INTEGER, name BLOB, size INTEGER, stamp INTEGER, label TEXT, place INTEGER,
    PRIMARY KEY (part, name)) WITHOUT ROWID;
CREATE TABLE records (id INTEGER PRIMARY KEY, part INTEGER, name BLOB, size INTEGER, stamp INTEGER,
    reason TEXT, format TEXT, digest TEXT, mode TEXT, width INTEGER, height INTEGER, channels INTEGER, depth TEXT,
    statistics TEXT, constant INTEGER, rotated INTEGER, misnamed INTEGER, phash INTEGER,
    signature BLOB, UNIQUE (part, name));
CREATE INDEX by_digest ON records (digest);
CREATE TABLE thumbnails (digest TEXT PRIMARY KEY, image BLOB) WITHOUT ROWID;
CREATE VIEW pictures AS SELECT r.*, l.label, l.place FROM records r JOIN listed l USING (part, name);
CREATE VIEW good AS SELECT * FROM pictures WHERE reason IS NULL;
"""
_FIRST = Record._fields.index(STATISTICS[0])
_INSERT = (
    f"INSERT OR REPLACE INTO records VALUES (NULL, {', '.join('?' * (5 + len(Record._fields) - len(STATISTICS)))})"
)


REFUSED = (
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
)
"""Errors of SQLite that have nothing to do with what is in the file."""


class DamagedIndex(Exception):
    """The file is no index, or a damaged one, or one of other pictures: ``remove`` it and begin again."""


class Index:
    """An open index; use it in a ``with`` block.

    Args:
        path: the file; made where there is none.
        data: what is audited, as an absolute path or a name.

    Raises:
        DamagedIndex: by ``with``, on the way in or out: the file is no index of this version and of these pictures, or
            is damaged.
        RunFolderError: likewise; another audit has it open, or the disk refuses.
    """

    def __init__(self, path: Path, data: str) -> None:
        self.path, self.data = path, data

    def __enter__(self) -> "Index":
        with contextlib.ExitStack() as opening:
            try:
                self._database = sqlite3.connect(self.path, timeout=2)
                opening.callback(self._close)
                self._open()
            except sqlite3.Error as error:
                raise self._told(error) from error
            opening.pop_all()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._close()
        if isinstance(error, sqlite3.Error):
            raise self._told(error) from error

    def _open(self) -> None:
        self._database.execute("PRAGMA locking_mode = EXCLUSIVE")  # two audits at once would undo each other's work
        self._database.execute("PRAGMA synchronous = NORMAL")
        self._database.execute("BEGIN EXCLUSIVE")
        if not self._is_ours():
            if self.number("SELECT count(*) FROM sqlite_master"):
                raise DamagedIndex(self.path)
            self._database.rollback()
            self._database.executescript(TABLES)
            about = {"version": _version(), "data": self.data}
            self._database.executemany("INSERT INTO about VALUES (?, ?)", about.items())
        self._database.commit()

    def _close(self) -> None:
        self._database.close()

    def _is_ours(self) -> bool:
        (there,) = self.rows("SELECT count(*) FROM sqlite_master WHERE name = 'about'")[0]
        return bool(there) and dict(self.rows("SELECT key, value FROM about")) == {
            "version": _version(),
            "data": self.data,
        }

    def _told(self, error: sqlite3.Error) -> Exception:
        """Say what an error means: the disk or another audit is in the way, or the file is no index (any more)."""
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return RunFolderError(
                f"another audit is writing {self.path}; wait for it, or choose another folder with --out"
            )
        if code in REFUSED:
            return RunFolderError(f"cannot write {self.path} ({error}); choose another folder with --out")
        return DamagedIndex(self.path)

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return all rows of a query."""
        return self._database.execute(query, values).fetchall()

    def stream(self, query: str, values: Sequence[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a query, which are never all in memory."""
        return iter(self._database.execute(query, values))

    def number(self, query: str, values: Sequence[Any] = ()) -> int:
        """Return the one number that a query asks for."""
        return int(self.rows(query, values)[0][0] or 0)

    def update(self, parts: Sequence[Source]) -> "list[array[int]]":
        """Compare the index with what is there now, opening nothing: forget what has changed or gone.

        Returns:
            For each part, the places of the pictures that have to be inspected.
        """
        with self._database:
            self._database.execute("DELETE FROM listed")
            for number, source in enumerate(parts):
                self._database.executemany(
                    "INSERT OR REPLACE INTO listed VALUES (?, ?, ?, ?, ?, ?)",
                    ((number, *key, label, place) for place, (key, label) in enumerate(_listing(source))),
                )
            self._database.execute(
                "DELETE FROM records WHERE digest = '' OR NOT EXISTS (SELECT 1 FROM listed l WHERE "
                "(l.part, l.name, l.size, l.stamp) = (records.part, records.name, records.size, records.stamp))"
            )
        missing = (
            "SELECT l.place FROM listed l LEFT JOIN records r USING (part, name) WHERE r.id IS NULL AND l.part = ? "
            "ORDER BY l.place"
        )
        return [array("q", (place for (place,) in self.stream(missing, [part]))) for part in range(len(parts))]

    def add(self, found: Iterable[tuple[tuple[int, "Key"], Record]]) -> None:
        """Keep the records of a batch of pictures, each with its part and its key."""
        with self._database:
            self._database.executemany(_INSERT, ((part, *key, *_columns(record)) for (part, key), record in found))

    def thumbnail(self, digest: str) -> bytes | None:
        """Return the small picture kept for a content, None where there is none yet."""
        found = self.rows("SELECT image FROM thumbnails WHERE digest = ?", [digest])
        return bytes(found[0][0]) if found else None

    def keep_thumbnails(self, images: dict[str, bytes]) -> None:
        """Keep these small pictures and no others."""
        with self._database:
            self._database.execute("DELETE FROM thumbnails")
            self._database.executemany("INSERT INTO thumbnails VALUES (?, ?)", images.items())


def remove(path: Path) -> None:
    """Delete an index, which is only a cache, and the journal beside it, which SQLite would play into the next one."""
    for one in (path, path.with_name(f"{path.name}-journal")):
        with writing_errors(one):
            one.unlink(missing_ok=True)


Key = tuple[bytes, int, int]
"""A picture's name, size in bytes and stamp."""


def key_of(source: Source, index: int) -> Key:
    """Return what tells a picture from a changed one, without opening it."""
    files, place = innermost(source, index)
    if isinstance(files, Files):
        entry = files.entry(place)
        return entry.name.encode("utf-8", "surrogateescape"), entry.size, _signed(entry.stamp)
    return source.name_of(index).encode("utf-8", "surrogateescape"), 0, int(source.fingerprint[:15], 16)


def innermost(source: Source, index: int) -> tuple[Source, int]:
    """Return the source that holds a picture itself, and the picture's place in it."""
    if isinstance(source, Subset):
        return innermost(source.source, source.indices[index])
    return source, index


def shown(name: bytes | str) -> str:
    """Return a name as people and JSON see it: bytes that are no text replaced."""
    return (name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")).decode("utf-8", "replace")


def _signed(stamp: int) -> int:
    """Fit a stamp into the 64 bits of SQLite's numbers."""
    return (stamp + (1 << 63)) % (1 << 64) - (1 << 63)


def _listing(source: Source) -> Iterator[tuple[Key, str | None]]:
    for place in range(len(source)):
        label = source.label(place)
        yield key_of(source, place), None if label is None else shown(source.classes[label])


def _columns(record: Record) -> list[Any]:
    values = list(record)
    statistics = json.dumps(values[_FIRST : _FIRST + len(STATISTICS)])
    return [*values[:_FIRST], statistics, *values[_FIRST + len(STATISTICS) : -1], base64.b64decode(record.signature)]


def _version() -> str:
    found = [f"index {VERSION}"]
    for package in DECODERS:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{package} {version(package)}")
    return ", ".join(found)
