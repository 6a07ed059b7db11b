"""SimCLR's recipe: arXiv 2002.05709."""

from collections.abc import Mapping
from typing import Any

from diptych.methods import SimCLRConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import Plan, fitted
from diptych.training.config import RunConfig
from diptych.training.order import Choice

PLAN = Plan(
    method=SimCLRConfig(),
    optim=OptimConfig(optimizer="lars", lr=0.3, weight_decay=1e-6, decay_all=False, warmup_epochs=10),
    views={"crop_scale": (0.08, 1.0), "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
    small={"temperature": 0.5},
    light={"projector_width": 512},
    short={"optimizer": "adamw", "lr": 0.008, "weight_decay": 0.01, "temperature": 0.2},
)


def simclr(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """SimCLR fitted to your pictures and your machine: contrast with the other pictures of the batch.

    Measured: not yet.
    """
    return fitted(PLAN, data, facts, asked)
