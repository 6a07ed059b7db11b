"""CIFAR-10 from its official binary archive (Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images").

https://www.cs.toronto.edu/~kriz/cifar.html describes the layout: records of one label byte and 3,072 pixel bytes, red,
green and blue planes of 32 × 32 in row order. The Python version of the same data would need unpickling, which can run
code; this one cannot.
"""

import hashlib
import http.client
import os
import tarfile
import tempfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from diptych.data.sources.source import Arrays
from diptych.errors import DataError

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
"""Of the archive whose MD5, c32a1d4ab5d03f1284b67883e8d87530, the data set's page publishes."""
ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILES = ("test_batch.bin",)
NAMES_FILE = "batches.meta.txt"
RECORD = 1 + 3 * 32 * 32
BLOCK = 1 << 20
TIMEOUT = 30.0
"""Seconds without an answer."""

Members = dict[str, bytes]


def open_cifar10(
    data_dir: str | None = None,
    *,
    on_download: Callable[[int, int], None] | None = None,
    cache: Path | None = None,
    url: str = URL,
    sha256: str = SHA256,
) -> tuple[Arrays, Arrays]:
    """Read CIFAR-10, and download its archive first where it is not there yet.

    Args:
        data_dir: a folder with the archive or with ``cifar-10-batches-bin``, or one of these itself; the archive is put
            there if it holds neither.
        on_download: told ``(bytes done, bytes in all)``.
        cache: where the archive is kept without ``data_dir``; ``~/.cache/diptych`` if None.
        url: of the archive.
        sha256: of the archive.

    Returns:
        The 50,000 training and the 10,000 test pictures, uint8 ``(3, 32, 32)``.

    Raises:
        DataError: the archive cannot be downloaded, is damaged, or does not have the official layout.
    """
    place = Path(os.path.expanduser(data_dir)) if data_dir else cache or Path.home() / ".cache" / "diptych"
    unpacked = place if (place / TEST_FILES[0]).is_file() else place / FOLDER
    if unpacked.is_dir():
        return _sources(_read_folder(unpacked), unpacked)
    archive = place if place.is_file() else place / ARCHIVE
    if not archive.is_file():
        _download(url, archive, sha256, on_download)
    return _sources(_read_archive(archive, sha256), archive)


def _read_folder(folder: Path) -> Members:
    try:
        return {name: (folder / name).read_bytes() for name in (*TRAIN_FILES, *TEST_FILES, NAMES_FILE)}
    except OSError as error:
        raise DataError(
            f"{folder} is not the unpacked CIFAR-10: {Path(error.filename).name} cannot be read ({error.strerror}); "
            f"unpack {ARCHIVE} again"
        ) from error


def _read_archive(archive: Path, sha256: str) -> Members:
    wanted = {f"{FOLDER}/{name}": name for name in (*TRAIN_FILES, *TEST_FILES, NAMES_FILE)}
    found: Members = {}
    try:
        with open(archive, "rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
            if actual != sha256:
                raise DataError(
                    f"{archive} is damaged or not the official archive (SHA-256 {actual[:12]}…, should be "
                    f"{sha256[:12]}…); fetch {URL} again"
                )
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:gz") as members:
                for member in members:
                    content = members.extractfile(member) if member.isreg() and member.name in wanted else None
                    if content:
                        found[wanted[member.name]] = content.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"cannot read {archive} ({error}); fetch {URL} again") from error
    return found


def _sources(members: Members, origin: Path) -> tuple[Arrays, Arrays]:
    """Turn the files' content into two sources."""
    names = members.get(NAMES_FILE, b"").decode("ascii", "replace").split()
    return _source("train", TRAIN_FILES, members, names, origin), _source("test", TEST_FILES, members, names, origin)


def _source(part: str, files: tuple[str, ...], members: Members, names: list[str], origin: Path) -> Arrays:
    records: list[NDArray[np.uint8]] = []
    for name in files:
        content = members.get(name, b"")
        if not content or len(content) % RECORD:
            raise DataError(
                f"{origin} does not hold CIFAR-10: {name} has {len(content)} bytes, not a multiple of {RECORD}; "
                f"fetch {URL} again"
            )
        records.append(np.frombuffer(content, np.uint8).reshape(-1, RECORD))
    table = np.concatenate(records)
    labels = table[:, 0]
    if labels.max() >= len(names):
        raise DataError(
            f"{origin} does not hold CIFAR-10: a label {labels.max()} for {len(names)} classes; fetch {URL} again"
        )
    return Arrays(f"cifar10/{part}", table[:, 1:].reshape(-1, 3, 32, 32), labels.tolist(), tuple(names))


def _download(url: str, archive: Path, sha256: str, on_download: Callable[[int, int], None] | None) -> None:
    """Fetch the archive into a temporary file beside its place; it gets its name only once its checksum is right."""
    by_hand = f"fetch {URL} by hand and give its folder with --data-dir"
    temporary: Path | None = None
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=archive.parent, prefix=f".{ARCHIVE}.", suffix=".part", delete=False
        ) as file:
            temporary = Path(file.name)
            with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
                total = int(answer.headers.get("Content-Length") or 0)
                actual = _copy(answer, file, total, on_download)
            file.flush()
            os.fsync(file.fileno())
        if actual != sha256:
            raise DataError(f"what {url} sent is not the official archive (SHA-256 {actual[:12]}…); {by_hand}")
        os.replace(temporary, archive)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        reason = " ".join(str(error).split())
        raise DataError(f"cannot download CIFAR-10 to {archive.parent} ({reason}); {by_hand}") from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def _copy(answer: IO[bytes], file: IO[bytes], total: int, on_download: Callable[[int, int], None] | None) -> str:
    """Copy the answer into ``file`` and return the SHA-256 of what came; a connection that breaks gives another one."""
    checksum, done = hashlib.sha256(), 0
    while block := answer.read(BLOCK):
        file.write(block)
        checksum.update(block)
        done += len(block)
        if on_download:
            on_download(done, total)
    return checksum.hexdigest()
