"""How views are made: the probabilities and strengths of one run, and what of them a kind of picture can have."""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

from diptych.errors import ConfigError

PolicyName = Literal["natural", "overhead", "grayscale", "microscopy"]
CHOICES = {
    "policy": ("natural", "overhead", "grayscale", "microscopy"),
    "crop": ("resized", "padded"),
    "brightness_mode": ("multiply", "add"),
    "jitter_order": ("random", "fixed"),
}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """How a view is made from a picture; each number is drawn anew for every picture and view."""

    policy: PolicyName = "natural"
    """The kind of picture that the settings began with: natural, overhead, grayscale or microscopy."""
    crop: Literal["resized", "padded"] = "resized"
    """A random box resized to the full size, or a box of the full size out of the zero-padded picture."""
    crop_scale: tuple[float, float] = (0.2, 1.0)
    """Area of a resized box as a part of the picture's."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Width / height of a resized box."""
    crop_padding: int = 0
    """Zero pixels added on every side before a padded crop."""
    horizontal_flip: float = 0.5
    """Probability of a mirror image."""
    vertical_flip: float = 0.0
    """Probability of standing upside down."""
    rotate90: float = 0.0
    """Probability of one, two or three quarter turns, at even chances."""
    rotate: float = 0.0
    """Turn drawn from ± this many degrees, at most 180."""
    jitter: float = 0.8
    """Probability of brightness, contrast, saturation, hue and band gain all being changed."""
    brightness: float = 0.4
    """Factor drawn from 1 ± this (or this much added or taken away)."""
    contrast: float = 0.4
    """Factor drawn from 1 ± this."""
    saturation: float = 0.4
    """Factor drawn from 1 ± this; colour pictures only."""
    hue: float = 0.1
    """Turn drawn from ± this part of a full circle, at most 0.5; colour pictures only."""
    brightness_mode: Literal["multiply", "add"] = "multiply"
    """Brightness as torchvision changes it, or as TensorFlow (and so the Keras example) does."""
    jitter_order: Literal["random", "fixed"] = "random"
    """Order of the four changes: drawn for every picture, or brightness, contrast, saturation, hue."""
    band_gain: float = 0.0
    """Factor drawn from 1 ± this for each channel by itself, after the four changes."""
    grayscale: float = 0.2
    """Probability of losing all colour; colour pictures only."""
    blur: float = 0.5
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the blur, in pixels."""
    solarize: float = 0.0
    """Probability that what is brighter than half becomes its negative."""
    noise: float = 0.0
    """Gaussian noise of up to this many of the channel's standard deviations."""
    channel_drop: float = 0.0
    """Probability of each channel being left out (set to its mean); one always stays."""
    global_views: int = 2
    """Full-size views of every picture."""
    local_views: int = 0
    """Small views of small boxes, besides the full-size ones (multi-crop); resized crops only."""
    local_size: int = 96
    """Pixels a side of the small views."""
    local_scale: tuple[float, float] = (0.05, 0.14)
    """Area of a small view's box as a part of the picture's."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Subtracted from each channel (values 0..1) in the end; ImageNet's. Empty: measured from the pictures."""
    std: tuple[float, ...] = IMAGENET_STD
    """Divides each channel in the end; ImageNet's. Empty: measured from the pictures."""
    low: tuple[float, ...] = ()
    """Value of each channel that becomes 0: float32 pictures only, measured where empty."""
    high: tuple[float, ...] = ()
    """Value of each channel that becomes 1: float32 pictures only, measured where empty."""

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            self._check(name, getattr(self, name) in allowed, " or ".join(allowed))
        for name in ("horizontal_flip", "vertical_flip", "rotate90", "jitter", "grayscale", "blur", "solarize"):
            self._check(name, 0 <= getattr(self, name) <= 1, "a probability, 0..1")
        for name in ("brightness", "contrast", "saturation", "band_gain", "noise"):
            self._check(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        self._check("hue", 0 <= self.hue <= 0.5, "in 0..0.5")
        self._check("rotate", 0 <= self.rotate <= 180, "in 0..180 degrees")
        self._check("channel_drop", 0 <= self.channel_drop < 1, "a probability below 1")
        self._check("crop_padding", self.crop_padding >= 0, "0 or more pixels")
        self._check("crop_padding", self.crop_padding == 0 or self.crop == "padded", "0 unless --crop is padded")
        self._check("global_views", self.global_views >= 2, "2 or more")
        self._check("local_views", self.local_views >= 0, "0 or more")
        self._check("local_views", self.local_views == 0 or self.crop == "resized", "0 unless --crop is resized")
        self._check("local_size", self.local_size >= 8, "8 or more pixels")
        for name, most in (("crop_scale", 1), ("local_scale", 1), ("crop_ratio", math.inf), ("blur_sigma", math.inf)):
            pair = getattr(self, name)
            rising = len(pair) == 2 and 0 < pair[0] <= pair[1] <= most and pair[1] < math.inf
            self._check(name, rising, f"two numbers, rising, above 0{'' if most == math.inf else ' and at most 1'}")
        self._check("mean", all(map(math.isfinite, self.mean)), "numbers")
        self._check("std", all(0 < std < math.inf for std in self.std), "numbers above 0")
        self._check("low", all(map(math.isfinite, self.low)), "numbers")
        self._check("high", len(self.high) == len(self.low), f"as many numbers as --low ({len(self.low)})")
        self._check("std", len(self.std) == len(self.mean), f"as many numbers as --mean ({len(self.mean)})")
        above = all(low < high < math.inf for low, high in zip(self.low, self.high, strict=True))
        self._check("high", above, "above --low in every channel")

    def _check(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            value = getattr(self, name)
            typed = " ".join(map(str, value)) or "nothing" if isinstance(value, tuple | list) else value
            raise ConfigError(f"--{name.replace('_', '-')} must be {allowed}, not {typed}")


def for_channels(config: ViewsConfig, channels: int) -> tuple[ViewsConfig, tuple[str, ...]]:
    """Leave out of ``config`` what pictures of so many channels cannot have.

    Args:
        config: as asked for.
        channels: of the pictures, 1 or more.

    Returns:
        What can be done, and a sentence for the log for each thing that was left out.
    """
    notes = []
    if channels != 3:
        colour: dict[str, Any] = {"saturation": 0.0, "hue": 0.0, "grayscale": 0.0}
        if left := [name for name in colour if getattr(config, name)]:
            notes.append(f"no {', '.join(left)}: pictures of {_channels(channels)} have no colour to change")
        config = replace(config, **colour)
    if channels == 1:
        single: dict[str, Any] = {"band_gain": 0.0, "channel_drop": 0.0}
        if left := [name.replace("_", " ") for name in single if getattr(config, name)]:
            notes.append(f"no {', '.join(left)}: the pictures have 1 channel")
        config = replace(config, **single)
    if channels != 3 and (config.mean, config.std) == (IMAGENET_MEAN, IMAGENET_STD):
        notes.append(f"mean and std are measured from the pictures: ImageNet's do not fit {_channels(channels)}")
        config = replace(config, mean=(), std=())
    return config, tuple(notes)


def _channels(count: int) -> str:
    return "1 channel" if count == 1 else f"{count} channels"
