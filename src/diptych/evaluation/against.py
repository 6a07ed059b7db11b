"""What a run is compared with, as it is typed: ``--against random,pixels,imagenet:weights.safetensors,runs/second``.

Comma separated, each one of:

- ``random``: the run's own network with the random weights of its seed, untrained;
- ``initial``: the network as training began, where it did not begin at random (``--init-from``);
- ``scratch``: begins as ``random`` and learns from the labels alone; it takes part in fine-tuning only;
- ``pixels``: no network;
- ``NAME:FILE.safetensors``: other weights for the run's own network, with the run's own preprocessing;
- a folder: another run, with its own network and preprocessing; ``NAME:FOLDER`` calls it other than its folder.

A word is a word even where a folder has its name: ``./random`` is the folder. A path with a ``/`` in it may hold commas
and colons: ``./a,b``.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from diptych.errors import ConfigError, suggest

Kind: TypeAlias = Literal["pretrained", "random", "initial", "scratch", "pixels", "weights", "run"]

WORDS: tuple[Kind, ...] = ("random", "initial", "scratch", "pixels")
RESERVED = {"pretrained", *WORDS}
"""Keys that mean what they say in every evaluation."""
FLAG = "--against"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One entry of ``--against``."""

    kind: Kind
    key: str
    """Its name in the result: letters, digits, ``_``, ``.`` and ``-``."""
    path: Path | None = None
    """Of a file of weights or of a run."""


def parse_against(text: str) -> list[Asked]:
    """Read what was typed after ``--against``.

    Args:
        text: as above; whether paths exist is looked up.

    Returns:
        The entries in their order, with keys that differ.

    Raises:
        ConfigError: a word is unknown, a path can be read in two ways, or two entries have one name.
    """
    found: list[Asked] = []
    parts = text.split(",")
    while parts:
        label, place = _labelled(parts.pop(0).strip())
        if "/" in place:
            place, parts = _with_commas(place, parts)
        asked = _entry(label, place)
        if any(asked.key == other.key for other in found):
            rename = f", or type NAME:{asked.path} with another NAME" if asked.path else ""
            raise ConfigError(f"{FLAG} has two contenders called '{asked.key}': leave one out{rename}")
        found.append(asked)
    return found


def _labelled(part: str) -> tuple[str, str]:
    """Split ``NAME:PATH``; the name is empty where there is none."""
    label, colon, place = part.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", label):
        return "", part
    if _exists(Path(part)):
        raise ConfigError(
            f"{FLAG} {part} can be a path, or {place} by the name of {label}: type ./{part} for the one, "
            f"{label}:./{place} for the other"
        )
    return label, place


def _with_commas(place: str, rest: list[str]) -> tuple[str, list[str]]:
    """Find how many of the parts that follow belong to a path with commas; returns it and the parts after it."""
    joined = [",".join([place, *rest[:more]]) for more in range(len(rest) + 1)]
    there = [more for more, path in enumerate(joined) if _exists(Path(path))]
    if len(there) > 1:
        raise ConfigError(
            f"{FLAG} {joined[there[-1]]} is a path, and so is {joined[there[0]]} before a comma: rename one of them"
        )
    more = there[0] if there else 0
    return joined[more], rest[more:]


def _entry(label: str, place: str) -> Asked:
    for word in WORDS:
        if place == word and not label:
            return Asked(kind=word, key=word)
    if not place:
        what = f"no file after '{label}:'" if label else "nothing between two commas, or at an end"
        raise ConfigError(f"{FLAG} names {what}: type for instance {FLAG} random,{label or 'NAME'}:FILE.safetensors")
    path = Path(place)
    is_run = _exists(path) and path.is_dir()
    if not is_run and not label:
        raise ConfigError(_no_contender(place, path))
    # Names of folders are other people's words, and any of them may stand in a result.
    key = label or re.sub(r"[^A-Za-z0-9_.-]+", "-", path.resolve().name).strip("-") or "run"
    if key in RESERVED:
        raise ConfigError(f"{FLAG}: '{key}' means something else: type NAME:{place} with another NAME")
    return Asked(kind="run" if is_run else "weights", key=key, path=path)


def _no_contender(place: str, path: Path) -> str:
    if path.suffix == ".safetensors" or _exists(path):
        return f"{FLAG} {place} needs a name for the result: type {FLAG} NAME:{place}"
    if "/" in place:
        return f"{FLAG}: there is no run folder {place}"
    return f"{FLAG} knows no '{place}'{suggest(place, WORDS)} (or a run folder, or NAME:FILE.safetensors)"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long for a name, say
        return False
