"""Numbers that tell a learning network from a failing one, computed on the embeddings of one batch, without labels.

- Spread: SimSiam (arXiv 2011.10566), section 4.1. If the outputs collapse to a constant, the standard deviation of the
  l2-normalised output is zero in every channel; if they are spread like a Gaussian it is 1/√d.
- Effective rank: Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality". RankMe (arXiv
  2210.02885) is the same exponential of an entropy, of embeddings as they are; here they are l2-normalised, as most
  losses see them, and centred, so that a common offset is no dimension. RankMe takes 25,600 pictures, this one batch,
  which bounds it: the number compares within a run, not with the paper's.
- Alignment and uniformity: Wang & Isola 2020 (arXiv 2005.10242), α = 2 and t = 2, which are the paper's defaults.
- Dead dimensions: dimensional collapse, Jing et al. 2021 (arXiv 2110.09348), as far as it follows the axes.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

ROWS = 512
"""Pictures of a batch that are looked at, at most: an eigenvalue problem of thousands takes longer than a step."""
DEAD = 0.05
"""Standard deviation of a channel × √D, 1 where it is well spread, below which it counts as dead."""


def diagnose(embeddings: Tensor, positives: Tensor) -> dict[str, float]:
    """Return every number of this file, by its name in ``metrics.jsonl``.

    Args:
        embeddings: ``(B, D)`` float, B ≥ 2, of one view.
        positives: ``(B, D)`` float, of another view of the same pictures.
    """
    a, b = embeddings[:ROWS], positives[:ROWS]
    values = {
        "embedding_std": embedding_std(a),
        "effective_rank": effective_rank(a),
        "alignment": alignment(a, b),
        "uniformity": uniformity(a),
        "dead_dimensions": dead_dimensions(a),
    }
    return {name: float(value) for name, value in values.items()}


def embedding_std(embeddings: Tensor) -> Tensor:
    """Mean over channels of the standard deviation of the normalised embeddings, times √D.

    Args:
        embeddings: ``(B, D)`` float, B ≥ 2.

    Returns:
        Scalar in 0..1: near 1 is good (spread over the sphere), near 0 is collapse.
    """
    return _stds(embeddings).mean()


def dead_dimensions(embeddings: Tensor) -> Tensor:
    """Share of the channels in which the normalised embeddings hardly vary.

    Args:
        embeddings: ``(B, D)`` float, B ≥ 2.

    Returns:
        Scalar in 0..1: 0 is good, 1 is complete collapse. Batch norm at a projector's end keeps every channel alive.
    """
    return (_stds(embeddings) < DEAD).float().mean()


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


def alignment(embeddings: Tensor, positives: Tensor) -> Tensor:
    """Mean squared distance of the two normalised embeddings of a picture (eq. 7, α = 2).

    Args:
        embeddings: ``(B, D)`` float, of one view.
        positives: ``(B, D)`` float, of another view of the same pictures.

    Returns:
        Scalar in 0..4: 0 is perfect, but what a collapse gives too; 2 is what unrelated pictures have.
    """
    a, b = (functional.normalize(rows.float(), dim=1) for rows in (embeddings, positives))
    return (a - b).square().sum(dim=1).mean()


def uniformity(embeddings: Tensor) -> Tensor:
    """Logarithm of the mean of exp(-2 · squared distance) over all pairs of different pictures (eq. 8, t = 2).

    Args:
        embeddings: ``(B, D)`` float, B ≥ 2; normalised here.

    Returns:
        Scalar: near -4 is good (spread evenly over a sphere of many dimensions), 0 is collapse.
    """
    normalised = functional.normalize(embeddings.float(), dim=1)
    # Zeros have no direction. They are given one of their own: two of them are one point, not at right angles.
    normalised = torch.cat([normalised, (normalised == 0).all(dim=1, keepdim=True).float()], dim=1)
    squared = (2 - 2 * normalised @ normalised.T).clamp_min(0)
    others = ~torch.eye(len(squared), dtype=torch.bool, device=squared.device)
    value: Tensor = (-2 * squared[others]).exp().mean().log()
    return value


def length(weights: Iterable[Tensor]) -> Tensor:
    """Length (Euclidean norm) of all tensors together, as of one vector.

    Returns:
        Scalar, 0 or more. Of weights, it hardly changes from step to step; where it does by hundredths, steps are too
        large.
    """
    norm: Tensor = nn.utils.get_total_norm([weight.detach() for weight in weights])
    return norm


def _stds(embeddings: Tensor) -> Tensor:
    """Return the standard deviation of each channel of the normalised embeddings, times √D: ``(D,)``."""
    normalised = functional.normalize(embeddings.float(), dim=1)
    stds: Tensor = normalised.std(dim=0, correction=0) * embeddings.shape[1] ** 0.5
    return stds
