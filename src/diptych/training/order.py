"""What is asked of a run: a configuration, where it came from, and what was chosen for the user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from diptych.errors import ConfigError
from diptych.training.config import RunConfig
from diptych.views.config import for_channels


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


def fitted_to_pixels(config: RunConfig, given: Mapping[str, Any]) -> tuple[RunConfig, list[Choice]]:
    """Leave out of a configuration what its pictures' channels and type cannot have.

    Args:
        config: of the run.
        given: settings that the user typed, which are refused where they do not fit, and never changed.

    Raises:
        ConfigError: a setting that was typed does not fit the channels.
    """
    views, channels = config.views, config.channels
    choices: list[Choice] = []
    for name in ("mean", "std", "low", "high"):
        if name in given and len(given[name]) not in (0, channels):
            raise ConfigError(f"--{name} needs {channels} numbers, one for each channel, not {len(given[name])}")
    if config.depth != "float32" and {"low", "high"} & given.keys():
        raise ConfigError(
            f"--low and --high are for --depth float32: pictures of {config.depth} have a range of their own"
        )
    natural = channels == 3 and config.depth == "uint8" and views.policy == "natural"
    if not natural and not {"mean", "std"} & given.keys():
        views = replace(views, mean=(), std=())
        choices.append(Choice(what="--mean --std", why="measured from the pictures, which are no natural RGB ones"))
    views, notes = for_channels(views, channels)
    choices += [Choice(what=f"views for {config.pixels}", why=note) for note in notes]
    return replace(config, views=views), choices


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
