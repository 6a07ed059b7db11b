"""Which pixels a probe learns from, and what a backbone's maps say of them.

A map is coarser than the picture, and is read between its cells bilinearly. A linear probe on it may be applied before
or after: both give the same logits, as a bilinear mean of cells has weights that add up to 1. So features are read at
the drawn pixels alone to learn from, and logits, which are far fewer, are enlarged to predict.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.backbones.pyramid import pyramid
from diptych.evaluation.contenders import Contender
from diptych.evaluation.segmentation.masks import IGNORED
from diptych.frozen import prepared
from diptych.seeding import DRAW, generator

Levels: TypeAlias = Callable[[Tensor], tuple[Tensor, ...]]
"""Stored pictures ``(B, C, S, S)`` → what is known of them: maps ``(B, D_i, h_i, w_i)`` float32 on the CPU."""

RARE = 50
"""Drawn pixels below which a class is given more than chance brought."""
_STREAM = 5
"""Parts this stream of random numbers from those of other draws."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """P pixels, in the order of their pictures."""

    rows: Tensor
    """``(P,)`` int64: the picture of each."""
    places: Tensor
    """``(P,)`` int64: the pixel, counted row by row."""
    labels: Tensor
    """``(P,)`` int64: its class."""


def draw_pixels(masks: Tensor, most: int, seed: int) -> Drawn:
    """Draw as many pixels of each picture, at random among those that show a class.

    A rare class that a picture shows and the draw has missed is given one of its pixels besides: a class without any
    could not be learned.

    Args:
        masks: ``(N, S, S)`` uint8, places of classes or 255.
        most: pixels to draw in all, but for those, of which each class has ``RARE`` at most. Where there are more
            pictures, as many give one each.
        seed: of the draw.
    """
    each = torch.full((len(masks),), most // len(masks))
    if most < len(masks):
        each[torch.randperm(len(masks), generator=generator(seed, DRAW, _STREAM))[:most]] = 1
    drawn = torch.zeros(IGNORED, dtype=torch.int64)
    rows, places, labels = [], [], []
    for row, mask in enumerate(masks.flatten(1)):
        known = (mask != IGNORED).nonzero()[:, 0]
        order = known[torch.randperm(len(known), generator=generator(seed, DRAW, row, _STREAM))]
        shown = mask[order].long()
        chosen = torch.arange(len(order)) < each[row]
        for label in shown.unique():
            if drawn[label] < RARE and not (of_it := shown == label)[chosen].any():
                chosen[of_it.nonzero()[0]] = True
        drawn += shown[chosen].bincount(minlength=IGNORED)
        places.append(order[chosen])
        labels.append(shown[chosen])
        rows.append(torch.full((int(chosen.sum()),), row))
    return Drawn(rows=torch.cat(rows), places=torch.cat(places), labels=torch.cat(labels))


def levels_of(contender: Contender, maps: str) -> Levels:
    """Return what tells of pictures as a contender sees them.

    Args:
        contender: one without a backbone sees the colours of a pixel and its place, from 0 to 1 down and across.
        maps: ``last`` or ``all``.
    """
    backbone, made = contender.backbone, contender.preprocessing
    if backbone is None:
        return lambda pictures: (_colours(prepared(pictures, made, torch.device("cpu"))),)

    @torch.inference_mode()
    def levels(pictures: Tensor) -> tuple[Tensor, ...]:
        found = pyramid(backbone.module, prepared(pictures, made, backbone.device)).maps
        return tuple(cells.cpu() for cells in (found[-1:] if maps == "last" else found))

    return levels


def _colours(values: Tensor) -> Tensor:
    count, _, height, width = values.shape
    down, across = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.cat([values, torch.stack([down, across]).expand(count, 2, height, width)], dim=1)


def features_at(levels: Levels, images: Tensor, drawn: Drawn, at_once: int) -> Tensor:
    """Return the features ``(P, D)`` float32 of drawn pixels, those of all maps side by side.

    Args:
        levels: what tells of pictures.
        images: ``(N, C, S, S)`` as they are stored.
        drawn: the pixels.
        at_once: pictures at a time.
    """
    size = images.shape[-1]
    counts = drawn.rows.bincount(minlength=len(images)).tolist()
    centres = torch.stack([drawn.places % size, drawn.places // size], dim=1) + 0.5  # across, then down
    by_picture = torch.split(2 * centres / size - 1, counts)  # -1 and 1 are the picture's edges
    found = []
    for start in range(0, len(images), at_once):
        maps = levels(images[start : start + at_once])
        for place, grid in enumerate(by_picture[start : start + at_once]):
            found.append(torch.cat([_between(cells[place : place + 1], grid) for cells in maps], dim=1))
    return torch.cat(found)


def _between(cells: Tensor, grid: Tensor) -> Tensor:
    """Read a map ``(1, D, h, w)`` at places ``(P, 2)``, as enlarging it bilinearly would."""
    read = F.grid_sample(cells, grid[None, None], mode="bilinear", padding_mode="border", align_corners=False)
    return read[0, :, 0].T


def enlarged(maps: Sequence[Tensor], weights: Tensor, bias: Tensor, size: int) -> Tensor:
    """Return the logits ``(B, K, size, size)`` of linear weights ``(D, K)`` and a bias ``(K,)`` on enlarged maps."""
    total = bias[:, None, None]
    for cells, part in zip(maps, torch.split(weights, [cells.shape[1] for cells in maps]), strict=True):
        logits = torch.einsum("bdhw,dk->bkhw", cells, part)
        total = total + F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False)
    return total
