"""One step up to its gradient: views, loss and backward pass of a batch, in portions where that is asked for.

The views of a batch are a function of (seed, step) and of a picture's place in the whole batch: however many processes
and portions share it, every picture gets the same ones.
"""

import contextlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from diptych.distributed import World
from diptych.methods import Method
from diptych.optim.build import parameters
from diptych.seeding import VIEWS, generator
from diptych.training.config import TrainConfig
from diptych.types import Batch, StepOutput
from diptych.views.pipeline import ViewMaker

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Gradient:
    """What a step has come to before weights move."""

    output: StepOutput
    """Of the last portion; its loss is the mean over all portions of this process."""
    finite: tuple[bool, ...]
    """Of each picture of this process: whether its views hold finite numbers alone."""


class Backward:
    """Leaves the gradient of a batch in the parameters.

    Args:
        config: how a step is computed.
        make_views: makes views on ``device``.
        method: the method, as it is saved.
        model: the same, wrapped for several processes where there are several.
        scaler: of fp16; does nothing for other precisions.
        device: where it is computed.
        world: this process's place among those that share a batch.
    """

    def __init__(
        self,
        config: TrainConfig,
        make_views: ViewMaker,
        method: Method,
        model: nn.Module,
        scaler: torch.amp.GradScaler,
        device: torch.device,
        world: World,
    ) -> None:
        self.config, self.make_views, self.method, self.model = config, make_views, method, model
        self.scaler, self.device, self.world = scaler, device, world
        self._norms = [module for module in method.modules() if isinstance(module, nn.modules.batchnorm._NormBase)]
        self._before: list[Tensor] = []

    def __call__(self, batch: Batch, step: int) -> Gradient:
        """Add up the gradients of the portions of ``batch``; those of all processes are averaged."""
        portions = self.config.accumulate
        share = len(batch.images)
        size = share // portions
        self.method.zero_grad(set_to_none=True)
        self._before = [buffer.clone() for buffer in self._statistics()]
        losses, finite = [], []
        for number, images in enumerate(torch.split(batch.images, size)):
            part = self.world.rank * portions + number
            first = self.world.rank * share + number * size
            draws = generator(self.config.seed, VIEWS, step)
            views = self.make_views(
                images.to(self.device, non_blocking=True), draws, rows=(first, self.config.batch_size)
            )
            views = [view.contiguous(memory_format=torch.channels_last) for view in views]
            torch.manual_seed(generator(self.config.seed, VIEWS, step, part).initial_seed())  # dropout and the like
            # Gradients of all but the last portion stay with their process: they are exchanged once a step.
            last = number == portions - 1 or self.world.size == 1
            with contextlib.nullcontext() if last else self.model.no_sync():  # type: ignore[operator]
                with self._autocast():
                    output = self.model(views)
                self.scaler.scale(output.loss / portions).backward()
            losses.append(output.loss.detach())
            finite.append(torch.stack([view.isfinite().flatten(1).all(dim=1) for view in views]).all(dim=0))
        output = replace(output, loss=torch.stack(losses).mean())
        return Gradient(output=output, finite=tuple(torch.cat(finite).tolist()))

    def take_back(self) -> None:
        """Undo what the forward passes of a step that is not taken have left: statistics of norms, and notes."""
        for buffer, before in zip(self._statistics(), self._before, strict=True):
            buffer.copy_(before)
        self.method.left.clear()

    def _statistics(self) -> list[Tensor]:
        return [buffer for norm in self._norms for buffer in norm.buffers(recurse=False)]

    def _autocast(self) -> contextlib.AbstractContextManager[None]:
        dtype = DTYPES[self.config.precision]
        return torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext()


def gradient_norm(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler, most: float | None) -> Tensor:
    """Return the length of the gradient of all weights together, and shorten it to ``most`` where it is longer."""
    scaler.unscale_(optimizer)
    weights = parameters(optimizer)
    norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    if most is not None:
        nn.utils.clip_grads_with_norm_(weights, most, norm)
    return norm
