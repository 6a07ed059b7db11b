"""DINO fitted to the pictures: arXiv 2104.14294."""

from collections.abc import Mapping
from typing import Any

from diptych.methods import DINOConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import Plan, fitted
from diptych.training.config import RunConfig
from diptych.training.order import Choice


def dino(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """DINO fitted to your pictures and your machine: a slow teacher, many small views; made for ViTs and long runs.

    Measured: not yet.
    """
    plan = Plan(
        method=DINOConfig(),
        optim=OptimConfig(
            optimizer="adamw", lr=5e-4, weight_decay=0.04, final_weight_decay=0.4, decay_all=False, warmup_epochs=10
        ),
        views={"crop_scale": (0.25, 1.0), "local_scale": (0.05, 0.25), "saturation": 0.2, "solarize": 0.1},
        always={"local_views": 8},
        small={"projector_width": 1024, "projector_norm": True, "prototypes": 1024},
        short={},
    )
    return fitted(plan, data, facts, asked)
