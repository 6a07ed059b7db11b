import pytest
import torch

from diptych.diagnostics import (
    DEAD,
    ROWS,
    alignment,
    dead_dimensions,
    diagnose,
    effective_rank,
    embedding_std,
    length,
    uniformity,
)


def rows(count=20, channels=8, seed=0):
    return torch.randn(count, channels, generator=torch.Generator().manual_seed(seed))


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


def test_alignment_is_the_mean_squared_distance_of_unit_vectors():
    """Wang & Isola (arXiv 2005.10242), eq. 7, by a loop."""
    a, b = 3 * rows(seed=1), 5 * rows(seed=2)
    pairs = zip(a, b, strict=True)
    expected = sum(float((x / x.norm() - y / y.norm()).norm() ** 2) for x, y in pairs) / len(a)
    assert float(alignment(a, b)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("turned", "expected"), [(1.0, 0.0), (-1.0, 4.0)])
def test_alignment_at_its_ends(turned, expected):
    assert float(alignment(rows(), 7 * turned * rows())) == pytest.approx(expected, abs=1e-6)


def test_uniformity_is_that_of_all_pairs():
    """Eq. 8, by a loop."""
    a = 3 * rows(seed=1)
    unit = [x / x.norm() for x in a]
    terms = [torch.exp(-2 * (x - y).norm() ** 2) for i, x in enumerate(unit) for y in unit[:i]]
    assert float(uniformity(a)) == pytest.approx(float(torch.stack(terms).mean().log()), rel=1e-4)


def test_uniformity_at_its_ends():
    assert float(uniformity(torch.ones(5, 3))) == pytest.approx(0, abs=1e-5)  # one point
    assert float(uniformity(torch.zeros(5, 3))) == pytest.approx(0, abs=1e-5)  # one point, too
    assert float(uniformity(torch.eye(6))) == pytest.approx(-4)  # right angles: as even as many dimensions allow
    assert float(uniformity(torch.tensor([[1.0, 0], [-1, 0]]))) == pytest.approx(-8)


def test_channels_that_hardly_vary_are_dead():
    embeddings = rows(512, 10)
    embeddings[:, :3] = 1 + 0.1 * DEAD * embeddings[:, :3]
    assert float(dead_dimensions(embeddings)) == 0.0  # they vary with the length of the others
    embeddings[:, :3] *= 1e-3
    assert float(dead_dimensions(embeddings)) == pytest.approx(0.3)
    assert float(dead_dimensions(torch.ones(8, 4))) == 1.0


def test_length_is_that_of_one_vector():
    weights = [torch.nn.Parameter(torch.full((2, 2), 2.0)), torch.nn.Parameter(torch.tensor([3.0]))]
    assert length(weights).item() == pytest.approx(5.0) and not length(weights).requires_grad


def test_every_number_by_its_name_on_no_more_rows_than_it_takes():
    embeddings, positives = rows(ROWS + 1, 4), rows(ROWS + 1, 4, seed=1)
    embeddings[-1] = positives[-1] = 1e6
    found = diagnose(embeddings, positives)
    assert found == {
        "embedding_std": float(embedding_std(embeddings[:ROWS])),
        "effective_rank": float(effective_rank(embeddings[:ROWS])),
        "alignment": float(alignment(embeddings[:ROWS], positives[:ROWS])),
        "uniformity": float(uniformity(embeddings[:ROWS])),
        "dead_dimensions": 0.0,
    }


def test_the_effective_rank_is_rankme_of_centred_unit_vectors():
    """RankMe (arXiv 2210.02885), eq. 1, of what this library gives it; of embeddings as they are it is another."""
    embeddings = rows(40, 16) + 1

    def rankme(z):
        share = torch.linalg.svdvals(z.double()) / torch.linalg.svdvals(z.double()).sum() + 1e-7
        return float((-(share * share.log()).sum()).exp())

    unit = embeddings / embeddings.norm(dim=1, keepdim=True)
    ours = float(effective_rank(embeddings))
    assert ours == pytest.approx(rankme(unit - unit.mean(dim=0)), rel=1e-3)
    assert abs(ours - rankme(embeddings)) > 0.5
