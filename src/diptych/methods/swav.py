"""SwAV: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments (arXiv 2006.09882).

Caron et al. 2020. Embeddings are compared with learned prototypes. Each view is assigned to them so that all prototypes
get an equal share of the batch (Sinkhorn-Knopp), and every other view of the picture predicts that assignment, its
*code*. The equal shares are what keeps the embeddings from collapsing to one vector.

Deviations from the paper:

- The loss is the mean of the terms, as in the authors' code, not the sum of eq. 1 and 6: its size does not depend on
  the number of views.
- One pass through the encoder per view, so that batch norm sees each view's own statistics, as in every method here;
  the authors' pass holds all views of one size.
- Prototypes are normalised where they are compared, and gradients flow through that; the authors normalise the weights
  before each step. The directions are the same, and no step has to change weights behind the optimizer's back.
- Sinkhorn's iterations are done on logarithms, in float32: the same numbers, without the overflow and underflow of
  exp(score / ε). Every process does them on the gathered batch, which the authors do with sums over all processes.
- The queue is one, of rows from all processes, the same on each of them, so that a checkpoint can hold it; the authors
  keep a part of it on each. Epochs that start something (the queue, the prototypes' moving) are parts of the run.
- With more than two full-size views, the first two give codes, as in the authors' default, and the others only predict.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from tyro.conf import Suppress

from diptych.distributed import first_row, gather
from diptych.errors import check
from diptych.heads import Prototypes, mlp
from diptych.methods.base import About, Method, arrows, predictions
from diptych.types import ParameterGroup, StepOutput, Views


@dataclass(frozen=True, kw_only=True)
class SwAVConfig:
    """Settings of SwAV; the defaults are the paper's for ImageNet."""

    about: ClassVar[About] = About(
        idea="One view's assignment to learned prototypes, which share the batch evenly, is predicted from the others.",
        paper="Caron et al. 2020, arXiv 2006.09882",
        needs="two views, better with six small ones; in batch and queue together no fewer pictures than prototypes",
    )
    losses_compare: ClassVar[bool] = True
    per_picture: ClassVar[bool] = False
    name: Suppress[Literal["swav"]] = "swav"
    projector_width: int = 2048
    """Hidden width of the projection head."""
    projector_dim: int = 128
    """Length of the embeddings."""
    prototypes: int = 3000
    """Directions that embeddings are assigned to; several for each class that the pictures may have."""
    prototypes_frozen: float = 0.01
    """Part of the run during which the prototypes stand still: one epoch of 100."""
    temperature: float = 0.1
    """Divides the scores of the view that predicts; lower is sharper."""
    sinkhorn_epsilon: float = 0.05
    """Divides the scores of the view that is assigned; lower gives harder codes."""
    sinkhorn_iterations: int = 3
    """Turns of giving the prototypes, then the pictures, their equal shares."""
    queue_size: int = 0
    """Embeddings of earlier pictures that are assigned along with the batch: 3840 for batches of 256; 0 for none."""
    queue_from: float = 0.075
    """Part of the run after which the queue begins to fill; it is used once full: epoch 15 of 200."""

    def __post_init__(self) -> None:
        check(self, "2 or more", lambda value: value >= 2, "projector_width", "projector_dim", "prototypes")
        check(self, "above 0", lambda value: value > 0, "temperature", "sinkhorn_epsilon")
        check(self, "a part of the run, 0..1", lambda value: 0 <= value <= 1, "prototypes_frozen", "queue_from")
        check(self, "1 or more", lambda value: value >= 1, "sinkhorn_iterations")
        check(self, "0 or more", lambda value: value >= 0, "queue_size")

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people."""
        return f"projector {arrows(self.projector_width, self.projector_dim)}, {self.prototypes} prototypes"

    def build(self, backbone: nn.Module, num_features: int) -> "SwAV":
        """Make the method around ``backbone``, which yields ``(B, num_features)``."""
        return SwAV(self, backbone, num_features)


class SwAV(Method):
    """Backbone f, projector g, prototypes c; view s predicts view t's code from softmax(cos(g(f(s)), c) / τ) (eq. 2).

    Every view predicts the codes of the first two, save its own: the small ones of multi-crop give none.
    """

    queue: Tensor

    def __init__(self, config: SwAVConfig, backbone: nn.Module, num_features: int) -> None:
        super().__init__(backbone)
        self.config = config
        self.projector = mlp(num_features, [config.projector_width, config.projector_dim])
        self.prototypes = Prototypes(config.projector_dim, config.prototypes)
        self._newest = torch.zeros(2, 0, config.projector_dim)
        if config.queue_size:
            self.register_buffer("queue", torch.zeros(2, config.queue_size, config.projector_dim))

    def loss(self, views: Views) -> StepOutput:
        """Cross entropy of codes and predictions, in nats: at least the codes' entropy, at most log K + 2 / τ.

        Codes whose entropy is log K, K the number of prototypes, are a sign of collapse: each picture is assigned to
        all of them alike.
        """
        z = [self.projector(self.backbone(view)) for view in views]
        scores = [self.prototypes(embeddings) for embeddings in z]
        codes = self._codes(z[:2])
        terms = [swapped_prediction(scores[i], codes[j], self.config.temperature) for i, j in predictions(len(views))]
        entropy = torch.special.entr(torch.stack(codes)).sum(2).mean()
        return StepOutput(
            loss=torch.stack(terms).mean(),
            embeddings=z[0].detach().float(),
            positives=z[1].detach().float(),
            metrics={"code_entropy": entropy},
        )

    @torch.no_grad()
    def _codes(self, z: list[Tensor]) -> list[Tensor]:
        """Assign this process's rows ``(B, D)`` of two views to prototypes, among all processes' and the queue's."""
        ours = functional.normalize(torch.stack(z, dim=1).float(), dim=2)
        rows = self._newest = gather(ours).transpose(0, 1)
        if self.config.queue_size and self.queue[0, -1].any():  # a zero row is a place that was never filled
            rows = torch.cat([rows, self.queue], dim=1)
        first = first_row(len(ours))
        codes = [
            sinkhorn(self.prototypes(view), self.config.sinkhorn_epsilon, self.config.sinkhorn_iterations)
            for view in rows
        ]
        return [code[first : first + len(ours)] for code in codes]

    def parameter_groups(self) -> list[ParameterGroup]:
        """The encoder, and the prototypes, which stand still in the beginning, as in the authors' code."""
        encoder = [*self.backbone.parameters(), *self.projector.parameters()]
        return [
            ParameterGroup(parameters=[p for p in encoder if p.requires_grad]),
            ParameterGroup(parameters=[*self.prototypes.parameters()], frozen_until=self.config.prototypes_frozen),
        ]

    @torch.no_grad()
    def after_step(self, progress: float) -> None:
        """Put the step's embeddings at the head of the queue; the oldest fall off its end."""
        if self.config.queue_size and progress > self.config.queue_from:
            self.queue.copy_(torch.cat([self._newest, self.queue], dim=1)[:, : self.config.queue_size])


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Assign pictures to prototypes softly, so that all prototypes get equal shares of them (eq. 3 to 5).

    Args:
        scores: ``(B, K)``, the similarity of each picture with each prototype.
        epsilon: above 0; towards 0 the codes become one-hot.
        iterations: 1 or more.

    Returns:
        Codes ``(B, K)`` float32, each row in 0..1 with sum 1; after many iterations each column sums to B / K.
    """
    codes = scores.float() / epsilon
    for _ in range(iterations):
        codes = (codes - codes.logsumexp(dim=0)).log_softmax(dim=1)
    return codes.exp()


def swapped_prediction(scores: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """Cross entropy of one view's softmax with another's codes (eq. 2), in nats: a float32 scalar, 0 or more.

    Args:
        scores: ``(B, K)`` in -1..1, of the view that predicts.
        codes: ``(B, K)``, of the view that is predicted, as from ``sinkhorn``.
        temperature: above 0.
    """
    return functional.cross_entropy(scores.float() / temperature, codes)
