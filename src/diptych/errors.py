"""What a user did wrong: one line that says what, where, and what to type instead.

The command line prints the line and exits with code 2, without a traceback. ``assert`` is for our own invariants.
"""

import difflib
import math
import shlex
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

TURNS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
"""Classes of characters that turn the writing direction."""


class UserError(Exception):
    """Something the user can put right; its text is one line."""


class ConfigError(UserError):
    """An option or a configuration value is unknown or out of range."""


class DataError(UserError):
    """The pictures, their labels or their folder cannot be used as asked."""


class RunFolderError(UserError):
    """A run folder is missing, not ours, not empty, damaged, or cannot be written."""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"``, or the list of what is known where nothing is close.

    Args:
        word: what the user typed.
        known: every word that would have been accepted.
    """
    options = sorted(known)
    close = difflib.get_close_matches(word, options, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(options)}"


def check(config: object, allowed: str, holds: Callable[[Any], bool], *options: str) -> None:
    """Refuse settings that are no finite number, or of which ``holds`` says no.

    Raises:
        ConfigError: ``--queue-size must be 1 or more, not 0``, where ``allowed`` is "1 or more".
    """
    for option in options:
        value = getattr(config, option)
        if not (math.isfinite(value) and holds(value)):
            raise ConfigError(f"--{option.replace('_', '-')} must be {allowed}, not {value}")


def typed(command: str, *words: object) -> str:
    """Return a command line between backticks, its last words quoted: ``typed("diptych report", "my run")``."""
    return f"`{command} {shlex.join(map(str, words))}`"


def byte_size(count: float) -> str:
    """Write a number of bytes for people, with three digits: ``4.25 MB``, ``1,230 TB``."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= 0.9995 * factor:  # 999.6 MB have three digits as 1 GB alone
            return f"{count / factor:.3g} {unit}" if count < 999.5 * factor else f"{count / factor:,.0f} {unit}"
    return f"{count:.0f} bytes"


def printable(text: str) -> str:
    """Replace by ``�`` what would steer a terminal or a page: names of files and classes are other people's words.

    That is control characters, lone surrogates, and marks that turn the writing direction (``gnp.exe`` as ``exe.png``).
    """
    return "".join("\ufffd" if _steers(character) else character for character in text)


def _steers(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") or unicodedata.bidirectional(character) in TURNS
