"""A run's configuration on the command line: the flags of ``pretrain``, which ``preview`` takes too."""

import contextlib
import itertools
import re
from typing import Any, Protocol

from diptych.api.learning import order as ordered
from diptych.api.learning import recipe_for
from diptych.commands.parsing import USAGE, parse, parse_known, tyro_cli
from diptych.config import flatten, to_dict
from diptych.errors import UserError
from diptych.recipes.book import skeleton
from diptych.training.config import RunConfig
from diptych.training.order import Order


class Begins(Protocol):
    """What a command knows of how a configuration begins."""

    @property
    def recipe(self) -> str | None:
        """The recipe that was named."""

    @property
    def method(self) -> str | None:
        """The method that was named."""


def order(command: str, args: Begins, words: list[str], out: str | None, device: str = "auto") -> Order:
    """Turn what was typed into an order, the way the library does: a recipe, and the settings that were given."""
    name = recipe_for(args.method, args.recipe)
    words, auto = _without_auto(words)
    config = parse(command, RunConfig, words, skeleton(name), type(args))
    if not config.data:
        raise UserError(
            f"say what to learn from: `{USAGE[command]}`, with a folder, archive, list or shards of pictures, "
            "hub:NAME, cifar10 or photos"
        )
    given = {re.sub("^--(no-)?", "", word.partition("=")[0]).replace("-", "_") for word in words if word[:2] == "--"}
    values = {key.rpartition(".")[2]: value for key, value in flatten(to_dict(config)).items()}
    settings = {key: value for key, value in values.items() if key in given}
    return ordered(name, config.data, out, settings | auto, device)


def _without_auto(words: list[str]) -> tuple[list[str], dict[str, str]]:
    """Take `--batch-size auto` out of what was typed: a configuration holds the number that is found for it."""
    left = [word for word in words if word != "--batch-size=auto"]
    for place, pair in enumerate(itertools.pairwise(left)):
        if pair == ("--batch-size", "auto"):
            left = left[:place] + left[place + 2 :]
            break
    return left, {"batch_size": "auto"} if len(left) < len(words) else {}


def help_with_config(command: str, cls: type[Any], words: list[str]) -> int:
    """Print the help of a command that takes a run's whole configuration beside its own options."""
    args, _ = parse_known(command, cls, [word for word in words if word not in ("-h", "--help")])
    name = recipe_for(args.method, args.recipe)
    with contextlib.suppress(SystemExit):
        tyro_cli(command, cls, ["--help"], None)
    print(
        f"\nThe configuration of a run. The recipe {name} sets each flag, and you can change it; shown: before that.\n"
    )
    with contextlib.suppress(SystemExit):
        tyro_cli(command, RunConfig, ["--help"], skeleton(name))
    return 0
