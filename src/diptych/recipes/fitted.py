"""What the methods' recipes share: look at the pictures and the machine, choose, and say what was chosen and why."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diptych.config import with_settings
from diptych.data.decoding.pixels import PixelFormat
from diptych.methods import AnyMethodConfig
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
USUAL = {
    "sgd": {"lr": 0.05, "weight_decay": 1e-4},
    "adamw": {"lr": 5e-4, "weight_decay": 0.05},
    "lars": {"lr": 0.3, "weight_decay": 1e-6},
}
"""Where the user asks for another optimizer than the plan's: for a batch of 256, SimSiam's, DINO's and SimCLR's."""
SMALL_VIEWS = {
    "crop_scale": (0.2, 1.0),
    "brightness": 0.4,
    "contrast": 0.4,
    "saturation": 0.4,
    "hue": 0.1,
    "solarize": 0.0,
}
"""Of small photographs by any method, SimSiam's: what was measured (docs/results.md); other policies have their own."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a method asks for, before anything is known of the pictures; settings by their names."""

    method: AnyMethodConfig
    optim: OptimConfig
    """The paper's, for ImageNet."""
    backbone: str | None = None
    """What the method is made for, if that is one kind of network."""
    views: Mapping[str, Any] = field(default_factory=dict)
    """The paper's, for photographs; other policies have their own."""
    always: Mapping[str, Any] = field(default_factory=dict)
    """Settings for pictures of any kind and size."""
    small: Mapping[str, Any] = field(default_factory=dict)
    """Settings for small pictures, over the paper's for ImageNet."""
    light: Mapping[str, Any] = field(default_factory=dict)
    """Smaller heads, for small pictures and for machines without a GPU."""
    short: Mapping[str, Any] = field(default_factory=dict)
    """Settings for runs of few steps, over all others."""

    def config(self, data: str, policy: str = "natural") -> RunConfig:
        """Return the paper's configuration, for pictures of a kind."""
        backbone = self.backbone or RunConfig.backbone
        base = RunConfig(data=data, method=self.method, optim=self.optim, backbone=backbone)
        views = self.views if policy == "natural" else POLICIES[policy].values
        return with_settings(base, {**self.always, **views})


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
    return policy, choose("image_size", usual_image_size(facts), seen)


def fitted(plan: Plan, data: str, facts: Facts, asked: Mapping[str, Any] | None) -> tuple[RunConfig, list[Choice]]:
    """Fit a plan to the pictures, the machine and what the user asked for.

    Returns:
        The configuration, and everything that was chosen in it, each with its reason.
    """
    choose = Chooser(asked)
    policy, size = choose_pictures(facts, choose)
    choose(
        "backbone",
        plan.backbone or _backbone(facts, size),
        f"{size} px pictures, {facts.count:,} of them, on {machine(facts)}",
    )
    batch_size = choose(
        "batch_size", usual_batch_size(facts), f"a power of two, at most a quarter of the {facts.count:,} pictures"
    )
    for name, value in plan.always.items():
        choose(name, value, f"what {plan.method.name} is made with")
    budget = GPU_VIEWS if facts.gpu else CPU_VIEWS
    fitting = min(MOST_EPOCHS, max(1, round(budget / facts.count)))
    epochs = choose("epochs", fitting, f"about {budget:,} pictures shown in all, at most {MOST_EPOCHS} epochs")
    precision = "bf16" if facts.bf16 else "fp32"
    choose("precision", precision, f"bfloat16 is {'' if facts.bf16 else 'not '}native here")
    if size <= SMALL:
        views = {name: value for name, value in SMALL_VIEWS.items() if policy == "natural" and name in plan.views}
        for name, value in {**plan.small, **views}.items():
            choose(name, value, f"for small pictures, {SMALL} px or less")
        choose("blur", 0.0, f"the papers' for small pictures: a blur would leave little of {size} px")
    if size <= SMALL or not facts.gpu:
        for name, value in plan.light.items():
            choose(name, value, f"the paper's is for larger pictures on GPUs; here, {size} px on {machine(facts)}")
    steps = epochs * (facts.count // batch_size)
    choose("lr", plan.optim.lr, f"{steps:,} steps: the paper's")
    if plan.optim.warmup_epochs > epochs / 10:
        choose("warmup_epochs", epochs / 10, f"a tenth of the run, not the paper's {plan.optim.warmup_epochs:g} epochs")
    short = plan.short if steps < SHORT else {}
    for name, value in short.items():
        choose(name, value, f"only {steps:,} steps: what won where few were measured (docs/results.md)")
    asked_for = choose.asked.get("optimizer")
    if asked_for in USUAL and asked_for != short.get("optimizer", plan.optim.optimizer):
        paper = {"lr": plan.optim.lr, "weight_decay": plan.optim.weight_decay}
        for name, value in (paper if asked_for == plan.optim.optimizer else USUAL[asked_for]).items():
            choose(name, value, f"usual with {asked_for}, which you asked for")
    if {**plan.always, **short, **choose.asked}.get("local_views"):
        choose("local_size", _local_size(size), f"about the part of {size} px that 96 is of 224")
    return with_settings(plan.config(data, policy), choose.values), choose.choices


def usual_image_size(facts: Facts) -> int:
    """Return the size that is chosen, in pixels a side."""
    if facts.side <= 48:
        return 32
    if facts.side <= 96:
        return 64
    return 224 if facts.gpu else 96


def _local_size(size: int) -> int:
    """Whole patches of 16 px where the pictures are large enough, so that a ViT can take them."""
    return min(max(16, 16 * round(size * 96 / 224 / 16)), size // 2)


def _backbone(facts: Facts, size: int) -> str:
    if facts.gpu:
        return "timm:resnet50" if size > SMALL and facts.count >= 100_000 else "timm:resnet18"
    return "resnet20v2" if size <= SMALL else "timm:resnet18"


def usual_batch_size(facts: Facts) -> int:
    """Return the batch size that is chosen: a power of two, at most a quarter of the pictures."""
    largest = 512 if facts.gpu else 128
    size = 2
    while size * 2 <= min(largest, max(2, facts.count // 4)):
        size *= 2
    return size
