"""Pieces of a loss that more than one method uses."""

from torch import Tensor
from torch.nn import functional


def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Mean of -cos(p, z) over the batch; ``p``, ``z``: ``(B, D)``; the result: a float32 scalar in -1..1.

    SimSiam (arXiv 2011.10566), eq. 1; the squared distance of unit vectors (BYOL, arXiv 2006.07733, eq. 2) is 2 + 2 ×
    this.
    """
    return -functional.cosine_similarity(p.float(), z.float(), dim=1).mean()
