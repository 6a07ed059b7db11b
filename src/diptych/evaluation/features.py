"""Features that every probe shares: computed once, from a frozen backbone or from the pixels themselves."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diptych.data.stores.statistics import FULL
from diptych.errors import RunFolderError
from diptych.frozen import FrozenBackbone

PIXEL_SIDE = 32
"""Pictures of more than 3 × 32 × 32 values are averaged to this many pixels a side before pixels are compared."""


@dataclass(frozen=True)
class Features:
    """What a probe learns from or is tested on."""

    values: Tensor
    """``(N, D)`` float32 on the CPU."""
    labels: Tensor
    """``(N,)`` int64, places in the list of classes; or several labels, or quantities: see ``truth``."""
    groups: Tensor | None = None
    """``(N,)`` int64, of pictures that belong together; None where each stands for itself."""

    def part(self, rows: Tensor) -> "Features":
        """Return those of some rows, int64."""
        return Features(self.values[rows], self.labels[rows], None if self.groups is None else self.groups[rows])


def backbone_features(backbone: FrozenBackbone, images: Tensor, labels: Tensor, batch_size: int = 256) -> Features:
    """Embed pictures, uint8 ``(N, 3, S, S)`` with S the backbone's image size, as they are, so many at a time.

    Raises:
        RunFolderError: some features are not finite: a probe would still answer, and mean nothing.
    """
    values = backbone.embed(images, batch_size).clone()  # embed's tensors refuse changes in place
    if not values.isfinite().all():
        raise RunFolderError(
            "this backbone's features are not finite: its training diverged; pretrain with a lower --lr"
        )
    return Features(values, labels)


def pixel_features(images: Tensor, labels: Tensor) -> Features:
    """Flatten pictures ``(N, C, H, W)`` to ``(N, D)``: large ones are first averaged to 32 × 32.

    Whole numbers become 0..1; floating-point pictures keep their values.
    """
    full = FULL.get(str(images.dtype).removeprefix("torch."), 1.0)
    if is_averaged(images):
        small = [F.adaptive_avg_pool2d(part.float(), PIXEL_SIDE) for part in torch.split(images, 256)]
        return Features(torch.cat(small).flatten(1) / full, labels)
    return Features(images.flatten(1).float() / full, labels)


def is_averaged(images: Tensor) -> bool:
    """Whether ``pixel_features`` averages pictures ``(N, C, H, W)`` of this size."""
    return images[0].numel() > 3 * PIXEL_SIDE**2
