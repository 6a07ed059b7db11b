"""What was embedded so far: ``OUT.parts/`` beside the output, so that a killed command goes on where it was.

::

    OUT.parts/  order.json             what is embedded, and how: another order is refused
                part-000000004096.st   vectors of the pictures from where the part before ends up to place 4,096
                OUT                    the parts joined: the output, before it is moved to its place

Each file is written whole or not at all. Parts follow each other without a gap from place 0 on; what does not (a disk
fault) is computed again. ``.OUT.lock`` is locked while a command is at work, and empty.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from diptych.data.decoding.pixels import BadPicture
from diptych.errors import RunFolderError
from diptych.runs import read_json, write_json, writing, writing_errors
from diptych.vectors.files import Values

ORDER = "order.json"


def folder_of(out: Path) -> Path:
    """Return where the parts of an output lie."""
    return out.with_name(out.name + ".parts")


def is_moving(out: Path) -> bool:
    """Whether a command that was killed had begun to move an output to its place."""
    order = folder_of(out) / ORDER
    return order.is_file() and "published" in read_json(order)


@contextlib.contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Keep other processes and threads from writing to an output while the block runs; a kill sets it free.

    Raises:
        RunFolderError: another one is at it; or the folder cannot be written.
    """
    lock = out.with_name(f".{out.name}.lock")
    with writing_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(lock, out)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(lock: Path, out: Path) -> int:
    """Return a descriptor of the file ``lock``, which is locked."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise RunFolderError(
                f"another command is writing {out} at this moment: wait for it, or choose another --out"
            ) from error
        except OSError:  # a file system that knows no locks
            return descriptor
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        os.close(descriptor)  # whoever had it deleted it after it was opened here


@dataclass(frozen=True, kw_only=True)
class Part:
    """Vectors of pictures that follow each other in the source."""

    values: Values
    """``(n, D)``; n may be 0 where no picture can be read."""
    places: NDArray[np.int64]
    """``(n,)``: where in the source the pictures lie."""
    bad: list[BadPicture]
    """Those between them that cannot be read."""


class Parts:
    """The parts of one output.

    Args:
        out: the output.
        order: JSON values that decide what it will hold.
        overwrite: delete the parts of another order.

    Raises:
        RunFolderError: there are parts of another order; or the folder cannot be written.
    """

    def __init__(self, out: Path, order: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.folder = folder_of(out)
        self._order, self._joined = self.folder / ORDER, self.folder / out.name
        if self._order.is_file() and (other := differing(read_json(self._order)["order"], order)):
            if not overwrite:
                raise RunFolderError(
                    f"{self.folder} holds what an interrupted command has embedded so far, with another {other}: type "
                    "that command again, choose another --out, or add --overwrite to begin anew"
                )
            self.remove()
        if not self._order.is_file():
            if self.folder.exists() and any(self.folder.glob("[!.]*")):
                raise RunFolderError(
                    f"{self.folder} is in the way, and was not made by diptych embed: move it, or choose another --out"
                )
            write_json(self._order, {"order": order})
        self._ends: list[int] = []
        self.count = 0
        """Vectors in all parts."""
        self.bad: list[BadPicture] = []
        """Pictures that cannot be read, in all parts."""
        self._find()

    @property
    def end(self) -> int:
        """The place in the source up to which all is done."""
        return self._ends[-1] if self._ends else 0

    def add(self, part: Part, end: int) -> None:
        """Write the next part, of the pictures up to place ``end``."""
        about = {"start": str(self.end), "bad": json.dumps([(bad.name, bad.reason) for bad in part.bad])}
        with writing(self._path(end)) as temporary:
            temporary.write_bytes(save({"values": part.values, "places": part.places}, about))
        self._note(end, len(part.places), part.bad)

    def __iter__(self) -> Iterator[Part]:
        """Read the parts, in order, one at a time."""
        for end in self._ends:
            with safe_open(self._path(end), "numpy") as file:
                yield Part(values=file.get_tensor("values"), places=file.get_tensor("places"), bad=_bad(file))

    def publish(self) -> None:
        """Note that the output lies in the folder as a whole, and is now moved to its place."""
        noted = {"pictures": self.count, "left_out": len(self.bad)}
        write_json(self._order, {**read_json(self._order), "published": noted})

    @property
    def published(self) -> tuple[int, int] | None:
        """How many vectors were moved to their place as a whole, and pictures left out; None before that."""
        noted = None if self._joined.exists() else read_json(self._order).get("published")
        return noted and (noted["pictures"], noted["left_out"])

    def remove(self) -> None:
        """Delete the folder; what says whose it is goes last, so that a kill on the way leaves nothing unknown."""
        with writing_errors(self.folder):
            for path in sorted(self.folder.iterdir(), key=lambda path: path.name == ORDER):
                path.unlink()
            self.folder.rmdir()

    def _path(self, end: int) -> Path:
        return self.folder / f"part-{end:012}.st"

    def _note(self, end: int, count: int, bad: list[BadPicture]) -> None:
        self._ends.append(end)
        self.count += count
        self.bad += bad

    def _find(self) -> None:
        """Note the parts that follow each other from place 0 on."""
        for path in sorted(self.folder.glob("part-*.st")):
            try:
                with safe_open(path, "numpy") as file:  # it compares the file's length with what its head says
                    start, bad = int(file.metadata()["start"]), _bad(file)
                    count = file.get_slice("places").get_shape()[0]
            except (OSError, SafetensorError):
                continue
            if start == self.end:
                self._note(int(path.stem.removeprefix("part-")), count, bad)


def _bad(file: Any) -> list[BadPicture]:
    return [BadPicture(name, reason) for name, reason in json.loads(file.metadata()["bad"])]


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return the name of the first setting in which two orders differ, for people; empty where none does."""
    names: Sequence[str] = [*now, *(name for name in before if name not in now)]
    return next((name.replace("_", " ") for name in names if before.get(name) != now.get(name)), "")
