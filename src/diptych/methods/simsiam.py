"""SimSiam: Exploring Simple Siamese Representation Learning, Chen & He 2020 (arXiv 2011.10566).

Two views of a picture go through one encoder (backbone and projector). A predictor maps one view's output to the
other's, which is held constant: that stop-gradient is what keeps the outputs from collapsing to one vector.

Deviation from the paper: none in the defaults. ``predictor_order="relu-norm"`` and ``projector_last_affine`` are the
Keras example's heads.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from tyro.conf import Suppress

from diptych.errors import check
from diptych.heads import bottleneck_predictor, projector
from diptych.methods.base import About, Method, arrows, predictions, widths
from diptych.methods.losses import negative_cosine
from diptych.types import ParameterGroup, StepOutput, Views


@dataclass(frozen=True, kw_only=True)
class SimSiamConfig:
    """Settings of SimSiam; the defaults are the paper's for ImageNet."""

    about: ClassVar[About] = About(
        idea="One view's embedding predicts the other's, which is held constant.",
        paper="Chen & He 2020, arXiv 2011.10566",
        needs="two views; shown to work from batches of 64 up; nothing else",
    )
    losses_compare: ClassVar[bool] = True
    per_picture: ClassVar[bool] = True
    name: Suppress[Literal["simsiam"]] = "simsiam"
    projector_layers: int = 3
    """Layers of the projection head: 3 on ImageNet, 2 on CIFAR."""
    projector_width: int = 2048
    """Width of the projection head, and length of the embeddings."""
    projector_last_affine: bool = False
    """Learn a scale and a shift after the last batch norm: not in the authors' code, but in the Keras example."""
    predictor_width: int = 512
    """Hidden width of the bottleneck predictor."""
    predictor_order: Literal["norm-relu", "relu-norm"] = "norm-relu"
    """Order of batch norm and ReLU in the predictor: the paper's, or the Keras example's."""
    predictor_constant_lr: bool = True
    """Keep the predictor at the peak learning rate (the official code's --fix-pred-lr) while the rest decays."""

    def __post_init__(self) -> None:
        check(self, "1 or more", lambda value: value >= 1, "projector_layers")
        check(self, "2 or more", lambda value: value >= 2, "projector_width", "predictor_width")

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people."""
        width = self.projector_width
        projector = arrows(*widths(width, self.projector_layers, width))
        return f"projector {projector}, predictor {arrows(self.predictor_width, width)}"

    def build(self, backbone: nn.Module, num_features: int) -> "SimSiam":
        """Make the method around ``backbone``, which yields ``(B, num_features)``."""
        return SimSiam(self, backbone, num_features)


class SimSiam(Method):
    """Backbone f, projector g, predictor h; the loss is ½ D(h(z₁), z₂) + ½ D(h(z₂), z₁), z = g(f(view)) (eq. 4)."""

    def __init__(self, config: SimSiamConfig, backbone: nn.Module, num_features: int) -> None:
        super().__init__(backbone)
        self.config = config
        self.projector = projector(
            num_features, config.projector_width, config.projector_layers, last_affine=config.projector_last_affine
        )
        self.predictor = bottleneck_predictor(config.projector_width, config.predictor_width, config.predictor_order)

    def loss(self, views: Views) -> StepOutput:
        """Symmetric negative cosine similarity, in -1..1; -1 at once is a sign of collapse.

        Each view predicts the first two, save itself: with two views that is eq. 2 of the paper, with more of them
        (multi-crop, arXiv 2006.09882) the small ones only predict.
        """
        # One pass a view, so that batch norm sees each view's own statistics, as in the paper.
        z = [self.projector(self.backbone(view)) for view in views]
        p = [self.predictor(projection) for projection in z]
        terms = [negative_cosine(p[i], z[j].detach()) for i, j in predictions(len(views))]
        a, b = (projection.detach().float() for projection in z[:2])
        return StepOutput(loss=torch.stack(terms).mean(), embeddings=a, positives=b, metrics={})

    def parameter_groups(self) -> list[ParameterGroup]:
        """The encoder, and the predictor, whose learning rate may be constant (appendix A of the paper)."""
        encoder = [*self.backbone.parameters(), *self.projector.parameters()]
        return [
            ParameterGroup(parameters=[p for p in encoder if p.requires_grad]),
            ParameterGroup(parameters=[*self.predictor.parameters()], constant_lr=self.config.predictor_constant_lr),
        ]
