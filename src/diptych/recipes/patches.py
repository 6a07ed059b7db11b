"""Patches fitted to the pictures: Coates & Ng 2011, and what followed."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from diptych.backbones.patches import FILTERS
from diptych.config import with_settings
from diptych.errors import ConfigError
from diptych.methods.patches import PatchesConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import Chooser, Plan, choose_pictures
from diptych.training.config import RunConfig, TrainConfig
from diptych.training.order import Choice
from diptych.views.config import ViewsConfig

USED = {"policy", "mean", "std", "low", "high", "batch_size", "seed"}
"""Of the settings of views, optimizer and loop, those that mean something without gradients."""


PLAN = Plan(method=PatchesConfig(), optim=OptimConfig(), backbone=f"patches:{FILTERS}-flip", always={"epochs": 1})


def patches(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """Patches, which computes no gradients: a first answer in minutes on a CPU, and the bar for trained networks.

    Command: ``diptych pretrain cifar10.zip --method patches --out RUN``, then ``diptych evaluate RUN cifar10.zip``.
    Hardware and time: 2 CPU cores, fitted to 50,000 pictures in one minute; probing its 6,912 numbers takes longer.
    Measured: all 50,000 CIFAR-10 pictures, all 10,000 test pictures, seed 0: kNN 71.0 % (unfitted 51.1 %, raw
    pixels 36.3 %), linear probe 75.0 % (unfitted 70.5 %, raw pixels 41.6 %); intervals ± 0.9.
    """
    choose = Chooser(asked)
    idle = {field.name for cls in (ViewsConfig, OptimConfig, TrainConfig) for field in fields(cls)} - USED
    for name in choose.asked:
        if name in idle:
            raise ConfigError(f"patches makes no views and takes no steps: leave out --{name.replace('_', '-')}")
    choose_pictures(facts, choose)
    choose("backbone", f"{PLAN.backbone}", "filters for a first answer, and pictures are like their mirror images")
    choose("batch_size", max(2, min(256, facts.count // 8)), "pictures at a time; any left over are left out")
    return with_settings(PLAN.config(data), choose.values), choose.choices
