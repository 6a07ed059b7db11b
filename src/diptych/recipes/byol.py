"""BYOL's recipe: arXiv 2006.07733."""

from collections.abc import Mapping
from typing import Any

from diptych.methods import BYOLConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import Plan, fitted
from diptych.training.config import RunConfig
from diptych.training.order import Choice

PLAN = Plan(
    method=BYOLConfig(),
    optim=OptimConfig(optimizer="lars", lr=0.2, weight_decay=1.5e-6, decay_all=False, warmup_epochs=10),
    views={"crop_scale": (0.08, 1.0), "saturation": 0.2, "solarize": 0.1},
    light={"projector_width": 512, "predictor_width": 512},
    short={"optimizer": "adamw", "lr": 0.004, "weight_decay": 0.01, "ema_momentum": 0.95},
)


def byol(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """BYOL fitted to your pictures and your machine: predict what a slow copy of the network says.

    Command: ``diptych pretrain cifar10.zip --method byol --limit 10000 --out RUN``, then ``diptych evaluate RUN
    cifar10.zip --limit 10000``.
    Hardware and time: 2 CPU cores with bfloat16, minutes.
    Measured: 10,000 CIFAR-10 pictures × 5 epochs, all 10,000 test pictures, seeds 0, 1, 2: kNN 37.1 to 39.2 %
    (untrained 33.5 to 35.5 %, raw pixels 32.4 %), linear probe 46.3 to 49.1 % (untrained 43.5 to 43.6 %, raw pixels
    39.1 %); intervals ± 1.0.
    """
    return fitted(PLAN, data, facts, asked)
