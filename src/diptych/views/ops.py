"""Augmentations of whole batches, every parameter its own for each picture.

Pictures are float32 ``(B, C, H, W)`` in 0..1, C = 3 where colour matters; parameters are tensors ``(B,)`` on the same
device. Nothing here is random. Each operation gives what torchvision's functional of the same name gives picture by
picture (within float32 rounding), which is how each is tested.
"""

import torch
from torch import Tensor
from torch.nn import functional

GRAY = (0.2989, 0.587, 0.114)
"""ITU-R BT.601 luma weights, as torchvision has them."""


def resized_crop(images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: int) -> Tensor:
    """Cut a box of each picture and resize it to ``(B, C, size, size)``, bilinear with antialiasing.

    Rows and columns are resampled by two batched matrix products: one batch, no loop, whatever the boxes.

    Args:
        images: ``(B, C, H, W)``.
        top: first row of each box, pixels.
        left: first column of each box, pixels.
        height: rows of each box, pixels, ≥ 1.
        width: columns of each box, pixels, ≥ 1.
        size: pixels a side of the result.
    """
    rows = _resample_weights(top, height, images.shape[2], size)
    columns = _resample_weights(left, width, images.shape[3], size)
    return torch.einsum("byh,bchx->bcyx", rows, torch.einsum("bchw,bxw->bchx", images, columns))


def _resample_weights(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """Triangle-filter weights ``(B, size, pixels)`` from input pixels to output pixels; zero outside the box."""
    start, scale = start.float()[:, None, None], (length.float() / size)[:, None, None]
    at = torch.arange(pixels, device=start.device, dtype=torch.float32) + 0.5 - start
    centers = (torch.arange(size, device=start.device, dtype=torch.float32)[:, None] + 0.5) * scale
    weights = (1 - (at - centers).abs() / scale.clamp_min(1)).clamp_min(0)
    weights = weights * ((at > 0) & (at < length[:, None, None]))
    return weights / weights.sum(dim=2, keepdim=True)


def crop(images: Tensor, top: Tensor, left: Tensor, size: int, padding: int = 0) -> Tensor:
    """Pad every side with ``padding`` zero pixels, then cut a box ``(B, C, size, size)`` out of each picture.

    Args:
        images: ``(B, C, H, W)``, with H and W + 2 × ``padding`` ≥ ``size``.
        top: first row of each box, int64, pixels from the padded picture's upper edge.
        left: first column of each box, int64, pixels from the padded picture's left edge.
        size: pixels a side of the result.
        padding: zero pixels added on every side.
    """
    if padding == 0 and images.shape[2:] == (size, size):
        return images
    padded = functional.pad(images, (padding,) * 4)
    steps = torch.arange(size, device=images.device)
    rows = (top[:, None] + steps)[:, None, :, None].expand(-1, images.shape[1], -1, padded.shape[3])
    columns = (left[:, None] + steps)[:, None, None, :].expand(-1, images.shape[1], size, -1)
    return padded.gather(2, rows).gather(3, columns)


def horizontal_flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the pictures left to right where ``chosen`` (bool) is true."""
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def vertical_flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the pictures top to bottom where ``chosen`` (bool) is true."""
    return torch.where(chosen[:, None, None, None], images.flip(2), images)


def adjust_brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply by ``factor`` ≥ 0 (1 changes nothing) and clamp to 0..1."""
    return (images * _each(factor)).clamp_(0, 1)


def adjust_brightness_additive(images: Tensor, delta: Tensor) -> Tensor:
    """Add ``delta`` in -1..1 (0 changes nothing) and clamp to 0..1, as ``tf.image.adjust_brightness`` does."""
    return (images + _each(delta)).clamp_(0, 1)


def adjust_contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Move away from (``factor`` > 1) or towards (< 1) the mean gray of the picture, and clamp to 0..1."""
    mean = gray(images).mean(dim=(1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, _each(factor)).clamp_(0, 1)


def adjust_saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Move away from (``factor`` > 1) or towards (< 1) the gray picture, and clamp to 0..1."""
    return torch.lerp(gray(images), images, _each(factor)).clamp_(0, 1)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` in -0.5..0.5 of a full turn, through HSV."""
    red, green, blue = images.unbind(1)
    greatest, least = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    spread = greatest - least
    divisor = torch.where(spread == 0, 1.0, spread)  # gray has no hue: whatever is found is multiplied by spread 0
    turn = torch.where(
        greatest == red,
        (green - blue) / divisor,
        torch.where(greatest == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    turn = turn.add_(6 * shift[:, None, None])
    turn = turn - 6 * (turn / 6).floor_()
    # HSV back to RGB without cases: over the six sixths of a turn each channel is a trapezium from least to greatest.
    red = ((turn - 3).abs_() - 1).clamp_(0, 1)
    green = (2 - (turn - 2).abs_()).clamp_(0, 1)
    blue = (2 - (turn - 4).abs_()).clamp_(0, 1)
    return torch.stack((red, green, blue), dim=1).mul_(spread[:, None]).add_(least[:, None])


def gray(images: Tensor) -> Tensor:
    """Luma ``(B, 1, H, W)`` of RGB pictures."""
    red, green, blue = images.unbind(1)
    return (GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue)[:, None]


def grayscale(images: Tensor, chosen: Tensor) -> Tensor:
    """Replace all three channels by the luma where ``chosen`` (bool) is true."""
    return torch.where(chosen[:, None, None, None], gray(images), images)


def gaussian_blur(images: Tensor, sigma: Tensor, radius: int) -> Tensor:
    """Blur each picture with its own ``sigma`` > 0 (pixels), edges reflected.

    Args:
        images: ``(B, C, H, W)``.
        sigma: standard deviation of each picture's kernel.
        radius: the kernel spans 2 × radius + 1 pixels; less than H and W.
    """
    batch, channels, height, width = images.shape
    at = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (at / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).repeat_interleave(channels, dim=0)
    # One group a channel of each picture: every picture has a kernel of its own in one convolution.
    flat = functional.pad(images.reshape(1, batch * channels, height, width), (radius,) * 4, mode="reflect")
    flat = functional.conv2d(flat, kernel[:, None, None, :], groups=batch * channels)
    flat = functional.conv2d(flat, kernel[:, None, :, None], groups=batch * channels)
    return flat.reshape(images.shape)


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Subtract ``mean`` from each channel and divide by ``std``."""
    center, scale = torch.tensor([mean, std]).to(images.device, non_blocking=True)[:, :, None, None].unbind()
    return (images - center) / scale


def _each(parameter: Tensor) -> Tensor:
    return parameter[:, None, None, None]
