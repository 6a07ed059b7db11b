"""What is asked of a run: a configuration, where it came from, and what was chosen for the user."""

from collections.abc import Sequence
from dataclasses import dataclass

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
