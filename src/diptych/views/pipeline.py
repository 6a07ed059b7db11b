"""Two stochastic views of one batch: every decision drawn for every picture, then batched operations.

The defaults are SimSiam's ImageNet augmentation (arXiv 2011.10566, section 4; MoCo v2's, arXiv 2003.04297), with
torchvision's sampling laws. Deviations: boxes are cut from the stored picture, which is the centred square at the
view's own size, so that a view of a small box is less sharp than the paper's; the Gaussian kernel is cut at three times
its largest sigma, where Pillow approximates one of unlimited width; brightness_mode "add" with jitter_order "fixed"
follows the TensorFlow code of the Keras SimSiam example in law and order, but contrast and saturation stay
torchvision's (TensorFlow moves each channel from its own mean, and scales the saturation of HSV), and every change is
clamped to 0..1, not only the last.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diptych.errors import ConfigError
from diptych.types import Views
from diptych.views import ops

ATTEMPTS = 10
"""Boxes tried before a centred one is taken, as in torchvision's RandomResizedCrop."""
CHOICES = {"crop": ("resized", "padded"), "brightness_mode": ("multiply", "add"), "jitter_order": ("random", "fixed")}


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """How a view is made from a picture; each number is drawn anew for every picture and view."""

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
    jitter: float = 0.8
    """Probability of brightness, contrast, saturation and hue all being changed."""
    brightness: float = 0.4
    """Factor drawn from 1 ± this (or this much added or taken away)."""
    contrast: float = 0.4
    """Factor drawn from 1 ± this."""
    saturation: float = 0.4
    """Factor drawn from 1 ± this."""
    hue: float = 0.1
    """Turn drawn from ± this part of a full circle, at most 0.5."""
    brightness_mode: Literal["multiply", "add"] = "multiply"
    """Brightness as torchvision changes it, or as TensorFlow (and so the Keras example) does."""
    jitter_order: Literal["random", "fixed"] = "random"
    """Order of the four changes: drawn for every picture, or brightness, contrast, saturation, hue."""
    grayscale: float = 0.2
    """Probability of losing all colour."""
    blur: float = 0.5
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the blur, in pixels."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Subtracted from each channel (values 0..1) in the end; ImageNet's."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Divides each channel in the end; ImageNet's."""

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            self._check(name, getattr(self, name) in allowed, " or ".join(allowed))
        for name in ("horizontal_flip", "vertical_flip", "jitter", "grayscale", "blur"):
            self._check(name, 0 <= getattr(self, name) <= 1, "a probability, 0..1")
        for name in ("brightness", "contrast", "saturation"):
            self._check(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        self._check("hue", 0 <= self.hue <= 0.5, "in 0..0.5")
        self._check("crop_padding", self.crop_padding >= 0, "0 or more pixels")
        self._check("crop_padding", self.crop_padding == 0 or self.crop == "padded", "0 unless --crop is padded")
        for name, most in (("crop_scale", 1.0), ("crop_ratio", math.inf), ("blur_sigma", math.inf)):
            pair = getattr(self, name)
            rising = len(pair) == 2 and 0 < pair[0] <= pair[1] <= most and pair[1] < math.inf
            self._check(name, rising, f"two numbers, rising, above 0{'' if most == math.inf else ' and at most 1'}")
        self._check("mean", len(self.mean) == 3 and all(map(math.isfinite, self.mean)), "three numbers")
        self._check("std", len(self.std) == 3 and all(0 < std < math.inf for std in self.std), "three numbers above 0")

    def _check(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            value = getattr(self, name)
            typed = " ".join(map(str, value)) if isinstance(value, tuple | list) else value
            raise ConfigError(f"--{name.replace('_', '-')} must be {allowed}, not {typed}")


class TwoViews:
    """Makes two views of a batch; row i of both comes from picture i.

    Args:
        config: the probabilities and strengths.
        size: pixels a side of the views.
    """

    def __init__(self, config: ViewsConfig, size: int) -> None:
        self.config, self.size = config, size
        self.blur_radius = min(math.ceil(3 * config.blur_sigma[1]), size - 1)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Views:
        """Return two normalised views of ``images`` ``(B, 3, H, W)`` uint8, each ``(B, 3, size, size)`` float32.

        Args:
            images: the batch, on any device; the views are made there.
            generator: a CPU generator, the only source of chance: it draws the same on every device.

        Raises:
            ConfigError: a padded crop was asked of pictures that are too small for it.
        """
        return [ops.normalize(view, self.config.mean, self.config.std) for view in self.draw(images, generator)]

    def draw(self, images: Tensor, generator: torch.Generator) -> Views:
        """Return the two views before normalisation, values 0..1, for figures; arguments as for a call."""
        count, _, height, width = images.shape
        pictures = images / 255
        return [self._view(pictures, Draws(self.config, count, height, width, self.size, generator)) for _ in range(2)]

    def _view(self, images: Tensor, draws: "Draws") -> Tensor:
        """Crop, flips, jitter, grayscale, blur. Which pictures are changed is decided on the CPU: no device waits."""
        config, device = self.config, images.device
        top, left, height, width = _to(draws.box, device).unbind()
        if config.crop == "resized":
            images = ops.resized_crop(images, top, left, height, width, self.size)
        else:
            images = ops.crop(images, top, left, self.size, config.crop_padding)
        if config.horizontal_flip:
            images = ops.horizontal_flip(images, _to(draws.horizontal_flip, device))
        if config.vertical_flip:
            images = ops.vertical_flip(images, _to(draws.vertical_flip, device))
        if draws.jitter.any():
            images = self._jitter(images, draws)
        if config.grayscale:
            images = ops.grayscale(images, _to(draws.grayscale, device))
        if draws.blur.any():
            chosen = draws.blur.nonzero()[:, 0]
            sigma, chosen = _to(draws.sigma[chosen], device), _to(chosen, device)
            images = images.index_copy(0, chosen, ops.gaussian_blur(images[chosen], sigma, self.blur_radius))
        return images.clamp(0, 1)  # resampling rounds: 1.0000001

    def _jitter(self, images: Tensor, draws: "Draws") -> Tensor:
        add = self.config.brightness_mode == "add"
        brighten = ops.adjust_brightness_additive if add else ops.adjust_brightness
        changes = (brighten, ops.adjust_contrast, ops.adjust_saturation, ops.adjust_hue)
        chosen = draws.jitter.nonzero()[:, 0]
        order = draws.order[chosen]
        amounts = draws.amounts[chosen].gather(1, order)
        changed, place = images, chosen  # `place` says where in `changed` each chosen picture lies
        for slot in range(len(changes)):
            # Pictures that get the same change in this slot are brought side by side, and changed together.
            sorting = order[:, slot].argsort()
            sizes = order[:, slot].bincount(minlength=len(changes)).tolist()
            parts = torch.split(changed[_to(place[sorting], images.device)], sizes)
            amount = torch.split(_to(amounts[sorting, slot], images.device), sizes)
            changed = torch.cat([change(*given) for change, *given in zip(changes, parts, amount, strict=True)])
            place = sorting.argsort()
        return images.index_copy(0, _to(chosen, images.device), changed[_to(place, images.device)])


class Draws:
    """Every decision of chance for one view of ``count`` pictures, on the CPU.

    All of them are drawn whatever the configuration, in the order of the fields below, each for the whole batch at
    once: a probability set to 0 does not shift the numbers that come after it.

    Args:
        config: the laws.
        count: pictures in the batch, B.
        height: rows of the pictures, pixels.
        width: columns of the pictures, pixels.
        size: pixels a side of the view.
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

    def __init__(
        self, config: ViewsConfig, count: int, height: int, width: int, size: int, generator: torch.Generator
    ) -> None:
        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator)

        def between(low: float, high: float) -> Tensor:
            return uniform(count) * (high - low) + low

        def factor(strength: float) -> Tensor:
            return between(max(0.0, 1 - strength), 1 + strength)

        numbers = uniform(4, count, ATTEMPTS)
        if config.crop == "resized":
            self.box = _resized_boxes(numbers, height, width, config.crop_scale, config.crop_ratio)
        else:
            self.box = _padded_boxes(numbers, height, width, config.crop_padding, size)
        self.horizontal_flip = uniform(count) < config.horizontal_flip
        self.vertical_flip = uniform(count) < config.vertical_flip
        self.jitter = uniform(count) < config.jitter
        multiply = config.brightness_mode == "multiply"
        brightness = factor(config.brightness) if multiply else between(-config.brightness, config.brightness)
        others = factor(config.contrast), factor(config.saturation), between(-config.hue, config.hue)
        self.amounts = torch.stack([brightness, *others], dim=1)
        self.order = uniform(count, 4).argsort(dim=1)
        if config.jitter_order == "fixed":
            self.order = torch.arange(4).expand(count, 4)
        self.grayscale = uniform(count) < config.grayscale
        self.blur = uniform(count) < config.blur
        self.sigma = between(*config.blur_sigma)


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
    area = height * width * (numbers[0] * (scale[1] - scale[0]) + scale[0])
    shape = torch.exp(numbers[1] * math.log(ratio[1] / ratio[0]) + math.log(ratio[0]))
    widths, heights = (area * shape).sqrt().round(), (area / shape).sqrt().round()
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    tops = (numbers[2] * (height - heights + 1)).floor()
    lefts = (numbers[3] * (width - widths + 1)).floor()
    first = fits.int().argmax(dim=1)[None, :, None].expand(4, -1, 1)
    boxes = torch.stack([tops, lefts, heights, widths]).gather(2, first)[:, :, 0]
    return torch.where(fits.any(dim=1), boxes, _centered(height, width, ratio)[:, None])


def _centered(height: int, width: int, ratio: tuple[float, float]) -> Tensor:
    """Top, left, height, width of the largest box in the middle whose ratio is allowed."""
    rows = min(height, round(width / ratio[0]))
    columns = min(width, round(height * ratio[1]))
    return torch.tensor([(height - rows) // 2, (width - columns) // 2, rows, columns], dtype=torch.float32)


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


def _to(values: Tensor, device: torch.device) -> Tensor:
    return values.to(device, non_blocking=True)
