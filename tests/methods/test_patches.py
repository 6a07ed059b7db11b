import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diptych.backbones.patches import PATCH, PatchNetwork
from diptych.errors import ConfigError, DataError
from diptych.evaluation.features import Features
from diptych.evaluation.probes.knn import classify
from diptych.methods.patches import PASSES, PatchesConfig, _reservoir, fit, inverse_root


def noise(count=40, size=12, channels=3, seed=0):
    """Pictures whose neighbouring pixels are alike, as photographs' are."""
    generator = torch.Generator().manual_seed(seed)
    return F.avg_pool2d(torch.randn(count, channels, size + 2, size + 2, generator=generator), 3, stride=1) * 3


def fitted(images, filters=24, batch=16, seed=0, weights=0, tell=lambda done, text: None, **settings):
    torch.manual_seed(weights)
    network = PatchNetwork(filters, image_size=images.shape[-1], channels=images.shape[1])
    generator = torch.Generator().manual_seed(seed)
    count = fit(network, lambda: images.split(batch), PatchesConfig(**settings), generator, tell)
    return network, count


def patches(picture):
    """Every patch of one picture less its mean colour, ``(P, D)`` float64."""
    array = picture.double().numpy()
    array = array - array.mean(axis=(1, 2), keepdims=True)
    side = array.shape[-1] - PATCH + 1
    places = [(row, column) for row in range(side) for column in range(side)]
    return np.stack([array[:, row : row + PATCH, column : column + PATCH].ravel() for row, column in places])


def alikeness(network, images):
    """Cosines between all pictures' features: they do not depend on the axes that an eigenproblem happens to choose."""
    return F.normalize(network(images)) @ F.normalize(network(images)).T


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_whitening_is_that_of_numpys_eigenvectors(channels):
    images = noise(20, channels=channels)
    network, _ = fitted(images, patch_whitening=0.2)
    rows = np.concatenate([patches(picture) for picture in images])
    variances, axes = np.linalg.eigh(rows.T @ rows / len(rows))
    expected = axes @ np.diag(1 / np.sqrt(variances + 0.2 * variances.mean())) @ axes.T
    np.testing.assert_allclose(network.whitening.numpy(), expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_inverse_root_makes_variances_equal():
    rows = torch.randn(500, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    covariance = rows.T @ rows / 500
    root = inverse_root(covariance, 1e-12)
    torch.testing.assert_close(root @ covariance @ root, torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-6)
    closed_form = inverse_root(torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64)), 0.5)  # 1 is added to both
    torch.testing.assert_close(closed_form, torch.diag(torch.tensor([0.5, math.sqrt(0.5)], dtype=torch.float64)))


def test_filters_are_whitened_patches_of_the_pictures():
    images = noise(5)
    network, _ = fitted(images)
    all_patches = np.concatenate([patches(picture) for picture in images]) @ network.whitening.double().numpy()
    all_patches /= np.linalg.norm(all_patches, axis=1, keepdims=True)
    nearest = (network.filters.double().numpy() @ all_patches.T).max(axis=1)
    np.testing.assert_allclose(nearest, 1, atol=1e-5)
    assert len(network.filters.unique(dim=0)) > 20  # and not one patch again and again


def test_every_picture_may_give_a_filter():
    """40 pictures, 24 filters, many seeds: the early pictures are not preferred to the late ones."""
    given = torch.zeros(40)
    for seed in range(200):
        sample = []
        generator = torch.Generator().manual_seed(seed)
        for seen in range(40):
            _reservoir(sample, torch.tensor(seen), seen, 24, generator)
        chosen = [int(picture) for picture in sample]
        assert len(set(chosen)) == 24
        given[chosen] += 1
    # 200 · 24 / 40 = 120 expected, with a standard deviation of 7
    assert given.min() > 120 - 4 * 7 and given.max() < 120 + 4 * 7


def test_projection_solves_the_generalised_eigenproblem():
    """Kept axes have unit variance (but for what is added), no correlation, and differ most between pictures."""
    images = noise(60)
    network, count = fitted(images, filters=20, code_whitening=1e-6)
    codes = network.codes(images).double()
    components = (codes - network.mean) @ network.projection.double()
    torch.testing.assert_close(components.mean(dim=(0, 1)), torch.zeros(20, dtype=torch.float64), rtol=0, atol=1e-3)
    rows = components.flatten(0, 1)
    torch.testing.assert_close(rows.T @ rows / len(rows), torch.eye(20, dtype=torch.float64), rtol=0, atol=0.02)
    means = components.mean(dim=1)
    between = (means.T @ means / len(means)).diagonal()
    assert (between.diff() < 1e-3).all() and between[0] > 2 * between[-1]
    assert count == 60


def test_fit_is_a_function_of_pictures_and_generator():
    images = noise()
    one, again, other = fitted(images)[0], fitted(images, weights=1)[0], fitted(images, seed=1)[0]
    assert all(torch.equal(one.state_dict()[name], again.state_dict()[name]) for name in one.state_dict())
    assert not torch.allclose(one.filters, other.filters)


@pytest.mark.parametrize("batch", [1, 7, 40])
def test_batches_of_any_size_give_the_same_network(batch):
    images = noise()
    torch.testing.assert_close(
        alikeness(fitted(images, batch=batch)[0], images), alikeness(fitted(images)[0], images), rtol=0, atol=2e-3
    )


def test_fewer_pictures_than_filters():
    images = noise(2)
    network, count = fitted(images, filters=300)
    assert count == 2
    assert network(images).isfinite().all() and network(images).shape == (2, network.num_features)
    assert alikeness(network, images)[0, 1] < 0.9


def test_values_that_are_no_numbers_are_refused():
    images = noise()
    images[3, 0, 5, 5] = math.inf
    with pytest.raises(DataError, match="values that are not finite numbers"):
        fitted(images)


@pytest.mark.parametrize("channels", [1, 5])
def test_other_channels(channels):
    images = noise(channels=channels)
    network, _ = fitted(images)
    assert network(images).isfinite().all()


def test_large_pictures_are_learned_as_they_are_seen():
    images = noise(6, size=12)
    large = images.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)  # 96 px, averaged to 48
    network, _ = fitted(large)
    assert network(large).isfinite().all() and network.pooling.shape == (9, 43**2)


def test_settings_reach_the_network():
    images = noise()
    assert fitted(images, patch_threshold=0.3)[0].threshold.item() == pytest.approx(0.3)
    assert not torch.allclose(fitted(images, patch_whitening=1.0)[0].whitening, fitted(images)[0].whitening)
    assert not torch.allclose(fitted(images, code_whitening=1.0)[0].projection, fitted(images)[0].projection)


def test_progress_is_told_over_both_passes():
    told = []
    fitted(noise(40), batch=16, tell=lambda done, text: told.append((done, text)))
    assert told == [(d, "whitening") for d in (16, 32, 40)] + [(40 + d, "projection") for d in (16, 32, 40)]
    assert told[-1][0] == PASSES * 40


def textures(count, seed):
    """Two classes that differ in the direction of faint stripes, beneath strong smooth shading of random colours."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    shading = F.interpolate(torch.randn(count, 3, 2, 2, generator=generator), 16, mode="bilinear") * 2
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    phases = torch.rand(count, generator=generator) * 2 * math.pi
    along = torch.where(labels[:, None, None] == 0, rows + columns, rows - columns)
    stripes = torch.sin(along * math.pi / 2 + phases[:, None, None])[:, None]
    return shading + 0.4 * stripes + 0.15 * torch.randn(count, 3, 16, 16, generator=generator), labels


def test_fitted_features_tell_textures_apart_where_random_filters_do_not():
    (train, train_labels), (test, test_labels) = textures(240, seed=1), textures(80, seed=2)

    def accuracy(network):
        votes, _ = classify(Features(network(train), train_labels), network(test), 2)
        return float((votes.argmax(1) == test_labels).float().mean())

    torch.manual_seed(0)
    random = accuracy(PatchNetwork(48, image_size=16))
    assert random < 0.7 and accuracy(fitted(train, filters=48)[0]) > 0.8


def test_one_picture_is_refused():
    with pytest.raises(DataError, match="two or more, not 1"):
        fitted(noise(1))


def test_pictures_of_one_colour_are_refused():
    with pytest.raises(DataError, match="one colour"):
        fitted(torch.ones(4, 3, 12, 12) * torch.arange(4.0)[:, None, None, None])


@pytest.mark.parametrize(
    "bad", [{"patch_whitening": 0.0}, {"code_whitening": -1.0}, {"patch_threshold": 1.0}, {"patch_threshold": -2.0}]
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ConfigError, match="--" + next(iter(bad)).replace("_", "-")):
        PatchesConfig(**bad)
