import math

import pytest
import torch
from torch import nn

from diptych.heads import Prototypes, bottleneck_predictor, mlp, projector


def kinds(module):
    return [type(layer).__name__ for layer in module]


def test_mlp_has_norm_and_relu_on_all_but_the_last_layer():
    head = mlp(6, [10, 8, 3])
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    linears = [layer for layer in head if isinstance(layer, nn.Linear)]
    assert [layer.weight.shape for layer in linears] == [(10, 6), (8, 10), (3, 8)]
    assert [layer.bias is not None for layer in linears] == [False, False, True]
    assert head(torch.randn(5, 6)).shape == (5, 3)


def test_mlp_without_norm_has_biases():
    head = mlp(6, [10, 3], norm=False)
    assert kinds(head) == ["Linear", "ReLU", "Linear"]
    assert all(layer.bias is not None for layer in head if isinstance(layer, nn.Linear))


def test_mlp_with_gelu():
    assert kinds(mlp(6, [10, 3], norm=False, gelu=True)) == ["Linear", "GELU", "Linear"]


def test_mlp_of_one_layer_is_linear():
    head = mlp(6, [3])
    assert kinds(head) == ["Linear"] and head[0].bias is not None


def test_prototypes_are_cosines():
    prototypes = Prototypes(2, 3)
    with torch.no_grad():
        prototypes.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 0.1], [-3.0, -3.0]]))
    expected = torch.tensor([[1.0, 0.0, -math.sqrt(0.5)], [0.6, 0.8, -1.4 * math.sqrt(0.5)]])
    assert torch.allclose(prototypes(torch.tensor([[5.0, 0.0], [0.03, 0.04]])), expected)


def test_prototypes_begin_as_directions_of_their_own():
    weight = Prototypes(64, 50).weight
    assert torch.allclose(weight.norm(dim=1), torch.ones(50))
    assert (weight @ weight.T - torch.eye(50)).abs().max() < 0.7


def test_prototypes_learn_directions_alone():
    """The length of a prototype changes nothing, so its gradient is at right angles to it."""
    prototypes = Prototypes(4, 3)
    prototypes(torch.randn(6, 4)).square().sum().backward()
    weight, gradient = prototypes.weight.detach(), prototypes.weight.grad
    assert gradient.abs().sum() > 0
    assert torch.allclose((weight * gradient).sum(1), torch.zeros(3), atol=1e-5)


def test_prototypes_are_exact_under_autocast():
    """In bfloat16 the similarities would be off by 0.002, which a temperature of 0.01 makes 0.2."""
    prototypes, embeddings = Prototypes(8, 5), torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        lowered = prototypes(embeddings)
        assert prototypes(embeddings.bfloat16()).dtype == torch.float32
    assert lowered.dtype == torch.float32 and torch.equal(lowered, prototypes(embeddings))


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_projector_shapes_and_normalised_output(layers):
    out = projector(6, 10, layers)(torch.randn(32, 6))
    assert out.shape == (32, 10)
    assert torch.allclose(out.mean(0), torch.zeros(10), atol=1e-5)
    assert torch.allclose(out.std(0, correction=0), torch.ones(10), atol=1e-2)


def test_predictor_shape():
    assert bottleneck_predictor(10, 4)(torch.randn(5, 10)).shape == (5, 10)


def test_the_last_norm_has_no_scale_and_shift_unless_asked_for():
    norms = [
        [m.affine for m in projector(6, 10, 3, last_affine=asked) if hasattr(m, "affine")] for asked in (False, True)
    ]
    assert norms == [[True, True, False], [True, True, True]]
