"""Tar shards: pictures that are too many to index, read in the order in which they lie.

A shard is an uncompressed tar file; each member that is named like a picture is one sample, and whatever lies beside it
(webdataset's ``.cls`` and ``.json``) is passed over. Our own reader of headers, because ``tarfile`` takes a damaged
header for the end of the file and keeps every member that it has met. It reads ustar, GNU long names and the ``path``
and ``size`` of pax, seeks from header to header, and remembers nothing; nothing is extracted and nothing unpickled.
"""

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from diptych.data.decoding.decode import MAX_REASON
from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources.archive import NOT_A_FILE, UNSAFE, is_unsafe
from diptych.data.sources.layout import EXTENSIONS, is_picture
from diptych.data.sources.source import digest
from diptych.errors import DataError, suggest

BLOCK = 512
"""Bytes: a tar file consists of headers and contents, each filled up to a multiple of this."""
TAR = ".tar"
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
LISTS = (".txt", ".lst")
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
"""``{000..099}``, as shells and webdataset write it."""
MAX_SHARDS = 1_000_000
MAX_NAME = 1 << 20
"""Bytes of a long name or of pax records above this are taken for damage."""
STATUS_THREADS = 16
"""Shards behind a URL that are asked for their size at once."""

REGULAR = (b"0", b"\0", b"7")
WITHOUT_CONTENT = (b"1", b"2", b"3", b"4", b"5", b"6")
"""Links, devices, folders and pipes, whatever size they claim."""
FOLDER, LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL, SPARSE = b"5", b"L", b"K", b"x", b"g", b"S"
PAX_SPARSE = b"GNU.sparse."


class Member(NamedTuple):
    """A picture in a shard."""

    name: str
    """Its path within the shard."""
    offset: int
    """Byte at which its content begins."""
    size: int
    """Bytes of its content."""


class _Header(NamedTuple):
    kind: bytes
    name: bytes
    size: int


def is_shards(data: str) -> bool:
    """Whether ``data`` names tar shards: a URL, a pattern or a range of .tar files, or a list of them.

    A single tar file on disk is an archive and can be indexed.
    """
    if _is_url(data):
        return True
    path = Path(os.path.expanduser(data))
    if data.lower().endswith(LISTS) and path.is_file():
        return _lists_shards(path)
    return _is_tar(data) and not path.exists() and (glob.has_magic(data) or bool(RANGE.search(data)))


def find_shards(data: str) -> list[str]:
    """Find the shards that ``data`` names, sorted, each once.

    Args:
        data: a pattern (``dir/*.tar``), a range (``dir/{000..099}.tar``), a URL that fsspec knows, with or without
            these, or a .txt or .lst file that lists such, relative to its own folder.

    Returns:
        Local paths and URLs.

    Raises:
        DataError: there are none, they are compressed or no tar files, or reading them needs another package.
    """
    path = Path(os.path.expanduser(data))
    if not _is_url(data) and data.lower().endswith(LISTS):
        try:
            lines = list(_lines(path))
        except OSError as error:
            raise DataError(f"cannot read {data} ({error.strerror}); check its permissions") from error
        asked = [line if _is_url(line) else str(path.parent / Path(os.path.expanduser(line))) for line in lines]
    else:
        asked = [data if _is_url(data) else str(path)]
    found: dict[str, str] = {}
    for pattern in asked:
        _check_name(pattern, data)
        for shard in _expand(pattern, data):
            found.setdefault(shard if _is_url(shard) else os.path.realpath(shard), shard)
            if len(found) > MAX_SHARDS:
                raise DataError(f"{data} names more than {MAX_SHARDS:,} shards; give fewer, larger ones")
    shards = sorted(found.values())
    missing = [shard for shard in shards if not _is_url(shard) and not os.path.isfile(shard)]
    if missing:
        others = f" nor {len(missing) - 1} others" if len(missing) > 1 else ""
        raise DataError(f"there is no file {missing[0]}{others}, which {data} names; correct it or fetch them")
    if not shards:
        raise DataError(f"{data} finds no tar files; check the path, and quote patterns so that the shell leaves them")
    return shards


def count(shards: Iterable[str], on_progress: Callable[[int], None] | None = None) -> int:
    """Return how many pictures local shards hold, by their headers alone; what is damaged is left out.

    Args:
        shards: as ``find_shards`` returns them.
        on_progress: told the number of shards done after each.

    Raises:
        DataError: one lies behind a URL, where headers cannot be had without fetching everything, or none holds a
            picture.
    """
    total, done, bad, left_out = 0, 0, list[BadPicture](), Counter[str]()
    for shard in shards:
        if _is_url(shard):
            raise DataError(f"the pictures behind {shard} are not counted; say --limit N, the pictures of one epoch")
        try:
            with closing(open_shard(shard)) as file:
                for _ in members(file, shard, left_out):
                    total += 1
        except BadPicture as error:
            bad.append(error)
        done += 1
        if on_progress:
            on_progress(done)
    if not total:
        raise DataError(no_pictures(done, bad, left_out))
    return total


def no_pictures(shards: int, bad: list[BadPicture], left_out: Counter[str]) -> str:
    """Return a line that says why none of so many shards gives a picture."""
    reasons = [str(bad[0])] if bad else [f"{number} left out ({why})" for why, number in sorted(left_out.items())]
    many = "the shard holds" if shards == 1 else f"the {shards} shards hold"
    return f"{many} no pictures that can be read{f': {reasons[0]}' if reasons else ''}; give tar files of pictures"


def fingerprint(shards: Iterable[str]) -> str:
    """Return the hexadecimal SHA-256 of the shards' file names and sizes; it is the same wherever they lie.

    Raises:
        DataError: a file system behind a URL cannot be used at all.
    """
    shards = list(shards)
    with ThreadPoolExecutor(STATUS_THREADS) as pool:
        sizes = list(pool.map(_size, shards))
    return digest((_path(shard).rpartition("/")[2], size) for shard, size in zip(shards, sizes, strict=True))


def open_shard(shard: str) -> IO[bytes]:
    """Open a shard for reading.

    Raises:
        BadPicture: it is gone or may not be read.
        DataError: its URL needs another package.
    """
    try:
        if not _is_url(shard):
            return open(shard, "rb")
        files, path = _file_system(shard)
        opened: IO[bytes] = files.open(path, "rb")
        return opened
    except DataError:
        raise
    except Exception as error:  # every file system of fsspec raises errors of its own
        raise BadPicture(shard, f"the shard cannot be opened ({_reason(error)}) and is skipped") from error


def read(file: IO[bytes], shard: str, first: int, size: int) -> bytes:
    """Return ``size`` bytes of an open shard from byte ``first`` on, fewer at its end.

    Raises:
        BadPicture: it cannot be read there.
    """
    try:
        file.seek(first)
        return file.read(size)
    except Exception as error:  # as in `open_shard`
        raise BadPicture(shard, f"cannot be read at byte {first} ({_reason(error)})") from error


def members(file: IO[bytes], shard: str, left_out: Counter[str] | None = None) -> Iterator[Member]:
    """Yield the pictures of an open shard, reading headers only.

    Args:
        file: the shard; between two members the caller may read it anywhere.
        shard: its name, for errors.
        left_out: counts the pictures that are passed over, by reason: links and devices, and unsafe names.

    Raises:
        BadPicture: the shard is damaged at a byte, which is named; the members before it have been yielded, the rest
            cannot be found.
    """
    skipped = Counter[str]() if left_out is None else left_out
    end = _end(file, shard)
    place = 0
    long_name: bytes | None = None
    records: dict[bytes, bytes] = {}
    while place < end:
        header = _header(read(file, shard, place, BLOCK), shard, place)
        if header is None:
            following = read(file, shard, place + BLOCK, BLOCK)
            if following.strip(b"\0"):
                raise _damaged(shard, place, "a header is empty")
            return
        content = place + BLOCK
        if header.kind == SPARSE:
            content = _after_sparse_map(file, shard, place)
        size = _whole_size(records, header, shard, place)
        following_place = content + (0 if header.kind in WITHOUT_CONTENT else -(-size // BLOCK) * BLOCK)
        if header.kind not in WITHOUT_CONTENT and content + size > end:
            raise _damaged(shard, place, "the shard is cut short")
        if header.kind in (LONG_NAME, PAX):
            if size > MAX_NAME:
                raise _damaged(shard, place, f"a name of {size} bytes")
            extra = read(file, shard, content, size)
            if header.kind == LONG_NAME:
                long_name = extra.partition(b"\0")[0]
            else:
                records = _records(extra, shard, place)
        elif header.kind not in (LONG_LINK, PAX_GLOBAL):
            raw = long_name or records.get(b"path") or header.name
            name = raw.decode("utf-8", "surrogateescape").removeprefix("./")
            if name.lower().endswith(EXTENSIONS) and header.kind != FOLDER:
                if is_unsafe(name):
                    skipped[UNSAFE] += 1
                elif is_picture(name):
                    if header.kind in REGULAR and not any(key.startswith(PAX_SPARSE) for key in records):
                        yield Member(name, content, size)
                    else:
                        skipped[NOT_A_FILE] += 1
            long_name, records = None, {}
        place = following_place


def _header(block: bytes, shard: str, place: int) -> _Header | None:
    """Parse a header, None where the block is empty, which ends a tar file."""
    if len(block) < BLOCK:
        raise _damaged(shard, place, "the shard is cut short")
    if not any(block):
        return None
    try:
        told = _number(block[148:156])
        size = _number(block[124:136])
    except ValueError as error:
        raise _damaged(shard, place, "a header is no tar header") from error
    summed = sum(block) - sum(block[148:156]) + 8 * ord(" ")  # as if its own field were blank
    if told != summed:
        raise _damaged(shard, place, "a header's checksum is wrong")
    if size < 0:
        raise _damaged(shard, place, "a header gives a negative size")
    name = block[:100].partition(b"\0")[0]
    prefix = block[345:500].partition(b"\0")[0]
    if prefix and block[257:263] == b"ustar\0":  # GNU tar keeps other things there
        name = prefix + b"/" + name
    return _Header(block[156:157], name, size)


def _number(field: bytes) -> int:
    """Parse octal digits, or GNU's form for what they cannot hold: a first byte 0x80 (or 0xff: negative), then binary.

    Raises:
        ValueError: it is neither.
    """
    if field[0] in (0x80, 0xFF):
        return int.from_bytes(field[1:], "big") - (256 ** (len(field) - 1) if field[0] == 0xFF else 0)
    return int(field.partition(b"\0")[0].strip() or b"0", 8)


def _whole_size(records: dict[bytes, bytes], header: _Header, shard: str, place: int) -> int:
    """Return the size of a member's content, which pax records tell where the header's field is too small."""
    if header.kind not in REGULAR or b"size" not in records:
        return header.size
    if not records[b"size"].isdigit():
        raise _damaged(shard, place, "its pax records are no records")
    return int(records[b"size"])


def _records(content: bytes, shard: str, place: int) -> dict[bytes, bytes]:
    """Parse pax records, each ``length key=value`` and a line's end; the length counts all of these."""
    records: dict[bytes, bytes] = {}
    while content.strip(b"\0"):
        length, _, rest = content.partition(b" ")
        used = int(length) if length.isdigit() and len(length) < 10 else 0
        key, equals, value = rest[: used - len(length) - 1].partition(b"=")
        if used <= len(length) + 1 or used > len(content) or not equals or not value.endswith(b"\n"):
            raise _damaged(shard, place, "its pax records are no records")
        records[key] = value[:-1]
        content = content[used:]
    return records


def _after_sparse_map(file: IO[bytes], shard: str, place: int) -> int:
    """Return where the content of a sparse GNU member begins: blocks that continue its map lie before it."""
    flag = 482
    while read(file, shard, place + flag, 1).strip(b"\0"):
        place, flag = place + BLOCK, 504
    return place + BLOCK


def _end(file: IO[bytes], shard: str) -> int:
    try:
        return file.seek(0, os.SEEK_END)
    except Exception as error:  # as in `open_shard`
        raise BadPicture(
            shard, f"the shard cannot be read from a position ({_reason(error)}) and is skipped"
        ) from error


def _damaged(shard: str, place: int, reason: str) -> BadPicture:
    return BadPicture(shard, f"the shard is damaged at byte {place} ({reason}): its rest is skipped")


def _is_url(data: str) -> bool:
    return "://" in data


def _lines(path: Path) -> Iterator[str]:
    """Yield what a list names, without empty lines and comments."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
        yield from (line for line in map(str.strip, file) if line and not line.startswith("#"))


def _lists_shards(path: Path) -> bool:
    try:
        none = True
        for line in _lines(path):
            if not _is_tar(line):
                return False
            none = False
        return not none
    except OSError:
        return False


def _path(name: str) -> str:
    """Return a path, or the path of a URL: what ``?`` begins in a web address is no part of it."""
    return urlsplit(name).path if name.startswith(("http://", "https://")) else name


def _is_tar(name: str, endings: str | tuple[str, ...] = (TAR, *COMPRESSED)) -> bool:
    return _path(name).lower().endswith(endings)


def _check_name(pattern: str, data: str) -> None:
    within = "" if pattern == data else f", which {data} names,"
    if _is_tar(pattern, COMPRESSED):
        raise DataError(
            f"{pattern}{within} is compressed, and cannot be read from a position: use plain .tar shards, pictures do "
            "not get smaller by compressing them again"
        )
    if not _is_tar(pattern, TAR):
        raise DataError(f"{pattern}{within} is not a tar file; give shards, such as {os.path.dirname(pattern)}/*.tar")


def _expand(pattern: str, data: str) -> Iterator[str]:
    """Expand ranges, then wildcards."""
    if found := RANGE.search(pattern):
        first, last = found.groups()
        low, high = sorted((int(first), int(last)))
        if high - low >= MAX_SHARDS:
            raise DataError(f"{data} names more than {MAX_SHARDS:,} shards; give fewer, larger ones")
        padded = any(end.startswith("0") and len(end) > 1 for end in (first, last))
        width = max(len(first), len(last)) if padded else 0
        for number in range(low, high + 1):
            yield from _expand(f"{pattern[: found.start()]}{number:0{width}d}{pattern[found.end() :]}", data)
    elif not _is_url(pattern):
        names = glob.iglob(pattern, recursive=True) if glob.has_magic(pattern) else [pattern]
        yield from (os.path.normpath(name) for name in names if not os.path.isdir(name))
    elif glob.has_magic(_path(pattern)):
        files, path = _file_system(pattern)
        try:
            names = files.glob(path)
        except Exception as error:  # as in `open_shard`
            raise DataError(f"cannot list {pattern} ({_reason(error)}); check the address and your access") from error
        yield from (files.unstrip_protocol(name) for name in names)
    else:
        yield pattern


def _file_system(url: str) -> tuple[Any, str]:
    """Return the file system of ``url`` and the path within it.

    Raises:
        DataError: there is none, or it needs another package.
    """
    try:
        import fsspec  # only for URLs: local shards need none of it

        files, path = fsspec.core.url_to_fs(url)
        return files, path
    except ImportError as error:
        raise DataError(f"reading {url} needs another package: {_reason(error)} (pip install it)") from error
    except ValueError as error:
        protocol = url.partition("://")[0]
        raise DataError(f"cannot read {url}{suggest(protocol, fsspec.available_protocols())}") from error
    except Exception as error:  # as in `open_shard`
        raise DataError(f"cannot read {url} ({_reason(error)}); check the address and your access") from error


def _size(shard: str) -> int | None:
    """Return the bytes of a shard, None where it is gone."""
    try:
        if not _is_url(shard):
            return os.stat(shard).st_size
        files, path = _file_system(shard)
        size: int | None = files.info(path)["size"]
        return size
    except DataError:
        raise
    except Exception:  # as in `open_shard`; reading it will say why
        return None


def _reason(error: Exception) -> str:
    """Return what went wrong on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split())[:MAX_REASON] or type(error).__name__
