"""What the methods' recipes share: look at the pictures and the machine, choose, and say what was chosen and why."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diptych.config import with_settings
from diptych.data.decoding.pixels import PixelFormat
from diptych.methods import MethodConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts, machine
from diptych.training.config import RunConfig
from diptych.training.order import Choice, flags
from diptych.views.policies import POLICIES

CPU_VIEWS, GPU_VIEWS = 50_000, 20_000_000
"""Pictures shown in a whole run, repeats included: minutes on two slow cores, some hours on a GPU."""
MOST_EPOCHS = 800
SMALL = 64
"""Pixels a side up to which pictures get a paper's CIFAR-10 settings; larger ones get its ImageNet settings."""
SHORT = 5_000
"""Steps below which a run is short: a paper's learning rate would leave it where it began."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a method asks for, before anything is known of the pictures; settings by their names."""

    method: MethodConfig
    optim: OptimConfig
    """The paper's, for ImageNet."""
    views: Mapping[str, Any] = field(default_factory=dict)
    """The paper's; for photographs, other policies have their own."""
    always: dict[str, Any] = field(default_factory=dict)
    """Settings for pictures of any kind and size."""
    small: Mapping[str, Any] = field(default_factory=dict)
    """Settings for small pictures, over the paper's for ImageNet."""
    short: Mapping[str, Any] = field(default_factory=dict)
    """Settings for runs of few steps, over all others."""


class Chooser:
    """Chooses settings that the user did not give, and remembers why."""

    def __init__(self, asked: Mapping[str, Any] | None) -> None:
        self.asked = dict(asked or {})
        self.values: dict[str, Any] = {}
        self._why: dict[str, str] = {}

    def __call__(self, name: str, value: Any, why: str) -> Any:
        """Return what the user asked for, or else choose ``value``; a later choice replaces an earlier one."""
        if self.asked.get(name) is not None:
            return self.asked[name]
        self.values[name] = value
        self._why[name] = why
        return value

    @property
    def choices(self) -> list[Choice]:
        """Everything that was chosen, each with its reason."""
        return [Choice(what=shlex.join(flags({name: self.values[name]})), why=why) for name, why in self._why.items()]


def choose_pictures(facts: Facts, choose: Chooser) -> tuple[str, int]:
    """Choose channels, type and size of the pictures; returns the policy of their views, and their size in pixels."""
    policy = choose.asked.get("policy") or "natural"
    if facts.pixels != PixelFormat():
        channels = choose("channels", facts.pixels.channels, f"what most of the pictures have: {facts.pixels}")
        choose("depth", facts.pixels.depth, "the type of their values")
        if channels != 3:
            gray = channels == 1
            policy = choose("policy", "grayscale" if gray else "overhead", "one channel" if gray else "many channels")
    seen = f"the shorter side of the pictures is {facts.side} px (median), on {machine(facts)}"
    return policy, choose("image_size", _image_size(facts), seen)


def fitted(plan: Plan, data: str, facts: Facts, asked: Mapping[str, Any] | None) -> tuple[RunConfig, list[Choice]]:
    """Fit a plan to the pictures, the machine and what the user asked for.

    Returns:
        The configuration, and everything that was chosen in it, each with its reason.
    """
    choose = Chooser(asked)
    policy, size = choose_pictures(facts, choose)
    choose("backbone", _backbone(facts, size), f"{size} px pictures, {facts.count:,} of them, on {machine(facts)}")
    batch_size = choose(
        "batch_size", _batch_size(facts), f"a power of two, at most a quarter of the {facts.count:,} pictures"
    )
    budget = GPU_VIEWS if facts.gpu else CPU_VIEWS
    fitting = min(MOST_EPOCHS, max(1, round(budget / facts.count)))
    epochs = choose("epochs", fitting, f"about {budget:,} pictures shown in all, at most {MOST_EPOCHS} epochs")
    precision = "bf16" if facts.bf16 else "fp32"
    choose("precision", precision, f"bfloat16 is {'' if facts.bf16 else 'not '}native here")
    if size <= SMALL:
        for name, value in plan.small.items():
            choose(name, value, f"for small pictures, {SMALL} px or less")
        choose("blur", 0.0, f"the papers' for small pictures: a blur would leave little of {size} px")
    if {**plan.always, **choose.asked}.get("local_views"):
        choose("local_size", _local_size(size), f"about the part of {size} px that 96 is of 224")
    steps = epochs * (facts.count // batch_size)
    choose("lr", plan.optim.lr, f"{steps:,} steps: the paper's")
    if plan.optim.warmup_epochs > epochs / 10:
        choose("warmup_epochs", epochs / 10, f"a tenth of the run, not the paper's {plan.optim.warmup_epochs:g} epochs")
    if steps < SHORT:
        for name, value in plan.short.items():
            choose(name, value, f"only {steps:,} steps: what won where 390 were measured (docs/results.md)")
    base = RunConfig(data=data, method=plan.method, optim=plan.optim)
    by_policy = plan.views if policy == "natural" else POLICIES[policy].values
    return with_settings(with_settings(base, {**plan.always, **by_policy}), choose.values), choose.choices


def _image_size(facts: Facts) -> int:
    if facts.side <= 48:
        return 32
    if facts.side <= 96:
        return 64
    return 224 if facts.gpu else 96


def _local_size(size: int) -> int:
    """Whole patches of 16 px, so that a ViT can take them."""
    return max(16, 16 * round(size * 96 / 224 / 16))


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
