"""Barlow Twins: Self-Supervised Learning via Redundancy Reduction, Zbontar et al. 2021 (arXiv 2103.03230).

Each channel of an embedding shall say the same in both views, and nothing that another channel says: the
cross-correlation matrix of the two views' embeddings, over the batch, is drawn towards the identity. No negatives, no
predictor, no stop-gradient: a constant channel has no correlation with itself, so it is no way out.

Deviations from the paper:
- Eq. 2 divides by the standard deviation alone; here, as in the authors' code, 1e-5 is added to the variance.
- The correlation is that of the batch of all processes, and gradients reach all of them, so that the loss does not
  depend on their number. The authors sum the processes' matrices without a gradient, and so get one that is smaller by
  that number: LARS hides that from the weights, but biases and norms, which it does not adapt, learn slower there.
- The paper's learning rates, 0.2 for weights and 0.0048 for biases and norms, are one rate and ``loss_scale``, their
  ratio: LARS adapts weights whatever the loss's scale, and moves biases and norms in proportion to it.
- The paper blurs and solarises its two views with different probabilities; here both are drawn alike, as VICReg draws
  them (arXiv 2105.04906, appendix C.1).
- One pass through the encoder for each view. More than two views: each is a twin of the first two.
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


@dataclass(frozen=True, kw_only=True)
class BarlowConfig:
    """Settings of Barlow Twins; the defaults are the paper's for ImageNet."""

    about: ClassVar[About] = About(
        idea="Every channel agrees between the two views and is uncorrelated with every other channel.",
        paper="Zbontar et al. 2021, arXiv 2103.03230",
        needs="two views, a wide projector: at 8192 much memory, and two matrices (0.5 GB) more for each further view, "
        "small or not; shown to work from batches of 256 up",
    )
    losses_compare: ClassVar[bool] = True
    per_picture: ClassVar[bool] = False
    name: Suppress[Literal["barlow"]] = "barlow"
    projector_layers: int = 3
    """Layers of the projection head."""
    projector_width: int = 8192
    """Width of the projection head's hidden layers; on a CPU 2048 or less."""
    projector_dim: int = 8192
    """Length of the embeddings; the longer, the better, says the paper."""
    redundancy_weight: float = 0.0051
    """Weight λ of the correlations between different channels; shorter embeddings have fewer of them, and bear more."""
    loss_scale: float = 0.024
    """The loss is multiplied by this; with LARS that is the paper's lower rate for biases and norms, 0.0048 / 0.2."""

    def __post_init__(self) -> None:
        check(self, "1 or more", lambda value: value >= 1, "projector_layers")
        check(self, "2 or more", lambda value: value >= 2, "projector_width", "projector_dim")
        check(self, "0 or more", lambda value: value >= 0, "redundancy_weight")
        check(self, "above 0", lambda value: value > 0, "loss_scale")

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people."""
        return f"projector {arrows(*widths(self.projector_width, self.projector_layers, self.projector_dim))}"

    def build(self, backbone: nn.Module, num_features: int) -> "BarlowTwins":
        """Make the method around ``backbone``, which yields ``(B, num_features)``."""
        return BarlowTwins(self, backbone, num_features)


class BarlowTwins(Method):
    """Backbone and projector; the loss is Σᵢ (1 - Cᵢᵢ)² + λ Σᵢ Σⱼ≠ᵢ Cᵢⱼ² (eq. 1), times ``loss_scale``."""

    def __init__(self, config: BarlowConfig, backbone: nn.Module, num_features: int) -> None:
        super().__init__(backbone)
        self.config = config
        layers = widths(config.projector_width, config.projector_layers, config.projector_dim)
        self.projector = mlp(num_features, layers, last_bias=False)

    def loss(self, views: Views) -> StepOutput:
        """Mean over all twins: 0 is perfect; a collapse, with no correlation left at all, costs ``loss_scale`` × D."""
        z = [self.projector(self.backbone(view)) for view in views]
        normalised = [standardised(gather(embeddings.float())) for embeddings in z]
        matrices = [correlation(normalised[i], normalised[j]) for i, j in pairs(len(views))]
        agreement = torch.stack([invariance(matrix) for matrix in matrices]).mean()
        overlap = torch.stack([redundancy(matrix) for matrix in matrices]).mean()
        return StepOutput(
            loss=self.config.loss_scale * (agreement + self.config.redundancy_weight * overlap),
            embeddings=z[0].detach().float(),
            positives=z[1].detach().float(),
            metrics={"invariance": agreement.detach(), "redundancy": overlap.detach()},
        )


def standardised(embeddings: Tensor) -> Tensor:
    """Return embeddings ``(N, D)`` float32 with mean 0 and variance 1 over the batch, in each channel."""
    return functional.batch_norm(embeddings, None, None, training=True)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Cross-correlation matrix ``(D, D)`` of two views' standardised embeddings ``(N, D)``, values -1..1 (eq. 2)."""
    with torch.autocast(a.device.type, enabled=False):  # which would round the product to bfloat16
        return a.T @ b / len(a)


def invariance(matrix: Tensor) -> Tensor:
    """Sum of (1 - Cᵢᵢ)²: 0 where every channel says the same of both views, D where it says nothing in common."""
    return (1 - matrix.diagonal()).square().sum()


def redundancy(matrix: Tensor) -> Tensor:
    """Sum of Cᵢⱼ² over i ≠ j: 0 where no two channels are correlated, D·(D - 1) where all are one."""
    return matrix.square().sum() - matrix.diagonal().square().sum()
