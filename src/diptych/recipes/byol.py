"""BYOL fitted to the pictures: arXiv 2006.07733."""

from collections.abc import Mapping
from typing import Any

from diptych.methods import BYOLConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import Plan, fitted
from diptych.training.config import RunConfig
from diptych.training.order import Choice


def byol(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """BYOL fitted to your pictures and your machine: predict what a slow copy of the network says.

    Measured: not yet.
    """
    plan = Plan(
        method=BYOLConfig(),
        optim=OptimConfig(optimizer="lars", lr=0.2, weight_decay=1.5e-6, decay_all=False, warmup_epochs=10),
        views={"crop_scale": (0.08, 1.0), "saturation": 0.2, "solarize": 0.1},
        small={"projector_width": 1024, "predictor_width": 1024},
        short={},
    )
    return fitted(plan, data, facts, asked)
