"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations, Chen et al. 2020 (arXiv 2002.05709).

Two views of a picture go through one encoder. Each has to find the other among the views of all pictures of the batch,
those of other processes included. That all the rest is pushed away keeps the outputs from collapsing, and is why large
batches help.

Deviations from the paper:

- The projector has a batch norm on either layer, the last one with a scale but no shift, as in the authors' code; the
  paper's text has none. Weights begin as PyTorch's do, not with their standard deviation of 0.01.
- ``projector_width`` is 2048, which is the paper's (as wide as the features) for ResNet-50 alone.
- Each view passes the encoder by itself, so that batch norm sees its own statistics; the authors' code normalises both
  views together. Statistics are those of all processes on GPUs, as in the paper, and of each process on CPUs.
- The loss is the paper's mean over both directions; the authors' code takes their sum, which is twice as much.
- More than two views (multi-crop, arXiv 2006.09882): see ``SimCLR.loss``.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from tyro.conf import Suppress

from diptych.distributed import first_row, gather
from diptych.errors import check
from diptych.methods.base import About, Method, arrows, pairs
from diptych.types import StepOutput, Views


@dataclass(frozen=True, kw_only=True)
class SimCLRConfig:
    """Settings of SimCLR; the defaults are the paper's for ImageNet."""

    about: ClassVar[About] = About(
        idea="Each view finds its counterpart among the views of all pictures of the batch.",
        paper="Chen et al. 2020, arXiv 2002.05709",
        needs="two views, batches as large as the memory holds; shown to work from 256 up",
    )
    losses_compare: ClassVar[bool] = True
    per_picture: ClassVar[bool] = False
    name: Suppress[Literal["simclr"]] = "simclr"
    temperature: float = 0.1
    """What similarities are divided by: 0.1 on ImageNet, 0.5 on CIFAR; lower looks at the hardest negatives only."""
    projector_width: int = 2048
    """Hidden width of the projection head."""
    projector_dim: int = 128
    """Length of the embeddings."""

    def __post_init__(self) -> None:
        check(self, "above 0", lambda value: value > 0, "temperature")
        check(self, "2 or more", lambda value: value >= 2, "projector_width", "projector_dim")

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people."""
        return f"projector {arrows(self.projector_width, self.projector_dim)}"

    def build(self, backbone: nn.Module, num_features: int) -> "SimCLR":
        """Make the method around ``backbone``, which yields ``(B, num_features)``."""
        return SimCLR(self, backbone, num_features)


def nt_xent(z: Tensor, own: Tensor, other: Tensor, temperature: float, start: int = 0) -> Tensor:
    """Normalised temperature-scaled cross entropy (eq. 1), the mean over the pictures ``start`` … ``start + B - 1``.

    Args:
        z: one view of these pictures, ``(B, D)`` float32 unit vectors.
        own: the same view of all N pictures of the batch, ``(N, D)``: negatives, save each picture's own row.
        other: the other view of all of them, ``(N, D)``: each picture's own row is its positive, the rest negatives.
        temperature: what the similarities are divided by.
        start: which row of ``own`` and ``other`` is the first of ``z``.

    Returns:
        A float32 scalar, 0 or more; ln(2N - 1) is chance.
    """
    pictures = torch.arange(start, start + len(z), device=z.device)
    candidates = torch.cat([other, own])
    itself = torch.arange(len(candidates), device=z.device) == (len(other) + pictures)[:, None]
    with torch.autocast(z.device.type, enabled=False):  # which would round the products to bfloat16
        logits = z @ candidates.T / temperature
    return functional.cross_entropy(logits.masked_fill(itself, -torch.inf), pictures)


class SimCLR(Method):
    """Backbone f, projector g; the loss is the mean of eq. 1 over both orders of two views, z = g(f(view))."""

    def __init__(self, config: SimCLRConfig, backbone: nn.Module, num_features: int) -> None:
        super().__init__(backbone)
        self.config = config
        last_norm = nn.BatchNorm1d(config.projector_dim)
        last_norm.bias.requires_grad_(False)  # stays zero: a scale, no shift
        self.projector = nn.Sequential(
            nn.Linear(num_features, config.projector_width, bias=False),
            nn.BatchNorm1d(config.projector_width),
            nn.ReLU(inplace=True),
            nn.Linear(config.projector_width, config.projector_dim, bias=False),
            last_norm,
        )

    def loss(self, views: Views) -> StepOutput:
        """NT-Xent over the N pictures of all processes; ln(2N - 1) is chance.

        With two views that is eq. 1 of the paper, both ways. Of more, each further one, full-size or small, is paired
        with each of the first two; both sides of a pair learn, and its negatives are the same two views of the others.
        """
        # One pass a view, so that batch norm sees each view's own statistics.
        outputs = [self.projector(self.backbone(view)) for view in views]
        z = [functional.normalize(output.float(), dim=1) for output in outputs]
        everyone = [gather(rows) for rows in z]
        start = first_row(len(z[0]))
        both_ways = [order for i, j in pairs(len(views)) for order in ((i, j), (j, i))]
        terms = [nt_xent(z[i], everyone[i], everyone[j], self.config.temperature, start) for i, j in both_ways]
        a, b = (output.detach().float() for output in outputs[:2])
        return StepOutput(loss=torch.stack(terms).mean(), embeddings=a, positives=b, metrics={})
