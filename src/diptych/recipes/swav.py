"""SwAV's recipe: arXiv 2006.09882."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diptych.methods import SwAVConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import Plan, fitted, usual_batch_size
from diptych.training.config import RunConfig
from diptych.training.order import Choice

PLAN = Plan(
    method=SwAVConfig(),
    optim=OptimConfig(optimizer="lars", lr=0.6, weight_decay=1e-6, decay_all=False),
    views={"crop_scale": (0.14, 1.0), "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
    always={"local_views": 6},
    light={"projector_width": 512},
    short={"optimizer": "adamw", "lr": 0.004, "weight_decay": 0.01, "queue_size": 0},
)


def swav(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """SwAV fitted to your pictures and your machine: predict the cluster that another view falls into.

    Command: ``diptych pretrain cifar10.zip --method swav --limit 10000 --out RUN``, then ``diptych evaluate RUN
    cifar10.zip --limit 10000``.
    Hardware and time: 2 CPU cores with bfloat16, minutes.
    Measured: 10,000 CIFAR-10 pictures × 5 epochs, all 10,000 test pictures, seeds 0, 1, 2: kNN 36.3 to 37.1 %
    (untrained 33.5 to 35.5 %, raw pixels 32.4 %), linear probe 46.8 to 47.6 % (untrained 43.5 to 43.6 %, raw pixels
    39.1 %); intervals ± 1.0.
    """
    queue = min(3840, facts.count // 4)
    shared = max(2, min(3000, queue // 2))  # so many kinds at most get two pictures each
    batch = (asked or {}).get("batch_size") or usual_batch_size(facts)
    plan = replace(
        PLAN,
        always={**PLAN.always, "queue_size": queue, "prototypes": shared},
        short={**PLAN.short, "prototypes": max(2, min(128, batch))},  # a queue would be older than the network
    )
    return fitted(plan, data, facts, asked)
