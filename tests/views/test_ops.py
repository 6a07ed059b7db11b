"""Every batched operation against torchvision's functional of the same name, picture by picture."""

import pytest
import torch
from torchvision.transforms import functional as reference

from diptych.views import ops

SHAPES = [(5, 32, 32), (1, 17, 23), (4, 40, 13)]
"""(B, H, W): square, a single odd one, tall."""


@pytest.fixture(params=SHAPES, ids=str)
def images(request):
    batch, height, width = request.param
    return torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))


def spread(images, low, high):
    """One parameter a picture, all different, from one end to the other."""
    return torch.linspace(high, low, max(len(images), 2))[: len(images)]


def each(function, images, *parameters):
    """Apply a per-picture function with that picture's parameters."""
    rows = zip(images, *(parameter.tolist() for parameter in parameters), strict=True)
    return torch.stack([function(image, *values) for image, *values in rows])


def alternate(images):
    return torch.arange(len(images)) % 2 == 0


def close(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


@pytest.mark.parametrize("size", [8, 21, 32, 48])
def test_resized_crop_shrinks_and_enlarges_as_torchvision(images, size):
    height, width = images.shape[2:]
    generator = torch.Generator().manual_seed(size)
    boxes = []
    for number in range(len(images)):
        rows = 1 if number == 1 else int(torch.randint(2, height + 1, (), generator=generator))
        columns = width if number == 2 else int(torch.randint(2, width + 1, (), generator=generator))
        top = int(torch.randint(0, height - rows + 1, (), generator=generator))
        left = int(torch.randint(0, width - columns + 1, (), generator=generator))
        boxes.append((top, left, rows, columns))
    parameters = torch.tensor(boxes).unbind(1)
    expected = each(
        lambda image, *box: reference.resized_crop(image, *box, size=[size, size], antialias=True), images, *parameters
    )
    close(ops.resized_crop(images, *parameters, size), expected)


def test_resized_crop_never_looks_outside_the_box():
    images = torch.zeros(1, 3, 20, 20)
    images[:, :, 5:12, 4:14] = 0.5
    seven, ten, five, four = (torch.tensor([value]) for value in (7, 10, 5, 4))
    close(ops.resized_crop(images, five, four, seven, ten, 32), torch.full((1, 3, 32, 32), 0.5))


def test_resized_crop_of_the_whole_picture_at_its_own_size_is_the_picture():
    images = torch.rand(3, 3, 24, 24)
    zero, full = torch.zeros(3), torch.full((3,), 24)
    close(ops.resized_crop(images, zero, zero, full, full, 24), images, 1e-6)


@pytest.mark.parametrize("padding", [0, 4])
def test_crop_matches_padding_then_cutting(images, padding):
    size = 12
    top = torch.arange(len(images)) % (images.shape[2] + 2 * padding - size + 1)
    left = (images.shape[3] + 2 * padding - size) - torch.arange(len(images)) % 2
    expected = each(
        lambda image, i, j: reference.crop(reference.pad(image, [padding]), i, j, size, size), images, top, left
    )
    assert torch.equal(ops.crop(images, top, left, size, padding), expected)


def test_flips_turn_the_chosen_pictures_only(images):
    chosen = alternate(images)
    horizontal = each(lambda image, yes: reference.hflip(image) if yes else image, images, chosen)
    vertical = each(lambda image, yes: reference.vflip(image) if yes else image, images, ~chosen)
    assert torch.equal(ops.horizontal_flip(images, chosen), horizontal)
    assert torch.equal(ops.vertical_flip(images, ~chosen), vertical)


@pytest.mark.parametrize("name", ["adjust_brightness", "adjust_contrast", "adjust_saturation"])
def test_factors_match_torchvision(images, name):
    factors = spread(images, 0.0, 2.5)
    close(getattr(ops, name)(images, factors), each(getattr(reference, name), images, factors))


@pytest.mark.parametrize("name", ["adjust_brightness", "adjust_contrast", "adjust_saturation"])
def test_factor_one_changes_nothing(images, name):
    close(getattr(ops, name)(images, torch.ones(len(images))), images, 1e-7)


def test_additive_brightness_adds_and_clamps():
    images = torch.tensor([0.1, 0.5, 0.9]).repeat(2, 3, 1, 1)
    out = ops.adjust_brightness_additive(images, torch.tensor([-0.2, 0.3]))
    close(out[0, 0, 0], torch.tensor([0.0, 0.3, 0.7]), 1e-6)
    close(out[1, 2, 0], torch.tensor([0.4, 0.8, 1.0]), 1e-6)


def test_hue_matches_torchvision(images):
    shifts = spread(images, -0.5, 0.5)
    close(ops.adjust_hue(images, shifts), each(reference.adjust_hue, images, shifts))


def test_hue_of_gray_black_white_and_tied_channels():
    levels = torch.tensor([0.0, 0.4, 1.0])
    every_triple = torch.cartesian_prod(levels, levels, levels).T[None, :, None]
    images = every_triple.expand(4, -1, -1, -1)
    shifts = torch.tensor([-0.5, -0.1, 0.25, 0.5])
    close(ops.adjust_hue(images, shifts), each(reference.adjust_hue, images, shifts))


def test_hue_zero_changes_nothing_and_a_third_of_a_turn_moves_red_to_green(images):
    close(ops.adjust_hue(images, torch.zeros(len(images))), images, 1e-6)
    red = torch.tensor([0.8, 0.0, 0.0])[None, :, None, None]
    close(ops.adjust_hue(red, torch.tensor([1 / 3]))[0, :, 0, 0], torch.tensor([0.0, 0.8, 0.0]))


def test_grayscale_matches_torchvision_where_chosen(images):
    chosen = alternate(images)
    expected = each(lambda image, yes: reference.rgb_to_grayscale(image, 3) if yes else image, images, chosen)
    close(ops.grayscale(images, chosen), expected, 1e-6)


@pytest.mark.parametrize("radius", [1, 6])
def test_gaussian_blur_matches_torchvision(images, radius):
    sigmas = spread(images, 0.1, 2.0)
    kernel = [2 * radius + 1] * 2
    expected = each(lambda image, sigma: reference.gaussian_blur(image, kernel, [sigma, sigma]), images, sigmas)
    close(ops.gaussian_blur(images, sigmas, radius), expected)


def test_a_tiny_sigma_does_not_blur(images):
    close(ops.gaussian_blur(images, torch.full((len(images),), 1e-3), 3), images, 1e-6)


def test_normalize_matches_torchvision(images):
    mean, std = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)
    close(ops.normalize(images, mean, std), reference.normalize(images, list(mean), list(std)))


def test_no_operation_writes_into_its_input(images):
    before = images.clone()
    half, yes = torch.full((len(images),), 0.5), torch.ones(len(images), dtype=torch.bool)
    for name in (
        "adjust_brightness",
        "adjust_brightness_additive",
        "adjust_contrast",
        "adjust_saturation",
        "adjust_hue",
    ):
        getattr(ops, name)(images, half)
    for name in ("horizontal_flip", "vertical_flip", "grayscale"):
        getattr(ops, name)(images, yes)
    ops.gaussian_blur(images, half, 2)
    ops.normalize(images, (0.5,) * 3, (0.5,) * 3)
    assert torch.equal(images, before)
