"""Numbers that tell a learning network from a collapsed one, computed on the embeddings of one batch.

SimSiam (arXiv 2011.10566), section 4.1: if the outputs collapse to a constant, the standard deviation of the
l2-normalised output is zero in every channel; if they are spread like a Gaussian it is 1/√d.
Effective rank: Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality".
"""

import torch
from torch import Tensor
from torch.nn import functional


def embedding_std(embeddings: Tensor) -> Tensor:
    """Mean over channels of the standard deviation of the normalised embeddings, times √D.

    Args:
        embeddings: ``(B, D)`` float, B ≥ 2.

    Returns:
        Scalar in 0..1: near 1 is good (spread over the sphere), near 0 is collapse.
    """
    normalised = functional.normalize(embeddings.float(), dim=1)
    std: Tensor = normalised.std(dim=0, correction=0).mean() * embeddings.shape[1] ** 0.5
    return std


def effective_rank(embeddings: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised singular values of the centred, l2-normalised embeddings.

    Args:
        embeddings: ``(B, D)`` float, B ≥ 2.

    Returns:
        Scalar in 1..min(B, D), a number of dimensions: good is a sizeable part of min(B, D); below about 2 is collapse.
    """
    normalised = functional.normalize(embeddings.float(), dim=1)
    centred = normalised - normalised.mean(dim=0)
    # The smaller Gram matrix has the same non-zero spectrum and is far cheaper than an SVD of (B, D).
    gram = centred @ centred.T if centred.shape[0] <= centred.shape[1] else centred.T @ centred
    values = torch.linalg.eigvalsh(gram.cpu().double()).clamp_min(0).sqrt()  # some devices have no float64
    total = values.sum()
    if total < 1e-4:  # one vector up to rounding, whose noise must not pass for rank
        return torch.ones(())
    share = values / total
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    rank: Tensor = entropy.exp().float()
    return rank
