"""Weighted k-nearest-neighbour classification by cosine similarity, of Wu et al. 2018 (arXiv 1805.01978, section 3.4).

Each of a test picture's k nearest training pictures votes for its class with weight exp(similarity / temperature).
The temperature is the paper's, 0.07; k is 20 where the paper, with a million training pictures, takes 200.

Where there are several labels a picture, or quantities, which the paper does not speak of, the neighbours' mean by the
same weights is the answer.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.evaluation.features import Features

K = 20
TEMPERATURE = 0.07

_SIMILARITIES_AT_ONCE = 2**24  # 64 MiB of float32


@dataclass(frozen=True)
class Neighbors:
    """The training pictures nearest to each test picture, nearest first."""

    indices: Tensor
    """``(M, k)`` int64, rows of the training features."""
    similarities: Tensor
    """``(M, k)`` float32, cosines in -1..1."""


def nearest(train: Tensor, test: Tensor, k: int = K) -> Neighbors:
    """Find the k rows of ``train`` ``(N, D)`` with the largest cosine similarity to each row of ``test`` ``(M, D)``.

    k is cut to N. Memory is bounded: test rows are compared a part at a time.
    """
    train, test = F.normalize(train), F.normalize(test)
    rows = max(1, _SIMILARITIES_AT_ONCE // len(train))
    k = min(k, len(train))
    # Written in place: small results that are kept between large ones that are freed would scatter over the heap.
    indices, similarities = torch.empty(len(test), k, dtype=torch.int64), torch.empty(len(test), k)
    for start in range(0, len(test), rows):
        part = slice(start, start + rows)
        torch.topk(test[part] @ train.T, k, out=(similarities[part], indices[part]))
    return Neighbors(indices, similarities)


def vote(neighbors: Neighbors, labels: Tensor, classes: int, temperature: float = TEMPERATURE) -> Tensor:
    """Return the logarithm of each class's share of the neighbours' weight: ``(M, K)`` float32, -inf where it has none.

    Args:
        neighbors: of M test pictures.
        labels: ``(N,)`` int64, of the training pictures.
        classes: how many there are.
        temperature: small values listen to the nearest alone, large ones to all k alike.
    """
    weights = _weights(neighbors, temperature)
    votes = torch.zeros(len(weights), classes).scatter_add_(1, labels[neighbors.indices], weights)
    return (votes / votes.sum(dim=1, keepdim=True)).log()


def mean(neighbors: Neighbors, values: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return the weighted mean of the neighbours' values, ``(M, T)`` float64.

    Args:
        neighbors: of M test pictures.
        values: ``(N, T)`` of the training pictures; of labels, 0 and 1, the mean is the share that has them.
        temperature: as for ``vote``.
    """
    weights = _weights(neighbors, temperature).double()
    shares = weights / weights.sum(dim=1, keepdim=True)
    return F.embedding_bag(neighbors.indices, values.double(), mode="sum", per_sample_weights=shares)


def _weights(neighbors: Neighbors, temperature: float) -> Tensor:
    nearest_first = neighbors.similarities[:, :1]  # subtracting it changes no vote's order and cannot overflow
    return ((neighbors.similarities - nearest_first) / temperature).exp()


def classify(train: Features, test: Tensor, classes: int) -> tuple[Tensor, Neighbors]:
    """Return the votes on test features ``(M, D)``, as ``vote`` does, and the neighbours that cast them."""
    neighbors = nearest(train.values, test)
    return vote(neighbors, train.labels, classes), neighbors
