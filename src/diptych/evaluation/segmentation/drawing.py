"""Test pictures beside their true and their predicted masks, as a PNG; transparent, as ``figures`` draws grids."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from diptych.evaluation.segmentation.masks import IGNORED
from diptych.figures import CELL, COLOURS, DPI, FONT, INK, LINE, MARK, TEXT
from diptych.runs import writing

GAP, KEY = 8, 64
"""Pixels between two cells, and those that a class takes in the legend."""
_GOLDEN = 0.618034  # hues this far apart never come close again


def draw_masks(path: Path, pictures: Tensor, columns: Sequence[tuple[str, Tensor]], classes: Sequence[str]) -> None:
    """Draw one row a picture: itself, then a mask for each column; a pixel of which nothing is known stays empty.

    Args:
        path: of the PNG, written whole or not at all.
        pictures: ``(n, C, S, S)`` of any type, n ≥ 1.
        columns: a heading, and masks ``(n, S, S)`` uint8, places in ``classes`` or 255.
        classes: numbers as text.
    """
    palette = _palette(len(classes))
    if (side := pictures.shape[-1] // max(1, round(pictures.shape[-1] / CELL))) < pictures.shape[-1]:
        pictures = F.interpolate(pictures.float(), size=(side, side), mode="area").to(pictures.dtype)
        columns = [
            (title, F.interpolate(masks[:, None], size=(side, side), mode="nearest-exact")[:, 0])
            for title, masks in columns
        ]
    shown = [("test picture", np.stack([_visible(picture) for picture in pictures.numpy()]))]
    shown += [(title, palette[masks.numpy()]) for title, masks in columns]
    size = pictures.shape[-1]
    factor = max(1, round(CELL / size))
    step, width = factor * size + GAP, len(shown) * (factor * size + GAP)
    across = max(1, width // KEY)
    head, body = LINE, len(pictures) * step
    height = head + body + -(-len(classes) // across) * LINE
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="none")
    sheet = np.zeros((height, width, 4), np.uint8)

    def write(text: str, left: int, top: int, colour: str) -> None:
        figure.text(left / width, 1 - (top + TEXT) / height, text, family=FONT, size=TEXT * 72 / DPI, color=colour)

    for column, (title, images) in enumerate(shown):
        write(title, column * step, 0, INK)
        for row, image in enumerate(images):
            top, left = head + row * step, column * step
            enlarged = image.repeat(factor, axis=0).repeat(factor, axis=1)
            sheet[top : top + factor * size, left : left + factor * size] = enlarged
    for place, name in enumerate(classes):
        down, left = divmod(place, across)
        rgb = "#" + bytes(palette[place, :3]).hex()
        write("■", left * KEY, head + body + down * LINE, rgb)
        write(name, left * KEY + TEXT, head + body + down * LINE, INK)
    figure.figimage(sheet, origin="upper")
    with writing(path) as temporary:
        FigureCanvasAgg(figure).print_figure(str(temporary), format="png", dpi=DPI, facecolor="auto", metadata=MARK)


def _palette(classes: int) -> NDArray[np.uint8]:
    """Return a colour ``(256, 4)`` for each place of a class; what is ignored is transparent."""
    colours = np.zeros((IGNORED + 1, 4), np.uint8)
    for place in range(classes):
        if place < len(COLOURS):
            rgb = tuple(bytes.fromhex(COLOURS[place][1:]))
        else:
            rgb = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(place * _GOLDEN % 1, 0.6, 0.8))
        colours[place] = (*rgb, 255)
    return colours


def _visible(picture: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return ``(S, S, 4)``: 8 bits of gray or colour as they are, the first bands of others stretched."""
    bands = picture[:3] if len(picture) >= 3 else np.repeat(picture[:1], 3, axis=0)
    if picture.dtype != np.uint8 or len(picture) not in (1, 3):
        low, high = np.percentile(bands, (1, 99), axis=(1, 2), keepdims=True)
        bands = (((bands - low) / np.where(high > low, high - low, 1)).clip(0, 1) * 255).round()
    opaque = np.full_like(bands[:1], 255)
    return np.concatenate([bands, opaque]).transpose(1, 2, 0).astype(np.uint8)
