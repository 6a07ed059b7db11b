"""Fine-tuning: a whole network trained on the labels that there are, with a linear layer on top of its features.

The semi-supervised protocol of SimCLR (arXiv 2002.05709, appendix B.5), as far as it goes for any number of labels:
crops and flips alone, no other augmentation. Deviations, each the same for every contender: AdamW with a short warm-up
and a cosine to zero instead of SGD, because one set of rates suits small and large networks; the peak rate is the one
of ``RATES`` that does best on a fifth of the labelled pictures (``choose_start``), where SimCLR's is fixed; the
number of steps grows with that of the labels, between two bounds; each picture is seen in two crops at a time (repeated
augmentation, arXiv 1901.09335), because that is what our views are. The linear layer begins at zero, or as a linear
probe of the frozen features (Kumar et al., arXiv 2202.10054), whichever does better on that fifth: with good features a
layer of zeros takes hundreds of steps to be worth as much, and its first gradients spoil them; random ones are better
off without a probe. Of several labels a picture the cross-entropy of each is lowered, of
quantities the squared error, standardised by the labelled pictures; the layer of these begins at zero.

A network trained *from scratch* is the same, begun with random weights: same labels, steps, augmentation and choices.
So what differs is what pretraining gave. Test pictures play no part before they are predicted, once.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from diptych.errors import DataError
from diptych.evaluation.probes.holding_out import hold_out
from diptych.evaluation.probes.linear import Problem
from diptych.evaluation.truth import loss, standardised
from diptych.frozen import FrozenBackbone, prepared
from diptych.hardware import native_bf16
from diptych.optim.build import build_optimizer
from diptych.optim.config import OptimConfig
from diptych.optim.schedule import warmup_cosine
from diptych.seeding import ORDER, VIEWS, generator
from diptych.types import ParameterGroup
from diptych.views.config import ViewsConfig
from diptych.views.pipeline import ViewMaker

RATES = (1e-4, 6e-4, 3e-3)
"""Peak learning rates that are tried."""
BATCH = 64
"""Pictures of a step, two crops of each."""
EPOCHS, FEWEST, MOST = 10, 200, 2000
"""Times that each labelled picture is met, if that makes no fewer and no more steps than these."""
WARMUP = 0.1
"""Part of the steps in which the rate rises."""
WEIGHT_DECAY = 0.05
PROBED = 5000
"""Labelled pictures, at most, that the linear layer begins with."""
PROBE_L2 = 1e-2
"""Their probe's L2 strength."""
CROP_SCALE = (0.35, 1.0)
"""Area of a crop as a part of the picture's: milder than pretraining's, which labels would not survive."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What a network is to learn, the same for every contender."""

    images: Tensor
    """``(N, C, S, S)`` as they are stored."""
    labels: Tensor
    """``(N,)`` int64, below ``classes``, or several labels, or quantities: see ``evaluation.truth``."""
    classes: int
    """Outputs: how many classes, labels or quantities there are."""
    views: ViewsConfig
    """Flips and turns that leave a picture's class as it is; the rest is set here."""
    seed: int
    """Of the order, the crops, and the fifth that chooses the rate."""
    steps: int | None = None
    """How many; chosen by the number of pictures if None."""
    groups: Tensor | None = None
    """``(N,)`` int64: pictures of one group are not parted where the rate is chosen; None where each stands alone."""
    is_probed: bool = True
    """The layer on top begins as a linear probe; at zero if not."""


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a fine-tuned network says, and how it was come by."""

    logits: Tensor
    """``(M, K)`` float32, of the test pictures; quantities float64, in their units."""
    rate: float
    """Peak learning rate."""
    rate_at_edge: bool
    """It is the least or the greatest that was tried: a better one may lie outside."""
    steps: int


def steps_for(pictures: int) -> int:
    """Return the steps that so many labelled pictures are trained for."""
    return min(MOST, max(FEWEST, EPOCHS * pictures // BATCH))


def choose_start(backbone: FrozenBackbone, lesson: Lesson, rates: Sequence[float] = RATES) -> tuple[float, bool]:
    """Choose how to begin by a fifth of the labelled pictures, learned from the others.

    Of classes, the start that gets fewest of them wrong is chosen, and of equal ones that of the lowest loss: the loss
    alone would prefer a network that has learned little, and so is unsure, to one that is often right and too sure,
    which is what few labels make. Of several labels, and of quantities, it is that of the lowest loss.

    Returns:
        The rate, and whether the layer on top begins as a linear probe; of equal ones the first rate, and a probe.

    Raises:
        DataError: no class has two pictures, so that none can be held out, or every rate diverged.
    """
    kept, held = hold_out(lesson.labels, lesson.seed, groups=lesson.groups)
    if not len(held):
        raise DataError(
            "every class has a single labelled picture, which leaves none to choose fine-tuning's learning rate on: "
            "label two or more of each, or ask for more --labels"
        )
    labels, _ = standardised(lesson.labels)
    starts = [
        (rate, probed) for rate in rates for probed in ((False,) if labels.is_floating_point() else (True, False))
    ]
    worths = []
    for rate, probed in starts:
        part = replace(lesson, images=lesson.images[kept], labels=labels[kept], is_probed=probed)
        logits = _predict(backbone, _train(backbone, part, rate), lesson.images[held])
        lost = loss(logits, labels[held]).nan_to_num(torch.inf, torch.inf).item()
        wrong = int((logits.argmax(1) != labels[held]).sum()) if labels.ndim == 1 else 0
        worths.append((wrong if lost < torch.inf else torch.inf, lost))
    if min(worths)[1] == torch.inf:
        raise DataError("fine-tuning diverged at every learning rate that was tried: leave out --probes finetune")
    return starts[worths.index(min(worths))]


def finetune(backbone: FrozenBackbone, lesson: Lesson, test: Tensor, rate: float) -> Tuned:
    """Train a copy of ``backbone`` and predict the test pictures ``(M, C, S, S)``; ``backbone`` stays as it is.

    Args:
        backbone: what training begins with, and how pictures are brought to it.
        lesson: what it is to learn.
        test: pictures as they are stored.
        rate: peak learning rate, of ``choose_start``.
    """
    labels, in_units = standardised(lesson.labels)
    logits = in_units(_predict(backbone, _train(backbone, replace(lesson, labels=labels), rate), test))
    steps = lesson.steps or steps_for(len(lesson.images))
    return Tuned(logits=logits, rate=rate, rate_at_edge=rate in (min(RATES), max(RATES)), steps=steps)


def _train(backbone: FrozenBackbone, lesson: Lesson, rate: float) -> nn.Module:
    network = _network(backbone, lesson)
    views = _views(backbone, lesson.views)
    steps = lesson.steps or steps_for(len(lesson.images))
    config = OptimConfig(optimizer="adamw", lr=rate, weight_decay=WEIGHT_DECAY, decay_all=False)
    optimizer = build_optimizer([ParameterGroup(parameters=list(network.parameters()))], config)
    count = len(lesson.images)
    each = min(BATCH, count)
    for step in range(steps):
        epoch, place = divmod(step, count // each)
        order = torch.randperm(count, generator=generator(lesson.seed, ORDER, epoch))
        rows = order[place * each : (place + 1) * each]
        crops = views(lesson.images[rows].to(backbone.device), generator(lesson.seed, VIEWS, step))
        batch = torch.cat(crops).contiguous(memory_format=torch.channels_last)
        truth = torch.cat([lesson.labels[rows]] * len(crops)).to(backbone.device)
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(step, steps=steps, warmup_steps=max(1, round(WARMUP * steps)), peak=rate)
        with torch.autocast(backbone.device.type, torch.bfloat16, enabled=native_bf16(backbone.device.type)):
            logits = network(batch)
        optimizer.zero_grad()
        loss(logits.float(), truth).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


def _network(backbone: FrozenBackbone, lesson: Lesson) -> nn.Module:
    """Copy the backbone, let it learn, and put a linear layer on top."""
    module = copy.deepcopy(backbone.module).requires_grad_(True).train()
    return nn.Sequential(module, _layer(backbone, lesson).to(backbone.device))


def _layer(backbone: FrozenBackbone, lesson: Lesson) -> nn.Linear:
    """Return a linear probe of the frozen features; zeros for quantities."""
    layer = nn.Linear(backbone.num_features, lesson.classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    if lesson.labels.is_floating_point() or not lesson.is_probed:
        return layer
    rows = torch.randperm(len(lesson.images), generator=generator(lesson.seed, ORDER, 0))[:PROBED]
    values = backbone.embed(lesson.images[rows]).clone()
    mean, spread = values.mean(dim=0), values.std(dim=0, correction=0)
    spread = spread.where(spread > 0, 1.0)
    found = Problem((values - mean) / spread, lesson.labels[rows], lesson.classes).solve(PROBE_L2)
    weights = found.weights / spread[:, None]
    with torch.no_grad():
        layer.weight.copy_(weights.T)
        layer.bias.copy_(found.bias - mean @ weights)
    return layer


def _views(backbone: FrozenBackbone, asked: ViewsConfig) -> ViewMaker:
    made = backbone.preprocessing
    config = replace(
        ViewsConfig(
            crop_scale=CROP_SCALE,
            jitter=0.0,
            saturation=0.0,
            hue=0.0,
            grayscale=0.0,
            blur=0.0,
            mean=made.mean,
            std=made.std,
            low=made.low,
            high=made.high,
        ),
        horizontal_flip=asked.horizontal_flip,
        vertical_flip=asked.vertical_flip,
        rotate90=asked.rotate90,
    )
    return ViewMaker(config, made.image_size, backbone.device)


@torch.inference_mode()
def _predict(backbone: FrozenBackbone, network: nn.Module, images: Tensor, batch_size: int = 256) -> Tensor:
    parts = []
    for part in torch.split(images, batch_size):
        values = prepared(part, backbone.preprocessing, backbone.device)
        parts.append(network(values.contiguous(memory_format=torch.channels_last)).float().cpu())
    return torch.cat(parts)
