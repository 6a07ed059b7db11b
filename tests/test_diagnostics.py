import pytest
import torch

from diptych.diagnostics import effective_rank, embedding_std


def test_spread_embeddings():
    embeddings = torch.randn(512, 64, generator=torch.Generator().manual_seed(0))
    assert float(embedding_std(embeddings)) == pytest.approx(1, abs=0.02)
    assert float(effective_rank(embeddings)) > 55


def test_collapsed_embeddings():
    embeddings = torch.randn(1, 64).repeat(32, 1)
    assert float(embedding_std(embeddings)) == pytest.approx(0, abs=1e-5)
    assert float(effective_rank(embeddings)) == 1
    assert float(effective_rank(embeddings * (1 + 1e-6 * torch.rand(32, 1)))) == 1


@pytest.mark.parametrize("shape", [(40, 16), (16, 40)])
def test_effective_rank_is_the_exponential_of_the_entropy_of_the_singular_values(shape):
    embeddings = torch.randn(*shape, generator=torch.Generator().manual_seed(1)) + 1
    normalised = embeddings / embeddings.norm(dim=1, keepdim=True)
    values = torch.linalg.svdvals((normalised - normalised.mean(0)).double())
    share = values[values > 1e-9] / values.sum()
    assert float(effective_rank(embeddings)) == pytest.approx(float((-(share * share.log()).sum()).exp()), rel=1e-3)


def test_two_points_have_rank_one():
    embeddings = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).repeat(8, 1)
    assert float(effective_rank(embeddings)) == pytest.approx(1, abs=1e-4)
    # Channels 1 and 2 have std ½, channel 3 none: (½ + ½ + 0) / 3 × √3.
    assert float(embedding_std(embeddings)) == pytest.approx(3**0.5 / 3, abs=1e-6)
