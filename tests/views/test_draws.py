"""The laws of chance: each decision against torchvision's or its closed form, and that none moves another."""

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from diptych.views.config import ViewsConfig
from diptych.views.draws import Draws, Shape, draw_views

MANY = 4000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(config, count=MANY, height=32, width=32, size=32, seed=0, channels=3):
    shape = Shape(count=count, channels=channels, height=height, width=width)
    return Draws(config, shape, size, config.crop_scale, seeded(seed)).draw_rest()


def pair(config, count=50, generator=None):
    return draw_views(config, Shape(count=count, channels=3, height=32, width=32), 32, generator or seeded())


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
    box = draws(ViewsConfig(crop="padded", crop_padding=2)).box
    for corner in box[:2]:
        counts = corner.bincount()
        assert len(counts) == 5
        assert (counts - MANY / 5).abs().max() < 5 * (MANY * 0.2 * 0.8) ** 0.5
    assert (box[2:] == 32).all()
    assert abs(torch.corrcoef(box[:2].double())[0, 1]) < 0.08


def test_probabilities_are_kept():
    config = ViewsConfig(horizontal_flip=0.5, vertical_flip=0.1, jitter=0.8, grayscale=0.2, blur=0.3, solarize=0.4)
    drawn = draws(config)
    for name in ("horizontal_flip", "vertical_flip", "jitter", "grayscale", "blur", "solarize"):
        assert getattr(drawn, name).float().mean() == pytest.approx(getattr(config, name), abs=0.03)


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_probabilities_0_and_1_are_certainties(probability):
    names = ("horizontal_flip", "vertical_flip", "jitter", "grayscale", "blur", "solarize")
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
    "quarters": {"rotate90": 0.0},
    "angle": {"rotate": 0.0},
    "solarize": {"solarize": 0.0},
    "gain": {"band_gain": 0.0},
    "drop": {"channel_drop": 0.0},
    "noise": {"noise": 0.0},
}
"""What each decision depends on, at a value that leaves it no chance."""


@pytest.mark.parametrize("name", OFF)
def test_turning_one_thing_off_leaves_the_other_numbers_alone(name):
    on = {name: 0.5 for name in ("horizontal_flip", "vertical_flip", "rotate90", "solarize", "channel_drop")}
    on |= {"rotate": 20.0, "band_gain": 0.2, "noise": 0.1}
    before, after = pair(ViewsConfig(**on), 50), pair(ViewsConfig(**on | OFF[name]), 50)
    for one, other in zip(before, after, strict=True):
        changed = [
            field for field in [*OFF, "noise_seed"] if not torch.equal(getattr(one, field), getattr(other, field))
        ]
        assert changed == [name]


def test_local_views_come_last_and_shift_nothing():
    before, after = pair(ViewsConfig()), pair(ViewsConfig(local_views=3, local_size=9))
    assert [drawn.size for drawn in after] == [32, 32, 9, 9, 9]
    for one, other in zip(before, after[:2], strict=True):
        assert all(torch.equal(getattr(one, field), getattr(other, field)) for field in OFF)
    area = after[2].box[2] * after[2].box[3] / 32**2
    assert 0.03 < area.min() and area.max() < 0.17
    assert not torch.equal(after[2].box, after[3].box)


def test_version_0_1s_numbers_come_first_for_both_large_views():
    generator = seeded(3)
    first, second = pair(ViewsConfig(), 9, generator)
    again = seeded(3)
    torch.rand(4, 9, 10, generator=again)
    for _ in range(2):
        assert torch.equal(torch.rand(9, generator=again) < 0.5, first.horizontal_flip)
        torch.rand(9 * 13, generator=again)
        torch.rand(4, 9, 10, generator=again)
        first = second


def test_quarter_turns_are_even_and_angles_fill_their_range():
    drawn = draws(ViewsConfig(rotate90=0.75, rotate=90.0))
    assert (drawn.quarters.bincount() / MANY - 0.25).abs().max() < 0.03
    assert -np.pi / 2 <= drawn.angle.min() < -1.5 and 1.5 < drawn.angle.max() <= np.pi / 2


def test_every_channel_has_a_gain_of_its_own():
    gain = draws(ViewsConfig(band_gain=0.2), channels=5).gain
    assert gain.shape == (MANY, 5) and 0.8 <= gain.min() < 0.81 and 1.19 < gain.max() <= 1.2
    assert (torch.corrcoef(gain.T.double()) - torch.eye(5)).abs().max() < 5 / MANY**0.5


@pytest.mark.parametrize(("channels", "probability"), [(1, 0.9), (2, 0.9), (5, 0.3)])
def test_channels_are_dropped_as_often_as_asked_but_never_all(channels, probability):
    drop = draws(ViewsConfig(channel_drop=probability), channels=channels).drop
    assert not drop.all(dim=1).any()
    expected = probability - probability**channels / channels
    assert drop.float().mean() == pytest.approx(expected, abs=0.03)


def test_noise_has_an_even_level_and_a_seed_of_its_own_for_each_picture():
    drawn = draws(ViewsConfig(noise=0.5))
    assert 0 <= drawn.noise.min() and drawn.noise.max() <= 0.5
    assert ((drawn.noise / 0.125).long().clamp(0, 3).bincount() / MANY - 0.25).abs().max() < 0.04
    assert drawn.noise_seed.dtype == torch.int32
    assert len(drawn.noise_seed.unique()) > MANY - 5
    assert abs((drawn.noise_seed < 0).float().mean() - 0.5) < 0.04
    one, two = pair(ViewsConfig(noise=0.5))
    assert not torch.equal(one.noise_seed, two.noise_seed)


def test_decisions_take_no_more_room_for_larger_views():
    room = [
        [getattr(draws(ViewsConfig(noise=0.5), 9, size=size), field).shape for field in [*OFF, "noise_seed"]]
        for size in (8, 512)
    ]
    assert room[0] == room[1]


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
def test_mirroring_then_transposing_are_the_flips_and_the_quarter_turns(flips, quarters):
    drawn = draws(ViewsConfig(), 1)
    drawn.horizontal_flip, drawn.vertical_flip = torch.tensor([flips[0]]), torch.tensor([flips[1]])
    drawn.quarters = torch.tensor([quarters])
    image = torch.arange(9).reshape(3, 3)
    expected = image.flip([axis for axis, yes in zip((1, 0), flips, strict=True) if yes]).rot90(quarters)
    left_right, top_bottom, odd = (bool(chosen) for chosen in drawn.mirrored())
    ours = image.flip([axis for axis, yes in ((1, left_right), (0, top_bottom)) if yes])
    assert torch.equal(ours.T if odd else ours, expected)


def test_decisions_do_not_depend_on_one_another():
    names = ("horizontal_flip", "vertical_flip", "jitter", "grayscale", "blur")
    drawn = draws(ViewsConfig(**dict.fromkeys(names, 0.5)))
    choices = [getattr(drawn, name) for name in names]
    everything = torch.stack([*choices, *drawn.amounts.T, drawn.sigma, *drawn.order[:, :1].T, *drawn.box[2:3]]).double()
    # 5 / √n: five standard errors of a correlation of 0.
    assert (torch.corrcoef(everything) - torch.eye(len(everything))).abs().max() < 5 / MANY**0.5
