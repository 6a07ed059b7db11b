"""What a data set consists of, in numbers: streamed over the index, never held."""

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from diptych.auditing.index import PARTS, DamagedIndex, Index

COMMON = 8
"""Picture sizes that are named one by one."""


def rounded(value: float) -> float:
    """Keep six significant digits: what a person compares, and equal however the work was divided."""
    return float(f"{value:.6g}")


def counts(index: Index) -> dict[str, Any]:
    """Count the pictures, in all and by part."""
    query = "SELECT part, count(*), sum(reason IS NULL), sum(size) FROM pictures GROUP BY part ORDER BY part"
    parts = [
        {"part": PARTS[part], "pictures": pictures, "readable": readable, "bytes": size}
        for part, pictures, readable, size in index.rows(query)
    ]
    return {key: sum(part[key] for part in parts) for key in ("pictures", "readable", "bytes")} | {"parts": parts}


def formats(index: Index) -> list[dict[str, Any]]:
    """Count the pictures of every format and, within it, of every way to keep pixels; the most frequent first."""
    query = "SELECT format, mode, count(*) AS n FROM good GROUP BY format, mode ORDER BY n DESC, format, mode"
    return [{"format": format_, "mode": mode, "pictures": n} for format_, mode, n in index.rows(query)]


def kinds(index: Index) -> list[dict[str, Any]]:
    """Describe the pictures of every number of channels and type of values; the most frequent first.

    Every picture counts the same, whatever its size: in training it does. ``std`` is over all pixels of all pictures,
    between the pictures included.
    """
    query = "SELECT DISTINCT channels, depth FROM good"
    found = [_kind(index, channels, depth) for channels, depth in index.rows(query)]
    return sorted(found, key=lambda kind: (-kind["pictures"], kind["channels"], kind["depth"]))


def _kind(index: Index, channels: int, depth: str) -> dict[str, Any]:
    query = "SELECT statistics FROM good WHERE channels = ? AND depth = ? ORDER BY part, name"
    pictures, total, squares = 0, np.zeros(channels), np.zeros(channels)
    lowest, highest = np.full(channels, np.inf), np.full(channels, -np.inf)
    for (statistics,) in index.stream(query, [channels, depth]):
        try:
            mean, std, low, high = np.array(json.loads(statistics))
        except ValueError as error:  # SQLite has no checksums
            raise DamagedIndex(index.path) from error
        pictures, total, squares = pictures + 1, total + mean, squares + mean**2 + std**2
        lowest, highest = np.minimum(lowest, low), np.maximum(highest, high)
    means = total / pictures
    deviations = np.sqrt(np.maximum(squares / pictures - means**2, 0))
    measured = {"mean": means, "std": deviations, "low": lowest, "high": highest}
    return {"channels": channels, "depth": depth, "pictures": pictures} | {
        key: [rounded(value) for value in values.tolist()] for key, values in measured.items()
    }


def sizes(index: Index) -> dict[str, Any]:
    """Describe widths and heights in pixels; ``histogram`` counts pictures by their shorter side, in powers of 2."""
    readable = index.number("SELECT count(*) FROM good")
    spread = {
        side: {
            name: index.number(
                f"SELECT {side} FROM good ORDER BY {side} LIMIT 1 OFFSET ?", [round(share * (readable - 1))]
            )
            for name, share in {"least": 0, "median": 0.5, "most": 1}.items()
        }
        for side in ("width", "height")
        if readable
    }
    query = "SELECT width, height, count(*) AS n FROM good GROUP BY width, height ORDER BY n DESC, width, height"
    common = [{"width": w, "height": h, "pictures": n} for w, h, n in index.rows(query + " LIMIT ?", [COMMON])]
    distinct = index.number("SELECT count(*) FROM (SELECT DISTINCT width, height FROM good)")
    return spread | {"distinct": distinct, "common": common, "histogram": _histogram(index.stream(query))}


def _histogram(rows: Iterable[tuple[int, int, int]]) -> list[dict[str, int]]:
    bins: dict[int, int] = {}
    for width, height, pictures in rows:
        power = int(math.log2(min(width, height)))
        bins[power] = bins.get(power, 0) + pictures
    powers = range(min(bins), max(bins) + 1) if bins else ()
    return [{"from": 2**power, "to": 2 ** (power + 1) - 1, "pictures": bins.get(power, 0)} for power in powers]


def classes(index: Index) -> list[dict[str, Any]]:
    """Count the pictures of every class, those that cannot be read included; the most frequent first."""
    query = (
        "SELECT label, count(*) AS n, sum(part = 0), sum(part = 1) FROM listed WHERE label IS NOT NULL "
        "GROUP BY label ORDER BY n DESC, label"
    )
    return [{"name": label, "pictures": n, "train": train, "test": test} for label, n, train, test in index.rows(query)]
