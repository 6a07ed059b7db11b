"""DINO: Emerging Properties in Self-Supervised Vision Transformers, Caron et al. 2021 (arXiv 2104.14294).

The network, the student, tells which of many prototypes a view is like; a slow copy of it, the teacher, told that of
another view. Two things keep the teacher from saying the same of every picture: its outputs are centred (no prototype
is always the likeliest) and sharpened by a low temperature (not all are equally likely).

Deviations from the paper and its code, beside views that are drawn alike (theirs differ in blur and solarising; recipes
take the middle of both, as VICReg, arXiv 2105.04906, app. C.1):

- What lasts a number of epochs there is a part of the run here, out of the 100 epochs of its ablations: the teacher's
  temperature rises for 0.3 of it, at each step instead of each epoch, and the prototypes are frozen for 0.01 of it.
- All full-size views teach, where there are more than two.
- Each view passes through the network by itself, not with all others of its size: felt by batch norm alone.
- No clipping of gradients, and no stochastic depth, which the code has for the student's ViT.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from tyro.conf import Suppress

from diptych.distributed import gather
from diptych.errors import ConfigError
from diptych.heads import Prototypes, mlp
from diptych.methods.base import About, Method, full_size
from diptych.methods.momentum import MomentumEncoder
from diptych.optim.schedule import half_cosine
from diptych.types import ParameterGroup, StepOutput, Views


@dataclass(frozen=True, kw_only=True)
class DINOConfig:
    """Settings of DINO; the defaults are the paper's for a ViT on ImageNet."""

    about: ClassVar[About] = About(
        idea="Every view says which prototypes it is like, as a slow copy of the network did of another view.",
        paper="Caron et al. 2021, arXiv 2104.14294",
        needs="a ViT, AdamW, small views (multi-crop), and memory for a second network; long runs",
    )
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
    teacher_temperature_warmup: float = 0.3
    """Part of the run, 0..1, in which it rises: 30 epochs of 100."""
    center_momentum: float = 0.9
    """Momentum of the mean that is subtracted from the teacher's outputs."""
    ema_momentum: float = 0.996
    """Momentum of the teacher at the start; it rises to 1. The authors advise 0.9995 for batches of 256."""

    def __post_init__(self) -> None:
        if self.projector_layers < 1:
            raise ConfigError(f"--projector-layers must be 1 or more, not {self.projector_layers}")
        for option in ("projector_width", "projector_dim", "prototypes"):
            self._check(option, getattr(self, option) >= 2, "2 or more")
        for option in ("temperature", "teacher_temperature", "teacher_temperature_start"):
            self._check(option, getattr(self, option) > 0, "above 0")
        for option in ("prototypes_frozen", "teacher_temperature_warmup"):
            self._check(option, 0 <= getattr(self, option) <= 1, "a part of the run, 0..1")
        for option in ("center_momentum", "ema_momentum"):
            self._check(option, 0 <= getattr(self, option) < 1, "in 0..1, 1 excluded")

    def _check(self, option: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise ConfigError(f"--{option.replace('_', '-')} must be {allowed}, not {getattr(self, option)}")

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people."""
        return (
            f"projector {self.projector_layers} × {self.projector_width} → {self.projector_dim}, "
            f"{self.prototypes} prototypes"
        )

    def build(self, backbone: nn.Module, num_features: int) -> "DINO":
        """Make the method around ``backbone``, which yields ``(B, num_features)``."""
        return DINO(self, backbone, num_features)


class DINO(Method):
    """Backbone, projector, prototypes, and a slow copy of the three: the mean of H(P_t(x'), P_s(x)) (eq. 3).

    x' is a full-size view and x any other one.
    """

    center: Tensor
    teacher_temperature: Tensor
    _outputs: Tensor

    def __init__(self, config: DINOConfig, backbone: nn.Module, num_features: int) -> None:
        super().__init__(backbone)
        self.config = config
        widths = [config.projector_width] * (config.projector_layers - 1)
        self.projector = mlp(num_features, (*widths, config.projector_dim), norm=config.projector_norm, gelu=True)
        self.projector.apply(_initialise)
        self.prototypes = Prototypes(config.projector_dim, config.prototypes)
        self.momentum_encoder = MomentumEncoder(self.backbone, self.projector, self.prototypes)
        self.register_buffer("center", torch.zeros(config.prototypes))
        self.register_buffer("teacher_temperature", torch.tensor(teacher_temperature(config, 0.0)))

    def loss(self, views: Views) -> StepOutput:
        """Cross-entropy, in 0 and above; log(prototypes) where both networks say nothing.

        The metric ``teacher_entropy`` is the part of it that no student can avoid. It tells both ways of collapsing:
        log(prototypes), the teacher says nothing (it is not sharp enough); 0, it says the same of every picture (it is
        not centred enough).
        """
        embeddings = [self.projector(self.backbone(view)) for view in views]
        taught = [self.momentum_encoder(view).float() for view in views[: full_size(views)]]
        self._outputs = torch.cat(taught).mean(dim=0, keepdim=True)
        targets = [functional.softmax((output - self.center) / self.teacher_temperature, dim=1) for output in taught]
        loss = cross_entropy(targets, [self.prototypes(e) for e in embeddings], self.config.temperature)
        entropy = torch.special.entr(torch.cat(targets)).sum(dim=1).mean()
        return StepOutput(loss=loss, embeddings=embeddings[0].detach(), metrics={"teacher_entropy": entropy})

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
        self.center.copy_(moved_center(self.center, self._outputs, self.config.center_momentum))
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
