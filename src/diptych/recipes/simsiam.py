"""The default recipe: looks at the pictures and the machine, chooses, and says what it chose and why."""

import shlex
from collections.abc import Mapping
from typing import Any

from diptych.config import with_settings
from diptych.data.decoding.pixels import PixelFormat
from diptych.recipes.facts import Facts, machine
from diptych.training.config import RunConfig
from diptych.training.order import Choice, flags
from diptych.views.policies import POLICIES

CPU_VIEWS, GPU_VIEWS = 50_000, 20_000_000
"""Pictures shown in a whole run, repeats included: minutes on two slow cores, some hours on a GPU."""
MOST_EPOCHS = 800
SMALL = 64
"""Pixels a side up to which pictures get the paper's CIFAR-10 settings; larger ones get its ImageNet settings."""
SHORT = 5_000
"""Steps below which a run is short: the paper's learning rate would leave it where it began."""


def simsiam(data: str, facts: Facts, asked: Mapping[str, Any] | None = None) -> tuple[RunConfig, list[Choice]]:
    """SimSiam fitted to your pictures and your machine; the default.

    Command: ``diptych pretrain cifar10.zip --limit 10000 --out RUN --seed S``, S = 0, 1, 2.
    Hardware and time: 2 CPU cores with bfloat16, about 4 minutes.
    Measured: 10,000 CIFAR-10 pictures × 5 epochs, all 10,000 test pictures: kNN 40.3 to 41.3 % over 3 seeds (untrained
    33.5 to 35.5 %, raw pixels 32.4 %), linear probe 48.8 to 49.5 % (untrained 43.5 to 43.6 %, raw pixels 39.1 %);
    intervals ± 1.0. Not measured on a GPU.
    """
    asked = asked or {}
    values: dict[str, Any] = {}
    choices: list[Choice] = []

    def choose(name: str, value: Any, why: str) -> Any:
        """Return what the user asked for, or else choose ``value`` and say so."""
        if asked.get(name) is not None:
            return asked[name]
        values[name] = value
        choices.append(Choice(what=shlex.join(flags({name: value})), why=why))
        return value

    policy = asked.get("policy") or "natural"
    if facts.pixels != PixelFormat():
        channels = choose("channels", facts.pixels.channels, f"what most of the pictures have: {facts.pixels}")
        choose("depth", facts.pixels.depth, "the type of their values")
        if channels != 3:
            gray = channels == 1
            policy = choose("policy", "grayscale" if gray else "overhead", "one channel" if gray else "many channels")
    seen = f"the shorter side of the pictures is {facts.side} px (median), on {machine(facts)}"
    size = choose("image_size", _image_size(facts), seen)
    choose("backbone", _backbone(facts, size), f"{size} px pictures, {facts.count:,} of them, on {machine(facts)}")
    batch_size = choose(
        "batch_size", _batch_size(facts), f"a power of two, at most a quarter of the {facts.count:,} pictures"
    )
    budget = GPU_VIEWS if facts.gpu else CPU_VIEWS
    fitting = min(MOST_EPOCHS, max(1, round(budget / facts.count)))
    epochs = choose("epochs", fitting, f"about {budget:,} pictures shown in all, at most {MOST_EPOCHS} epochs")
    steps = epochs * (facts.count // batch_size)
    if steps < SHORT:
        choose("lr", 1.0, f"only {steps:,} steps: high rates won by far where 390 were measured (docs/results.md)")
    else:
        choose("lr", 0.05, f"{steps:,} steps: the paper's")
    if facts.bf16:
        choose("precision", "bf16", "bfloat16 is native here")
    else:
        choose("precision", "fp32", "bfloat16 is not native here")
    if size <= SMALL:
        for name, value in {"projector_layers": 2, "predictor_constant_lr": False, "weight_decay": 5e-4}.items():
            choose(name, value, f"the paper's for small pictures, {SMALL} px or less")
        choose("blur", 0.0, f"the paper's for small pictures: a blur would leave little of {size} px")
    return with_settings(with_settings(RunConfig(data=data), POLICIES[policy].values), values), choices


def _image_size(facts: Facts) -> int:
    if facts.side <= 48:
        return 32
    if facts.side <= 96:
        return 64
    return 224 if facts.gpu else 96


def _backbone(facts: Facts, size: int) -> str:
    if facts.gpu:
        return "timm:resnet50" if size > SMALL and facts.count >= 100_000 else "timm:resnet18"
    return "resnet20v2" if size <= SMALL else "timm:resnet18"


def _batch_size(facts: Facts) -> int:
    largest = 512 if facts.gpu else 128
    size = 2
    while size * 2 <= min(largest, max(2, facts.count // 4)):
        size *= 2
    return size
