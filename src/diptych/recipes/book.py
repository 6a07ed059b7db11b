"""Finds a recipe by its name, and tells what each is for and what it was measured to do."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diptych.config import with_settings
from diptych.errors import ConfigError, suggest
from diptych.recipes import facts as facts_room
from diptych.recipes.keras_simsiam import keras_simsiam
from diptych.recipes.simsiam import simsiam
from diptych.recipes.simsiam_cifar import simsiam_cifar
from diptych.recipes.simsiam_imagenet import simsiam_imagenet
from diptych.training.config import RunConfig
from diptych.training.order import Order
from diptych.views.policies import POLICIES

DEFAULT = "simsiam"
FIXED: dict[str, Callable[[str], RunConfig]] = {
    "keras-simsiam": keras_simsiam,
    "simsiam-cifar": simsiam_cifar,
    "simsiam-imagenet": simsiam_imagenet,
}
LOOKED = ("data_dir", "limit", "tile")
"""Settings that decide which pictures the default recipe looks at."""
RECIPES: dict[str, Callable[..., object]] = {DEFAULT: simsiam, **FIXED}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A recipe as ``diptych recipes`` lists it."""

    name: str
    what_for: str
    measured: str


def recipe(name: str, data: str, asked: Mapping[str, Any] | None = None) -> Order:
    """Return the complete configuration that recipe ``name`` gives for ``data``, with the choices it made.

    Args:
        name: of the recipe.
        data: as for ``open_data``.
        asked: settings that the user gave; the default recipe chooses the others to go with them.

    Raises:
        ConfigError: no such recipe or setting, with a suggestion, or a value out of range.
        DataError: the default recipe looked at the pictures and could not read them.
    """
    asked = asked or {}
    with_settings(skeleton(name), asked)  # what cannot be is refused before any picture is looked at
    if name in FIXED:
        config = FIXED[name](data)
        policy = asked.get("policy")
        return Order(config=with_settings(config, POLICIES[policy].values) if policy else config, recipe=name)
    config, choices = simsiam(data, facts_room.gather(data, *(asked.get(name) for name in LOOKED)), asked)
    return Order(config=config, recipe=name, choices=choices)


def skeleton(name: str) -> RunConfig:
    """Return what is known of a recipe's configuration before any picture is looked at: all, where it is fixed.

    Raises:
        ConfigError: no such recipe, with a suggestion.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe '{name}'{suggest(name, RECIPES)}")
    return FIXED[name]("") if name in FIXED else RunConfig(data="")


def entries() -> list[Entry]:
    """List the recipes: name, what for, measured result, all from the functions' docstrings."""
    found = []
    for name, function in RECIPES.items():
        text = inspect.getdoc(function) or ""
        measured = text.partition("Measured:")[2].partition("\n\n")[0]
        found.append(Entry(name=name, what_for=text.splitlines()[0], measured=" ".join(measured.split())))
    return found
