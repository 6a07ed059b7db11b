import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from torch.nn import functional

from diptych.methods.losses import negative_cosine, off_diagonal


def test_off_diagonal_of_a_small_matrix():
    assert off_diagonal(torch.arange(9).reshape(3, 3)).tolist() == [1, 2, 3, 5, 6, 7]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_off_diagonal_leaves_out_the_diagonal_alone(size):
    matrix = torch.randn(size, size)
    expected = [matrix[i, j].item() for i in range(size) for j in range(size) if i != j]
    assert off_diagonal(matrix).tolist() == expected


def test_off_diagonal_of_a_transposed_matrix():
    """What is no contiguous piece of memory: entry (i, j) is still where it should be."""
    assert off_diagonal(torch.arange(9).reshape(3, 3).T).tolist() == [3, 6, 1, 7, 2, 5]


def test_off_diagonal_passes_gradients_on():
    matrix = torch.randn(3, 3, requires_grad=True)
    off_diagonal(matrix).sum().backward()
    assert torch.equal(matrix.grad, 1 - torch.eye(3))


def test_negative_cosine_is_byols_distance():
    p, z = torch.randn(6, 5), torch.randn(6, 5)
    distance = (functional.normalize(p, dim=1) - functional.normalize(z, dim=1)).square().sum(1).mean()
    assert distance.item() == pytest.approx(2 + 2 * negative_cosine(p, z).item(), abs=1e-5)


def test_negative_cosine_is_lightlys():
    p, z = torch.randn(6, 5), torch.randn(6, 5)
    assert negative_cosine(p, z).item() == pytest.approx(NegativeCosineSimilarity()(p, z).item(), abs=1e-6)


def test_negative_cosine_of_bfloat16_is_float32():
    loss = negative_cosine(torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(2, 3, dtype=torch.bfloat16))
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(-1)
