"""What a run will need, before anything is spent on it: a few real steps, and arithmetic. Nothing is written.

Pictures, views, network, loss and optimizer are the run's own; only what a run would write is left out. What is
foretold was compared with real runs (docs/scale.md, "How far off a plan is").
"""

import itertools
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from diptych.config import to_dict, with_settings
from diptych.data.stores.store import free_disk
from diptych.diagnostics import diagnose
from diptych.distributed import World, greatest, joined, mean_over_ranks, pick_device
from diptych.errors import ConfigError
from diptych.frozen import prepared
from diptych.hardware import free_memory, resident_memory
from diptych.methods.patches import PatchesConfig, fit
from diptych.progress import Terminal
from diptych.runs import RunFolder
from diptych.seeding import WEIGHTS, generator
from diptych.training.build import build_method, build_parts, refuse_queue, refuse_unusable
from diptych.training.config import RunConfig
from diptych.training.fit import build_network
from diptych.training.loop import Parts
from diptych.training.memory import SHARE, SIZES, Trial, at_once, fitting_batch_size, free_on, measure_step
from diptych.training.order import Choice, Order
from diptych.training.pictures import Pictures, open_pictures, store_key
from diptych.training.recorder import RECORDS, Recorder
from diptych.training.result import backbone_card
from diptych.training.step import gradient_norm
from diptych.training.warm import read_start
from diptych.types import Batch

STEPS = 3
"""Steps timed, after one that is not."""
RECORD_BYTES = 600
"""Of one line of ``metrics.jsonl``, at most."""
SMALL_FILES = 2 << 20
"""Bytes of a run's figures, report, log and card."""
STREAM_BYTES = 256 << 20
"""Bytes of encoded pictures that a process holds where they are streamed, or of a disk store that stay in memory."""

Found = dict[str, Any]


def dry_run(order: Order, out: str | None = None, *, device: str = "auto", terminal: Terminal | None = None) -> Found:
    """Find out what a run of ``order`` will need; what labels of ``--probe`` cost is left out.

    Args:
        order: the configuration and where it came from.
        out: where the run would go, for the space on that disk; here if None.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; nowhere if None.

    Returns:
        ``config``, ``choices``, ``command``, ``pictures``, ``first_batch``, ``parameters``, ``flop_per_picture``,
        ``memory``, ``time`` and ``disk``; bytes, seconds and counts. ``time`` is None where a step does not fit.

    Raises:
        UserError: the pictures or the configuration cannot be used as asked.
    """
    with joined() as world:
        quiet = Terminal(quiet=True)
        say = (terminal if terminal and world.is_main else quiet).say
        where, config = pick_device(device, world), order.config
        without_gradients = isinstance(config.method, PatchesConfig)
        start = read_start(config)
        refuse_unusable(config, start.weights if start else None, world)
        del start
        pictures = open_pictures(config, world, quiet, unread=True)
        refuse_queue(config, pictures.count)
        config = pictures.measured(config, world, quiet)
        say(f"{pictures.note}; reading a few batches")
        batches, seconds = _read(pictures)
        say("taking a few steps")
        plan = _plan_fit if without_gradients else _plan_steps
        return {
            "recipe": order.recipe,
            "command": order.command,
            "config": to_dict(config),
            "choices": [asdict(choice) for choice in order.choices],
            "device": torch.cuda.get_device_name(where) if where.type == "cuda" else where.type,
            "processes": world.size,
            "pictures": {
                "note": pictures.note,
                "count": pictures.count,
                "kept": pictures.kept,
                "unreadable": len(pictures.quarantine),
            },
            "first_batch": {
                "shape": list(batches[0].images.shape),
                "dtype": config.depth,
                "range": [batches[0].images.min().item(), batches[0].images.max().item()],
                "seconds": seconds[0],
            },
            **plan(config, pictures, batches, sum(seconds) / len(seconds), out, where, world),
        }


def _read(pictures: Pictures) -> tuple[list[Batch], list[float]]:
    """Read as many batches as are to be computed, or an epoch; returns them and the seconds that each took."""
    batches, seconds = [], []
    with closing(pictures.loader.epoch(0)) as coming:  # type: ignore[type-var]
        begun = time.perf_counter()
        for batch in itertools.islice(coming, 1 + STEPS):
            batches.append(batch)
            seconds.append(time.perf_counter() - begun)
            begun = time.perf_counter()
    return batches, seconds


def _plan_steps(
    config: RunConfig,
    pictures: Pictures,
    batches: Sequence[Batch],
    reading: float,
    out: str | None,
    device: torch.device,
    world: World,
) -> Found:
    """Plan a run that learns by gradients; ``reading`` is the seconds that a batch takes to be decoded."""
    trial = Trial(config, device)
    with FlopCounterMode(display=False) as counter:
        trial.step(SIZES[0])
    weights = list(trial.method.parameters())
    parameters = {
        "backbone": sum(p.numel() for p in trial.method.backbone.parameters()),
        "method": sum(p.numel() for p in weights),
        "trained": sum(p.numel() for p in weights if p.requires_grad),
    }
    saved = sum(tensor.nbytes for tensor in trial.method.state_dict().values())
    left = sum(tensor.nbytes for tensor in trial.method.kept.state_dict().values())
    del trial, weights
    needs = measure_step(config, device, world)
    together = at_once(config.train, world)
    parts = {
        "weights": needs.weights,
        "gradients": needs.gradients,
        "optimizer": needs.optimizer,
        "activations": needs.activations(together),
    }
    memory = _memory(config, pictures, parts, device, world)
    memory["pictures_at_once"] = together
    if not memory["fits"]:
        held = memory["host"]["pictures"]
        memory["fitting_batch_size"] = fitting_batch_size(config, config.train.batch_size, device, world, held=held)
    steps = config.train.epochs * pictures.loader.steps_per_epoch
    return {
        "parameters": parameters,
        "flop_per_picture": counter.get_total_flops() / SIZES[0],
        "memory": memory,
        "time": _time(config, pictures, _timed(config, pictures, batches, device, world), reading, steps, device)
        if memory["fits"]
        else None,
        "disk": _disk(config, pictures, saved + needs.optimizer, left, min(steps, RECORDS), out),
    }


def _timed(
    config: RunConfig, pictures: Pictures, batches: Sequence[Batch], device: torch.device, world: World
) -> list[float]:
    """Take a step that is not timed and some that are; returns the seconds of these."""
    parts = _parts(config, pictures, device, world)
    parts.method.train()
    seconds = []
    with torch.random.fork_rng(devices=[]):
        for step, batch in enumerate(itertools.islice(itertools.cycle(batches), 1 + STEPS)):
            begun = time.perf_counter()
            made = parts.backward(batch, step)
            float(gradient_norm(parts.optimizer, parts.scaler, config.train.clip_norm))
            parts.scaler.step(parts.optimizer)
            parts.scaler.update()
            parts.method.after_step(0.0)
            float(mean_over_ranks(made.output.loss, world))
            diagnose(made.output.embeddings, made.output.positives)
            seconds.append(time.perf_counter() - begun)
    return seconds[1:]


def _parts(config: RunConfig, pictures: Pictures, device: torch.device, world: World) -> Parts:
    nowhere, quiet = RunFolder(os.devnull), Terminal(quiet=True)
    method, _, _ = build_method(config)
    with quiet.bar("", 1) as bar:
        recorder = Recorder(nowhere, config, 1, 1, world, quiet, bar)
    return build_parts(nowhere, config, pictures, method, recorder, device, world, quiet.say)


def _plan_fit(
    config: RunConfig,
    pictures: Pictures,
    batches: Sequence[Batch],
    reading: float,
    out: str | None,
    device: torch.device,
    world: World,
) -> Found:
    """Plan a run without gradients: fit the network to a few batches, and tell what grows with them from the rest."""
    assert isinstance(config.method, PatchesConfig)
    network, features, _ = build_network(config, world)
    network.to(device)
    made, few = backbone_card(config, features).preprocessing, [*itertools.islice(itertools.cycle(batches), 1 + STEPS)]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network.codes(prepared(batches[0].images[: SIZES[0]], made, device))
    marks: list[tuple[str, float]] = []
    begun = time.perf_counter()
    fit(
        network,
        lambda: (prepared(batch.images, made, device) for batch in few),
        config.method,
        generator(config.train.seed, WEIGHTS, 1),
        lambda done, what: marks.append((what, time.perf_counter())),
    )
    whole = time.perf_counter() - begun
    passes = [_gaps([at for what, at in marks if what == name]) for name in ("whitening", "projection")]
    seconds = [first + second for first, second in zip(*passes, strict=True)]
    weights, filters = sum(tensor.nbytes for tensor in network.buffers()), len(network.filters)
    parts = {
        "weights": weights,
        # Two covariances, what is made of them, and the workspace of a decomposition; and codes, some at a time.
        "sums": 7 * 8 * filters**2,
        "codes": 3 * (32 << 20),
    }
    steps = pictures.loader.steps_per_epoch
    spent = _time(config, pictures, seconds, reading, steps, device, passes=2)
    rest = max(0.0, whole - statistics.median(seconds) * len(few))
    for bound in ("seconds", "least_seconds", "most_seconds"):
        spent[bound] += rest
    return {
        "parameters": {"backbone": weights // 4, "method": weights // 4, "trained": 0},
        "flop_per_picture": counter.get_total_flops() / min(SIZES[0], len(batches[0].images)),
        "memory": _memory(config, pictures, parts, device, world) | {"pictures_at_once": at_once(config.train, world)},
        "time": spent,
        "disk": _disk(config, pictures, 0, weights, 0, out),
    }


def _gaps(times: Sequence[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


def held_in_memory(config: RunConfig, pictures: Pictures) -> int:
    """Return the bytes of pictures that each process holds."""
    whole = pictures.count * config.image_size**2 * config.pixels.bytes
    return {"memory": whole, "disk": min(STREAM_BYTES, whole), "none": 0, "shards": STREAM_BYTES}[pictures.kept]


def choose_batch_size(config: RunConfig, device: str) -> tuple[int, Choice]:
    """Choose a batch size no larger than that of ``config`` or a quarter of the pictures, so that a step fits.

    Raises:
        ConfigError: none fits, the method takes no steps, or several processes would have to agree on one.
    """
    if isinstance(config.method, PatchesConfig):
        raise ConfigError("patches takes no steps, and any batch size gives the same: leave out --batch-size auto")
    if torch.distributed.is_torchelastic_launched():
        raise ConfigError(
            "--batch-size auto looks at one process: under torchrun type a number; --dry-run says whether it fits"
        )
    least = {"batch_size": 2 * config.train.accumulate}
    pictures = open_pictures(with_settings(config, least), World(), Terminal(quiet=True), unread=True)
    most = max(least["batch_size"], min(config.train.batch_size, pictures.count // 4))
    where = pick_device(device, World())
    held = 0 if where.type == "cuda" else held_in_memory(config, pictures)
    size = fitting_batch_size(config, most, where, held=held)
    if size is None:
        raise ConfigError(
            "not even two pictures at once fit into the memory that is free: choose a smaller --image-size or another "
            "--backbone"
        )
    why = (
        f"a power of two of which a step fits into {100 * SHARE:.0f} % of the free memory, at most {most}: the "
        "recipe's own size, or a quarter of the pictures"
    )
    return size, Choice(what=f"--batch-size {size}", why=why)


def _memory(config: RunConfig, pictures: Pictures, parts: dict[str, int], device: torch.device, world: World) -> Found:
    """Add up what each process holds, and compare it with what is free."""
    host = {"pictures": held_in_memory(config, pictures), "program": resident_memory()}
    apart = device.type == "cuda"
    free, free_device = free_memory(), free_on(device)
    # What the program itself holds is taken already.
    wanted = world.local_size * (host["pictures"] + (0 if apart else sum(parts.values())))
    fits = free is None or wanted <= free
    if apart and free_device is not None:
        fits = fits and sum(parts.values()) <= free_device
    return {
        "step": parts,
        "host": host,
        "total": sum(parts.values()) + sum(host.values()),
        "free": free,
        "free_on_gpu": free_device if apart else None,
        "fits": not greatest(int(not fits), world),  # no process may take steps alone
    }


def _time(
    config: RunConfig,
    pictures: Pictures,
    seconds: Sequence[float],
    reading: float,
    steps: int,
    device: torch.device,
    passes: int = 1,
) -> Found:
    """Foretell how long ``steps`` take from the ``seconds`` of a few; ``reading`` is those of decoding a batch."""
    again = pictures.kept in ("none", "shards")
    cores_shared = device.type == "cpu"
    once = 0.0 if again else reading * pictures.count / config.train.batch_size
    if pictures.kept == "disk" and (config.storage.folder / store_key(config) / "store.json").exists():
        once = 0.0

    def whole(step: float) -> float:
        waited = passes * reading if again else 0.0
        # Pictures are read while steps are computed; on a CPU by the same cores.
        return once + steps * (step + waited if cores_shared else max(step, waited))

    median = statistics.median(seconds)
    return {
        "step_seconds": list(seconds),
        "reading_seconds": once,
        "batch_seconds": reading,
        "pictures_per_second": config.train.batch_size * steps / max(1e-9, whole(median) - once),
        "steps": steps,
        "seconds": whole(median),
        "least_seconds": whole(min(seconds)),
        "most_seconds": whole(max(seconds)),
    }


def _disk(
    config: RunConfig, pictures: Pictures, checkpoint: int, backbone: int, records: int, out: str | None
) -> Found:
    """Add up what a run writes; a store lies on a disk of its own, perhaps, and is there for the next run."""
    linked = (config.train.watched is not None) + (config.care.on_collapse == "recover")
    kept = config.care.keep + linked + 1  # one more while it is written
    store = pictures.count * config.image_size**2 * config.pixels.bytes if pictures.kept == "disk" else 0
    run = backbone + kept * checkpoint + records * RECORD_BYTES + 8 * pictures.count + SMALL_FILES
    there = RunFolder(out or ".").path.absolute()
    return {
        "checkpoint": checkpoint,
        "checkpoints": kept if checkpoint else 0,
        "metrics": records * RECORD_BYTES,
        "run": run,
        "run_free": free_disk(there),
        "store": store,
        "store_folder": str(config.storage.folder) if store else None,
        "store_free": free_disk(config.storage.folder) if store else None,
    }
