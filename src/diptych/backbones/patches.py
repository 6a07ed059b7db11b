"""A network of one layer without back-propagation: what a picture's patches look like, and roughly where they are.

The network of the method ``patches`` (``methods/patches.py`` has the papers, and fits it):

1. Every 6 × 6 patch, less the picture's mean colour, is whitened and brought to unit length.
2. It is compared with ``filters`` whitened patches; cosines above a threshold are kept, less the threshold.
3. These codes are averaged over a 3 × 3 grid of cells with soft edges.
4. In each cell, the centred code is projected to at most 768 numbers and brought to unit length.

A name such as ``patches:1024`` says how many filters there are, and decides with the pictures' size and channels every
shape. ``patches:1024-flip`` adds the features of the mirrored picture: the same for a picture and its mirror image, at
twice the cost. As built, filters are random directions, whitening is the identity and the projection is random: the
baseline that ``evaluate`` puts beside the fitted network.

Cost is bounded: pictures of more than 48 pixels a side are averaged down to 48 first, so a patch covers an eighth of
them (Coates & Ng average the 96 pixels of STL-10 to 32); and codes, the largest tensors, are made a few pictures at a
time, in at most 32 MiB. They are made in bfloat16 where the machine has instructions for it, which halves the time and
rounds features by about a hundredth of their length; everything before and after is float32.
"""

import re

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diptych.errors import ConfigError
from diptych.hardware import native_bf16

PATCH = 6
"""Pixels a side."""
GRID = 3
"""Cells a side over which codes are averaged."""
EDGE = 0.4
"""Standard deviation of a cell's weights, in cells: a hard edge would tell apart pictures that are a pixel off."""
COMPONENTS = 768
"""Numbers that describe a cell, at most."""
LARGEST_SIDE = 48
"""Pixels a side above which pictures are averaged down."""
SMALLEST_SIDE = 8
THRESHOLD = 0.15
"""Cosine with a filter from which on it counts, before fitting sets another."""
FILTERS = 1024
"""Where the name gives no number."""
MOST_FILTERS = 16384
"""Their covariance, which is what fitting keeps in memory twice over, has 2 GiB then."""

_CODES_AT_ONCE = 2**23  # 32 MiB of float32: more would not fit a processor's cache


class PatchNetwork(nn.Module):
    """Normalised pictures ``(B, channels, S, S)`` → features ``(B, num_features)``: 9 cells × components.

    Its weights are buffers, all float32: ``whitening (D, D)``, ``filters (K, D)``, ``threshold ()``, ``mean (K,)`` and
    ``projection (K, M)``, D = 36 · channels values in a patch, K filters, M = min(K, 768).

    Args:
        filters: how many, 1 or more.
        image_size: height and width of the pictures in pixels.
        channels: of the pictures.
        flip: add the features of the mirrored picture.

    Raises:
        ConfigError: there are no filters, or the pictures are smaller than 8 pixels.
    """

    whitening: Tensor
    filters: Tensor
    threshold: Tensor
    mean: Tensor
    projection: Tensor
    pooling: Tensor

    def __init__(self, filters: int, *, image_size: int, channels: int = 3, flip: bool = False) -> None:
        super().__init__()
        if filters < 1:
            raise ConfigError(f"patches:{filters} has no filters: type --backbone patches:{FILTERS}")
        if image_size < SMALLEST_SIDE:
            raise ConfigError(
                f"patches needs pictures of {SMALLEST_SIDE} pixels a side, not {image_size}: choose another "
                "--backbone or --image-size"
            )
        self.flip = flip
        self.side = min(image_size, LARGEST_SIDE)
        values = channels * PATCH**2
        components = min(filters, COMPONENTS)
        self.num_features = GRID**2 * components
        self.register_buffer("whitening", torch.eye(values))
        self.register_buffer("filters", F.normalize(torch.randn(filters, values)))
        self.register_buffer("threshold", torch.tensor(THRESHOLD))
        self.register_buffer("mean", torch.zeros(filters))
        self.register_buffer("projection", torch.randn(filters, components) / components**0.5)
        # Positions of one picture → cells; it follows from the size, so it is no weight.
        self.register_buffer("pooling", _pooling(self.side - PATCH + 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return the features ``(B, num_features)`` float32 of normalised pictures ``(B, C, S, S)``."""
        features = self._features(images)
        return (features + self._features(images.flip(3))) / 2 if self.flip else features

    def _features(self, images: Tensor) -> Tensor:
        cells = (self.codes(images) - self.mean) @ self.projection
        return F.normalize(cells, dim=2).flatten(1)

    def codes(self, images: Tensor) -> Tensor:
        """Return the mean code of each cell, ``(B, 9, K)`` float32: steps 1 to 3."""
        positions = self.pooling.shape[1]
        at_once = max(1, _CODES_AT_ONCE // (positions * len(self.filters)))
        dtype = torch.bfloat16 if native_bf16(images.device.type) else torch.float32
        filters, pooling = self.filters.to(dtype).T, self.pooling.to(dtype)
        bias = -self.threshold.to(dtype).expand(len(self.filters))
        parts = []
        for part in torch.split(self.shrunk(images), at_once):
            patches = F.normalize(self.patches(part) @ self.whitening, dim=2).to(dtype)
            codes = torch.addmm(bias, patches.flatten(0, 1), filters).relu_()
            parts.append((pooling @ codes.view(len(part), positions, -1)).float())
        return torch.cat(parts)

    def patches(self, pictures: Tensor) -> Tensor:
        """Return every patch ``(B, P, D)``, row by row, of shrunk pictures, less the mean of each channel."""
        centred = pictures - pictures.mean(dim=(2, 3), keepdim=True)
        return F.unfold(centred, PATCH).transpose(1, 2)

    def shrunk(self, images: Tensor) -> Tensor:
        """Average pictures of more than 48 pixels a side down to 48; return others as they are."""
        return F.adaptive_avg_pool2d(images, self.side) if images.shape[-1] > self.side else images


def patch_network(name: str, *, image_size: int, channels: int = 3) -> PatchNetwork:
    """Build the network of ``patches`` or ``patches:FILTERS``, random from torch's global generator.

    Args:
        name: with ``-flip`` at its end, pictures and their mirror images have the same features.
        image_size: height and width of the pictures in pixels.
        channels: of the pictures.

    Raises:
        ConfigError: there is no such network, or it cannot take pictures of this size.
    """
    match = re.fullmatch(r"patches(?::(\d+))?(-flip)?", name)
    if match and int(match[1] or FILTERS) > MOST_FILTERS:
        raise ConfigError(f"'{name}' has more filters than the {MOST_FILTERS} that can be fitted: type a lower number")
    if not match:
        raise ConfigError(
            f"unknown backbone '{name}': type patches:{FILTERS}, or patches:{FILTERS}-flip, or another number"
        )
    return PatchNetwork(int(match[1] or FILTERS), image_size=image_size, channels=channels, flip=bool(match[2]))


def _pooling(side: int) -> Tensor:
    """Return ``(9, side²)``: what each position adds to the mean of each cell; the rows add up to 1."""
    centres = (torch.arange(GRID) + 0.5) * side / GRID - 0.5
    distances = (torch.arange(side) - centres[:, None]) * GRID / side  # in cells
    weights = torch.softmax(-((distances / EDGE) ** 2) / 2, dim=1)  # a normal density, made to add up to 1
    return torch.kron(weights, weights)
