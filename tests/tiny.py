"""Pictures and runs that take a second, for every test that trains."""

import hashlib
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from diptych.config import with_settings
from diptych.training.config import RunConfig

SETTINGS = {
    "image_size": 16,
    "backbone": "resnet20v2",
    "batch_size": 4,
    "projector_layers": 2,
    "projector_width": 16,
    "predictor_width": 8,
    "precision": "fp32",
}
FLAGS = [word for name, value in SETTINGS.items() for word in (f"--{name.replace('_', '-')}", str(value))]
BIN = Path(sys.executable).parent
DIPTYCH = str(BIN / "diptych")


def config(data, /, **settings):
    """A whole configuration for a tiny run."""
    return with_settings(RunConfig(data=str(data)), SETTINGS | settings)


def picture(seed=0, size=16):
    """Noise, uint8 (size, size, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def paint(folder, *names):
    """Write a picture under each name and return the folder."""
    for seed, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(seed)).save(path)
    return folder


def flat(folder, count=8):
    """A folder of pictures without labels."""
    return paint(folder, *(f"{number:02}.png" for number in range(count)))


def tree(folder):
    """Every file's checksum and every link's target, by path: equal trees were not touched."""
    return {
        str(path.relative_to(folder)): os.readlink(path)
        if path.is_symlink()
        else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def lines(path):
    """The whole lines of a file of JSON lines that may be growing; none before it is there."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def wait_until(condition, process, seconds=300):
    """Return once ``condition()`` holds; fail if the process ends first, or after so many seconds."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the process ended first, with code {process.returncode}"
        assert time.monotonic() < end, f"nothing happened in {seconds} s"
        time.sleep(0.01)
