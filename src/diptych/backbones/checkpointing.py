"""Less memory for more time: activations are computed again in the backward pass (Chen et al. 2016, arXiv 1604.06174).

A batch norm that is computed twice would move its running statistics twice. Both times it sees the same batch, so with
momentum 1 - √(1 - m) instead of m the two moves come to the very one that was meant.
"""

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from diptych.errors import ConfigError


def checkpoint_activations(backbone: nn.Module, shape: tuple[int, ...], device: torch.device) -> None:
    """Let ``backbone`` keep the inputs of its blocks alone; gradients and statistics stay the same, but for rounding.

    Args:
        backbone: a network of ours or of timm.
        shape: of a batch that it takes, two pictures or more.
        device: where it lies.

    Raises:
        ConfigError: it does not know how.
    """
    norms = [module for module in backbone.modules() if isinstance(module, _NormBase)]
    state = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    was_training = backbone.training
    try:
        backbone.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AssertionError, AttributeError) as error:
        raise ConfigError(
            "this backbone cannot compute its activations anew: leave out --checkpoint-activations, or choose another "
            "--backbone"
        ) from error
    counts = [int(norm.num_batches_tracked) if norm.num_batches_tracked is not None else 0 for norm in norms]
    with torch.random.fork_rng(devices=[]):
        backbone.train()(torch.zeros(shape, device=device)).sum().backward()
    backbone.zero_grad(set_to_none=True)
    for norm, before in zip(norms, counts, strict=True):
        if norm.num_batches_tracked is not None and norm.momentum and int(norm.num_batches_tracked) == before + 2:
            norm.momentum = 1 - (1 - norm.momentum) ** 0.5
    backbone.load_state_dict(state)
    backbone.train(was_training)
