"""SimCLR fitted to the pictures: arXiv 2002.05709."""

from collections.abc import Mapping
from typing import Any

from diptych.methods import SimCLRConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import Plan, fitted
from diptych.training.config import RunConfig
from diptych.training.order import Choice


def simclr(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """SimCLR fitted to your pictures and your machine: contrast with the other pictures of the batch.

    Measured: not yet.
    """
    plan = Plan(
        method=SimCLRConfig(),
        optim=OptimConfig(optimizer="lars", lr=0.3, weight_decay=1e-6, decay_all=False, warmup_epochs=10),
        views={"crop_scale": (0.08, 1.0), "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
        small={
            "temperature": 0.5,
            "projector_width": 512,
            "brightness": 0.4,
            "contrast": 0.4,
            "saturation": 0.4,
            "hue": 0.1,
        },
        short={},
    )
    return fitted(plan, data, facts, asked)
