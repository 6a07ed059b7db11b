import pytest
import torch

from diptych.heads import bottleneck_predictor, projector


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
