"""Two views: configuration, laws of chance, alignment, and the pipeline against torchvision picture by picture."""

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as reference

from diptych.errors import ConfigError
from diptych.views.pipeline import Draws, TwoViews, ViewsConfig

MANY = 4000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(count=12, height=24, width=24, seed=0):
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=seeded(seed))


def quiet(**changes):
    """A configuration in which nothing happens but what is named."""
    return ViewsConfig(
        **{"crop": "padded", "horizontal_flip": 0.0, "jitter": 0.0, "grayscale": 0.0, "blur": 0.0} | changes
    )


def draws(config, count=MANY, height=32, width=32, size=32, seed=0):
    return Draws(config, count, height, width, size, seeded(seed))


# Configuration


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"horizontal_flip": 1.5}, "--horizontal-flip must be a probability, 0..1, not 1.5"),
        ({"jitter": -0.1}, "--jitter must be a probability"),
        ({"blur": float("nan")}, "--blur must be a probability"),
        ({"contrast": -1.0}, "--contrast must be 0 or more"),
        ({"brightness": float("inf")}, "--brightness must be 0 or more"),
        ({"hue": 0.6}, "--hue must be in 0..0.5, not 0.6"),
        ({"crop": "centre"}, "--crop must be resized or padded, not centre"),
        ({"brightness_mode": "sum"}, "--brightness-mode must be multiply or add"),
        ({"jitter_order": "any"}, "--jitter-order must be random or fixed"),
        ({"crop_scale": (0.9, 0.2)}, "--crop-scale must be two numbers, rising, above 0 and at most 1, not 0.9 0.2"),
        ({"crop_scale": (0.0, 1.0)}, "--crop-scale must be"),
        ({"crop_scale": (0.5, 1.1)}, "--crop-scale must be"),
        ({"crop_ratio": (0.0, 1.0)}, "--crop-ratio must be"),
        ({"crop": "padded", "crop_padding": -1}, "--crop-padding must be 0 or more pixels"),
        ({"crop_padding": 4}, "--crop-padding must be 0 unless --crop is padded, not 4"),
        ({"blur_sigma": (0.0, 2.0)}, "--blur-sigma must be"),
        ({"mean": (0.5,)}, "--mean must be three numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "--std must be three numbers above 0, not 0.5 0.0 0.5"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(setting, words):
    with pytest.raises(ConfigError) as error:
        ViewsConfig(**setting)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_padded_crop_larger_than_the_pictures_says_what_to_type():
    with pytest.raises(ConfigError, match="--crop-padding 4 or more"):
        TwoViews(quiet(), 32)(pictures(height=25, width=40), seeded())
    (view, _) = TwoViews(quiet(crop_padding=4), 32)(pictures(height=25, width=40), seeded())
    assert view.shape == (12, 3, 32, 32)


# Laws


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [(32, 32, (0.2, 1.0), (3 / 4, 4 / 3)), (50, 20, (0.5, 1.0), (3 / 4, 4 / 3)), (12, 60, (0.9, 1.0), (0.9, 1.2))],
    ids=["square", "tall: many attempts fail", "wide: almost always centred"],
)
def test_boxes_follow_torchvisions_law(height, width, scale, ratio):
    config = ViewsConfig(crop_scale=scale, crop_ratio=ratio)
    ours = draws(config, height=height, width=width).box.T.double().numpy()
    image = torch.empty(3, height, width)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = np.array([RandomResizedCrop.get_params(image, list(scale), list(ratio)) for _ in range(MANY)], float)
    for column in range(4):
        a, b = ours[:, column], theirs[:, column]
        error = np.sqrt((a.var() + b.var()) / MANY)
        assert abs(a.mean() - b.mean()) <= 4 * error
        # Kolmogorov-Smirnov on whole pixels: 1.95 √(2/n) is the 0.1 % level for continuous laws, stricter than needed.
        at = np.arange(max(height, width) + 1)
        distance = np.abs((a[:, None] <= at).mean(0) - (b[:, None] <= at).mean(0)).max()
        assert distance < 1.95 * np.sqrt(2 / MANY)
    areas = [(box[:, 2] * box[:, 3]).mean() for box in (ours, theirs)]
    assert areas[0] == pytest.approx(areas[1], rel=0.03)


def test_boxes_lie_inside_and_reach_every_edge():
    top, left, height, width = draws(ViewsConfig()).box
    assert (top.min(), left.min()) == (0, 0)
    assert ((top + height).max(), (left + width).max()) == (32, 32)
    assert height.min() >= 1 and width.min() >= 1
    area = height * width / 32**2
    assert area.min() < 0.25 and area.max() > 0.95


def test_padded_boxes_use_every_place_evenly():
    box = draws(quiet(crop_padding=2)).box
    for corner in box[:2]:
        counts = corner.bincount()
        assert len(counts) == 5
        assert (counts - MANY / 5).abs().max() < 5 * (MANY * 0.2 * 0.8) ** 0.5
    assert (box[2:] == 32).all()
    assert abs(torch.corrcoef(box[:2].double())[0, 1]) < 0.08


def test_probabilities_are_kept():
    config = ViewsConfig(horizontal_flip=0.5, vertical_flip=0.1, jitter=0.8, grayscale=0.2, blur=0.3)
    drawn = draws(config)
    for name in ("horizontal_flip", "vertical_flip", "jitter", "grayscale", "blur"):
        assert getattr(drawn, name).float().mean() == pytest.approx(getattr(config, name), abs=0.03)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_probabilities_0_and_1_are_certainties(probability):
    names = ("horizontal_flip", "vertical_flip", "jitter", "grayscale", "blur")
    drawn = draws(ViewsConfig(**dict.fromkeys(names, probability)))
    assert all((getattr(drawn, name) == bool(probability)).all() for name in names)


def test_amounts_fill_their_ranges_evenly():
    drawn = draws(ViewsConfig(brightness=0.4, contrast=1.5, saturation=0.2, hue=0.1, blur_sigma=(0.1, 2.0)))
    ranges = [(0.6, 1.4), (0.0, 2.5), (0.8, 1.2), (-0.1, 0.1), (0.1, 2.0)]
    for values, (low, high) in zip([*drawn.amounts.unbind(1), drawn.sigma], ranges, strict=True):
        assert values.min() >= low - 1e-6 and values.max() <= high + 1e-6
        quarters = ((values - low) / (high - low) * 4).long().clamp(0, 3).bincount() / MANY
        assert (quarters - 0.25).abs().max() < 0.04


def test_additive_brightness_is_drawn_around_zero():
    amounts = draws(ViewsConfig(brightness=0.3, brightness_mode="add")).amounts[:, 0]
    assert -0.3 <= amounts.min() < -0.29 and 0.29 < amounts.max() <= 0.3


def test_orders_are_all_24_permutations_or_the_fixed_one():
    assert (draws(ViewsConfig(jitter_order="fixed")).order == torch.arange(4)).all()
    kinds, counts = draws(ViewsConfig()).order.unique(dim=0, return_counts=True)
    assert len(kinds) == 24
    assert (kinds.sort(dim=1).values == torch.arange(4)).all()
    assert (counts - MANY / 24).abs().max() < 5 * (MANY / 24) ** 0.5


OFF = {
    "box": {"crop": "padded"},
    "horizontal_flip": {"horizontal_flip": 0.0},
    "vertical_flip": {"vertical_flip": 0.0},
    "jitter": {"jitter": 0.0},
    "amounts": {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
    "order": {"jitter_order": "fixed"},
    "grayscale": {"grayscale": 0.0},
    "blur": {"blur": 0.0},
    "sigma": {"blur_sigma": (1.0, 1.0)},
}
"""What each decision depends on, at a value that leaves it no chance."""


@pytest.mark.parametrize("name", OFF)
def test_turning_one_thing_off_leaves_the_other_numbers_alone(name):
    on = {"horizontal_flip": 0.5, "vertical_flip": 0.5}
    before, after = draws(ViewsConfig(**on), 50), draws(ViewsConfig(**on | OFF[name]), 50)
    changed = [other for other in OFF if not torch.equal(getattr(before, other), getattr(after, other))]
    assert changed == [name]


def test_decisions_do_not_depend_on_one_another():
    names = ("horizontal_flip", "vertical_flip", "jitter", "grayscale", "blur")
    drawn = draws(ViewsConfig(**dict.fromkeys(names, 0.5)))
    choices = [getattr(drawn, name) for name in names]
    everything = torch.stack([*choices, *drawn.amounts.T, drawn.sigma, *drawn.order[:, :1].T, *drawn.box[2:3]]).double()
    # 5 / √n: five standard errors of a correlation of 0.
    assert (torch.corrcoef(everything) - torch.eye(len(everything))).abs().max() < 5 / MANY**0.5


# The whole pipeline


def by_torchvision(image, drawn, row, config, size, radius):
    """One view of one uint8 picture, the slow way, from the decisions of ``drawn``."""
    image = image / 255
    top, left, height, width = (int(value) for value in drawn.box[:, row])
    if config.crop == "padded":
        image = reference.crop(reference.pad(image, [config.crop_padding]), top, left, height, width)
    else:
        image = reference.resized_crop(image, top, left, height, width, [size, size], antialias=True)
    if drawn.horizontal_flip[row]:
        image = reference.hflip(image)
    if drawn.vertical_flip[row]:
        image = reference.vflip(image)
    if drawn.jitter[row]:
        for number in drawn.order[row].tolist():
            amount = float(drawn.amounts[row, number])
            if number == 0 and config.brightness_mode == "add":
                image = (image + amount).clamp(0, 1)
            else:
                names = ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue")
                image = getattr(reference, names[number])(image, amount)
    if drawn.grayscale[row]:
        image = reference.rgb_to_grayscale(image, 3)
    if drawn.blur[row]:
        sigma = float(drawn.sigma[row])
        image = reference.gaussian_blur(image, [2 * radius + 1] * 2, [sigma, sigma])
    return image


@pytest.mark.parametrize("count", [1, 2, 40])
@pytest.mark.parametrize(
    "changes",
    [
        {"vertical_flip": 0.5},
        {"jitter_order": "fixed", "brightness_mode": "add", "crop": "padded", "crop_padding": 5},
        {"jitter": 1.0, "blur": 1.0, "grayscale": 0.0, "hue": 0.5},
    ],
    ids=["paper", "keras", "certain"],
)
def test_views_equal_torchvision_picture_by_picture(changes, count):
    config, size = ViewsConfig(**changes), 20
    images = pictures(count, height=22, width=27)
    make = TwoViews(config, size)
    generator = seeded(5)
    for view in make.draw(images, seeded(5)):
        drawn = Draws(config, count, 22, 27, size, generator)
        expected = [by_torchvision(images[row], drawn, row, config, size, make.blur_radius) for row in range(count)]
        # Hue divides by the spread of nearly gray pixels, so rounding before it grows: hence 1e-4.
        torch.testing.assert_close(view, torch.stack(expected), atol=1e-4, rtol=0)


def test_a_call_is_draw_normalised():
    config = ViewsConfig(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    images = pictures()
    make = TwoViews(config, 24)
    for normalised, plain in zip(make(images, seeded()), make.draw(images, seeded()), strict=True):
        assert plain.dtype == normalised.dtype == torch.float32
        assert 0 <= plain.min() and plain.max() <= 1
        expected = reference.normalize(plain, list(config.mean), list(config.std))
        torch.testing.assert_close(normalised, expected)


def test_the_seed_decides_everything_and_the_global_generator_nothing():
    images = pictures()
    make = TwoViews(ViewsConfig(), 24)
    before = torch.random.get_rng_state()
    first, again, other = make(images, seeded(1)), make(images, seeded(1)), make(images, seeded(2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_one_generator_gives_a_new_pair_at_every_call():
    images = pictures()
    generator = seeded()
    make = TwoViews(ViewsConfig(), 24)
    assert not torch.equal(make(images, generator)[0], make(images, generator)[0])


def test_the_views_differ_but_row_i_of_both_is_picture_i():
    colours = torch.randperm(250, generator=seeded())[:20]
    images = colours.to(torch.uint8)[:, None, None, None].expand(20, 3, 24, 24)
    config = ViewsConfig(jitter=0.0, grayscale=0.0)
    for view in TwoViews(config, 24).draw(images, seeded()):
        torch.testing.assert_close(view, images / 255, atol=1e-5, rtol=0)
    one, two = TwoViews(config, 24).draw(pictures(20), seeded())
    assert (one != two).flatten(1).any(1).all()


@pytest.mark.parametrize(
    "changes",
    [
        {"crop": "resized"},
        {"crop_padding": 12},
        {"jitter": 1.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0},
        {"jitter": 1.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0},
        {"blur": 1.0},
    ],
    ids=["resized", "padded", "brightness", "hue", "blur"],
)
def test_parameters_differ_within_a_batch(changes):
    same = pictures(1).expand(8, -1, -1, -1)
    view = TwoViews(quiet(**changes), 24).draw(same, seeded())[0]
    different = (view[:, None] - view[None]).abs().amax((2, 3, 4)) > 1e-4
    assert different.sum() >= 8 * 7 - 2  # two padded crops of eight may fall on one place


def test_jitter_leaves_the_pictures_it_was_not_drawn_for():
    config = quiet(jitter=0.5)
    images = pictures(40)
    view = TwoViews(config, 24).draw(images, seeded())[0]
    jittered = Draws(config, 40, 24, 24, 24, seeded()).jitter
    untouched = (view == images / 255).flatten(1).all(1)
    assert torch.equal(untouched, ~jittered)
    assert 5 < jittered.sum() < 35


def test_nothing_asked_nothing_done_and_the_input_is_not_written():
    images = pictures()
    before = images.clone()
    one, two = TwoViews(quiet(), 24).draw(images, seeded())
    assert torch.equal(one, images / 255) and torch.equal(two, one)
    assert one.data_ptr() != two.data_ptr()
    TwoViews(ViewsConfig(), 24)(images, seeded())
    assert torch.equal(images, before)


def test_the_kernel_reaches_three_times_the_largest_sigma():
    images = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    images[:, :, 16, 16] = 255
    view, _ = TwoViews(quiet(blur=1.0, blur_sigma=(2.0, 2.0)), 33).draw(images, seeded())
    reached = (view[0, 0, 16] > 0).nonzero()[:, 0]
    assert (reached.min(), reached.max()) == (16 - 6, 16 + 6)


def test_a_small_view_gets_a_small_kernel():
    one, _ = TwoViews(quiet(blur=1.0, blur_sigma=(5.0, 9.0)), 8).draw(pictures(height=8, width=8), seeded())
    assert torch.isfinite(one).all()


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_makes_the_same_views():
    images = pictures(64)
    make = TwoViews(ViewsConfig(), 24)
    on_device = images.cuda()
    torch.cuda.set_sync_debug_mode("error")  # any wait for the device raises
    try:
        on_gpu = make(on_device, seeded())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for here, there in zip(make(images, seeded()), on_gpu, strict=True):
        torch.testing.assert_close(here, there.cpu(), atol=1e-3, rtol=0)
