import pytest
import torch
from lightly.loss import NegativeCosineSimilarity
from torch.nn import functional

from diptych.methods.losses import negative_cosine


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
