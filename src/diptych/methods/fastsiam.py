"""FastSiam: Resource-Efficient Self-supervised Learning on a Single GPU, Pototzky, Sultan & Schmidt-Thieme 2022 (GCPR).

SimSiam (arXiv 2011.10566) with a steadier target: the mean of several views' projections instead of a single one, so
that small batches and few epochs are enough. With two views it is SimSiam.

The paper's text was not at hand: this follows its abstract and lightly's published form of it, which averages
projections before they are normalised. The four views are a setting of the views (``--global-views 4``).

Deviation: small views (multi-crop, arXiv 2006.09882), which the paper has none of, learn from the mean of all full-size
ones and are never in a target.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from tyro.conf import Suppress

from diptych.methods.base import About, full_size
from diptych.methods.losses import negative_cosine
from diptych.methods.simsiam import SimSiam, SimSiamConfig
from diptych.types import StepOutput, Views


@dataclass(frozen=True, kw_only=True)
class FastSiamConfig:
    """Settings of FastSiam; the defaults are SimSiam's for ImageNet."""

    about: ClassVar[About] = About(
        idea="SimSiam, with the mean of several views as the target.",
        paper="Pototzky et al. 2022, GCPR; after SimSiam, arXiv 2011.10566",
        needs="four views; shown to work from batches of 32 up; nothing else",
    )
    losses_compare: ClassVar[bool] = True
    per_picture: ClassVar[bool] = True
    name: Suppress[Literal["fastsiam"]] = "fastsiam"
    projector_layers: int = 3
    """Layers of the projection head: 3 on ImageNet, 2 on CIFAR."""
    projector_width: int = 2048
    """Width of the projection head, and length of the embeddings."""
    predictor_width: int = 512
    """Hidden width of the bottleneck predictor."""
    predictor_constant_lr: bool = True
    """Keep the predictor at the peak learning rate, as SimSiam does, while the rest decays."""

    def __post_init__(self) -> None:
        _ = self.simsiam  # which checks its settings

    @property
    def simsiam(self) -> SimSiamConfig:
        """The networks, which are SimSiam's."""
        return SimSiamConfig(
            projector_layers=self.projector_layers,
            projector_width=self.projector_width,
            predictor_width=self.predictor_width,
            predictor_constant_lr=self.predictor_constant_lr,
        )

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people."""
        return self.simsiam.heads

    def build(self, backbone: nn.Module, num_features: int) -> "FastSiam":
        """Make the method around ``backbone``, which yields ``(B, num_features)``."""
        return FastSiam(self.simsiam, backbone, num_features)


class FastSiam(SimSiam):
    """Backbone f, projector g, predictor h; the loss is the mean of D(h(zᵢ), mean of zⱼ, j ≠ i), z = g(f(view))."""

    def loss(self, views: Views) -> StepOutput:
        """Negative cosine similarity, in -1..1; -1 at once is a sign of collapse."""
        z = [self.projector(self.backbone(view)) for view in views]
        aims = targets(z, full_size(views))
        terms = [negative_cosine(self.predictor(z_i), aim) for z_i, aim in zip(z, aims, strict=True)]
        a, b = (projection.detach().float() for projection in z[:2])
        return StepOutput(loss=torch.stack(terms).mean(), embeddings=a, positives=b, metrics={})


def targets(z: list[Tensor], full: int) -> list[Tensor]:
    """Give each view its target: the mean of the full-size views' projections, its own left out, held constant.

    Args:
        z: projections of the views, each ``(B, D)``, the full-size ones first.
        full: how many of them are full-size, 2 or more.

    Returns:
        A target ``(B, D)`` float32 for each of ``z``.
    """
    fixed = [projection.detach().float() for projection in z[:full]]
    return [torch.stack([fixed[j] for j in range(full) if j != i]).mean(dim=0) for i in range(len(z))]
