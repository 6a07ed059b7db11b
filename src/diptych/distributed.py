"""Many processes, one run: what ``torchrun`` starts, this file joins.

Alone, every function is a no-op, so that the loop reads the same on a laptop and on many nodes.
"""

import contextlib
import gc
import os
import signal
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from diptych.errors import ConfigError, UserError

ECHO = 1.0
"""Seconds in which a second signal is the first one again, as a launcher hands on what the scheduler sent to all."""
PATIENCE = timedelta(days=2)
"""How long a process waits for another."""


@dataclass(frozen=True)
class World:
    """This process's place among those of the run."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    """Processes on this machine."""

    @property
    def is_main(self) -> bool:
        """True for the one process that writes files and prints."""
        return self.rank == 0


def is_main() -> bool:
    """Whether this process is the one of its run that writes and prints; known before the processes have met."""
    return "TORCHELASTIC_RUN_ID" not in os.environ or os.environ["RANK"] == "0"


@contextlib.contextmanager
def joined() -> Iterator[World]:
    """Join the process group if ``torchrun`` started this process, and leave it at the end.

    gloo carries tensors on CPUs, NCCL those on GPUs.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield World()
        return
    local = int(os.environ["LOCAL_RANK"])
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    # While one process decodes millions of pictures for all, the others wait; torchrun ends them if it dies.
    store, rank, size = next(dist.rendezvous("env://", timeout=PATIENCE))  # type: ignore[attr-defined]
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=_own(store, rank, size), rank=rank, world_size=size, timeout=PATIENCE)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), local, int(os.environ["LOCAL_WORLD_SIZE"]))
    finally:
        gc.collect()  # a wrapped module sits in cycles: gone before its group is, whose threads must not outlive Python
        dist.destroy_process_group()


def _own(store: Any, rank: int, size: int) -> Any:
    """Meet the other processes in a part of the store that is this start's own.

    What torchrun starts again finds the store as those before have left it, with the addresses of processes that are
    gone. How often they were started is no help: machines may count differently. So the first process names a part of
    the store, and tells those that are there now: each is known by a word that nobody has used before.
    """
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"here/{rank}", own)
        store.wait([f"name/{own}"], PATIENCE)
        name = store.get(f"name/{own}").decode()
        store.set(f"ready/{name}/{rank}", "")
        return dist.PrefixStore(name, store)  # type: ignore[attr-defined]
    waiting, until = set(range(1, size)), time.monotonic() + PATIENCE.total_seconds()
    while waiting:
        if time.monotonic() > until:
            raise UserError(f"process {min(waiting)} of {size} did not come: see why it did not start, and start again")
        for other in sorted(waiting):
            if store.check([f"here/{other}"]):
                store.set(f"name/{store.get(f'here/{other}').decode()}", own)
        waiting = {other for other in waiting if not store.check([f"ready/{own}/{other}"])}
        time.sleep(0.02)
    return dist.PrefixStore(own, store)  # type: ignore[attr-defined]


def pick_device(name: str, world: World) -> torch.device:
    """Turn ``auto`` (a GPU where there is one), ``cpu``, ``cuda``, ``cuda:1`` or ``mps`` into a device.

    Raises:
        ConfigError: there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            name = f"cuda:{world.local_rank if world.size > 1 else torch.cuda.current_device()}"
            return pick_device(name, world)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name} cannot be used here; type --device auto or --device cpu") from error
    return device


def wrapped(module: nn.Module, world: World) -> nn.Module:
    """Return ``module`` so that its backward pass averages gradients over all processes.

    Batch norm statistics are shared across processes on GPUs (SyncBatchNorm exists for CUDA only); on CPUs each
    process normalises its own slice.
    """
    if world.size == 1:
        return module
    if next(module.parameters()).is_cuda:
        from timm.layers.norm_act import convert_sync_batchnorm

        module = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]  # timm's: torch's own would drop the activations inside timm's norms
    return nn.parallel.DistributedDataParallel(module)


def agreed(value: int, device: torch.device, world: World) -> int:
    """Return the greatest of all processes' values, by way of ``device``: no process may stop or go on alone."""
    if world.size == 1:
        return value
    shared = torch.tensor([value], dtype=torch.int32, device=device)
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return int(shared.item())


def greatest(value: int, world: World) -> int:
    """Return the greatest of all processes' values."""
    if world.size == 1:
        return value
    shared = torch.tensor([value])
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return int(shared.item())


def from_main(values: Sequence[float], world: World) -> tuple[float, ...]:
    """Return the first process's values, as many as every process gives."""
    if world.size == 1:
        return tuple(values)
    shared = torch.tensor(values, dtype=torch.float64)
    dist.broadcast(shared, 0)
    return tuple(shared.tolist())


def mean_over_ranks(value: Tensor, world: World) -> Tensor:
    """Mean of a scalar over all processes."""
    if world.size == 1:
        return value
    shared = value.detach().float().clone()
    dist.all_reduce(shared)
    return shared / world.size


def gather(rows: Tensor) -> Tensor:
    """Put the rows of all processes' tensors ``(B, …)`` below one another, in the order of their ranks: ``(W·B, …)``.

    Gradients flow back to the process that a row came from, summed over all processes: DistributedDataParallel, which
    averages, then gives the gradient that one process with the whole batch would have had. Alone, it returns ``rows``.
    """
    if not (dist.is_initialized() and dist.get_world_size() > 1):
        return rows
    gathered: Tensor = _Gather.apply(rows)
    return gathered


def first_row(count: int) -> int:
    """Where this process's ``count`` rows begin in what ``gather`` returns."""
    return count * dist.get_rank() if dist.is_initialized() else 0


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.count = len(rows)
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed[dist.get_rank() * ctx.count :][: ctx.count]


def barrier(world: World) -> None:
    """Wait until every process is here."""
    if world.size > 1:
        dist.barrier()


class StopFlag:
    """Set by SIGINT, SIGTERM or SIGUSR1: the loop ends its step, writes a checkpoint and returns. A second one kills.

    SIGUSR1 is what SLURM is asked to send some time before it ends a job (``--signal=USR1@120``).
    """

    SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGUSR1

    def __init__(self) -> None:
        self.asked = False
        self._since = 0.0
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "StopFlag":
        for number in self.SIGNALS:
            with contextlib.suppress(ValueError):  # not in the main thread: the host program keeps its handlers
                self._previous[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler or signal.SIG_DFL)  # type: ignore[arg-type]  # None: not set from Python

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if not self.asked:
            self.asked, self._since = True, time.monotonic()
        elif number != signal.SIGUSR1 and time.monotonic() - self._since > ECHO:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


def end_in_peace() -> None:
    """Let no SIGTERM end this process any more: torchrun sends it to all at the first that has ended."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def restarted() -> bool:
    """Whether torchrun or SLURM has started this very command before, and it was cut off."""
    return any(os.environ.get(name, "0") != "0" for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
