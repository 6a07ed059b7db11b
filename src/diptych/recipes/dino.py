"""DINO's recipe: arXiv 2104.14294."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from diptych.backbones.build import is_transformer
from diptych.methods import DINOConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import SMALL, Plan, fitted, usual_image_size
from diptych.training.config import RunConfig
from diptych.training.order import Choice

PLAN = Plan(
    method=DINOConfig(),
    optim=OptimConfig(
        optimizer="adamw", lr=5e-4, weight_decay=0.04, final_weight_decay=0.4, decay_all=False, warmup_epochs=10
    ),
    views={"crop_scale": (0.25, 1.0), "local_scale": (0.05, 0.25), "saturation": 0.2, "solarize": 0.1},
    always={"local_views": 8},
    light={"projector_width": 512, "prototypes": 512},
    short={"lr": 0.004, "weight_decay": 0.01, "final_weight_decay": 0.01, "ema_momentum": 0.95, "local_views": 2},
)


def dino(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """DINO fitted to your pictures and your machine: a slow teacher, many small views; made for ViTs and long runs.

    Command: ``diptych pretrain cifar10.zip --method dino --limit 10000 --out RUN``, then ``diptych evaluate RUN
    cifar10.zip --limit 10000``.
    Hardware and time: 2 CPU cores with bfloat16, minutes.
    Measured: 10,000 CIFAR-10 pictures × 5 epochs, all 10,000 test pictures, seeds 0, 1, 2: kNN 35.7 to 36.5 %
    (untrained 33.5 to 35.5 %, raw pixels 32.4 %), linear probe 44.5 to 45.2 % (untrained 43.5 to 43.6 %, raw pixels
    39.1 %); intervals ± 1.0.
    """
    typed = asked or {}
    made_for = facts.gpu and (typed.get("image_size") or usual_image_size(facts)) > SMALL
    plan = replace(PLAN, backbone="timm:vit_small_patch16_224") if made_for else PLAN
    if not is_transformer(typed.get("backbone") or plan.backbone or ""):
        plan = replace(plan, always={**plan.always, "projector_norm": True})
    return fitted(plan, data, facts, asked)
