"""Augmentations of whole batches, every parameter its own for each picture.

Pictures are float32 ``(B, C, H, W)`` in 0..1, C = 3 where colour matters; parameters are tensors ``(B,)`` on the same
device. Nothing here is random. Each operation gives what torchvision's functional of the same name gives picture by
picture (within float32 rounding), which is how each is tested. As in PyTorch, those whose name ends in ``_`` write into
their input and return it.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

GRAY = (0.2989, 0.587, 0.114)
"""ITU-R BT.601 luma weights, as torchvision has them."""
STEP, *MIX = 0x9E3779B9, 0x7FEB352D, 0x846CA68B
"""Odd factors: 2³² over the golden ratio, and those of the integer hash lowbias32 (Chris Wellons, hash-prospector)."""
PAIRS = 0x00FF00FF
"""Every other byte."""
BYTES = (4 * 255 / 2, math.sqrt(4 * (256**2 - 1) / 12))
"""Mean and standard deviation of the sum of four bytes drawn evenly."""


def scaled(images: Tensor, low: tuple[float, ...], span: tuple[float, ...]) -> Tensor:
    """Subtract ``low`` from each channel of pictures of any type and divide by ``span``; returns new float32 ones."""
    least, width = _channels(images.device, low, span)
    return images.float().div(width) if not any(low) else (images - least).div_(width)


def padded(images: Tensor, padding: int) -> Tensor:
    """Surround each picture with ``padding`` zero pixels."""
    return functional.pad(images, (padding,) * 4) if padding else images


def resized_crop(
    images: Tensor, box: Tensor, size: int, left_right: Tensor | None = None, top_bottom: Tensor | None = None
) -> Tensor:
    """Cut a box of each picture, resize it to ``(B, C, size, size)``, bilinear with antialiasing, and mirror it.

    Rows and columns are resampled by two batched matrix products: one batch, no loop, whatever the boxes.

    Args:
        images: ``(B, C, H, W)``.
        box: ``(4, B)``: first row, first column, rows, columns of each box, pixels; rows and columns ≥ 1.
        size: pixels a side of the result.
        left_right: which are mirrored left to right, bool.
        top_bottom: which are mirrored top to bottom, bool.
    """
    top, left, height, width = box.unbind()
    rows = _resample_weights(top, height, images.shape[2], size, top_bottom)
    columns = _resample_weights(left, width, images.shape[3], size, left_right)
    return torch.einsum("byh,bchx->bcyx", rows, torch.einsum("bchw,bxw->bchx", images, columns))


def _resample_weights(start: Tensor, length: Tensor, pixels: int, size: int, mirrored: Tensor | None) -> Tensor:
    """Triangle-filter weights ``(B, size, pixels)`` from input pixels to output pixels; zero outside the box."""
    start, scale = start.float()[:, None, None], (length.float() / size)[:, None, None]
    at = torch.arange(pixels, device=start.device, dtype=torch.float32) + 0.5 - start
    centers = (torch.arange(size, device=start.device, dtype=torch.float32)[:, None] + 0.5) * scale
    weights = (1 - (at - centers).abs() / scale.clamp_min(1)).clamp_min(0)
    weights = weights * ((at > 0) & (at < length[:, None, None]))
    weights = weights / weights.sum(dim=2, keepdim=True)
    return weights if mirrored is None else torch.where(mirrored[:, None, None], weights.flip(1), weights)


def enlarged_crop(images: Tensor, box: Tensor, size: int, left_right: Tensor, top_bottom: Tensor) -> Tensor:
    """Do what ``resized_crop`` does, faster, for boxes that are nowhere larger than ``size``.

    Enlarging, the triangle filter weighs two by two pixels, and repeats the box's outermost ones beyond their centres.

    Args:
        images: ``(B, C, H, W)``.
        box: as for ``resized_crop``, on the CPU: positions are computed there in float64, for float32 has no digits
            to spare at the far end of a large picture.
        size: pixels a side of the result.
        left_right: which are mirrored left to right, bool, on the CPU.
        top_bottom: which are mirrored top to bottom, bool, on the CPU.
    """
    top, left, height, width = box.double().unbind()
    across = _positions(left, width, images.shape[3], size, left_right).to(images.device, non_blocking=True)
    down = _positions(top, height, images.shape[2], size, top_bottom).to(images.device, non_blocking=True)
    grid = torch.stack([across[:, None].expand(-1, size, -1), down[:, :, None].expand(-1, -1, size)], dim=3)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _positions(start: Tensor, length: Tensor, pixels: int, size: int, mirrored: Tensor) -> Tensor:
    """Where each of ``size`` output pixels lies: ``(B, size)`` float32, -1 and 1 the outer edges of ``pixels``."""
    start, length = start[:, None], length[:, None]
    centers = (torch.arange(size, dtype=torch.float64) + 0.5) * (length / size)
    at = start + torch.minimum(centers.clamp_min(0.5), length - 0.5)
    at = torch.where(mirrored[:, None], at.flip(1), at)
    return (at * (2 / pixels) - 1).float()


def affine(images: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Sample each picture bilinearly where ``matrix`` sends the pixels of the result ``(B, C, size, size)``.

    What lies beyond the picture is its reflection. Without antialiasing: for results that enlarge.

    Args:
        images: ``(B, C, H, W)``.
        matrix: ``(B, 2, 3)`` float64 on the CPU, from (x, y, 1) in the result to (x, y) in the picture, pixels counted
            from 0.
        size: pixels a side of the result.
    """
    sides = torch.tensor([[images.shape[3]], [images.shape[2]]])
    matrix = matrix * (2 / sides)  # -1 and 1 are the outer edges of the picture
    matrix[:, :, 2:] += 1 / sides - 1
    across, down, offset = matrix.float().to(images.device, non_blocking=True)[:, None, None].unbind(-1)
    steps = torch.arange(size, device=images.device, dtype=torch.float32)
    grid = across * steps[:, None] + down * steps[:, None, None] + offset
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def crop(images: Tensor, top: Tensor, left: Tensor, size: int) -> Tensor:
    """Cut a box ``(B, C, size, size)`` out of each picture, pixel by pixel.

    Args:
        images: ``(B, C, H, W)``, with H and W ≥ ``size``.
        top: first row of each box, int64.
        left: first column of each box, int64.
        size: pixels a side of the result.
    """
    if images.shape[2:] == (size, size):
        return images
    steps = torch.arange(size, device=images.device)
    rows = (top[:, None] + steps)[:, None, :, None].expand(-1, images.shape[1], -1, images.shape[3])
    columns = (left[:, None] + steps)[:, None, None, :].expand(-1, images.shape[1], size, -1)
    return images.gather(2, rows).gather(3, columns)


def horizontal_flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the pictures left to right where ``chosen`` (bool) is true."""
    return torch.where(_each(chosen), images.flip(3), images)


def vertical_flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the pictures top to bottom where ``chosen`` (bool) is true."""
    return torch.where(_each(chosen), images.flip(2), images)


def transpose(images: Tensor, chosen: Tensor) -> Tensor:
    """Make rows columns where ``chosen`` (bool) is true; H = W."""
    return torch.where(_each(chosen), images.transpose(2, 3), images)


def adjust_brightness_(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply by ``factor`` ≥ 0 (1 changes nothing) and clamp to 0..1; ``(B, C)`` has one for each channel."""
    return images.mul_(_each(factor)).clamp_(0, 1)


def adjust_brightness_additive_(images: Tensor, delta: Tensor) -> Tensor:
    """Add ``delta`` in -1..1 (0 changes nothing) and clamp to 0..1, as ``tf.image.adjust_brightness`` does."""
    return images.add_(_each(delta)).clamp_(0, 1)


def adjust_contrast_(images: Tensor, factor: Tensor) -> Tensor:
    """Move away from (``factor`` > 1) or towards (< 1) the mean gray of the picture, and clamp to 0..1.

    Channels that are not three, and so no colours, move each from its own mean.
    """
    mean = (gray(images) if images.shape[1] == 3 else images).mean(dim=(2, 3), keepdim=True)
    return images.mul_(_each(factor)).add_(mean * (1 - _each(factor))).clamp_(0, 1)


def adjust_saturation_(images: Tensor, factor: Tensor) -> Tensor:
    """Move away from (``factor`` > 1) or towards (< 1) the gray picture, and clamp to 0..1."""
    rest = gray(images).mul_(1 - _each(factor))
    return images.mul_(_each(factor)).add_(rest).clamp_(0, 1)


def adjust_hue_(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue by ``shift`` in -0.5..0.5 of a full turn, through HSV."""
    red, green, blue = images.unbind(1)
    greatest, least = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    spread = greatest - least
    inverse = 1 / torch.where(spread == 0, 1.0, spread)  # gray has no hue: what is found is multiplied by spread 0
    turn = torch.where(
        greatest == red,
        (green - blue).mul_(inverse),
        torch.where(greatest == green, (blue - red).mul_(inverse).add_(2), (red - green).mul_(inverse).add_(4)),
    )
    turn.add_(6 * shift[:, None, None]).remainder_(6)
    # HSV back to RGB without cases: over the six sixths of a turn each channel is a trapezium from least to greatest.
    torch.sub(turn, 3, out=red).abs_().sub_(1)
    torch.sub(turn, 2, out=green).abs_().neg_().add_(2)
    torch.sub(turn, 4, out=blue).abs_().neg_().add_(2)
    return images.clamp_(0, 1).mul_(spread[:, None]).add_(least[:, None])


def gray(images: Tensor) -> Tensor:
    """Luma ``(B, 1, H, W)`` of RGB pictures."""
    red, green, blue = images[:, :1], images[:, 1:2], images[:, 2:]
    return (red * GRAY[0]).add_(green, alpha=GRAY[1]).add_(blue, alpha=GRAY[2])


def grayscale(images: Tensor) -> Tensor:
    """Replace all three channels by the luma."""
    return gray(images).expand_as(images)


def solarize(images: Tensor) -> Tensor:
    """Make what is 0.5 or brighter its negative."""
    return torch.where(images >= 0.5, 1 - images, images)


def noise(seed: Tensor, channels: int, size: int) -> Tensor:
    """Noise ``(B, C, size, size)`` float32 of mean 0 and variance 1, a function of seed, channel and pixel alone.

    Pixels are numbered channel by channel, row by row. The 32-bit hash lowbias32 of seed + number × STEP is taken as
    four bytes, and their sum, from which mean and standard deviation are removed, is nearly Gaussian: within ±3.45, in
    steps of 1 / 148, with an excess kurtosis of -0.3. No generator is asked: every device and both engines find the
    same noise, for any part of a batch, and none of it is kept.

    Args:
        seed: ``(B,)`` int32, on the device where the noise is wanted.
        channels: C.
        size: pixels a side.
    """
    step, first, second = (factor - (factor >> 31 << 32) for factor in (STEP, *MIX))  # as int32, whose products wrap
    number = torch.arange(channels * size * size, dtype=torch.int32, device=seed.device)
    number = number * step + seed[:, None]
    shifted = torch.empty_like(number)
    for shift, factor in ((16, first), (15, second), (16, 1)):
        torch.bitwise_right_shift(number, shift, out=shifted).bitwise_and_(2 ** (32 - shift) - 1)  # without the sign
        number.bitwise_xor_(shifted).mul_(factor)
    torch.bitwise_right_shift(number, 8, out=shifted).bitwise_and_(PAIRS)
    pairs = number.bitwise_and_(PAIRS).add_(shifted)  # of bytes, two sums in each number
    torch.bitwise_right_shift(pairs, 16, out=shifted)
    mean, std = BYTES
    total = pairs.bitwise_and_(0xFFFF).add_(shifted).sub_(int(mean))
    return total.float().mul_(1 / std).reshape(-1, channels, size, size)


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


def normalize(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...], out: Tensor | None = None) -> Tensor:
    """Subtract ``mean`` from each channel and divide by ``std``; written into ``out`` where it is given."""
    center, width = _channels(images.device, mean, std)
    return torch.sub(images, center, out=out).div_(width)


def _channels(device: torch.device, *numbers: tuple[float, ...]) -> tuple[Tensor, ...]:
    """Bring numbers, one a channel, to where the pictures are, each ``(C, 1, 1)``."""
    return torch.tensor(numbers).to(device, non_blocking=True)[:, :, None, None].unbind()


def _each(parameter: Tensor) -> Tensor:
    """Shape one parameter a picture, or one a channel of each, so that it meets its pixels."""
    return (parameter if parameter.ndim == 2 else parameter[:, None])[:, :, None, None]
