"""Pictures that cannot be read: each is told once, and too many of them stop the run."""

import math
from collections.abc import Callable, Set
from typing import Any

from diptych.data.decoding.pixels import BadPicture
from diptych.errors import DataError, typed

SHOWN = 10
"""Pictures named when a run is stopped."""
ENOUGH = 100
"""Pictures that cannot be read and are beyond what is allowed: no need to look at the rest."""


class Quarantine:
    """Collects what could not be read.

    Args:
        data: what the user typed, for the advice.
        total: pictures in all.
        max_bad: the share of them that may be unreadable, 0..1.
        known: names that were told before, by the run that is resumed.
    """

    def __init__(self, data: str, total: int, max_bad: float, known: Set[str] = frozenset()) -> None:
        self.data, self.total, self.max_bad = data, total, max_bad
        self.pictures: list[BadPicture] = []
        self._names = set(known)
        self._write: Callable[[dict[str, Any]], None] | None = None

    def __len__(self) -> int:
        return len(self._names)

    def add(self, bad: BadPicture) -> None:
        """Note a picture; one that is known already changes nothing.

        Raises:
            DataError: there are far more than may be.
        """
        if bad.name in self._names:
            return
        self._names.add(bad.name)
        self.pictures.append(bad)
        if self._write:
            self._write(self._record(bad))
            self.check()
        elif len(self) > self._allowed() + ENOUGH:
            self.check()

    def log_to(self, write: Callable[[dict[str, Any]], None]) -> None:
        """Write what was noted so far, and what will be, one record each."""
        for bad in self.pictures:
            write(self._record(bad))
        self._write = write

    def check(self) -> None:
        """Raise ``DataError`` if there are more than may be."""
        if len(self) <= self._allowed():
            return
        shown = "; ".join(map(str, self.pictures[:SHOWN]))
        more = f"; and {len(self) - SHOWN} more" if len(self) > SHOWN else ""
        raise DataError(
            f"{len(self)} of {self.total} pictures cannot be read, more than --max-bad {self.max_bad:g} allows: "
            f"{shown}{more}. {typed('diptych audit', self.data)} lists them all; to go on without them type "
            f"--max-bad {enough(len(self), self.total):g}"
        )

    def _allowed(self) -> float:
        return self.max_bad * self.total

    @staticmethod
    def _record(bad: BadPicture) -> dict[str, Any]:
        return {"name": bad.name, "reason": bad.reason, "during": "pretrain"}


def enough(bad: int, total: int) -> float:
    """Return the least ``--max-bad``, to three digits, with which ``bad`` of ``total`` pictures do not stop a run."""
    thousandths = math.ceil(1000 * bad / total)
    if bad > thousandths / 1000 * total:  # as it will be compared: 57 is more than 0.57 * 100 in floating point
        thousandths += 1
    return min(1.0, thousandths / 1000)
