"""VICReg's recipe: arXiv 2105.04906."""

from collections.abc import Mapping
from typing import Any

from diptych.methods import VICRegConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import Plan, fitted
from diptych.training.config import RunConfig
from diptych.training.order import Choice

PLAN = Plan(
    method=VICRegConfig(),
    optim=OptimConfig(optimizer="lars", lr=0.2, weight_decay=1e-6, decay_all=False, warmup_epochs=10),
    views={"crop_scale": (0.08, 1.0), "saturation": 0.2, "solarize": 0.1},
    light={"projector_width": 512, "projector_dim": 512},
    short={"optimizer": "adamw", "lr": 0.004, "weight_decay": 0.01},
)


def vicreg(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """VICReg fitted to your pictures and your machine: equal views, channels that vary, none of them together.

    Command: ``diptych pretrain cifar10.zip --method vicreg --limit 10000 --out RUN``, then ``diptych evaluate RUN
    cifar10.zip --limit 10000``.
    Hardware and time: 2 CPU cores with bfloat16, minutes.
    Measured: 10,000 CIFAR-10 pictures × 5 epochs, all 10,000 test pictures, seeds 0, 1, 2: kNN 41.8 to 42.7 %
    (untrained 33.5 to 35.5 %, raw pixels 32.4 %), linear probe 49.3 to 49.9 % (untrained 43.5 to 43.6 %, raw pixels
    39.1 %); intervals ± 1.0.
    """
    return fitted(PLAN, data, facts, asked)
