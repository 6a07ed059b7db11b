"""The configuration of views: what is refused, and what a kind of picture cannot have."""

import pytest

from diptych.errors import ConfigError
from diptych.views.config import ViewsConfig, for_channels


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
        ({"local_scale": (0.0, 0.1)}, "--local-scale must be"),
        ({"local_views": -1}, "--local-views must be 0 or more, not -1"),
        ({"crop": "padded", "local_views": 2}, "--local-views must be 0 unless --crop is resized, not 2"),
        ({"local_size": 7}, "--local-size must be 8 or more pixels, not 7"),
        ({"rotate": 181.0}, "--rotate must be in 0..180 degrees, not 181.0"),
        ({"rotate90": 2.0}, "--rotate90 must be a probability"),
        ({"solarize": -1.0}, "--solarize must be a probability"),
        ({"band_gain": -0.1}, "--band-gain must be 0 or more"),
        ({"noise": float("nan")}, "--noise must be 0 or more"),
        ({"channel_drop": 1.0}, "--channel-drop must be a probability below 1, not 1.0"),
        ({"policy": "aerial"}, "--policy must be natural or overhead or grayscale or microscopy, not aerial"),
        ({"mean": (0.5,)}, "--std must be as many numbers as --mean (1), not 0.229 0.224 0.225"),
        ({"mean": (0.5, float("inf"), 0.5)}, "--mean must be numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "--std must be numbers above 0, not 0.5 0.0 0.5"),
        ({"low": (0.0, 1.0)}, "--high must be as many numbers as --low (2), not nothing"),
        ({"low": (0.0, 1.0), "high": (1.0, 1.0)}, "--high must be above --low in every channel, not 1.0 1.0"),
        ({"low": (float("nan"),), "high": (1.0,)}, "--low must be numbers"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(setting, words):
    with pytest.raises(ConfigError) as error:
        ViewsConfig(**setting)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_statistics_of_any_number_of_channels_or_none_are_taken():
    assert ViewsConfig(mean=(0.5,) * 13, std=(0.1,) * 13, low=(-1.0,) * 13, high=(9.0,) * 13).low[12] == -1
    assert ViewsConfig(mean=(), std=()).mean == ()


def test_colour_pictures_can_have_everything():
    config = ViewsConfig(band_gain=0.1, channel_drop=0.1)
    assert for_channels(config, 3) == (config, ())


def test_what_one_channel_cannot_have_is_left_out_and_said():
    config, notes = for_channels(ViewsConfig(band_gain=0.1, channel_drop=0.1), 1)
    assert (config.saturation, config.hue, config.grayscale, config.band_gain, config.channel_drop) == (0,) * 5
    assert (config.brightness, config.contrast, config.mean) == (0.4, 0.4, ())
    assert notes == (
        "no saturation, hue, grayscale: pictures of 1 channel have no colour to change",
        "no band gain, channel drop: the pictures have 1 channel",
        "mean and std are measured from the pictures: ImageNet's do not fit 1 channel",
    )


def test_thirteen_bands_keep_gain_and_drop_and_their_own_statistics():
    asked = ViewsConfig(hue=0.0, band_gain=0.1, channel_drop=0.1, mean=(0.5,) * 13, std=(0.5,) * 13)
    config, notes = for_channels(asked, 13)
    assert (config.band_gain, config.channel_drop, config.mean) == (0.1, 0.1, (0.5,) * 13)
    assert notes == ("no saturation, grayscale: pictures of 13 channels have no colour to change",)
    assert for_channels(config, 13) == (config, ())
