"""Every decision of chance for views, drawn on the CPU for a whole batch at once."""

import math
from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diptych.errors import ConfigError
from diptych.views.config import ViewsConfig

ATTEMPTS = 10
"""Boxes tried before a centred one is taken, as in torchvision's RandomResizedCrop."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What the decisions for a batch depend on besides the configuration."""

    count: int
    """Pictures in the batch, B."""
    channels: int
    """Channels of a picture, C."""
    height: int
    """Rows of a picture, pixels."""
    width: int
    """Columns of a picture, pixels."""


class Draws:
    """Every decision of chance for one view of a batch, on the CPU.

    All of them are drawn whatever the configuration, in the order of the fields below, each for the whole batch at
    once: a probability set to 0 does not shift the numbers that come after it.

    Args:
        config: the laws.
        shape: of the batch.
        size: pixels a side of the view, S.
        scale: least and greatest area of a resized box, as a part of the picture's.
        generator: a CPU generator.
    """

    box: Tensor
    """``(4, B)``: top, left, height, width of each crop, whole pixels (a padded crop's in the padded picture)."""
    horizontal_flip: Tensor
    """``(B,)`` bool."""
    vertical_flip: Tensor
    """``(B,)`` bool."""
    jitter: Tensor
    """``(B,)`` bool."""
    amounts: Tensor
    """``(B, 4)``: of brightness, contrast, saturation, hue."""
    order: Tensor
    """``(B, 4)`` int64: which of the four each picture gets first, second, third, last."""
    grayscale: Tensor
    """``(B,)`` bool."""
    blur: Tensor
    """``(B,)`` bool."""
    sigma: Tensor
    """``(B,)``, pixels."""
    # What follows is drawn by `draw_rest`.
    quarters: Tensor
    """``(B,)`` int64: quarter turns against the clock, 0..3."""
    angle: Tensor
    """``(B,)``: a further turn against the clock, radians."""
    solarize: Tensor
    """``(B,)`` bool."""
    gain: Tensor
    """``(B, C)``: a factor for each channel."""
    drop: Tensor
    """``(B, C)`` bool: channels left out, never all."""
    noise: Tensor
    """``(B,)``: standard deviation of each picture's noise, in those of its channels."""
    noise_seed: Tensor
    """``(B,)`` int32: decides the noise of every pixel (``ops.noise``)."""

    def __init__(
        self,
        config: ViewsConfig,
        shape: Shape,
        size: int,
        scale: tuple[float, float],
        generator: torch.Generator,
    ) -> None:
        self.config, self.shape, self.size, self.generator = config, shape, size, generator
        count, height, width = shape.count, shape.height, shape.width
        numbers = self._uniform(4, count, ATTEMPTS)
        if config.crop == "resized":
            self.box = _resized_boxes(numbers, height, width, scale, config.crop_ratio)
        else:
            self.box = _padded_boxes(numbers, height, width, config.crop_padding, size)
        self.horizontal_flip = self._uniform(count) < config.horizontal_flip
        self.vertical_flip = self._uniform(count) < config.vertical_flip
        self.jitter = self._uniform(count) < config.jitter
        strength = config.brightness
        additive = config.brightness_mode == "add"
        brightness = self._between(-strength, strength, count) if additive else self._factor(strength, count)
        contrast, saturation = self._factor(config.contrast, count), self._factor(config.saturation, count)
        hue = self._between(-config.hue, config.hue, count)
        self.amounts = torch.stack([brightness, contrast, saturation, hue], dim=1)
        self.order = self._uniform(count, 4).argsort(dim=1)
        if config.jitter_order == "fixed":
            self.order = torch.arange(4).expand(count, 4)
        self.grayscale = self._uniform(count) < config.grayscale
        self.blur = self._uniform(count) < config.blur
        self.sigma = self._between(*config.blur_sigma, count)

    def draw_rest(self) -> "Draws":
        """Draw what was added after version 0.1, whose runs can be repeated since its numbers come first."""
        config, count, channels = self.config, self.shape.count, self.shape.channels
        turned, turns = self._uniform(count) < config.rotate90, self._between(1, 4, count).long().clamp(max=3)
        self.quarters = torch.where(turned, turns, 0)
        self.angle = self._between(-math.radians(config.rotate), math.radians(config.rotate), count)
        self.solarize = self._uniform(count) < config.solarize
        self.gain = self._factor(config.band_gain, count, channels)
        chances = self._uniform(count, channels)
        # The channel that came nearest to staying stays.
        self.drop = (chances < config.channel_drop) & (chances < chances.amax(dim=1, keepdim=True))
        self.noise = self._between(0, config.noise, count)
        # The batch takes one number from the generator, and the pictures' own follow from that.
        seeds = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=self.generator)))
        self.noise_seed = torch.randint(-(2**31), 2**31, (count,), generator=seeds).int()
        return self

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)

    def _between(self, low: float, high: float, *shape: int) -> Tensor:
        return self._uniform(*shape) * (high - low) + low

    def _factor(self, strength: float, *shape: int) -> Tensor:
        return self._between(max(0.0, 1 - strength), 1 + strength, *shape)

    def of(self, some: slice) -> "Draws":
        """Return the decisions for some pictures of the batch."""
        part = copy(self)
        part.box = self.box[:, some]
        for name in FIELDS[1:]:
            setattr(part, name, getattr(self, name)[some])
        return part

    def mirrored(self) -> tuple[Tensor, Tensor, Tensor]:
        """Flips and quarter turns as one mirroring left to right, one top to bottom, then rows made columns.

        Returns:
            Three ``(B,)`` bool.
        """
        odd = self.quarters % 2 == 1
        # A quarter turn against the clock is a mirroring left to right and then a transposition; three are the other.
        left_right = self.horizontal_flip ^ (self.quarters == 1) ^ (self.quarters == 2)
        top_bottom = self.vertical_flip ^ (self.quarters >= 2)
        return left_right, top_bottom, odd

    def matrix(self) -> Tensor:
        """Where each pixel of a view lies in its picture: ``(B, 2, 3)`` float64, from (x, y, 1) to (x, y), pixels."""
        top, left, height, width = self.box.double()
        left_right, top_bottom, odd = self.mirrored()
        angle = self.angle.double()
        middle, cos, sin = (self.size - 1) / 2, angle.cos(), angle.sin()
        # Backwards: undo the turn, then the transposition, then the mirroring, then the change of size.
        across, down = torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)
        across, down = torch.where(odd[:, None], down, across), torch.where(odd[:, None], across, down)
        across = across * (width / self.size * torch.where(left_right, -1, 1))[:, None]
        down = down * (height / self.size * torch.where(top_bottom, -1, 1))[:, None]
        linear = torch.stack([across, down], dim=1)
        center = torch.stack([left + width / 2 - 0.5, top + height / 2 - 0.5], dim=1)
        offset = center - linear.sum(dim=2) * middle
        return torch.cat([linear, offset[:, :, None]], dim=2)


FIELDS = tuple(Draws.__annotations__)
"""Names of the decisions, in the order in which they are drawn."""


def draw_views(config: ViewsConfig, shape: Shape, size: int, generator: torch.Generator) -> list[Draws]:
    """Draw the decisions for every view of a batch: those of ``size`` pixels, then the local ones.

    Args:
        config: the laws.
        shape: of the batch.
        size: pixels a side of the full-size views.
        generator: a CPU generator.

    Raises:
        ConfigError: a padded crop was asked of pictures that are too small for it.
    """
    large = [Draws(config, shape, size, config.crop_scale, generator) for _ in range(config.global_views)]
    for draws in large:
        draws.draw_rest()
    local = range(config.local_views)
    return large + [Draws(config, shape, config.local_size, config.local_scale, generator).draw_rest() for _ in local]


def _resized_boxes(
    numbers: Tensor, height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float]
) -> Tensor:
    """Boxes ``(4, B)`` by the law of torchvision's RandomResizedCrop: the first attempt that fits, else centred.

    Args:
        numbers: ``(4, B, ATTEMPTS)`` uniform in 0..1: area, ratio, top, left.
        height: rows of the pictures.
        width: columns of the pictures.
        scale: least and greatest area, as a part of the picture's.
        ratio: least and greatest width / height.
    """
    # By NumPy, in this thread: PyTorch shares out a thousand roots to all threads, and where another process holds a
    # core it waits for that one longer than all else here takes. Its roots are MKL's too, whose last digit is its own.
    areas, shapes, tops, lefts = numbers.numpy()
    area = height * width * (areas * (scale[1] - scale[0]) + scale[0])
    shape = np.exp((shapes * math.log(ratio[1] / ratio[0]) + math.log(ratio[0])).astype(np.float64)).astype(np.float32)
    widths, heights = np.sqrt(area * shape).round(), np.sqrt(area / shape).round()
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    tops = np.floor(tops * (height - heights + 1))
    lefts = np.floor(lefts * (width - widths + 1))
    first = np.broadcast_to(fits.argmax(axis=1)[None, :, None], (4, len(fits), 1))
    boxes = np.take_along_axis(np.stack([tops, lefts, heights, widths]), first, axis=2)[:, :, 0]
    centered = np.array(_centered(height, width, ratio), dtype=np.float32)[:, None]
    return torch.from_numpy(np.where(fits.any(axis=1), boxes, centered))


def _centered(height: int, width: int, ratio: tuple[float, float]) -> tuple[int, ...]:
    """Top, left, height, width of the largest box in the middle whose ratio is allowed."""
    rows = min(height, round(width / ratio[0]))
    columns = min(width, round(height * ratio[1]))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _padded_boxes(numbers: Tensor, height: int, width: int, padding: int, size: int) -> Tensor:
    """Boxes ``(4, B)`` int64 of the full ``size`` at even chances anywhere in the padded picture."""
    rooms = torch.tensor([height, width]) + 2 * padding - size
    if rooms.min() < 0:
        need = -(-(size - min(height, width)) // 2)
        raise ConfigError(
            f"--crop padded cannot cut {size} px out of {width} × {height} px pictures with --crop-padding {padding}: "
            f"type --crop-padding {need} or more, or --crop resized"
        )
    corners = (numbers[2:, :, 0] * (rooms[:, None] + 1)).long()
    return torch.cat([corners, torch.full_like(corners, size)])
