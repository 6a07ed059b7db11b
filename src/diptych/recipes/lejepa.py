"""LeJEPA fitted to the pictures: arXiv 2511.08544."""

from collections.abc import Mapping
from typing import Any

from diptych.methods import LeJEPAConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import Plan, fitted
from diptych.training.config import RunConfig
from diptych.training.order import Choice


def lejepa(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """LeJEPA fitted to your pictures and your machine: predict the mean view, keep the embeddings Gaussian.

    Measured: not yet.
    """
    plan = Plan(
        method=LeJEPAConfig(),
        optim=OptimConfig(optimizer="adamw", lr=5e-4, lr_scaling=False, weight_decay=5e-2, decay_all=False),
        views={"crop_scale": (0.3, 1.0), "local_scale": (0.05, 0.3)},
        always={"local_views": 6},
        small={"projector_width": 1024, "slices": 256},
        short={},
    )
    return fitted(plan, data, facts, asked)
