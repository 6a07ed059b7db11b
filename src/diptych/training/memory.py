"""What a training step needs of memory, as a function of the pictures that a process computes at once.

A step holds weights, gradients and the optimizer's state, whatever the batch, and activations, which grow with it.
They are found by real steps of a few pictures, and a line is laid through what these took:

- on a CPU, what autograd keeps for the backward pass, counted once a storage. What the libraries keep for themselves is
  left out: real steps were measured to take 0.9 to 1.4 times as much (docs/scale.md).
- on a GPU, the most that torch's allocator has handed out.
"""

import contextlib
import gc
import shlex
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diptych.backbones.checkpointing import checkpoint_activations
from diptych.distributed import World
from diptych.errors import RunFolderError, UserError
from diptych.hardware import free_memory
from diptych.optim.build import build_optimizer, parameters
from diptych.runs import RunFolder
from diptych.training.build import build_method
from diptych.training.config import RunConfig, TrainConfig
from diptych.training.step import Backward
from diptych.types import Batch
from diptych.views.pipeline import ViewMaker

ALONE = World()
SIZES = (4, 8)
"""Pictures in the steps that are measured."""
LEAST = 2
"""Pictures that a process needs at once: batch normalisation has no variance over one."""
SHARE = 0.7
"""Of the free memory that a step may be estimated to need: real ones were measured to need up to 1.4 times as much."""
SIGNS = (
    *("can't allocate memory", "not enough memory", "bad_alloc", "out of memory"),
    *("could not create a memory", "could not create a primitive"),  # oneDNN gives no other reason
)
"""How torch, oneDNN and the allocators say that there is no more."""


@dataclass(frozen=True, kw_only=True)
class StepMemory:
    """What a step holds in one process, in bytes."""

    weights: int
    """Parameters and buffers, those of a momentum encoder included."""
    gradients: int
    """Twice over where several processes exchange them."""
    optimizer: int
    fixed: int
    """Of activations, what does not grow with the batch: weights that autocast has rounded."""
    each: int
    """Of activations, what one more picture adds."""

    def activations(self, pictures: int) -> int:
        """Return what activations need where so many pictures are computed at once."""
        return self.fixed + self.each * pictures

    def total(self, pictures: int) -> int:
        """Return what all needs."""
        return self.weights + self.gradients + self.optimizer + self.activations(pictures)


class Trial:
    """A run's method and optimizer, made anew to take steps on blank pictures of any number.

    Args:
        config: of the run; statistics of its pictures need not have been measured.
        device: where it will be computed.
    """

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.method, _, _ = build_method(config)
        self.method.to(device).to(memory_format=torch.channels_last)
        if config.train.checkpoint_activations:
            checkpoint_activations(self.method.backbone)
        self.optimizer = build_optimizer(self.method.parameter_groups(), config.optim)
        self.method.train()
        channels = config.channels
        views = replace(config.views, mean=(0.0,) * channels, std=(1.0,) * channels)
        if config.depth == "float32":
            views = replace(views, low=(0.0,) * channels, high=(1.0,) * channels)
        self._make_views = ViewMaker(views, config.image_size, device)

    def step(self, pictures: int) -> None:
        """Take a step on so many pictures at once."""
        config, size = self.config, self.config.image_size
        train = replace(config.train, batch_size=pictures, accumulate=1)
        scaler = torch.amp.GradScaler(self.device.type, enabled=False)
        backward = Backward(train, self._make_views, self.method, self.method, scaler, self.device, World())
        images = torch.zeros((pictures, config.channels, size, size), dtype=getattr(torch, config.depth))
        with torch.random.fork_rng(devices=[]):
            backward(Batch(images=images, indices=torch.arange(pictures)), 0)
        self.optimizer.step()
        self.method.left.clear()


def measure_step(config: RunConfig, device: torch.device, world: World = ALONE) -> StepMemory:
    """Take a few small steps and return what steps of any size need."""
    trial = Trial(config, device)
    trial.step(SIZES[0])  # makes gradients and the optimizer's state, and warms up what libraries keep
    held = [*trial.method.parameters(), *trial.method.buffers()]
    gradients = _bytes([p.grad for p in parameters(trial.optimizer) if p.grad is not None])
    optimizer = _bytes([v for state in trial.optimizer.state.values() for v in state.values() if torch.is_tensor(v)])
    few, more = (_activations(trial, size, held, gradients) for size in SIZES)
    each = (more - few) // (SIZES[1] - SIZES[0])
    return StepMemory(
        weights=_bytes(held),
        gradients=gradients * (2 if world.size > 1 else 1),
        optimizer=optimizer,
        fixed=max(0, few - each * SIZES[0]),
        each=each,
    )


def _activations(trial: Trial, pictures: int, held: list[Tensor], gradients: int) -> int:
    if trial.device.type == "cuda":
        trial.method.zero_grad(set_to_none=True)
        before = torch.cuda.memory_allocated(trial.device)
        torch.cuda.reset_peak_memory_stats(trial.device)
        trial.step(pictures)
        return max(0, torch.cuda.max_memory_allocated(trial.device) - before - gradients)
    own = {tensor.untyped_storage().data_ptr() for tensor in held}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:  # all that is kept lives until the backward pass: no address comes twice
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        trial.step(pictures)
    return sum(kept.values())


def _bytes(tensors: list[Tensor]) -> int:
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def at_once(train: TrainConfig, world: World) -> int:
    """Return how many pictures of a batch each process computes at once."""
    return train.batch_size // world.size // train.accumulate


def free_on(device: torch.device) -> int | None:
    """Return the bytes that are free where steps are computed, None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device))
    return free_memory()


def fitting_batch_size(
    config: RunConfig,
    most: int,
    device: torch.device,
    world: World = ALONE,
    *,
    held: int = 0,
    free: int | None = None,
) -> int | None:
    """Return the largest batch, over all processes, of which a step fits into the memory that is free.

    Each process then computes a power of two at once. As a step is estimated to need at most ``SHARE`` of what is free.

    Args:
        config: of the run, with any batch size.
        most: no batch is larger.
        device: where it will be computed.
        world: the processes that share a batch.
        held: bytes of pictures that each process will hold, if steps are computed in the same memory.
        free: bytes that are free; as many as there are now if None.

    Returns:
        The batch size; None where not even ``LEAST`` pictures at once fit, or a batch would be larger than ``most``.
    """
    parts = world.size * config.train.accumulate
    if most < LEAST * parts:
        return None
    free = free_on(device) if free is None else free
    try:
        needs = measure_step(config, device, world)
    except Exception as error:
        if not out_of_memory(error):
            raise
        return None
    finally:
        _let_go()
    sharing = 1 if device.type == "cuda" else world.local_size
    pictures = 1 << (most // parts).bit_length() - 1
    while pictures >= LEAST:
        if free is None or sharing * (needs.total(pictures) + held) <= free * SHARE:
            return pictures * parts
        pictures //= 2
    return None


def _let_go() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that there was no more memory, on a CPU or on a GPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


@contextlib.contextmanager
def memory_errors(run: RunFolder, config: RunConfig, device: torch.device, world: World) -> Iterator[None]:
    """Say which batch size fits where the block runs out of memory.

    Raises:
        UserError: it has, with the command to type.
    """
    free = free_on(device)  # later, allocators hold on to what the failed step has left
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # what they hold is in the way of the steps that are now tried
        _let_go()
        batch = config.train.batch_size
        kept = "; the last checkpoint is kept" if (run.checkpoints / "last").exists() else ""
        if (
            world.size > 1
        ):  # the others have stopped somewhere in their step: a method that asks them would wait for ever
            raise UserError(
                f"process {world.rank} is out of memory with a batch of {batch} pictures: choose a smaller "
                f"--batch-size; with --dry-run the command says what fits{kept}"
            ) from error
        fits = fitting_batch_size(config, batch - 1, device, free=free)
        if fits is None:
            raise UserError(
                f"out of memory with a batch of {batch} pictures, and no smaller one was found to fit: choose a "
                f"smaller --image-size, another --backbone, or --checkpoint-activations{kept}"
            ) from error
        raise UserError(
            f"out of memory with a batch of {batch} pictures; {fits} fit: type {_again(run, fits)}{kept}"
        ) from error


def _again(run: RunFolder, batch_size: int) -> str:
    """Return the command that began a run, with another batch size and another place."""
    with contextlib.suppress(RunFolderError):
        words = shlex.split(run.read_card()["command"])
        for flag, value in (("--out", f"{run.path}-{batch_size}"), ("--batch-size", str(batch_size))):
            if flag in words[:-1]:
                del words[words.index(flag) : words.index(flag) + 2]
            words += [flag, value]
        return f"`{shlex.join(words)}`"
    return f"the command again with --batch-size {batch_size} and a new --out"
