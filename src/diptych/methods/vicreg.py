"""VICReg: Variance-Invariance-Covariance Regularization, Bardes, Ponce & LeCun 2021 (arXiv 2105.04906).

The two views' embeddings shall be equal (invariance), while each channel varies over the batch (variance) and no two
channels vary together (covariance). The last two are of each view by itself, and all there is against collapse.

Deviations from the paper: none from the authors' code, which differs from the formulas so:
- Invariance (eq. 5) is the mean over pictures and channels, not the sum over channels.
- Variance (eq. 6) is the mean of the two views', while covariance is their sum, as written.
- The last layer of the projector has no bias: no term would notice it. Nor have the layers before it, where theirs have
  one, which the batch norm cancels.

The variance and the covariance are those of the batch of all processes, with gradients to all of them: the authors'.
One pass through the encoder for each view. More than two views: each is drawn to the first two; each varies by itself.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from tyro.conf import Suppress

from diptych.distributed import gather
from diptych.errors import check
from diptych.heads import mlp
from diptych.methods.base import About, Method, arrows, pairs, widths
from diptych.types import StepOutput, Views

EPSILON = 1e-4
"""Added to a variance before its root is taken, whose slope at 0 would be infinite."""


@dataclass(frozen=True, kw_only=True)
class VICRegConfig:
    """Settings of VICReg; the defaults are the paper's for ImageNet."""

    about: ClassVar[About] = About(
        idea="The views' embeddings are equal, every channel keeps varying, and no two channels vary together.",
        paper="Bardes, Ponce & LeCun 2021, arXiv 2105.04906",
        needs="two views, a wide projector: at 8192 much memory, and one matrix (0.25 GB) more for each further view, "
        "small or not; shown to work from batches of 128 up",
    )
    losses_compare: ClassVar[bool] = True
    per_picture: ClassVar[bool] = False
    name: Suppress[Literal["vicreg"]] = "vicreg"
    projector_layers: int = 3
    """Layers of the projection head (the paper's expander)."""
    projector_width: int = 8192
    """Width of the projection head's hidden layers; on a CPU 2048 or less."""
    projector_dim: int = 8192
    """Length of the embeddings; the longer, the better, says the paper."""
    invariance_weight: float = 25.0
    """Weight λ of the distance between the views' embeddings."""
    variance_weight: float = 25.0
    """Weight μ of what the channels' standard deviations lack to 1."""
    covariance_weight: float = 1.0
    """Weight ν of the covariances between different channels."""

    def __post_init__(self) -> None:
        check(self, "1 or more", lambda value: value >= 1, "projector_layers")
        check(self, "2 or more", lambda value: value >= 2, "projector_width", "projector_dim")
        weights = "invariance_weight", "variance_weight", "covariance_weight"
        check(self, "0 or more", lambda value: value >= 0, *weights)
        some = any(getattr(self, weight) for weight in weights)
        check(self, "above 0 where the other two weights are 0", lambda value: some, weights[0])

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people."""
        return f"projector {arrows(*widths(self.projector_width, self.projector_layers, self.projector_dim))}"

    def build(self, backbone: nn.Module, num_features: int) -> "VICReg":
        """Make the method around ``backbone``, which yields ``(B, num_features)``."""
        return VICReg(self, backbone, num_features)


class VICReg(Method):
    """Backbone and projector; the loss is λ invariance + μ variance + ν covariance (eq. 6)."""

    def __init__(self, config: VICRegConfig, backbone: nn.Module, num_features: int) -> None:
        super().__init__(backbone)
        self.config = config
        layers = widths(config.projector_width, config.projector_layers, config.projector_dim)
        self.projector = mlp(num_features, layers, last_bias=False)

    def loss(self, views: Views) -> StepOutput:
        """Weighted sum of the three terms: 0 is perfect; a collapse costs 0.99 × ``variance_weight``."""
        z = [self.projector(self.backbone(view)).float() for view in views]
        everywhere = [gather(embeddings) for embeddings in z]
        # The mean over this process's pictures: DistributedDataParallel averages it over the processes.
        distance = torch.stack([invariance(z[i], z[j]) for i, j in pairs(len(views))]).mean()
        lack = torch.stack([variance(embeddings) for embeddings in everywhere]).mean()
        overlap = 2 * torch.stack([covariance(embeddings) for embeddings in everywhere]).mean()
        config = self.config
        return StepOutput(
            loss=config.invariance_weight * distance
            + config.variance_weight * lack
            + config.covariance_weight * overlap,
            embeddings=z[0].detach(),
            positives=z[1].detach(),
            metrics={"invariance": distance.detach(), "variance": lack.detach(), "covariance": overlap.detach()},
        )


def invariance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of two views' embeddings ``(B, D)``: 0 where they are equal."""
    return functional.mse_loss(a, b)


def variance(embeddings: Tensor) -> Tensor:
    """Mean over channels of what the standard deviation over the batch lacks to 1; ``(N, D)``, N ≥ 2 (eq. 1, 2).

    Returns:
        Scalar in 0..0.99: 0 where every channel spreads enough, 0.99 where all embeddings are one.
    """
    std = (embeddings.var(dim=0) + EPSILON).sqrt()
    return functional.relu(1 - std).mean()


def covariance(embeddings: Tensor) -> Tensor:
    """Sum of squared covariances between different channels, divided by D; ``(N, D)``, N ≥ 2 (eq. 3, 4).

    Returns:
        Scalar, 0 or more: 0 where no two channels vary together.
    """
    centred = embeddings - embeddings.mean(dim=0)
    with torch.autocast(centred.device.type, enabled=False):  # which would round the product to bfloat16
        matrix = centred.T @ centred / (len(centred) - 1)
    return (matrix.square().sum() - matrix.diagonal().square().sum()) / embeddings.shape[1]
