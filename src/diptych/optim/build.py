"""The optimizer of a run, and what of it is set at every step."""

from typing import Any

import torch

from diptych.optim.config import OptimConfig
from diptych.optim.lars import LARS
from diptych.optim.schedule import half_cosine
from diptych.types import ParameterGroup


def build_optimizer(groups: list[ParameterGroup], config: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimizer over a method's parameter groups.

    Without ``decay_all`` each group is parted in two: weights of two dimensions or more, and biases and norms, which
    are neither decayed nor adapted.
    """
    split = [part for group in groups for part in _parts(group, config)]
    if config.optimizer == "lars":
        return LARS(split, config.lr, config.momentum, config.weight_decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(split, lr=config.lr, betas=(config.momentum, 0.999), weight_decay=config.weight_decay)
    return torch.optim.SGD(split, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)


def _parts(group: ParameterGroup, config: OptimConfig) -> list[dict[str, Any]]:
    kept = {"constant_lr": group.constant_lr, "frozen_until": group.frozen_until}
    if config.decay_all:
        return [{"params": group.parameters, "decays": True, **kept}]
    vectors = [p for p in group.parameters if p.ndim < 2]
    tensors = [p for p in group.parameters if p.ndim >= 2]
    parts = [
        {"params": tensors, "decays": True, **kept},
        {"params": vectors, "decays": False, "adapt": False, "weight_decay": 0.0, **kept},
    ]
    return [part for part in parts if part["params"]]


def set_rates(optimizer: torch.optim.Optimizer, config: OptimConfig, lr: float, peak: float, progress: float) -> None:
    """Give every group its learning rate and weight decay for the coming step; of a frozen one drop the gradients.

    A learning rate of zero would let momentum gather, and the group leap when its time comes. Call it after the
    backward pass and before gradients are measured.

    Args:
        optimizer: as built here.
        config: that it was built from.
        lr: the scheduled learning rate.
        peak: what a constant group stays at.
        progress: part of the run that is done before the step, 0..1.
    """
    decay = config.weight_decay
    if config.final_weight_decay is not None:
        decay = half_cosine(decay, config.final_weight_decay, progress)
    for group in optimizer.param_groups:
        group["lr"] = peak if group["constant_lr"] else lr
        if progress < group["frozen_until"]:
            for parameter in group["params"]:
                parameter.grad = None
        if group["decays"]:
            group["weight_decay"] = decay


def parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    """Return everything that ``optimizer`` moves."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
