"""SwAV fitted to the pictures: arXiv 2006.09882."""

from collections.abc import Mapping
from typing import Any

from diptych.methods import SwAVConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import Plan, fitted
from diptych.training.config import RunConfig
from diptych.training.order import Choice


def swav(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """SwAV fitted to your pictures and your machine: predict the cluster that another view falls into.

    Measured: not yet.
    """
    plan = Plan(
        method=SwAVConfig(),
        optim=OptimConfig(optimizer="lars", lr=0.3, weight_decay=1e-6, decay_all=False),
        views={"crop_scale": (0.14, 1.0), "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
        always={"local_views": 6},
        small={"projector_width": 512, "prototypes": 256},
        short={},
    )
    return fitted(plan, data, facts, asked)
