"""DINO: Emerging Properties in Self-Supervised Vision Transformers, Caron et al. 2021 (arXiv 2104.14294).

The network, the student, tells which of many prototypes a view is like; a slow copy of it, the teacher, told that of
another view. Two things keep the teacher from saying the same of every picture: its outputs are centred (no prototype
is always the likeliest) and sharpened by a low temperature (not all are equally likely). The teacher is the better of
the two (section 5.2), and what a run leaves behind.

Deviations from the paper and its code, beside views that are drawn alike (theirs differ in blur and solarising; recipes
take the middle of both, as VICReg, arXiv 2105.04906, app. C.1):

- What lasts a number of epochs there is a part of the run here. The teacher's temperature rises to 0.07 for 0.1 of it,
  at each step instead of each epoch: 30 epochs of 300; the authors' command for 100 epochs keeps 0.04 throughout. The
  prototypes are frozen for 0.01 of it: one epoch of 100.
- Prototypes always have length 1, which is the code's default (--norm_last_layer) and stable with any network; the
  paper's ViT-S, but not its ViT-B, was trained without.
- All full-size views teach, where there are more than two.
- Each view passes through the network by itself, not with all others of its size: felt by batch norm alone.
- No clipping of gradients: AdamW's steps are of one size whatever the gradient's, and prototypes of length 1 cannot
  grow. No stochastic depth in the student: a method takes the backbone as it is.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from tyro.conf import Suppress

from diptych.distributed import gather
from diptych.errors import check
from diptych.heads import Prototypes, mlp
from diptych.methods.base import About, Method, arrows, full_size, widths
from diptych.methods.momentum import MomentumEncoder
from diptych.optim.schedule import half_cosine
from diptych.types import ParameterGroup, StepOutput, Views


@dataclass(frozen=True, kw_only=True)
class DINOConfig:
    """Settings of DINO; the defaults are the paper's for a ViT on ImageNet."""

    about: ClassVar[About] = About(
        idea="Every view says which prototypes it is like, as a slow copy of the network did of another view.",
        paper="Caron et al. 2021, arXiv 2104.14294",
        needs="a ViT, AdamW, small views, memory for a second network, long runs; shown to work from batches of 128 up",
    )
    losses_compare: ClassVar[bool] = False
    """The teacher's entropy, which is part of the loss, rises with its temperature."""
    per_picture: ClassVar[bool] = True
    name: Suppress[Literal["dino"]] = "dino"
    projector_layers: int = 3
    """Layers of the projection head, before the prototypes."""
    projector_width: int = 2048
    """Hidden width of the projection head."""
    projector_dim: int = 256
    """Length of the embeddings."""
    projector_norm: bool = False
    """Batch norm in the projection head: not for a ViT, but for networks that have it themselves."""
    prototypes: int = 65536
    """Directions that embeddings are compared with: fewer for fewer pictures."""
    prototypes_frozen: float = 0.01
    """Part of the run, 0..1, in which the prototypes stay as they are: the first epoch of 100."""
    temperature: float = 0.1
    """Temperature of the student's softmax."""
    teacher_temperature: float = 0.07
    """Temperature of the teacher's softmax after its warm-up; higher is less stable."""
    teacher_temperature_start: float = 0.04
    """The same at the start of the run; it rises linearly."""
    teacher_temperature_warmup: float = 0.1
    """Part of the run, 0..1, in which it rises: 30 epochs of 300."""
    center_momentum: float = 0.9
    """Momentum of the mean that is subtracted from the teacher's outputs."""
    ema_momentum: float = 0.996
    """Momentum of the teacher at the start; it rises to 1. The authors advise 0.9995 for batches of 256."""

    def __post_init__(self) -> None:
        temperatures = "temperature", "teacher_temperature", "teacher_temperature_start"
        parts = "prototypes_frozen", "teacher_temperature_warmup"
        check(self, "1 or more", lambda value: value >= 1, "projector_layers")
        check(self, "2 or more", lambda value: value >= 2, "projector_width", "projector_dim", "prototypes")
        check(self, "above 0", lambda value: value > 0, *temperatures)
        check(self, "a part of the run, 0..1", lambda value: 0 <= value <= 1, *parts)
        check(self, "in 0..1, 1 excluded", lambda value: 0 <= value < 1, "center_momentum", "ema_momentum")

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people."""
        projector = arrows(*widths(self.projector_width, self.projector_layers, self.projector_dim))
        return f"projector {projector}, {self.prototypes} prototypes"

    def build(self, backbone: nn.Module, num_features: int) -> "DINO":
        """Make the method around ``backbone``, which yields ``(B, num_features)``."""
        return DINO(self, backbone, num_features)


class DINO(Method):
    """Backbone, projector, prototypes, and a slow copy of the three: the mean of H(P_t(x'), P_s(x)) (eq. 3).

    x' is a full-size view and x any other one.
    """

    center: Tensor
    teacher_temperature: Tensor

    def __init__(self, config: DINOConfig, backbone: nn.Module, num_features: int) -> None:
        super().__init__(backbone)
        self.config = config
        layers = widths(config.projector_width, config.projector_layers, config.projector_dim)
        self.projector = mlp(num_features, layers, norm=config.projector_norm, gelu=True)
        self.projector.apply(_initialise)
        self.prototypes = Prototypes(config.projector_dim, config.prototypes)
        self.momentum_encoder = MomentumEncoder(self.backbone, self.projector, self.prototypes)
        self.register_buffer("center", torch.zeros(config.prototypes))
        self.register_buffer("teacher_temperature", torch.tensor(teacher_temperature(config, 0.0)))

    @property
    def kept(self) -> nn.Module:
        """The teacher's backbone, which the authors evaluate."""
        return self.momentum_encoder.copies[0]

    def loss(self, views: Views) -> StepOutput:
        """Cross-entropy, in 0 and above; log(prototypes) where both networks say nothing.

        The metric ``teacher_entropy`` is the part of it that no student can avoid. It tells both ways of collapsing:
        log(prototypes), the teacher says nothing (it is not sharp enough); 0, it says the same of every picture (it is
        not centred enough).
        """
        embeddings = [self.projector(self.backbone(view)) for view in views]
        taught = [self.momentum_encoder(view).float() for view in views[: full_size(views)]]
        self.left.append(torch.cat(taught).mean(dim=0, keepdim=True))
        targets = [functional.softmax((output - self.center) / self.teacher_temperature, dim=1) for output in taught]
        loss = cross_entropy(targets, [self.prototypes(e) for e in embeddings], self.config.temperature)
        entropy = torch.special.entr(torch.cat(targets)).sum(dim=1).mean()
        return StepOutput(
            loss=loss,
            embeddings=embeddings[0].detach().float(),
            positives=embeddings[1].detach().float(),
            metrics={"teacher_entropy": entropy},
        )

    def parameter_groups(self) -> list[ParameterGroup]:
        """Backbone and projector, and the prototypes, which are frozen in the beginning."""
        encoder = [*self.backbone.parameters(), *self.projector.parameters()]
        return [
            ParameterGroup(parameters=[p for p in encoder if p.requires_grad]),
            ParameterGroup(parameters=[self.prototypes.weight], frozen_until=self.config.prototypes_frozen),
        ]

    def after_step(self, progress: float) -> None:
        """Move the teacher, whose momentum rises to 1 along half a cosine, its center and its temperature."""
        momentum = half_cosine(self.config.ema_momentum, 1.0, progress)
        self.momentum_encoder.follow(self.backbone, self.projector, self.prototypes, momentum=momentum)
        if self.left:
            self.center.copy_(moved_center(self.center, torch.cat(self.left), self.config.center_momentum))
        self.left.clear()
        self.teacher_temperature.fill_(teacher_temperature(self.config, progress))


def cross_entropy(targets: list[Tensor], outputs: list[Tensor], temperature: float) -> Tensor:
    """Mean of H(P_t, P_s) = -Σ P_t log P_s over the batch and all pairs of different views (eq. 1 to 3).

    Args:
        targets: the teacher's distributions P_t, each ``(B, K)``; row i of all comes from picture i.
        outputs: the student's outputs, each ``(B, K)``, before its softmax; of the targets' views first, then others.
        temperature: of the student's softmax.

    Returns:
        A float32 scalar, 0 or more.
    """
    logs = [functional.log_softmax(output.float() / temperature, dim=1) for output in outputs]
    terms = [-(p * log).sum(dim=1).mean() for j, p in enumerate(targets) for i, log in enumerate(logs) if i != j]
    return torch.stack(terms).mean()


@torch.no_grad()
def moved_center(center: Tensor, outputs: Tensor, momentum: float) -> Tensor:
    """Move the center ``(K,)`` towards the mean of all processes' teacher outputs ``(B, K)`` (eq. 4)."""
    return center.lerp(gather(outputs.mean(dim=0, keepdim=True)).mean(dim=0), 1 - momentum)


def teacher_temperature(config: DINOConfig, progress: float) -> float:
    """Return the temperature of the teacher's softmax at ``progress`` 0..1: a linear rise, then a constant."""
    start, end, warmup = (
        config.teacher_temperature_start,
        config.teacher_temperature,
        config.teacher_temperature_warmup,
    )
    return end if progress >= warmup else start + (end - start) * progress / warmup


def _initialise(layer: nn.Module) -> None:
    # As the authors' code: with biases of zero an embedding, which is normalised, begins as a function of the picture.
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
