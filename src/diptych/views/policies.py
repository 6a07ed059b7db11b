"""Settings to begin with for a kind of picture: what changes nothing that matters in it.

A view may differ from another in whatever does not tell two pictures of that kind apart. None of these values was tuned
on a data set; look at them with ``diptych preview DATA --policies`` and change what destroys what you look for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEASURED: dict[str, Any] = {"mean": (), "std": ()}
"""ImageNet's mean and std describe photographs; of other pictures they are measured."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """A named set of values for ``ViewsConfig``."""

    sentence: str
    """When to choose it."""
    values: Mapping[str, Any]
    """Settings that differ from the defaults."""


POLICIES: dict[str, Policy] = {
    "natural": Policy(
        sentence="Photographs of things and scenes that stand upright, whose colours depend on the light: SimSiam's.",
        values={},
    ),
    "overhead": Policy(
        sentence="Satellite and aerial pictures: no side is up, scale is known, and colour or bands carry meaning.",
        values={
            "crop_scale": (0.4, 1.0),
            "vertical_flip": 0.5,
            "rotate90": 0.75,
            "brightness": 0.2,
            "contrast": 0.2,
            "saturation": 0.2,
            "hue": 0.02,
            "band_gain": 0.1,
            "grayscale": 0.05,
            "blur": 0.2,
            "blur_sigma": (0.1, 1.0),
            **MEASURED,
        },
    ),
    "grayscale": Policy(
        sentence="X-ray, ultrasound, electron microscopy, depth: one channel, upright, exposure and noise vary.",
        values={
            "crop_scale": (0.3, 1.0),
            "rotate": 10.0,
            "saturation": 0.0,
            "hue": 0.0,
            "grayscale": 0.0,
            "blur": 0.3,
            "blur_sigma": (0.1, 1.5),
            "noise": 0.2,
            **MEASURED,
        },
    ),
    "microscopy": Policy(
        sentence="Stained tissue, cells, fluorescence: no side is up, stain and exposure vary, texture matters.",
        values={
            "crop_scale": (0.4, 1.0),
            "vertical_flip": 0.5,
            "rotate90": 0.75,
            "brightness": 0.3,
            "contrast": 0.3,
            "saturation": 0.3,
            "hue": 0.05,
            "band_gain": 0.15,
            "grayscale": 0.1,
            "blur": 0.2,
            "blur_sigma": (0.1, 1.0),
            "noise": 0.05,
            **MEASURED,
        },
    ),
}
