"""Finds a recipe by its name, and tells what each is for and what it was measured to do.

A method and its own recipe have the same name; that recipe looks at the pictures. The others are fixed.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diptych.config import with_settings
from diptych.errors import ConfigError, suggest
from diptych.methods import ALL_METHODS
from diptych.recipes import barlow, byol, dino, fastsiam, lejepa, moco, patches, simclr, simsiam, swav, vicreg
from diptych.recipes.facts import Facts, gather
from diptych.recipes.keras_simsiam import keras_simsiam
from diptych.recipes.simsiam_cifar import simsiam_cifar
from diptych.recipes.simsiam_imagenet import simsiam_imagenet
from diptych.training.config import RunConfig
from diptych.training.order import Choice, Order
from diptych.views.policies import POLICIES

DEFAULT = "simsiam"
FIXED: dict[str, Callable[[str], RunConfig]] = {
    "keras-simsiam": keras_simsiam,
    "simsiam-cifar": simsiam_cifar,
    "simsiam-imagenet": simsiam_imagenet,
}
ROOMS = {
    "simsiam": simsiam,
    "fastsiam": fastsiam,
    "simclr": simclr,
    "byol": byol,
    "moco": moco,
    "swav": swav,
    "barlow": barlow,
    "vicreg": vicreg,
    "lejepa": lejepa,
    "dino": dino,
    "patches": patches,
}
FITTED: dict[str, Callable[[str, Facts, Mapping[str, Any] | None], tuple[RunConfig, list[Choice]]]] = {
    name: getattr(room, name) for name, room in ROOMS.items()
}
RECIPES: dict[str, Callable[..., object]] = {**FITTED, **FIXED}
LOOKED = ("data_dir", "limit", "tile")
"""Settings that decide which pictures a recipe looks at."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A recipe as ``diptych recipes`` lists it."""

    name: str
    what_for: str
    measured: str


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """A method as ``diptych methods`` lists it."""

    name: str
    idea: str
    paper: str
    needs: str
    measured: str


def recipe(name: str, data: str, asked: Mapping[str, Any] | None = None) -> Order:
    """Return the complete configuration that recipe ``name`` gives for ``data``, with the choices it made.

    Args:
        name: of the recipe.
        data: as for ``open_data``.
        asked: settings that the user gave; a method's recipe chooses the others to go with them.

    Raises:
        ConfigError: no such recipe or setting, with a suggestion, or a value out of range.
        DataError: the recipe looked at the pictures and could not read them.
    """
    asked = asked or {}
    with_settings(skeleton(name), asked)  # what cannot be is refused before any picture is looked at
    if name in FIXED:
        config = FIXED[name](data)
        policy = asked.get("policy")
        return Order(config=with_settings(config, POLICIES[policy].values) if policy else config, recipe=name)
    config, choices = FITTED[name](data, gather(data, *(asked.get(name) for name in LOOKED)), asked)
    return Order(config=config, recipe=name, choices=choices)


def skeleton(name: str) -> RunConfig:
    """Return what is known of a recipe's configuration before any picture is looked at: the paper's, for photographs.

    Raises:
        ConfigError: no such recipe, with a suggestion.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe '{name}'{suggest(name, RECIPES)}")
    return FIXED[name]("") if name in FIXED else ROOMS[name].PLAN.config("")


def entries() -> list[Entry]:
    """List the recipes: name, what for, measured result, all from the functions' docstrings."""
    return [
        Entry(name=name, what_for=(inspect.getdoc(function) or "").splitlines()[0], measured=measured(name))
        for name, function in RECIPES.items()
    ]


def measured(name: str) -> str:
    """Return what the docstring of recipe ``name`` says was measured."""
    text = (inspect.getdoc(RECIPES[name]) or "").partition("Measured:")[2].partition("\n\n")[0]
    return " ".join(text.split())


def methods() -> list[MethodEntry]:
    """List the methods: the idea, the paper, what each needs, and what its recipe was measured to do."""
    return [
        MethodEntry(name=name, idea=m.about.idea, paper=m.about.paper, needs=m.about.needs, measured=measured(name))
        for name, m in ALL_METHODS.items()
    ]
