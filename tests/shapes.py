"""Pictures of coloured squares on a noisy ground, and masks that say which is which."""

from pathlib import Path

import numpy as np
from PIL import Image

GROUND, COLOURS = (110, 110, 110), {1: (170, 60, 60), 2: (60, 60, 170)}


def shapes(folder: Path, count: int, size: int = 16, seed: int = 0, shift: int = 0) -> Path:
    """Write ``images/00.png`` and ``masks/00.png``; with a ``shift``, each mask is that of so many pictures further."""
    random = np.random.default_rng(seed)
    pictures, masks = [], []
    for _ in range(count):
        mask = np.zeros((size, size), np.uint8)
        for number in COLOURS:
            side = size // 3
            top, left = random.integers(0, size - side, 2)
            mask[top : top + side, left : left + side] = number
        colours = np.array([GROUND, *COLOURS.values()])[mask]
        pictures.append(random.normal(colours, 8).clip(0, 255).astype(np.uint8))
        masks.append(mask)
    for place, picture in enumerate(pictures):
        write(folder / "images" / f"{place:02}.png", picture)
        write(folder / "masks" / f"{place:02}.png", masks[(place + shift) % count])
    return folder


def write(path: Path, values: np.ndarray, **options: object) -> None:
    """Write an array as a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
