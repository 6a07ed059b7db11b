"""Several stochastic views of one batch: every decision drawn for every picture, then one pass over the pixels.

The defaults are SimSiam's ImageNet augmentation (arXiv 2011.10566, section 4; MoCo v2's, arXiv 2003.04297), with
torchvision's sampling laws. Deviations: boxes are cut from the stored picture, which is the centred square at the
view's own size, so that a view of a small box is less sharp than the paper's; the Gaussian kernel is cut at three times
its largest sigma, where Pillow approximates one of unlimited width; brightness_mode "add" with jitter_order "fixed"
follows the TensorFlow code of the Keras SimSiam example in law and order, but contrast and saturation stay
torchvision's (TensorFlow moves each channel from its own mean, and scales the saturation of HSV), and every change is
clamped to 0..1, not only the last. Local views are SwAV's multi-crop (arXiv 2006.09882); solarisation is BYOL's (arXiv
2006.07733), of both views alike.

A picture of any channels is first brought to 0..1: uint8 / 255, uint16 / 65535, float32 (x - low) / (high - low) with
the channel's own low and high. Then, in this order:

1. Geometry, one resampling: a box is cut and resized, mirrored, given quarter turns, and turned by an angle about its
   middle. Without an angle the box is resized with antialiasing and nothing outside it is seen. With one, the corners
   show what the picture holds beyond the box, and beyond the picture its reflection; two by two pixels are weighed, so
   that a box much larger than the view would show aliases (stored pictures are no larger than the large views).
2. Jitter, with one probability for all: brightness, contrast, saturation and hue in the drawn order, then the band
   gain, each clamped to 0..1. Brightness multiplies every channel alike. Contrast moves colours from the picture's
   mean gray; the channels of any other picture (not three of them) each from its own mean. Saturation and hue need
   three channels: red, green, blue.
3. Grayscale (three channels only), blur, solarisation (x ≥ 0.5 becomes 1 - x), and noise: one level a picture drawn
   evenly from 0 to ``noise``, times the channel's std, times a nearly Gaussian number for each channel of each pixel,
   hashed from the picture's seed (``ops.noise`` says how).
4. Channels left out are set to their mean, so that they are 0 after normalisation.
5. Clamped to 0..1, minus mean, divided by std.

Two engines do this, from the same draws: ``ops`` on any device, and ``kernel``, compiled by numba, on the CPU. Their
views differ by rounding (about 1e-6), so a run that is resumed where numba is missing differs in the last digits.
"""

import math
from functools import cache
from types import ModuleType
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from diptych.errors import ConfigError
from diptych.types import Views
from diptych.views import ops
from diptych.views.config import ViewsConfig
from diptych.views.draws import Draws, Shape, draw_views

__all__ = ["Draws", "Engine", "Shape", "ViewMaker", "ViewsConfig", "draw_views"]

Engine: TypeAlias = Literal["kernel", "torch"]
CACHE = 2**23
"""Bytes of views that the torch engine makes at a time on a CPU, so that every step finds them in the cache."""
WHOLE = {torch.uint8: 255.0, torch.uint16: 65535.0}
"""The value that becomes 1, of whole numbers."""


class ViewMaker:
    """Makes the views of a batch; row i of every view comes from picture i.

    Args:
        config: the probabilities and strengths, for the pictures' own number of channels (``config.for_channels``).
        size: pixels a side of the full-size views.
        device: where the batches will lie.
        engine: what makes the views; by default the kernel on a CPU where numba can be imported, else torch.

    Raises:
        ConfigError: the kernel was asked for where it cannot be had.
    """

    def __init__(
        self, config: ViewsConfig, size: int, device: torch.device | str = "cpu", engine: Engine | None = None
    ) -> None:
        assert config.mean and config.std, "mean and std are to be measured before views are made"
        self.config, self.size = config, size
        on_cpu = torch.device(device).type == "cpu"
        if engine == "kernel" and not on_cpu:
            raise ConfigError(
                f"engine 'kernel' makes views on a CPU, not on {device}: leave engine out, or say 'torch'"
            )
        if engine == "kernel" and not _kernel():
            raise ConfigError("engine 'kernel' needs numba: type `pip install 'diptych[fast]'`, or say engine 'torch'")
        self.engine: Engine = engine or ("kernel" if on_cpu and _kernel() else "torch")

    def __call__(self, images: Tensor, generator: torch.Generator, rows: tuple[int, int] | None = None) -> Views:
        """Return the normalised views of ``images``, ``(B, C, S, S)`` float32: the full-size ones, then the local ones.

        Args:
            images: ``(B, C, H, W)`` uint8, uint16 or float32, on the device that was named; the torch engine makes
                views wherever they lie.
            generator: a CPU generator, the only source of chance: it draws the same on every device.
            rows: ``(first, total)`` where these are pictures ``first`` and following of a larger batch: they get the
                views that they would get there. So a batch may be shared out in any way.

        Raises:
            ConfigError: a padded crop was asked of pictures that are too small for it, or the kernel of pictures that
                lie elsewhere than on the CPU.
        """
        return self._make(images, generator, self.config.mean, self.config.std, rows)

    def draw(self, images: Tensor, generator: torch.Generator) -> Views:
        """Return the views before normalisation, values 0..1, for figures; arguments as for a call."""
        channels = len(self.config.mean)
        return self._make(images, generator, (0.0,) * channels, (1.0,) * channels)

    def blur_radius(self, size: int) -> int:
        """Pixels that a blur reaches in a view of ``size`` pixels."""
        return min(math.ceil(3 * self.config.blur_sigma[1]), size - 1)

    def _make(
        self,
        images: Tensor,
        generator: torch.Generator,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        rows: tuple[int, int] | None = None,
    ) -> Views:
        config, (count, channels, height, width) = self.config, images.shape
        assert channels == len(config.mean), f"mean and std are of {len(config.mean)} channels, pictures of {channels}"
        assert channels == 3 or not (config.saturation or config.hue or config.grayscale), "ask for_channels first"
        first, total = rows or (0, count)
        shape = Shape(count=total, channels=channels, height=height, width=width)
        if self.engine == "kernel" and images.device.type != "cpu":
            where = images.device
            raise ConfigError(
                f"pictures on {where}, but the kernel makes views on a CPU: say ViewMaker(…, device='{where}')"
            )
        draws = draw_views(config, shape, self.size, generator)
        if total != count:
            draws = [drawn.of(slice(first, first + count)) for drawn in draws]
        kernel = _kernel() if self.engine == "kernel" else None
        if kernel:
            return list(kernel.make_views(images, draws, self._scaling(images), self.blur_radius, mean, std))
        return [self._by_torch(images, drawn, mean, std) for drawn in draws]

    def _scaling(self, images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return scaling(images.dtype, images.shape[1], self.config.low, self.config.high)

    def _by_torch(self, images: Tensor, drawn: Draws, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
        """Make one view with ``ops``: on a CPU some pictures at a time, on a GPU all at once."""
        count, channels = images.shape[:2]
        size = drawn.size
        low, span = self._scaling(images)
        view = torch.empty((count, channels, size, size), device=images.device, memory_format=torch.channels_last)
        portion = count
        if images.device.type == "cpu":
            portion = max(1, CACHE // (4 * channels * max(size, *images.shape[2:]) ** 2))
        for first in range(0, count, portion):
            some = slice(first, first + portion)
            pictures = ops.padded(ops.scaled(images[some], low, span), self.config.crop_padding)
            ops.normalize(self._view(pictures, drawn.of(some)).clamp_(0, 1), mean, std, out=view[some])
        return view

    def _view(self, images: Tensor, draws: Draws) -> Tensor:
        """Take the steps of the module's docstring. Which pictures they change is decided on the CPU: no device waits.

        Args:
            images: ``(B, C, H, W)`` float32, 0..1.
            draws: the decisions for these pictures.
        """
        config, device = self.config, images.device
        images = self._geometry(images, draws)
        if draws.jitter.any():
            images = self._jitter(images, draws)
        if draws.grayscale.any():
            chosen = _to(draws.grayscale.nonzero()[:, 0], device)
            images.index_copy_(0, chosen, ops.grayscale(images[chosen]))
        if draws.blur.any():
            chosen = draws.blur.nonzero()[:, 0]
            sigma, chosen = _to(draws.sigma[chosen], device), _to(chosen, device)
            images.index_copy_(0, chosen, ops.gaussian_blur(images[chosen], sigma, self.blur_radius(draws.size)))
        if draws.solarize.any():
            chosen = _to(draws.solarize.nonzero()[:, 0], device)
            images.index_copy_(0, chosen, ops.solarize(images[chosen]))
        if config.noise:
            scale = _to(draws.noise[:, None] * torch.tensor(config.std), device)
            noise = ops.noise(_to(draws.noise_seed, device), images.shape[1], draws.size)
            images.addcmul_(noise, scale[:, :, None, None])
        if config.channel_drop:
            mean = _to(torch.tensor(config.mean), device)
            images = torch.where(_to(draws.drop, device)[:, :, None, None], mean[:, None, None], images)
        return images

    def _geometry(self, images: Tensor, draws: Draws) -> Tensor:
        config, device, size = self.config, images.device, draws.size
        if config.rotate:
            return ops.affine(images, draws.matrix(), size)
        left_right, top_bottom, odd = draws.mirrored()
        if config.crop == "padded":
            top, left = _to(draws.box[:2], device).unbind()
            images = ops.crop(images, top, left, size)
            images = ops.horizontal_flip(images, _to(left_right, device)) if left_right.any() else images
            images = ops.vertical_flip(images, _to(top_bottom, device)) if top_bottom.any() else images
        elif draws.box[2:].max() <= size:  # the usual: pictures are stored at the large views' size
            images = ops.enlarged_crop(images, draws.box, size, left_right, top_bottom)
        else:
            given = (_to(draws.box, device), size, _to(left_right, device), _to(top_bottom, device))
            images = ops.resized_crop(images, *given)
        return ops.transpose(images, _to(odd, device)) if config.rotate90 else images

    def _jitter(self, images: Tensor, draws: Draws) -> Tensor:
        """Change colour where it was drawn, each picture in its own order."""
        device = images.device
        additive = self.config.brightness_mode == "add"
        changes = (
            ops.adjust_brightness_additive_ if additive else ops.adjust_brightness_,
            ops.adjust_contrast_,
            ops.adjust_saturation_,
            ops.adjust_hue_,
        )
        chosen = draws.jitter.nonzero()[:, 0]
        order = draws.order[chosen]
        amounts = draws.amounts[chosen].gather(1, order)
        changed, place = images, chosen  # `place` says where in `changed` each chosen picture lies
        for slot in range(len(changes)):
            # Pictures that get the same change in this slot are brought side by side, and changed together.
            sorting = order[:, slot].argsort()
            sizes = order[:, slot].bincount(minlength=len(changes)).tolist()
            changed = changed[_to(place[sorting], device)]
            amount = torch.split(_to(amounts[sorting, slot], device), sizes)
            for number, part in enumerate(torch.split(changed, sizes)):
                if number < 2 or images.shape[1] == 3:
                    changes[number](part, amount[number])
            place = sorting.argsort()
        changed = changed[_to(place, device)]
        if self.config.band_gain:
            ops.adjust_brightness_(changed, _to(draws.gain[chosen], device))
        return images.index_copy_(0, _to(chosen, device), changed)


@cache
def scaling(
    dtype: torch.dtype, channels: int, low: tuple[float, ...], high: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return what is subtracted from each channel, and what divides it, to bring it to 0..1.

    Args:
        dtype: of the pictures.
        channels: of the pictures.
        low: value of each channel that becomes 0, of floating-point pictures.
        high: value of each channel that becomes 1, of floating-point pictures.
    """
    if dtype in WHOLE:
        return (0.0,) * channels, (WHOLE[dtype],) * channels
    assert len(low) == channels, "low and high are to be measured before float pictures are used"
    return low, tuple(b - a for a, b in zip(low, high, strict=True))


def _kernel() -> ModuleType | None:
    """Import the compiled engine; None where numba is not installed, or not for this version of NumPy."""
    try:
        from diptych.views import kernel
    except ImportError:
        return None
    return kernel


def _to(values: Tensor, device: torch.device) -> Tensor:
    return values.to(device, non_blocking=True)
