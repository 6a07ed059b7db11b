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
    short={"optimizer": "adamw", "lr": 0.003, "weight_decay": 0.01, "ema_momentum": 0.99},
)


def moco(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """MoCo v2 fitted to your pictures and your machine: contrast with a queue of earlier batches.

    Command: ``diptych pretrain cifar10.zip --method moco --limit 10000 --out RUN``, then ``diptych evaluate RUN
    cifar10.zip --limit 10000``.
    Hardware and time: 2 CPU cores with bfloat16, minutes.
    Measured: 10,000 CIFAR-10 pictures × 5 epochs, all 10,000 test pictures, seeds 0, 1, 2: kNN 37.4 to 39.3 %
    (untrained 33.5 to 35.5 %, raw pixels 32.4 %), linear probe 47.0 to 48.0 % (untrained 43.5 to 43.6 %, raw pixels
    39.1 %); intervals ± 1.0.
    """
    queue = 2 ** min(16, max(1, facts.count // 4).bit_length() - 1)  # of other pictures: their own old keys are none
    plan = replace(PLAN, always={"queue_size": queue})
    return fitted(plan, data, facts, asked)
