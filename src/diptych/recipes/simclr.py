"""SimCLR's recipe: arXiv 2002.05709."""

from collections.abc import Mapping
from typing import Any

from diptych.methods import SimCLRConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts
from diptych.recipes.fitted import Plan, fitted
from diptych.training.config import RunConfig
from diptych.training.order import Choice

PLAN = Plan(
    method=SimCLRConfig(),
    optim=OptimConfig(optimizer="lars", lr=0.3, weight_decay=1e-6, decay_all=False, warmup_epochs=10),
    views={"crop_scale": (0.08, 1.0), "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2},
    small={"temperature": 0.5},
    light={"projector_width": 512},
    short={"optimizer": "adamw", "lr": 0.008, "weight_decay": 0.01, "temperature": 0.2},
)


def simclr(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """SimCLR fitted to your pictures and your machine: contrast with the other pictures of the batch.

    Command: ``diptych pretrain cifar10.zip --method simclr --limit 10000 --out RUN``, then ``diptych evaluate RUN
    cifar10.zip --limit 10000``.
    Hardware and time: 2 CPU cores with bfloat16, minutes.
    Measured: 10,000 CIFAR-10 pictures × 5 epochs, all 10,000 test pictures, seeds 0, 1, 2: kNN 45.9 to 46.9 %
    (untrained 33.5 to 35.5 %, raw pixels 32.4 %), linear probe 52.6 to 54.6 % (untrained 43.5 to 43.6 %, raw pixels
    39.1 %); intervals ± 1.0.
    """
    return fitted(PLAN, data, facts, asked)
