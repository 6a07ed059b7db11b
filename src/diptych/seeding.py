"""Random numbers that are a function of named integers alone: seed, epoch, step.

Nothing has to be saved to resume a stream: the same integers give the same numbers again.
"""

import numpy as np
import torch


def generator(*keys: int) -> torch.Generator:
    """Return a CPU generator for one purpose of one run, such as ``(seed, ORDER, epoch)``.

    Args:
        keys: non-negative integers; their order and number matter: (1, 2), (2, 1) and (12,) are three streams.
    """
    state = np.random.SeedSequence([len(keys), *keys]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))


ORDER, VIEWS, WEIGHTS, DRAW, SPLIT = range(5)
"""What a stream is for, so that the same seed and epoch give unrelated numbers to each."""
