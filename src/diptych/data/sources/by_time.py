"""Choosing pictures to test on by time: learned from what was there first, tested on what came later, as in use.

Where pictures belong to groups as well, none is on both sides. A group that is learned from goes on beyond the moment
that parts the pictures; what comes of it later is left out of both, for tested on, it would praise a model for knowing
the group, and learned from, for knowing the future.
"""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from diptych.data.sources.source import Files, Source, Subset
from diptych.errors import DataError


@dataclass(frozen=True, kw_only=True)
class TimeSplit:
    """Pictures parted by a moment: no training picture is as new as any test picture."""

    train: Source
    """All that are older than ``since``."""
    test: Source
    """Those of ``since`` and later whose group has no older picture."""
    since: str
    """The time of the oldest picture tested on, as it was written."""
    left_out: int
    """Later pictures of groups that are learned from: in neither part."""


def time_split(source: Source, test_fraction: float = 0.2) -> TimeSplit:
    """Split pictures by time: the newest are tested on, and pictures of one time stay together.

    Where the source knows groups, none is on both sides: a group that is learned from is not tested on later.

    Args:
        source: pictures that all have times, numbers or ISO 8601 dates.
        test_fraction: wanted share of the pictures used to test on; met as nearly as times and groups allow.

    Raises:
        DataError: a picture has no time, times cannot be read or compared, or no moment parts the pictures.
    """
    written, times = _times(source)
    moments, places = np.unique(times, return_inverse=True)
    # A picture can be tested on from the moment at which its group begins.
    begins: dict[object, int] = {}
    keys: list[object] = []
    for index, place in enumerate(places.tolist()):
        group = source.group(index)
        keys.append(index if group is None else group)
        begins[keys[-1]] = min(place, begins.get(keys[-1], place))
    beginning = np.array([begins[key] for key in keys])
    older = np.cumsum(np.bincount(places, minlength=len(moments)))[:-1]
    tested = len(places) - np.cumsum(np.bincount(beginning, minlength=len(moments)))[:-1]
    misses = np.where(tested > 0, np.abs(tested / (older + tested) - test_fraction), np.inf)
    if not np.isfinite(misses).any():
        raise DataError(
            f"{source.name} cannot be split by time: "
            + (
                f"all its pictures have the time '{written[0]}'"
                if len(moments) == 1
                else "no group begins after the first time"
            )
            + "; add newer pictures, or leave the column time out"
        )
    cut = int(misses.argmin()) + 1
    train, test = np.flatnonzero(places < cut), np.flatnonzero(beginning >= cut)
    oldest = int(test[times[test].argmin()])
    return TimeSplit(
        train=Subset(source, train.tolist()),
        test=Subset(source, test.tolist()),
        since=written[oldest],
        left_out=len(places) - len(train) - len(test),
    )


def _times(source: Source) -> tuple[list[str], NDArray[np.float64]]:
    """Return each picture's time, as it was written and as a number."""
    written, times = [], []
    kinds: dict[str, str] = {}
    for index in range(len(source)):
        if (text := _time(source, index)) is None:
            raise DataError(
                f"{source.name} cannot be split by time: {source.name_of(index)} has none; list the pictures in a CSV "
                "file with the header path,label,time"
            )
        try:
            time, kind = _as_number(text)
        except ValueError as error:
            raise DataError(
                f"{source.name}: {source.name_of(index)} has the time '{text}'; write a number, or a date such as "
                "2026-05-31 or 2026-05-31T14:30"
            ) from error
        written.append(text)
        times.append(time)
        kinds.setdefault(kind, text)
    if len(kinds) > 1:
        (one, first), (other, second), *_ = kinds.items()
        raise DataError(
            f"{source.name}: '{first}' is {one} and '{second}' {other}, which cannot be compared; write all times alike"
        )
    return written, np.array(times)


def _time(source: Source, index: int) -> str | None:
    if isinstance(source, Subset):
        return _time(source.source, source.indices[index])
    return source.time(index) if isinstance(source, Files) else None


def _as_number(text: str) -> tuple[float, str]:
    """Return a time as a number, and in words what kind it is. Raises ValueError."""
    try:
        number = float(text)
    except ValueError:
        date = datetime.fromisoformat(text)
        if date.tzinfo is not None:
            return date.timestamp(), "a date with a time zone"
        return date.replace(tzinfo=UTC).timestamp(), "a date without a time zone"
    if not math.isfinite(number):
        raise ValueError(text)
    return number, "a number"
