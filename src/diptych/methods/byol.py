"""BYOL: Bootstrap Your Own Latent, Grill et al. 2020 (arXiv 2006.07733).

One view goes through the encoder (backbone and projector) and a predictor, another through a slow copy of the encoder;
the predictor's output shall be the copy's. No negative pairs: the copy, which gradients never reach, and the predictor
keep the outputs from collapsing to one vector. The network is what a run leaves behind, as in the paper, not its copy.

Deviations from the paper, beside views that are drawn alike (its two differ in blur and solarising; recipes take the
middle of both, as VICReg, arXiv 2105.04906, app. C.1):

- The loss is eq. 2, made symmetric, for two views; for more it is twice the mean over all pairs, so that learning rates
  carry over. Small views (multi-crop, arXiv 2006.09882) and full-size ones after the second only predict.
- The slow copy begins as a copy; the authors' code draws it anew, and they report no difference.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from tyro.conf import Suppress

from diptych.errors import check
from diptych.heads import mlp
from diptych.methods.base import About, Method, arrows, predictions
from diptych.methods.losses import negative_cosine
from diptych.methods.momentum import MomentumEncoder
from diptych.optim.schedule import half_cosine
from diptych.types import StepOutput, Views


@dataclass(frozen=True, kw_only=True)
class BYOLConfig:
    """Settings of BYOL; the defaults are the paper's for ImageNet."""

    about: ClassVar[About] = About(
        idea="One view's embedding predicts what a slow copy of the network makes of another view.",
        paper="Grill et al. 2020, arXiv 2006.07733",
        needs="two views, memory for a second network; shown to work from batches of 256 up",
    )
    losses_compare: ClassVar[bool] = True
    per_picture: ClassVar[bool] = True
    name: Suppress[Literal["byol"]] = "byol"
    projector_width: int = 4096
    """Hidden width of the projection head."""
    projector_dim: int = 256
    """Length of the embeddings."""
    predictor_width: int = 4096
    """Hidden width of the predictor."""
    ema_momentum: float = 0.996
    """Momentum of the slow copy at the start; it rises to 1. The authors take 0.996 for 1,000 epochs, 0.99 for 300."""

    def __post_init__(self) -> None:
        check(self, "2 or more", lambda value: value >= 2, "projector_width", "projector_dim", "predictor_width")
        check(self, "in 0..1, 1 excluded", lambda value: 0 <= value < 1, "ema_momentum")

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people."""
        projector = arrows(self.projector_width, self.projector_dim)
        return f"projector {projector}, predictor {arrows(self.predictor_width, self.projector_dim)}"

    def build(self, backbone: nn.Module, num_features: int) -> "BYOL":
        """Make the method around ``backbone``, which yields ``(B, num_features)``."""
        return BYOL(self, backbone, num_features)


class BYOL(Method):
    """Backbone f, projector g, predictor q; ‖q(z₁) - z'₂‖² + ‖q(z₂) - z'₁‖² of unit vectors (eq. 2), z = g(f(view)).

    z' is the momentum encoder's, a slow copy of f and g: ξ ← τξ + (1 - τ)θ (eq. 1).
    """

    def __init__(self, config: BYOLConfig, backbone: nn.Module, num_features: int) -> None:
        super().__init__(backbone)
        self.config = config
        # No bias at the end, as in the authors' code.
        self.projector = mlp(num_features, (config.projector_width, config.projector_dim), last_bias=False)
        self.predictor = mlp(config.projector_dim, (config.predictor_width, config.projector_dim), last_bias=False)
        self.momentum_encoder = MomentumEncoder(self.backbone, self.projector)

    def loss(self, views: Views) -> StepOutput:
        """Squared distance of unit vectors, summed over both directions, in 0..8; 0 at once is a sign of collapse.

        Each view predicts the targets of the first two, save its own.
        """
        z = [self.projector(self.backbone(view)) for view in views]
        p = [self.predictor(projection) for projection in z]
        targets = [self.momentum_encoder(view) for view in views[:2]]
        terms = [2 + 2 * negative_cosine(p[i], targets[j]) for i, j in predictions(len(views))]
        a, b = (projection.detach().float() for projection in z[:2])
        return StepOutput(loss=2 * torch.stack(terms).mean(), embeddings=a, positives=b, metrics={})

    def after_step(self, progress: float) -> None:
        """Move the momentum encoder; its momentum rises to 1 along half a cosine (section 3.3)."""
        momentum = half_cosine(self.config.ema_momentum, 1.0, progress)
        self.momentum_encoder.follow(self.backbone, self.projector, momentum=momentum)
