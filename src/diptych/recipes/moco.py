"""MoCo v2's recipe: arXiv 2003.04297."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diptych.methods import MoCoConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import Plan, fitted
from diptych.training.config import RunConfig
from diptych.training.order import Choice

PLAN = Plan(
    method=MoCoConfig(),
    optim=OptimConfig(lr=0.03, weight_decay=1e-4),
    small={"ema_momentum": 0.99},
    light={"projector_width": 512},
    short={"optimizer": "adamw", "lr": 0.008, "weight_decay": 0.01, "ema_momentum": 0.95},
)


def moco(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """MoCo v2 fitted to your pictures and your machine: contrast with a queue of earlier batches.

    Measured: not yet.
    """
    queue = 2 ** min(16, max(1, facts.count // 4).bit_length() - 1)  # of other pictures: their own old keys are none
    plan = replace(PLAN, always={"queue_size": queue})
    return fitted(plan, data, facts, asked)
