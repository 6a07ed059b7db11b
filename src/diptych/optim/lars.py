"""LARS: each weight moves in proportion to its own size, so that batches of thousands can be learned from.

You, Gitman & Ginsburg 2017 (arXiv 1708.03888), as BYOL and Barlow Twins use it. Deviations from the paper, all of them
the two's: the trust ratio is η ‖w‖ / ‖g + β w‖, g the gradient and β the weight decay, not η ‖w‖ / (‖g‖ + β ‖w‖), as in
SimCLR too; where a weight or what it is to move by is zero the ratio is 1; and the learning rate scales the momentum,
as it does in SGD here, instead of what is added to it, which differs only where the rate changes from step to step.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

TRUST = 0.001
"""The papers' trust coefficient η."""


class LARS(torch.optim.Optimizer):
    """SGD with momentum and layer-wise adaptive rates.

    Args:
        params: parameter groups; a group with ``adapt`` False moves as SGD would, and without weight decay.
        lr: learning rate.
        momentum: in 0..1.
        weight_decay: times the weight, added to its gradient.
    """

    def __init__(self, params: Iterable[dict[str, Any]], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient."""
        assert closure is None, "the loop computes gradients once"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)

    def _move(self, weight: Tensor, group: dict[str, Any]) -> None:
        change = weight.grad
        assert change is not None
        if group["adapt"]:
            change = change.add(weight, alpha=group["weight_decay"])
            size, slope = weight.norm(), change.norm()
            change = change * torch.where((size > 0) & (slope > 0), TRUST * size / slope, 1.0)
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        weight.sub_(state["momentum_buffer"].mul_(group["momentum"]).add_(change), alpha=group["lr"])
