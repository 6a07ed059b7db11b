"""LeJEPA: Self-Supervised Learning Without the Heuristics, Balestriero & LeCun 2025 (arXiv 2511.08544).

Every view's embedding predicts the mean of the full-size views', and all embeddings together shall be distributed like
an isotropic Gaussian. That is what SIGReg (sketched isotropic Gaussian regularisation) measures: along many random
directions, how far the embeddings' empirical characteristic function is from the Gaussian's (Epps & Pulley's statistic,
1983). No teacher, no stop-gradient, no predictor, and one weight to set.

Deviations from the paper:
- Algorithm 1 integrates over -5..5 with 17 points. The integrand is even, so 0..3 with 17 points, doubled, costs the
  same and is finer; the weight beyond 3 is below 0.012. That is the authors' own code as well.
- The directions are drawn from the step's number on the CPU, so that a run draws the same on any device.
- Processes share their characteristic functions, which are means, rather than embeddings: the same, and less to send.
- The authors' projector, that of their minimal example, has biases before its batch norms, which cancel them.
- For ResNets the paper makes no small views; here any backbone may have them. One pass through the encoder a view.
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
from diptych.methods.base import About, Method, arrows, full_size, widths
from diptych.seeding import generator
from diptych.types import StepOutput, Views

REACH, KNOTS = 3.0, 17
"""The characteristic functions are compared at this many frequencies, in 0..REACH."""


@dataclass(frozen=True, kw_only=True)
class LeJEPAConfig:
    """Settings of LeJEPA; the defaults are the paper's and its authors' code's for ImageNet."""

    about: ClassVar[About] = About(
        idea="Each view predicts the mean of the full-size ones, and all embeddings form one round Gaussian.",
        paper="Balestriero & LeCun 2025, arXiv 2511.08544",
        needs="two views, better with six to eight small ones; little memory; shown to work from batches of 128 up",
    )
    losses_compare: ClassVar[bool] = True
    per_picture: ClassVar[bool] = False
    name: Suppress[Literal["lejepa"]] = "lejepa"
    projector_layers: int = 3
    """Layers of the projection head."""
    projector_width: int = 2048
    """Width of the projection head's hidden layers."""
    projector_dim: int = 128
    """Length of the embeddings."""
    sigreg_weight: float = 0.05
    """Weight λ of the distance from a Gaussian; the prediction's is 1 - λ."""
    slices: int = 1024
    """Random directions along which the embeddings are compared with a Gaussian, drawn anew at each step."""

    def __post_init__(self) -> None:
        check(self, "1 or more", lambda value: value >= 1, "projector_layers", "slices")
        check(self, "2 or more", lambda value: value >= 2, "projector_width", "projector_dim")
        check(self, "in 0..1", lambda value: 0 <= value <= 1, "sigreg_weight")

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people."""
        return f"projector {arrows(*widths(self.projector_width, self.projector_layers, self.projector_dim))}"

    def build(self, backbone: nn.Module, num_features: int) -> "LeJEPA":
        """Make the method around ``backbone``, which yields ``(B, num_features)``."""
        return LeJEPA(self, backbone, num_features)


class LeJEPA(Method):
    """Backbone and projector; the loss is (1 - λ) prediction + λ SIGReg (algorithm 2)."""

    steps: Tensor

    def __init__(self, config: LeJEPAConfig, backbone: nn.Module, num_features: int) -> None:
        super().__init__(backbone)
        self.config = config
        layers = widths(config.projector_width, config.projector_layers, config.projector_dim)
        self.projector = mlp(num_features, layers)
        # A buffer: a run that goes on draws the directions that it would have drawn.
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def loss(self, views: Views) -> StepOutput:
        """Weighted sum of both terms; SIGReg is the mean over the views, each with the same directions."""
        # Stacked after one pass a view, so that batch norm sees each view's own statistics.
        z = torch.stack([self.projector(self.backbone(view)) for view in views]).float()
        directions = slices(int(self.steps), z.shape[-1], self.config.slices).to(z.device)
        predicted = prediction(z, full_size(views))
        gaussian = torch.stack([sigreg(embeddings, directions) for embeddings in z]).mean()
        weight = self.config.sigreg_weight
        return StepOutput(
            loss=(1 - weight) * predicted + weight * gaussian,
            embeddings=z[0].detach(),
            positives=z[1].detach(),
            metrics={"prediction": predicted.detach(), "sigreg": gaussian.detach()},
        )

    def after_step(self, progress: float) -> None:
        """Count the step: the next one draws other directions."""
        self.steps += 1


def prediction(embeddings: Tensor, targets: int) -> Tensor:
    """Mean squared distance of all views' embeddings ``(V, B, D)`` from the mean of the first ``targets`` views'."""
    return (embeddings - embeddings[:targets].mean(dim=0)).square().mean()


def slices(step: int, features: int, count: int) -> Tensor:
    """Return ``count`` random directions, of length 1, as ``(features, count)`` float32; a function of ``step``."""
    return functional.normalize(torch.randn(features, count, generator=generator(step)), dim=0)


def sigreg(embeddings: Tensor, directions: Tensor) -> Tensor:
    """Mean over ``directions`` ``(D, M)`` of the Epps-Pulley statistic of ``embeddings`` ``(B, D)`` along them.

    Returns:
        Scalar, 0 or more: about 1.06 for a sample of the isotropic Gaussian, whatever its size; others grow with B.
    """
    with torch.autocast(embeddings.device.type, enabled=False):  # which would round the product to bfloat16
        return epps_pulley(embeddings @ directions).mean()


def epps_pulley(samples: Tensor) -> Tensor:
    """N ∫ |φ̂(t) - φ(t)|² φ(t) dt, where φ̂ is the mean of exp(itx) over all processes' samples x, and φ(t) = exp(-t²/2).

    Args:
        samples: ``(B, M)`` float32, of M variables; N = B × the number of processes.

    Returns:
        ``(M,)``, 0 or more: the smaller, the more each variable looks like a standard Gaussian.
    """
    t = torch.linspace(0, REACH, KNOTS, device=samples.device)
    target = (-t.square() / 2).exp()
    angles = samples[..., None] * t
    means = gather(torch.stack([angles.cos().mean(dim=0), angles.sin().mean(dim=0)])[None])
    real, imaginary = means.mean(dim=0)
    error = ((real - target).square() + imaginary.square()) * target
    return 2 * len(means) * len(samples) * torch.trapezoid(error, t)
