"""Pictures so few and a network so small that a whole run takes seconds, for the tests of this folder."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

SETTINGS = {
    "image_size": 16,
    "backbone": "resnet20v2",
    "batch_size": 4,
    "epochs": 1,
    "projector_width": 16,
    "predictor_width": 8,
    "precision": "fp32",
}
FLAGS = [word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
COLOURS = {"blue": (60, 60, 160), "red": (160, 60, 60)}


def pixels(seed=0, height=20, width=24, colour=(110, 110, 110)):
    """A noisy picture around one colour, uint8 (H, W, 3)."""
    noise = np.random.default_rng(seed).normal(colour, 50, (height, width, 3))
    return noise.clip(0, 255).astype(np.uint8)


def paint(folder: Path, per_class=10):
    """Writes PNG files into one subfolder a class, and returns the folder."""
    for number, (name, colour) in enumerate(COLOURS.items()):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            Image.fromarray(pixels(100 * number + index, colour=colour)).save(folder / name / f"{index:02}.png")
    return folder


def stream():
    """A text file in memory that looks like a pipe to those who ask for its encoding."""
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
