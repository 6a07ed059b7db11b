"""The whole view of one picture at a time, compiled: every step while its pixels lie in the cache.

The same laws as ``ops``, from the same draws, so both give the same views but for rounding (the tests hold them within
1e-5). One picture is a few planes of float32; each step is a loop over a plane that the compiler turns into vector
instructions, and none of them writes to memory that the next would have to fetch again. The result is written in
channels-last order, which is what convolutions on a CPU want. Threads are Python's: the compiled code holds no lock,
no second pool of OpenMP threads spins beside PyTorch's, and a busy core is left with fewer pictures.

Needs numba (extra ``fast``): import this module only after ``numba`` was found.
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from diptych.views.draws import Draws
from diptych.views.ops import BYTES, GRAY, MIX, PAIRS, STEP

F = TypeVar("F", bound=Callable[..., Any])
Array: TypeAlias = NDArray[Any]
Numbers: TypeAlias = tuple[float, ...]
"""One for each channel."""

PART = 32
"""Pictures that a thread takes at a time."""

# Literals are float64 to numba and would drag every loop to half the speed.
ZERO, HALF, ONE, TWO, THREE, FOUR, SIX = (np.float32(value) for value in (0, 0.5, 1, 2, 3, 4, 6))
NEXT = np.uint64(1)
RED, GREEN, BLUE = (np.float32(weight) for weight in GRAY)
HASH_STEP, FIRST_MIX, SECOND_MIX = (np.uint32(factor) for factor in (STEP, *MIX))
EVERY_OTHER = np.uint32(PAIRS)
BYTES_MEAN, BYTES_STD = np.int32(BYTES[0]), BYTES[1]

# Sums may be taken in any order, and products and sums be joined. A quotient stays one: 255 / 255 is 1.
LOOSE = {"reassoc", "contract", "nsz"}


def _compiled(function: F) -> F:
    """Compile at the first call, and keep the machine code for the next process where a folder can be written."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": LOOSE}
    try:
        compiled: F = njit(cache=True, **options)(function)
    except RuntimeError:  # numba found no folder to keep it in
        compiled = njit(**options)(function)
    return compiled


def make_views(
    images: Tensor,
    draws: Sequence[Draws],
    scaling: tuple[Numbers, Numbers],
    blur_radius: Callable[[int], int],
    mean: Numbers,
    std: Numbers,
) -> list[Tensor]:
    """Return one view of ``images`` for each of ``draws``.

    Args:
        images: ``(B, C, H, W)`` uint8, uint16 or float32, on the CPU.
        draws: the decisions for each view.
        scaling: what is subtracted from each channel, and what divides it, to bring it to 0..1.
        blur_radius: of the largest blur in a view of so many pixels, pixels; less than they.
        mean: subtracted from each channel in the end.
        std: divides each channel in the end.

    Returns:
        ``(B, C, S, S)`` float32 each, channels last.
    """
    count, channels = images.shape[:2]
    source = np.ascontiguousarray(images.numpy())
    low, span = np.array(scaling, dtype=np.float32)
    if padding := draws[0].config.crop_padding:
        source = _padded(source, low, padding)
    center, inverse = np.array(mean, dtype=np.float32), 1 / np.array(std, dtype=np.float32)
    views, work = [], []
    # NumPy asks for huge pages where PyTorch does not: touching new memory would cost more than the views.
    room = np.empty(sum(count * channels * drawn.size**2 for drawn in draws), dtype=np.float32)
    for drawn in draws:
        size = drawn.size
        taken, room = np.split(room, [count * channels * size**2])
        pixels = taken.reshape(count, size * size, channels)
        given = (source, low, span, *_decisions(drawn), blur_radius(size), center, inverse, pixels)
        work += [(first, min(first + PART, count), *given) for first in range(0, count, PART)]
        views.append(torch.from_numpy(taken.reshape(count, size, size, channels)).permute(0, 3, 1, 2))
    threads = min(torch.get_num_threads(), len(work))
    if threads == 1:
        for part in work:
            _some(*part)
    else:
        list(_pool(threads, os.getpid()).map(lambda part: _some(*part), work))
    return views


def _decisions(draws: Draws) -> tuple[Array | bool, ...]:
    """Return the decisions as ``_some`` takes them; those that the configuration leaves out have length 0."""
    config, nothing = draws.config, torch.empty(0)
    left_right, top_bottom, odd = draws.mirrored()
    chosen = (draws.jitter, draws.grayscale, draws.blur, draws.solarize)
    tensors = (
        draws.box.T.float().contiguous(),
        torch.stack([left_right, top_bottom, odd, *chosen], dim=1),
        (draws.matrix() if config.rotate else nothing).reshape(-1, 6),
        draws.amounts,
        draws.order.contiguous(),
        (draws.gain if config.band_gain else nothing).reshape(-1, draws.shape.channels),
        draws.sigma,
        (draws.noise[:, None] * torch.tensor(config.std) if config.noise else nothing).reshape(
            -1, draws.shape.channels
        ),
        draws.noise_seed,
        (draws.drop if config.channel_drop else nothing.bool()).reshape(-1, draws.shape.channels),
        torch.tensor(config.mean, dtype=torch.float32),
    )
    return (config.brightness_mode == "add", *(tensor.numpy() for tensor in tensors))


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads that stay for the next batch; a forked process has none of its parent's and starts its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"views-{process}")


def _padded(source: Array, low: Array, padding: int) -> Array:
    """Surround pictures with ``padding`` pixels of what becomes 0."""
    count, channels, height, width = source.shape
    padded = np.empty((count, channels, height + 2 * padding, width + 2 * padding), dtype=source.dtype)
    padded[:] = low[:, None, None]
    padded[:, :, padding : padding + height, padding : padding + width] = source
    return padded


@_compiled
def _some(
    first: int,
    last: int,
    source: Array,
    low: Array,
    span: Array,
    additive: bool,
    box: Array,
    chosen: Array,
    matrix: Array,
    amounts: Array,
    order: Array,
    gain: Array,
    sigma: Array,
    noise: Array,
    noise_seed: Array,
    drop: Array,
    fill: Array,
    radius: int,
    mean: Array,
    inverse_std: Array,
    out: Array,
) -> None:
    """Make the views of the pictures ``first`` to ``last``."""
    channels, height, width = source.shape[1:]
    pixels = out.shape[1]
    size = int(math.sqrt(pixels) + 0.5)
    planes = np.empty((channels, pixels), dtype=np.float32)
    spare = np.empty(max((height + size) * width, size * (size + 2 * radius)), dtype=np.float32)
    for i in range(first, last):
        left_right, top_bottom, odd = chosen[i, 0], chosen[i, 1], chosen[i, 2]
        jitter, gray, blur, solarize = chosen[i, 3], chosen[i, 4], chosen[i, 5], chosen[i, 6]
        if len(matrix):
            _turn(source[i], low, span, matrix[i], planes, size)
        else:
            _resize(source[i], low, span, box[i], left_right, top_bottom, planes, size, spare)
            if odd:
                _transpose(planes, size)
        if jitter:
            for slot in range(4):
                change = order[i, slot]
                amount = amounts[i, change]
                if change == 0:
                    for c in range(channels):
                        _brightness(planes[c], amount, additive)
                elif change == 1:
                    _contrast(planes, amount)
                elif channels == 3 and change == 2:
                    _saturation(planes[0], planes[1], planes[2], amount)
                elif channels == 3:
                    _hue(planes[0], planes[1], planes[2], amount)
            if len(gain):
                for c in range(channels):
                    _brightness(planes[c], gain[i, c], False)
        if gray and channels == 3:
            _gray(planes[0], planes[1], planes[2])
        for c in range(channels):
            if blur:
                _blur(planes[c], size, sigma[i], radius, spare)
            if solarize:
                _solarize(planes[c])
            if len(noise):
                _noise(planes[c], c * pixels, noise_seed[i], noise[i, c])
            if len(drop) and drop[i, c]:
                planes[c, :] = fill[c]
        _write(planes, mean, inverse_std, out[i])


@_compiled
def _taps(length: int, mirrored: bool, first: Array, weights: Array) -> int:
    """Fill in the first pixel of a box, and the weights, of each output pixel; returns how many weights each has.

    The triangle filter of ``ops.resized_crop``, without its zeros.
    """
    size = len(first)
    scale = length / size
    support = max(scale, 1.0)
    most = 1
    for o in range(size):
        center = (o + 0.5) * scale
        begin, end = max(0, int(center - support + 0.5)), min(length, int(center + support + 0.5))
        most = max(most, end - begin)
    for o in range(size):
        at = size - 1 - o if mirrored else o
        center = (o + 0.5) * scale
        begin = max(0, min(length - most, int(center - support + 0.5)))
        total = 0.0
        for k in range(most):
            weight = max(0.0, 1.0 - abs(begin + k + 0.5 - center) / support)
            weights[k, at] = weight
            total += weight
        for k in range(most):
            weights[k, at] /= np.float32(total)
        first[at] = begin
    return most


@_compiled
def _resize(
    source: Array,
    low: Array,
    span: Array,
    box: Array,
    mirrored: bool,
    upside_down: bool,
    planes: Array,
    size: int,
    spare: Array,
) -> None:
    """Cut a box, resize it and flip it: first down the columns (whole rows at once), then along each row."""
    top, left, height, width = int(box[0]), int(box[1]), int(box[2]), int(box[3])
    row_at, column_at = np.empty(size, dtype=np.int64), np.empty(size, dtype=np.uint64)  # unsigned: none is negative
    row_weights = np.empty((2 * (height // size + 2), size), dtype=np.float32)
    column_weights = np.empty((2 * (width // size + 2), size), dtype=np.float32)
    rows = _taps(height, upside_down, row_at, row_weights)
    columns = _taps(width, mirrored, column_at, column_weights)
    values, lines = spare[: height * width], spare[height * width : (height + size) * width]
    for c in range(len(planes)):
        _cut(source[c], top, left, width, low[c], values)
        _down(values, row_at, row_weights, rows, width, lines)
        _along(lines, column_at, column_weights, columns, width, planes[c])
        _divide(planes[c], span[c])


@_compiled
def _cut(source: Array, top: int, left: int, width: int, low: np.float32, values: Array) -> None:
    for y in range(len(values) // width):
        taken, to = source[top + y, left : left + width], values[y * width : (y + 1) * width]
        for x in range(width):
            to[x] = np.float32(taken[x]) - low


@_compiled
def _down(values: Array, first: Array, weights: Array, count: int, width: int, lines: Array) -> None:
    """Weigh ``count`` rows of a box for each row of the view."""
    for y in range(len(first)):
        line = lines[y * width : (y + 1) * width]
        begin = first[y] * width
        above, weight = values[begin : begin + width], weights[0, y]
        if count == 1:
            for x in range(width):
                line[x] = weight * above[x]
        else:
            below, other = values[begin + width : begin + 2 * width], weights[1, y]
            for x in range(width):
                line[x] = weight * above[x] + other * below[x]
        for k in range(2, count):
            below, other = values[begin + k * width : begin + (k + 1) * width], weights[k, y]
            for x in range(width):
                line[x] += other * below[x]


@_compiled
def _along(lines: Array, first: Array, weights: Array, count: int, width: int, plane: Array) -> None:
    """Weigh ``count`` pixels of each line for each pixel of the view."""
    size = len(first)
    left, right = weights[0], weights[1]
    for y in range(size):
        line, target = lines[y * width : (y + 1) * width], plane[y * size : (y + 1) * size]
        if count == 2:
            for x in range(size):
                at = first[x]
                target[x] = left[x] * line[at] + right[x] * line[at + NEXT]
        else:
            for x in range(size):
                at, total = np.int64(first[x]), ZERO
                for k in range(count):
                    total += weights[k, x] * line[at + k]
                target[x] = total


@_compiled
def _divide(plane: Array, divisor: np.float32) -> None:
    for p in range(len(plane)):
        plane[p] = plane[p] / divisor


@_compiled
def _turn(source: Array, low: Array, span: Array, matrix: Array, planes: Array, size: int) -> None:
    """Sample the picture where ``matrix`` sends each output pixel, bilinear, reflected beyond its edges."""
    height, width = source.shape[1:]
    # Of a row of the view: each pixel's upper left neighbour, and its way from there. They serve every channel.
    at, (across, down) = np.empty(size, dtype=np.uint64), np.empty((2, size), dtype=np.float32)
    right, below = min(1, width - 1), min(1, height - 1)  # a picture may be one pixel wide
    beside, under = np.uint64(right), np.uint64(below * width)
    for y in range(size):
        x_start, y_start = matrix[1] * y + matrix[2], matrix[4] * y + matrix[5]
        for x in range(size):
            column = _reflected(matrix[0] * x + x_start, width)
            row = _reflected(matrix[3] * x + y_start, height)
            # The last pixel is the second of its pair: no neighbour lies outside.
            left, top = min(int(column), width - 1 - right), min(int(row), height - 1 - below)
            at[x] = top * width + left
            across[x], down[x] = column - left, row - top
        for c in range(len(planes)):
            pixels, line, least, divisor = source[c].reshape(-1), planes[c, y * size : (y + 1) * size], low[c], span[c]
            for x in range(size):
                here = at[x]
                a, b = np.float32(pixels[here]) - least, np.float32(pixels[here + beside]) - least
                upper = a + across[x] * (b - a)
                a, b = np.float32(pixels[here + under]) - least, np.float32(pixels[here + under + beside]) - least
                lower = a + across[x] * (b - a)
                line[x] = (upper + down[x] * (lower - upper)) / divisor


@_compiled
def _reflected(at: float, pixels: int) -> float:
    """Fold a coordinate back at the outer edges, -0.5 and pixels - 0.5, then keep it within pixel centres."""
    rounds = abs(at + 0.5) / (2 * pixels)
    rounds -= math.floor(rounds)
    return min(max(2 * pixels * min(rounds, 1 - rounds) - 0.5, 0.0), pixels - 1.0)


@_compiled
def _transpose(planes: Array, size: int) -> None:
    for c in range(len(planes)):
        plane = planes[c].reshape(size, size)
        for y in range(size):
            for x in range(y):
                plane[y, x], plane[x, y] = plane[x, y], plane[y, x]


@_compiled
def _clamped(value: np.float32) -> np.float32:
    value = value if value > ZERO else ZERO
    return value if value < ONE else ONE


@_compiled
def _brightness(plane: Array, amount: np.float32, additive: bool) -> None:
    if additive:
        for p in range(len(plane)):
            plane[p] = _clamped(plane[p] + amount)
    else:
        for p in range(len(plane)):
            plane[p] = _clamped(plane[p] * amount)


@_compiled
def _mean(plane: Array) -> float:
    """Mean of a plane, in portions: float32 loses digits in a sum of 50,000."""
    total = 0.0
    for begin in range(0, len(plane), 1024):
        portion, part = ZERO, plane[begin : begin + 1024]
        for p in range(len(part)):
            portion += part[p]
        total += float(portion)
    return total / len(plane)


@_compiled
def _contrast(planes: Array, factor: np.float32) -> None:
    """Move away from the mean gray of colours; any other bands from their own means."""
    colour = ZERO
    if len(planes) == 3:
        colour = np.float32(RED * _mean(planes[0]) + GREEN * _mean(planes[1]) + BLUE * _mean(planes[2]))
    for c in range(len(planes)):
        plane = planes[c]
        middle = (ONE - factor) * (colour if len(planes) == 3 else np.float32(_mean(plane)))
        for p in range(len(plane)):
            plane[p] = _clamped(factor * plane[p] + middle)


@_compiled
def _saturation(red: Array, green: Array, blue: Array, factor: np.float32) -> None:
    rest = ONE - factor
    for p in range(len(red)):
        gray = rest * (RED * red[p] + GREEN * green[p] + BLUE * blue[p])
        red[p] = _clamped(factor * red[p] + gray)
        green[p] = _clamped(factor * green[p] + gray)
        blue[p] = _clamped(factor * blue[p] + gray)


@_compiled
def _hue(red: Array, green: Array, blue: Array, shift: np.float32) -> None:
    """``ops.adjust_hue``; every branch is a choice between two values, so that pixels go side by side."""
    shift = SIX * shift
    for p in range(len(red)):
        r, g, b = red[p], green[p], blue[p]
        greatest, least = r if r > g else g, g if r > g else r
        greatest = greatest if greatest > b else b
        least = least if least < b else b
        spread = greatest - least
        inverse = ONE / (spread if spread > ZERO else ONE)
        turn = FOUR + (r - g) * inverse
        turn = TWO + (b - r) * inverse if greatest == g else turn
        turn = (g - b) * inverse if greatest == r else turn
        turn += shift
        turn = turn + SIX if turn < ZERO else turn
        turn = turn - SIX if turn >= SIX else turn
        red[p] = least + spread * _clamped(abs(turn - THREE) - ONE)
        green[p] = least + spread * _clamped(TWO - abs(turn - TWO))
        blue[p] = least + spread * _clamped(TWO - abs(turn - FOUR))


@_compiled
def _gray(red: Array, green: Array, blue: Array) -> None:
    for p in range(len(red)):
        luma = RED * red[p] + GREEN * green[p] + BLUE * blue[p]
        red[p] = luma
        green[p] = luma
        blue[p] = luma


@_compiled
def _blur(plane: Array, size: int, sigma: float, radius: int, spare: Array) -> None:
    """Blur down the columns, then along the rows, edges reflected; weights below 1e-8 are left out."""
    total, reach = 0.0, min(radius, int(6.1 * sigma) + 1)
    for k in range(-radius, radius + 1):
        total += math.exp(-0.5 * (k / sigma) ** 2)
    weights = np.empty(reach + 1, dtype=np.float32)
    for k in range(reach + 1):
        weights[k] = math.exp(-0.5 * (k / sigma) ** 2) / total
    stride = size + 2 * radius
    for y in range(size):
        line = spare[y * stride + radius : y * stride + radius + size]
        middle = plane[y * size : (y + 1) * size]
        for x in range(size):
            line[x] = weights[0] * middle[x]
        for k in range(1, reach + 1):
            up, down = abs(y - k), y + k
            down = down if down < size else 2 * (size - 1) - down
            above, below = plane[up * size : (up + 1) * size], plane[down * size : (down + 1) * size]
            weight = weights[k]
            for x in range(size):
                line[x] += weight * (above[x] + below[x])
    for y in range(size):
        line = spare[y * stride : (y + 1) * stride]
        for k in range(1, reach + 1):
            line[radius - k] = line[radius + k]
            line[radius + size - 1 + k] = line[radius + size - 1 - k]
        middle = plane[y * size : (y + 1) * size]
        for x in range(size):
            middle[x] = weights[0] * line[radius + x]
        for k in range(1, reach + 1):
            before, after = line[radius - k : radius - k + size], line[radius + k : radius + k + size]
            weight = weights[k]
            for x in range(size):
                middle[x] += weight * (before[x] + after[x])


@_compiled
def _solarize(plane: Array) -> None:
    for p in range(len(plane)):
        plane[p] = ONE - plane[p] if plane[p] >= HALF else plane[p]


@_compiled
def _noise(plane: Array, begin: int, seed: int, scale: float) -> None:
    """``ops.noise``; numba widens every product of 32 bits to 64, so each is cut down again."""
    start, factor = np.uint32(seed), np.float32(scale / BYTES_STD)
    for p in range(len(plane)):
        number = np.uint32(np.uint32(begin + p) * HASH_STEP + start)
        number = np.uint32((number ^ (number >> np.uint32(16))) * FIRST_MIX)
        number = np.uint32((number ^ (number >> np.uint32(15))) * SECOND_MIX)
        number = np.uint32(number ^ (number >> np.uint32(16)))
        low, high = np.uint32(number & EVERY_OTHER), np.uint32((number >> np.uint32(8)) & EVERY_OTHER)
        pairs = np.uint32(low + high)
        total = np.int32(pairs & np.uint32(0xFFFF)) + np.int32(pairs >> np.uint32(16))
        plane[p] += np.float32(np.int32(total - BYTES_MEAN)) * factor


@_compiled
def _write(planes: Array, mean: Array, inverse_std: Array, out: Array) -> None:
    """Clamp, normalise, and write pixel by pixel."""
    if len(planes) == 3:  # a known distance between pixels lets three streams be woven by vector instructions
        red, green, blue, flat = planes[0], planes[1], planes[2], out.reshape(-1)
        for p in range(len(red)):
            flat[3 * p] = (_clamped(red[p]) - mean[0]) * inverse_std[0]
            flat[3 * p + 1] = (_clamped(green[p]) - mean[1]) * inverse_std[1]
            flat[3 * p + 2] = (_clamped(blue[p]) - mean[2]) * inverse_std[2]
    else:
        for c in range(len(planes)):
            for p in range(len(out)):
                out[p, c] = (_clamped(planes[c, p]) - mean[c]) * inverse_std[c]
