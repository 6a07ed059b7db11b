"""Commands that list what there is: ``methods``, ``recipes``."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diptych.commands.parsing import Switch, parse, tell
from diptych.recipes.book import entries
from diptych.recipes.book import methods as method_entries


@dataclass(frozen=True, kw_only=True)
class _ListArgs:
    seed: int = 0
    """Accepted by every command; a list draws nothing at random."""
    json: Switch = False
    """Print the result as JSON on standard output."""


class RecipesArgs(_ListArgs):
    """Lists the recipes: what each is for, and what it was measured to do."""


def recipes(words: list[str]) -> int:
    """Run `diptych recipes`; returns the exit code."""
    args = parse("recipes", RecipesArgs, words)
    return _print_list("recipes", entries(), args, lambda e: [e.what_for, f"Measured: {e.measured}"])


class MethodsArgs(_ListArgs):
    """Lists the methods: the idea, the paper, what each needs, and what it was measured to do."""


def methods(words: list[str]) -> int:
    """Run `diptych methods`; returns the exit code."""
    args = parse("methods", MethodsArgs, words)
    return _print_list(
        "methods", method_entries(), args, lambda e: [e.idea, e.paper, f"Needs: {e.needs}", f"Measured: {e.measured}"]
    )


def _print_list(key: str, found: Sequence[Any], args: _ListArgs, told: Callable[[Any], list[str]]) -> int:
    text = "\n".join("\n    ".join([entry.name, *told(entry)]) for entry in found)
    tell(args.json, {key: [asdict(entry) for entry in found]}, text)
    return 0
