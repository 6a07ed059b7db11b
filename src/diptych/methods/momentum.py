"""The momentum encoder: a slow copy of an encoder, which gives targets that change little from step to step.

MoCo (arXiv 1911.05722), eq. 2; BYOL (arXiv 2006.07733) and DINO (arXiv 2104.14294) let the momentum rise to 1 along
half a cosine: ``optim.schedule.half_cosine``.
"""

import copy

import torch
from torch import Tensor, nn


class MomentumEncoder(nn.Module):
    """Copies of some modules, one after the other: θ' ← m θ' + (1 - m) θ. Gradients never reach it.

    Batch norms use each batch's own statistics, as those of the papers' do, and keep running ones of their own.

    Args:
        modules: of the encoder, in the order in which they are applied; their weights as they are now are copied.
    """

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.copies = nn.Sequential(*(copy.deepcopy(module) for module in modules)).requires_grad_(False)

    @torch.no_grad()
    def forward(self, view: Tensor) -> Tensor:
        """Return the target of one view ``(B, C, h, w)``: ``(B, D)``, without a gradient."""
        target: Tensor = self.copies(view)
        return target

    @torch.no_grad()
    def follow(self, *modules: nn.Module, momentum: float) -> None:
        """Move towards the modules that were copied; 1 stands still, 0 jumps onto them."""
        ours: list[Tensor] = list(self.copies.parameters())
        theirs: list[Tensor] = [parameter for module in modules for parameter in module.parameters()]
        torch._foreach_lerp_(ours, theirs, 1 - momentum)
