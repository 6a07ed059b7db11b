"""What every self-supervised method is: networks and a loss. It knows no device, loader, logger or command line."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from diptych.types import ParameterGroup, StepOutput, Views


@dataclass(frozen=True, kw_only=True)
class About:
    """What ``diptych methods`` says of a method, for people who choose one."""

    idea: str
    """One sentence."""
    paper: str
    """First authors, year and arXiv number."""
    needs: str
    """Batch size, memory, queue, views: what it asks for."""


@runtime_checkable
class MethodConfig(Protocol):
    """A method's own dataclass: it names the method, lists its settings, and builds it."""

    about: ClassVar[About]
    losses_compare: ClassVar[bool]
    """Whether a lower loss later in the run means better: early stopping needs it."""
    per_picture: ClassVar[bool]
    """Whether the loss is a mean over pictures that do not see one another: a batch can be computed in portions."""

    @property
    def name(self) -> str:
        """The key in ``METHODS``."""
        ...

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people: ``projector 2048 → 128, queue of 4096``."""
        ...

    def build(self, backbone: nn.Module, num_features: int) -> "Method":
        """Make the method around ``backbone``, which yields ``(B, num_features)``."""
        ...


class Method(nn.Module):
    """Base class: the backbone, and what the loop calls, in the order in which it calls it.

    ``forward(views)`` is the loss, so that DistributedDataParallel can wrap a method as it is.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.left: list[Tensor] = []
        """What losses leave for ``after_step``; one entry for each portion of a step. Not taken steps leave nothing."""

    @property
    def kept(self) -> nn.Module:
        """The network that a run leaves behind: ``(B, C, h, w)`` → ``(B, num_features)``."""
        return self.backbone

    def loss(self, views: Views) -> StepOutput:
        """Compare the views of one batch, each ``(B, C, h, w)`` float32.

        Returns:
            The loss to minimise, embeddings ``(B, D)`` float32 for the diagnosis, and further metrics.
        """
        raise NotImplementedError

    def forward(self, views: Views) -> StepOutput:
        """Same as ``loss``."""
        return self.loss(views)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Everything that is optimised, each parameter exactly once."""
        return [ParameterGroup(parameters=[p for p in self.parameters() if p.requires_grad])]

    def after_step(self, progress: float) -> None:
        """Move what gradients do not (a momentum encoder, a queue); ``progress`` is the part of the run done, 0..1."""


def widths(hidden: int, layers: int, output: int) -> list[int]:
    """List the length of what each layer of a head yields: all the same but the last."""
    return [*[hidden] * (layers - 1), output]


def arrows(*widths: int) -> str:
    """Tell a head by what its layers yield, for people: ``2048 → 2048 → 128``."""
    return " → ".join(map(str, widths))


def full_size(views: Views) -> int:
    """Count the views that are as large as the first; the small ones of multi-crop come after them."""
    return sum(view.shape == views[0].shape for view in views)


def predictions(views: int) -> list[tuple[int, int]]:
    """List who learns from whom, as (i, j): each view i from the first two, save itself.

    With two views: (0, 1), (1, 0). With more of them (multi-crop, arXiv 2006.09882) the others only learn.
    """
    return [(i, j) for i in range(views) for j in range(2) if i != j]


def pairs(views: int) -> list[tuple[int, int]]:
    """The same where neither of the two is a target: with two views (0, 1) alone."""
    return [(0, 1), *((i, j) for i in range(2, views) for j in range(2))]
