"""What every self-supervised method is: networks and a loss. It knows no device, loader, logger or command line."""

from typing import Protocol, runtime_checkable

from torch import nn

from diptych.types import ParameterGroup, StepOutput, Views


@runtime_checkable
class MethodConfig(Protocol):
    """A method's own dataclass: it names the method, lists its settings, and builds it."""

    @property
    def name(self) -> str:
        """The key in ``METHODS``."""
        ...

    @property
    def heads(self) -> str:
        """What stands on the backbone, for people: ``projector 2 × 2048, predictor 512``."""
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

    def loss(self, views: Views) -> StepOutput:
        """Compare the views of one batch, each ``(B, C, h, w)`` float32.

        Returns:
            The loss to minimise, embeddings ``(B, D)`` for the diagnosis, and further metrics.
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
