"""Pictures in a zip or tar file, read in place: nothing is extracted, so no member can be written anywhere.

Links, devices and members whose path is absolute or climbs out with ``..`` are left out and counted. What a small file
claims, or turns out, to expand to is bounded: a decompression bomb is refused before its content is anywhere.
"""

import contextlib
import gzip
import shutil
import stat
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import IO, Any, cast

from diptych.data.decoding.decode import check_bytes
from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources.layout import EXTENSIONS, is_picture
from diptych.data.sources.source import Entry, Listing, Load
from diptych.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
ENCRYPTED = 0x1
"""Bit of a zip member's flags."""
DAMAGED = (OSError, EOFError, ValueError, NotImplementedError, zipfile.BadZipFile, zlib.error)
"""What reading a member of a zip file raises."""
UNSAFE = "absolute paths, or paths that climb out with .."
NOT_A_FILE = "links or devices"
MIN_FREE = 1 << 26
"""Bytes left on the disk of temporary files when a compressed tar is unpacked there."""
MAX_LISTING = 1 << 29
"""Bytes: a zip's table of contents, or one header of a tar, above this is refused; five million members have less."""
ABSURD_MEMBER = (100 << 20, 100)
"""A zip member is taken for a bomb when it expands beyond so many bytes and so many times its compressed size."""
ABSURD_TAR = (1 << 30, 200)
"""So is a compressed tar."""
BOUNDED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Of other compressions ``zipfile`` bounds what goes in and not what comes out: bzip2 makes gigabytes of 4 KB."""
CHUNK = 1 << 20
"""Bytes asked of a zip member at once: more is never expanded, whatever the member claims."""


def open_zip(path: Path) -> Listing:
    """List the pictures in a zip file.

    Raises:
        DataError: it cannot be read, is not a zip file, or holds no pictures.
    """
    with contextlib.ExitStack() as on_error:
        try:
            file = on_error.enter_context(open(path, "rb"))
            archive = zipfile.ZipFile(cast(IO[bytes], _Bounded(file, path)))
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise _cannot_open(path, "zip", error) from error
        on_error.pop_all()  # no error: the file stays open for as long as `load` is there
    whole = path.stat().st_size
    members: dict[str, zipfile.ZipInfo] = {}
    left_out: Counter[str] = Counter()
    for member in archive.infolist():
        name = member.filename.replace("\\", "/")
        kind = stat.S_IFMT(member.external_attr >> 16)
        if member.is_dir() or not name.lower().endswith(EXTENSIONS):
            continue
        if is_unsafe(name):
            left_out[UNSAFE] += 1
        elif not is_picture(_tidy(name)):
            continue
        elif kind not in (0, stat.S_IFREG):
            left_out[NOT_A_FILE] += 1
        elif member.flag_bits & ENCRYPTED:
            left_out["encrypted"] += 1
        elif member.compress_type not in BOUNDED:
            left_out["compressed otherwise than by deflate"] += 1
        else:
            members[_tidy(name)] = member  # as unzip does, the last one of a name stands
    archive.filelist.clear()  # a million members that are no pictures need not be remembered
    archive.NameToInfo.clear()

    def load(name: str) -> bytes:
        member = members[name]
        check_bytes(member.file_size, name)
        if _is_absurd(member.file_size, min(member.compress_size, whole), ABSURD_MEMBER):
            raise BadPicture(name, f"a bomb: {member.compress_size} bytes that expand to {member.file_size}")
        try:
            return _expand(archive, member)
        except DAMAGED as error:
            raise BadPicture(name, f"damaged in the zip file ({error})") from error

    weakref.finalize(load, file.close)
    entries = [Entry(name, member.file_size, member.CRC) for name, member in members.items()]
    return _listing(path, entries, load, left_out)


def open_tar(path: Path) -> Listing:
    """List the pictures in a tar file, plain or compressed by gzip.

    A compressed one can only be read from its start, so it is unpacked as a whole, once, into a temporary file without
    a name, which vanishes with the process.

    Raises:
        DataError: it cannot be read, is not a tar file, holds no pictures, or does not fit on the disk.
    """
    places: dict[str, tuple[int, int]] = {}
    entries: dict[str, Entry] = {}
    left_out: Counter[str] = Counter()
    with contextlib.ExitStack() as on_error:
        try:
            file = on_error.enter_context(_plain_tar(path))
            _list_tar(file, path, places, entries, left_out)
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            raise _cannot_open(path, "tar", error) from error
        on_error.pop_all()  # no error: the file stays open for as long as `load` is there
    lock = threading.Lock()

    def load(name: str) -> bytes:
        first, size = places[name]
        check_bytes(size, name)
        with lock:
            file.seek(first)
            content = file.read(size)
        if len(content) < size:
            raise BadPicture(name, "cut short: the tar file ends before it does")
        return content

    weakref.finalize(load, file.close)
    return _listing(path, list(entries.values()), load, left_out)


class _Bounded:
    """A file for ``zipfile`` and ``tarfile``, which read whatever length its headers claim into memory."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable
        self._file, self._path = file, path

    def read(self, size: int = -1) -> bytes:
        if size > MAX_LISTING:
            raise DataError(
                f"cannot list {self._path}: what it says of its members is larger than {MAX_LISTING >> 20} MiB; unpack "
                "it yourself and give the folder"
            )
        return self._file.read(size)


def _expand(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Return the content of a zip member; reading in pieces holds it to the size that it claims."""
    content = bytearray()
    with archive.open(member) as packed:  # zipfile locks the file that threads share
        while piece := packed.read(CHUNK):
            content += piece
    return bytes(content)


def _is_absurd(expanded: int, packed: int, bounds: tuple[int, int]) -> bool:
    size, times = bounds
    return expanded > size and expanded > times * packed


def _list_tar(
    file: IO[bytes],
    path: Path,
    places: dict[str, tuple[int, int]],
    entries: dict[str, Entry],
    left_out: Counter[str],
) -> None:
    """Fill in where the pictures of a tar file lie, what they are, and what is left out."""
    with tarfile.open(fileobj=cast(IO[bytes], _Bounded(file, path)), mode="r:") as archive:
        while member := archive.next():
            cast(Any, archive).members.clear()  # tarfile would remember every member, pictures or not
            name = _tidy(member.name)
            if member.isdir() or not name.lower().endswith(EXTENSIONS):
                continue
            if is_unsafe(member.name):
                left_out[UNSAFE] += 1
            elif not is_picture(name):
                continue
            elif not member.isreg() or member.issparse():
                left_out[NOT_A_FILE] += 1
            else:
                places[name] = (member.offset_data, member.size)
                entries[name] = Entry(name, member.size, int(member.mtime * 1e9))
        # tarfile takes a damaged header for the end of the file; behind the real end there are zeros, or nothing.
        file.seek(archive.offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"the header at byte {archive.offset} is no tar header")


def _plain_tar(path: Path) -> IO[bytes]:
    file = open(path, "rb")
    if file.read(2) != GZIP_MAGIC:
        file.seek(0)
        return file
    file.close()
    plain = tempfile.TemporaryFile()
    expanded = 0
    try:
        with gzip.open(path) as packed:
            while block := packed.read(1 << 24):
                expanded += len(block)
                if _is_absurd(expanded, path.stat().st_size, ABSURD_TAR):
                    raise DataError(
                        f"{path} is a bomb: it expands to more than {ABSURD_TAR[1]} times its size; give an archive of "
                        "pictures"
                    )
                if shutil.disk_usage(tempfile.gettempdir()).free < len(block) + MIN_FREE:
                    raise DataError(
                        f"{path} does not fit on the disk of temporary files ({tempfile.gettempdir()}) when unpacked; "
                        "unpack it yourself and give the folder"
                    )
                plain.write(block)
        plain.seek(0)
    except BaseException:
        plain.close()
        raise
    return plain


def _listing(path: Path, entries: list[Entry], load: Load, left_out: Counter[str]) -> Listing:
    reasons = [f"{count} left out ({reason})" for reason, count in sorted(left_out.items())]
    if not entries:
        raise DataError(f"{path} holds no pictures{f', {reasons[0]}' if reasons else ''}; give an archive that does")
    return Listing(entries=sorted(entries), load=load, left_out=reasons)


def _tidy(name: str) -> str:
    """Drop the leading ``./`` that tar writes."""
    return name.removeprefix("./")


def is_unsafe(name: str) -> bool:
    """Whether a member's path is absolute or climbs out of its archive."""
    return name.startswith("/") or ".." in name.split("/")


def _cannot_open(path: Path, kind: str, error: Exception) -> DataError:
    reason = (
        error.strerror
        if isinstance(error, OSError) and error.strerror
        else f"not a {kind} file, or damaged: {' '.join(str(error).split())}"
    )
    return DataError(f"cannot read {path} ({reason}); check or fetch it again")
