"""MoCo v2 fitted to the pictures: arXiv 2003.04297."""

from collections.abc import Mapping
from typing import Any

from diptych.methods import MoCoConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import Plan, fitted
from diptych.training.config import RunConfig
from diptych.training.order import Choice


def moco(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """MoCo v2 fitted to your pictures and your machine: contrast with a queue of earlier batches.

    Measured: not yet.
    """
    plan = Plan(
        method=MoCoConfig(),
        optim=OptimConfig(lr=0.03, weight_decay=1e-4),
        small={"projector_width": 512, "ema_momentum": 0.99},
        short={},
    )
    return fitted(plan, data, facts, asked)
