"""What is asked of a run: a configuration, where it came from, and what was chosen for the user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diptych.training.config import RunConfig


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Something that was decided for the user, and why; printed and saved."""

    what: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be run: a configuration and where it came from."""

    config: RunConfig
    recipe: str
    choices: Sequence[Choice] = ()
    command: str = ""
    """A command line that repeats the run."""


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as words of a command line: ``{"lr": 1.0, "lr_scaling": False}`` → ``--lr 1.0 --no-lr-scaling``.

    What is None is left out: no flag says so.
    """
    words: list[str] = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple | list):
            words += [f"--{flag}", *map(str, value)]
        elif value is not None:
            words += [f"--{flag}", str(value)]
    return words
