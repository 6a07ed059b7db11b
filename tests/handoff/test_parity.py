import pytest
import torch

from diptych.errors import RunFolderError
from diptych.handoff.parity import compare, refuse_unlike


def features(count=20, dim=8):
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(0))


def test_the_largest_difference_is_found():
    found = features()
    found[3, 4] += 0.00005
    parity = compare(features(), found)
    assert parity.difference == pytest.approx(5e-5, rel=0.01) and parity.allowed == 1e-4 and parity.pictures == 20
    assert parity.neighbours == 10 and parity.neighbours_equal
    refuse_unlike(parity, "onnx")


def test_large_features_may_differ_by_their_rounding():
    parity = compare(1000 * features(), 1000 * features() + 0.001)
    assert parity.allowed == pytest.approx(0.01 * features().abs().max().item())
    refuse_unlike(parity, "onnx")


@pytest.mark.parametrize("spoiled", [features() + 2e-4, features().flip(0), features()[:, :7], features() * torch.nan])
def test_others_are_refused(spoiled):
    with pytest.raises(RunFolderError, match="^--to onnx: what was written does not compute"):
        refuse_unlike(compare(features(), spoiled), "onnx")


def test_neighbours_are_compared_up_to_ties():
    corners = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [-1.0, 0.0]]).repeat(4, 1)
    tied = corners + 1e-7 * torch.randn(corners.shape, generator=torch.Generator().manual_seed(0))
    assert compare(corners, tied).neighbours_equal
    moved = corners.clone()
    moved[0] = torch.tensor([0.6, 0.8])
    assert not compare(corners, moved).neighbours_equal


def test_two_pictures_are_enough():
    parity = compare(features(2), features(2))
    assert parity.neighbours == 1 and parity.neighbours_equal and parity.difference == 0
