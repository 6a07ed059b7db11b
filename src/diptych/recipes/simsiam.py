"""The default recipe: looks at the pictures and the machine, chooses, and says what it chose and why."""

from dataclasses import replace
from typing import Literal

from diptych.methods import SimSiamConfig
from diptych.optim.config import OptimConfig
from diptych.recipes.facts import Facts, machine
from diptych.training.config import RunConfig, TrainConfig
from diptych.training.order import Choice
from diptych.views.pipeline import ViewsConfig

CPU_VIEWS, GPU_VIEWS = 50_000, 20_000_000
"""Pictures shown in a whole run, repeats included: minutes on two slow cores, some hours on a GPU."""
MOST_EPOCHS = 800
SMALL = 64
"""Pixels a side up to which pictures are small: no blur, a two-layer projector, a predictor whose rate decays too,
as the paper has it on CIFAR-10."""
SHORT = 5_000
"""Steps below which a run is short: the paper's learning rate would leave it where it began."""


def simsiam(data: str, facts: Facts) -> tuple[RunConfig, list[Choice]]:
    """SimSiam fitted to your pictures and your machine; the default.

    Command: ``diptych pretrain cifar10.zip --limit 10000 --out RUN --seed S``, S = 0, 1, 2.
    Hardware and time: 2 CPU cores with bfloat16, about 5 minutes.
    Measured: 10,000 CIFAR-10 pictures × 5 epochs, all 10,000 test pictures: kNN 41.0 to 41.2 % over 3 seeds (untrained 33.5
    to 35.5 %, raw pixels 32.4 %), linear probe 48.6 to 49.6 % (untrained 43.5 to 43.6 %, raw pixels 39.1 %); intervals
    ± 1.0. Not measured on a GPU.
    """
    choices: list[Choice] = []

    def choose(what: str, why: str) -> None:
        choices.append(Choice(what=what, why=why))

    size = _image_size(facts)
    choose(f"--image-size {size}", f"the shorter side of the pictures is {facts.side} px (median), on {machine(facts)}")
    backbone = _backbone(facts, size)
    choose(f"--backbone {backbone}", f"{size} px pictures, {facts.count:,} of them, on {machine(facts)}")
    batch_size = _batch_size(facts)
    choose(f"--batch-size {batch_size}", f"a power of two, at most a quarter of the {facts.count:,} pictures")
    budget = GPU_VIEWS if facts.gpu else CPU_VIEWS
    epochs = min(MOST_EPOCHS, max(1, round(budget / facts.count)))
    choose(f"--epochs {epochs}", f"about {budget:,} pictures shown in all, at most {MOST_EPOCHS} epochs")
    steps = epochs * (facts.count // batch_size)
    lr = 1.0 if steps < SHORT else 0.05
    choose(f"--lr {lr:g}", _why_lr(steps))
    precision: Literal["fp32", "bf16"] = "bf16" if facts.bf16 else "fp32"
    choose(f"--precision {precision}", f"bfloat16 is {'native' if facts.bf16 else 'not native'} here")
    views = ViewsConfig()
    if size <= SMALL:
        choose("--blur 0", f"a blur would leave little of {size} px")
        views = replace(views, blur=0.0)
    if facts.gray:
        choose("--saturation 0 --hue 0 --grayscale 0", "the pictures are gray")
        views = replace(views, saturation=0.0, hue=0.0, grayscale=0.0)
    return (
        RunConfig(
            data=data,
            image_size=size,
            backbone=backbone,
            method=SimSiamConfig(projector_layers=2 if size <= SMALL else 3, predictor_constant_lr=size > SMALL),
            views=views,
            optim=OptimConfig(lr=lr, momentum=0.9, weight_decay=5e-4 if size <= SMALL else 1e-4),
            train=TrainConfig(epochs=epochs, batch_size=batch_size, precision=precision),
        ),
        choices,
    )


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


def _why_lr(steps: int) -> str:
    if steps < SHORT:
        return f"only {steps:,} steps: high rates won by far within such a budget (docs/results.md)"
    return f"{steps:,} steps: the paper's"
