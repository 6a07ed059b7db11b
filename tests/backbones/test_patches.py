import math

import pytest
import torch
import torch.nn.functional as F

from diptych.backbones import patches
from diptych.backbones.patches import EDGE, GRID, LARGEST_SIDE, PATCH, THRESHOLD, PatchNetwork, patch_network
from diptych.errors import ConfigError


def network(filters=12, size=12, channels=3, seed=0):
    """A network with weights that are no identity and no zero anywhere."""
    generator = torch.Generator().manual_seed(seed)
    made = PatchNetwork(filters, image_size=size, channels=channels)
    made.whitening += 0.1 * torch.randn(made.whitening.shape, generator=generator)
    made.filters.copy_(F.normalize(torch.randn(made.filters.shape, generator=generator)))
    made.threshold.fill_(0.03)  # noise, of many values, has small cosines
    made.mean.copy_(torch.rand(made.mean.shape, generator=generator) / 50)
    made.projection.copy_(torch.randn(made.projection.shape, generator=generator))
    return made


def pictures(count=3, size=12, channels=3, seed=1):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


def slow_cells(net, picture):
    """Steps 1 to 3 of the docstring for one picture, one patch at a time: ``(9, K)``."""
    centred = picture - picture.mean(dim=(1, 2), keepdim=True)
    side = picture.shape[-1] - PATCH + 1
    codes = torch.zeros(side, side, len(net.filters))
    for row in range(side):
        for column in range(side):
            patch = centred[:, row : row + PATCH, column : column + PATCH].flatten() @ net.whitening
            cosines = net.filters @ patch / patch.norm()
            codes[row, column] = (cosines - net.threshold).clamp_min(0)
    cells = torch.zeros(GRID, GRID, len(net.filters))
    for row in range(GRID):
        for column in range(GRID):
            total = 0.0
            for y in range(side):
                for x in range(side):
                    away = ((y + 0.5) / side * GRID - row - 0.5) ** 2 + ((x + 0.5) / side * GRID - column - 0.5) ** 2
                    weight = math.exp(-away / 2 / EDGE**2)
                    cells[row, column] += weight * codes[y, x]
                    total += weight
            cells[row, column] /= total
    return cells.flatten(0, 1)


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def precision(request, monkeypatch):
    """Both number formats in which codes are made, whatever this machine is good at."""
    monkeypatch.setattr(patches, "native_bf16", lambda kind: request.param == torch.bfloat16)
    return 1e-5 if request.param == torch.float32 else 3e-3  # bfloat16 has steps of 1/256


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (12, 3), (15, 5)])
def test_codes_are_those_of_a_slow_loop(size, channels, precision):
    net, images = network(size=size, channels=channels), pictures(size=size, channels=channels)
    expected = torch.stack([slow_cells(net, picture) for picture in images])
    assert expected.median() > 0.005  # what is compared is not mostly zero
    torch.testing.assert_close(net.codes(images), expected, rtol=0, atol=precision)


def test_features_are_centred_projected_cells_of_unit_length():
    net, images = network(), pictures()
    features = net(images)
    for number in range(len(images)):
        for cell in range(GRID**2):
            projected = net.projection.T @ (net.codes(images)[number, cell] - net.mean)
            got = features[number, cell * 12 : (cell + 1) * 12]
            torch.testing.assert_close(got, projected / projected.norm(), rtol=0, atol=1e-5)


def test_shapes_follow_from_name_size_and_channels():
    net = patch_network("patches:800", image_size=20, channels=5)
    assert net.num_features == 9 * 768 and net(pictures(2, 20, 5)).shape == (2, 9 * 768)
    assert net.whitening.shape == (180, 180) and net.filters.shape == (800, 180)
    assert net.mean.shape == (800,) and net.projection.shape == (800, 768)
    assert all(weight.dtype == torch.float32 for weight in net.state_dict().values())
    assert patch_network("patches:7", image_size=20).num_features == 9 * 7
    assert len(patch_network("patches", image_size=8).filters) == patches.FILTERS


def test_as_built_it_is_random_by_the_global_generator():
    def built(seed):
        torch.manual_seed(seed)
        return PatchNetwork(9, image_size=12)

    assert torch.equal(built(1)(pictures()), built(1)(pictures()))
    assert not torch.allclose(built(1)(pictures()), built(2)(pictures()))
    assert torch.equal(built(1).whitening, torch.eye(108))
    assert built(1).threshold.item() == pytest.approx(THRESHOLD)
    assert not list(built(1).parameters())


def test_weights_travel_through_a_state():
    net, other = network(), PatchNetwork(12, image_size=12)
    assert not torch.allclose(other(pictures()), net(pictures()))
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(pictures()), net(pictures()))
    assert set(net.state_dict()) == {"whitening", "filters", "threshold", "mean", "projection"}


def test_a_picture_has_the_same_features_alone_and_in_any_batch(monkeypatch):
    monkeypatch.setattr(patches, "_CODES_AT_ONCE", 2 * 7 * 7 * 12)  # two pictures at a time
    net, images = network(), pictures(5)
    alone = torch.cat([net(picture[None]) for picture in images])
    torch.testing.assert_close(net(images), alone, rtol=0, atol=1e-6)


def test_codes_are_made_in_bounded_memory(monkeypatch):
    sizes = []

    class Watched(PatchNetwork):
        def patches(self, pictures):
            sizes.append(len(pictures))
            return super().patches(pictures)

    monkeypatch.setattr(patches, "_CODES_AT_ONCE", 3 * 11 * 11 * 200 + 1)  # three pictures' codes fit, not four's
    Watched(200, image_size=16).codes(pictures(20, 16))
    assert sizes == [3, 3, 3, 3, 3, 3, 2]


def test_large_pictures_are_averaged_down():
    small = pictures(2, LARGEST_SIDE)
    net = network(size=2 * LARGEST_SIDE)
    doubled = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(net(doubled), net(small), rtol=0, atol=1e-5)


def test_pictures_of_one_colour_have_finite_features():
    flat = torch.ones(2, 3, 12, 12) * torch.tensor([0.0, 3.0])[:, None, None, None]
    assert network()(flat).isfinite().all()


def test_flip_gives_a_picture_and_its_mirror_image_the_same_features():
    images = pictures()
    plain, flip = network(), patch_network("patches:12-flip", image_size=12)
    flip.load_state_dict(plain.state_dict())
    torch.testing.assert_close(flip(images), flip(images.flip(3)), rtol=0, atol=1e-6)
    torch.testing.assert_close(flip(images), (plain(images) + plain(images.flip(3))) / 2, rtol=0, atol=1e-6)
    assert not torch.allclose(plain(images), plain(images.flip(3)), atol=0.01)
    assert patch_network("patches-flip", image_size=12).flip and not patch_network("patches", image_size=12).flip


@pytest.mark.parametrize(
    "name", ["patches:", "patches:12-flop", "patches:x", "patches:-1", "patches:1.5", "patches2048", "patch"]
)
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match="patches:1024"):
        patch_network(name, image_size=32)


def test_what_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="no filters"):
        patch_network("patches:0", image_size=32)
    with pytest.raises(ConfigError, match="8 pixels a side, not 7"):
        patch_network("patches:4", image_size=7)
