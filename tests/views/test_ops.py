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
    box = torch.stack(parameters)
    close(ops.resized_crop(images, box, size), expected)
    left_right, top_bottom = alternate(images), torch.arange(len(images)) % 3 == 0
    expected = torch.where(left_right[:, None, None, None], expected.flip(3), expected)
    expected = torch.where(top_bottom[:, None, None, None], expected.flip(2), expected)
    close(ops.resized_crop(images, box, size, left_right, top_bottom), expected)
    if box[2:].max() <= size:
        close(ops.enlarged_crop(images, box, size, left_right, top_bottom), expected)


@pytest.mark.parametrize("side", [1, 2, 31, 64])
def test_enlarged_crop_of_any_box_up_to_the_result_is_the_resized_crop(side):
    images = torch.rand(20, 2, 70, 80, generator=torch.Generator().manual_seed(0))
    box = torch.tensor([[i % 5, 80 - side - i % 3, side, 1 + i * (side - 1) // 20] for i in range(20)]).T
    chosen = alternate(images)
    close(ops.enlarged_crop(images, box, 64, chosen, ~chosen), ops.resized_crop(images, box, 64, chosen, ~chosen))


def test_resized_crop_never_looks_outside_the_box():
    images = torch.zeros(1, 3, 20, 20)
    images[:, :, 5:12, 4:14] = 0.5
    box, no = torch.tensor([[5], [4], [7], [10]]), torch.tensor([False])
    close(ops.resized_crop(images, box, 32), torch.full((1, 3, 32, 32), 0.5))
    close(ops.enlarged_crop(images, box, 32, no, no), torch.full((1, 3, 32, 32), 0.5))


def test_resized_crop_of_the_whole_picture_at_its_own_size_is_the_picture():
    images = torch.rand(3, 3, 24, 24)
    box = torch.tensor([[0] * 3, [0] * 3, [24] * 3, [24] * 3])
    close(ops.resized_crop(images, box, 24), images, 1e-6)


@pytest.mark.parametrize("padding", [0, 4])
def test_crop_matches_padding_then_cutting(images, padding):
    size = 12
    top = torch.arange(len(images)) % (images.shape[2] + 2 * padding - size + 1)
    left = (images.shape[3] + 2 * padding - size) - torch.arange(len(images)) % 2
    expected = each(
        lambda image, i, j: reference.crop(reference.pad(image, [padding]), i, j, size, size), images, top, left
    )
    assert torch.equal(ops.crop(ops.padded(images, padding), top, left, size), expected)


def test_flips_turn_the_chosen_pictures_only(images):
    chosen = alternate(images)
    horizontal = each(lambda image, yes: reference.hflip(image) if yes else image, images, chosen)
    vertical = each(lambda image, yes: reference.vflip(image) if yes else image, images, ~chosen)
    assert torch.equal(ops.horizontal_flip(images, chosen), horizontal)
    assert torch.equal(ops.vertical_flip(images, ~chosen), vertical)


@pytest.mark.parametrize("name", ["adjust_brightness", "adjust_contrast", "adjust_saturation"])
def test_factors_match_torchvision(images, name):
    factors = spread(images, 0.0, 2.5)
    close(getattr(ops, f"{name}_")(images.clone(), factors), each(getattr(reference, name), images, factors))


@pytest.mark.parametrize("name", ["adjust_brightness", "adjust_contrast", "adjust_saturation"])
def test_factor_one_changes_nothing(images, name):
    close(getattr(ops, f"{name}_")(images.clone(), torch.ones(len(images))), images, 1e-7)


def test_additive_brightness_adds_and_clamps():
    images = torch.tensor([0.1, 0.5, 0.9]).repeat(2, 3, 1, 1)
    out = ops.adjust_brightness_additive_(images, torch.tensor([-0.2, 0.3]))
    close(out[0, 0, 0], torch.tensor([0.0, 0.3, 0.7]), 1e-6)
    close(out[1, 2, 0], torch.tensor([0.4, 0.8, 1.0]), 1e-6)


def test_hue_matches_torchvision(images):
    shifts = spread(images, -0.5, 0.5)
    close(ops.adjust_hue_(images.clone(), shifts), each(reference.adjust_hue, images, shifts))


def test_hue_of_gray_black_white_and_tied_channels():
    levels = torch.tensor([0.0, 0.4, 1.0])
    every_triple = torch.cartesian_prod(levels, levels, levels).T[None, :, None]
    images = every_triple.expand(4, -1, -1, -1)
    shifts = torch.tensor([-0.5, -0.1, 0.25, 0.5])
    close(ops.adjust_hue_(images.clone(), shifts), each(reference.adjust_hue, images, shifts))


def test_hue_zero_changes_nothing_and_a_third_of_a_turn_moves_red_to_green(images):
    close(ops.adjust_hue_(images.clone(), torch.zeros(len(images))), images, 1e-6)
    red = torch.tensor([0.8, 0.0, 0.0])[None, :, None, None]
    close(ops.adjust_hue_(red.clone(), torch.tensor([1 / 3]))[0, :, 0, 0], torch.tensor([0.0, 0.8, 0.0]))


def test_grayscale_matches_torchvision(images):
    close(ops.grayscale(images), each(lambda image: reference.rgb_to_grayscale(image, 3), images), 1e-6)


def test_solarize_matches_torchvision(images):
    images[0, 0, 0, 0] = 0.5
    assert torch.equal(ops.solarize(images), each(lambda image: reference.solarize(image, 0.5), images))


def test_transpose_turns_the_chosen_pictures_only():
    images, chosen = torch.rand(4, 2, 9, 9), torch.arange(4) % 2 == 0
    out = ops.transpose(images, chosen)
    assert torch.equal(out[chosen], images[chosen].mT) and torch.equal(out[~chosen], images[~chosen])


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_contrast_of_what_is_not_colour_moves_each_channel_from_its_own_mean(channels):
    images, factors = torch.rand(4, channels, 9, 9), torch.tensor([0.0, 0.5, 1.0, 2.0])
    expected = torch.stack([each(reference.adjust_contrast, band, factors) for band in images.split(1, 1)], 1)[:, :, 0]
    close(ops.adjust_contrast_(images.clone(), factors), expected)


def test_brightness_may_differ_by_channel():
    factors = torch.tensor([[0.5, 2.0], [1.0, 0.0]])
    out = ops.adjust_brightness_(torch.full((2, 2, 3, 3), 0.4), factors)
    close(out[:, :, 0, 0], torch.tensor([[0.2, 0.8], [0.4, 0.0]]))


def test_affine_moves_and_reflects():
    images = torch.arange(4.0).expand(1, 1, 4, 4) / 4
    left_by_one = torch.tensor([[[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]]], dtype=torch.float64)
    close(ops.affine(images, left_by_one, 4)[0, 0], (torch.tensor([0.0, 0.0, 1.0, 2.0]) / 4).expand(4, 4))
    left_by_six = torch.tensor([[[1.0, 0.0, -6.0], [0.0, 1.0, 0.0]]], dtype=torch.float64)
    close(ops.affine(images, left_by_six, 4)[0, 0], (torch.tensor([2.0, 3.0, 3.0, 2.0]) / 4).expand(4, 4))


def hashed(number, seed):
    """Noise of one pixel, by the definition, in whole numbers without bounds."""
    number = (number * 0x9E3779B9 + seed) % 2**32
    number = (number ^ (number >> 16)) * 0x7FEB352D % 2**32
    number = (number ^ (number >> 15)) * 0x846CA68B % 2**32
    number ^= number >> 16
    return (sum(number.to_bytes(4, "little")) - 510) / (65535 / 3) ** 0.5


def test_noise_is_the_hash_of_seed_channel_and_pixel():
    seeds = [0, 1, -1, 2**31 - 1, -(2**31), 123456789]
    noise = ops.noise(torch.tensor(seeds, dtype=torch.int32), 3, 7)
    expected = [[hashed(number, seed) for number in range(3 * 7 * 7)] for seed in seeds]
    close(noise, torch.tensor(expected).reshape(6, 3, 7, 7), 1e-6)


@pytest.mark.parametrize("step", [1, 2**16, 0x3C6F4E35], ids=["neighbours", "far", "any"])
def test_noise_is_nearly_gaussian_and_nothing_in_it_depends_on_anything_else(step):
    seeds = torch.arange(24) * step % 2**32 - 2**31
    noise = ops.noise(seeds.int(), 3, 64).double()
    count = noise.numel()
    for power, expected in ((1, 0), (2, 1), (3, 0), (4, 2.7)):
        values = noise**power
        assert abs(values.mean() - expected) < 5 * values.std() / count**0.5
    assert (noise.mean(dim=(2, 3)).abs() < 5 / 64).all() and ((noise.std(dim=(2, 3)) - 1).abs() < 0.06).all()
    pairs = {
        "right": (noise[..., 1:], noise[..., :-1]),
        "below": (noise[:, :, 1:], noise[:, :, :-1]),
        "channel": (noise[:, 1:], noise[:, :-1]),
        "picture": (noise[1:], noise[:-1]),
        "size": (noise[..., 1:].abs(), noise[..., :-1].abs()),
    }
    for name, (one, other) in pairs.items():
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1]
        assert abs(correlation) < 5 / one.numel() ** 0.5, name
    assert (torch.corrcoef(noise.flatten(1)) - torch.eye(24)).abs().max() < 5.5 / (3 * 64 * 64) ** 0.5


@pytest.mark.parametrize(("dtype", "most"), [(torch.uint8, 255), (torch.uint16, 65535), (torch.float32, 8.0)])
def test_scaled_brings_every_type_to_its_range(dtype, most):
    images = torch.tensor([0, most], dtype=torch.float64).to(dtype).expand(2, 3, 1, 2)
    out = ops.scaled(images, (0.0,) * 3, (float(most),) * 3)
    assert out.dtype == torch.float32 and out.unique().tolist() == [0, 1]
    if dtype == torch.float32:
        assert ops.scaled(images, (-8.0, 0.0, 0.0), (16.0,) * 3)[0, :, 0].tolist() == [[0.5, 1], [0, 0.5], [0, 0.5]]


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


def test_no_operation_without_an_underscore_writes_into_its_input(images):
    before = images.clone()
    half, yes = torch.full((len(images),), 0.5), torch.ones(len(images), dtype=torch.bool)
    for name in ("horizontal_flip", "vertical_flip"):
        getattr(ops, name)(images, yes)
    ops.solarize(images)
    ops.grayscale(images)
    ops.scaled(images, (0.5,) * 3, (0.5,) * 3)
    ops.gaussian_blur(images, half, 2)
    ops.normalize(images, (0.5,) * 3, (0.5,) * 3)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ["brightness", "brightness_additive", "contrast", "saturation", "hue"])
def test_operations_with_an_underscore_return_their_input_changed(images, name):
    before = images.clone()
    assert getattr(ops, f"adjust_{name}_")(images, torch.full((len(images),), 0.3)) is images
    assert not torch.equal(images, before)
