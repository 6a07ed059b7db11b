"""Less memory for more time: activations are computed again in the backward pass (Chen et al. 2016, arXiv 1604.06174).

Batch norms that are computed again would move their running statistics twice; here they rest the second time.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from diptych.errors import ConfigError


def checkpoint_activations(backbone: nn.Module) -> None:
    """Let ``backbone`` keep the inputs of its blocks alone; gradients and statistics stay the same, but for rounding.

    Args:
        backbone: a network of ours or of timm.

    Raises:
        ConfigError: it does not know how.
    """
    try:
        backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AssertionError, AttributeError) as error:
        raise ConfigError(
            "this backbone cannot compute its activations anew: leave out --checkpoint-activations, or choose another "
            "--backbone"
        ) from error
    for module in backbone.modules():
        if isinstance(module, _NormBase):
            rest = _Rest()
            module.register_forward_pre_hook(rest.begin)
            module.register_forward_hook(rest.end)


class _Rest:
    """Keeps one batch norm's running statistics where they are while it is computed again."""

    def __init__(self) -> None:
        self._usual: float | None = None
        self._seen: Tensor | None = None
        self._resting = False

    def begin(self, norm: nn.Module, _: Any) -> None:
        self._resting = torch._C._current_graph_task_id() != -1  # in a backward pass, as torch.utils.checkpoint tells
        if self._resting:
            assert isinstance(norm, _NormBase)
            self._usual, norm.momentum = norm.momentum, 0.0
            self._seen = None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone()

    def end(self, norm: nn.Module, _: Any, __: Any) -> None:
        if self._resting:
            assert isinstance(norm, _NormBase)
            norm.momentum = self._usual
            if self._seen is not None and norm.num_batches_tracked is not None:
                norm.num_batches_tracked.copy_(self._seen)
