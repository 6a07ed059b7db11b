"""The optimizer of a run, and how its learning rate is set at every step."""

import torch

from diptych.optim.config import OptimConfig
from diptych.types import ParameterGroup


def build_optimizer(groups: list[ParameterGroup], config: OptimConfig) -> torch.optim.SGD:
    """SGD over a method's parameter groups; a group's ``constant_lr`` keeps it at the peak rate throughout."""
    return torch.optim.SGD(
        [{"params": group.parameters, "constant_lr": group.constant_lr} for group in groups],
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )


def set_lr(optimizer: torch.optim.Optimizer, scheduled: float, peak: float) -> None:
    """Give every group its learning rate for the coming step."""
    for group in optimizer.param_groups:
        group["lr"] = peak if group["constant_lr"] else scheduled
