"""A whole pretraining run: read the pictures, build the parts, train, leave a backbone behind."""

import contextlib
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor

from diptych import checkpoint, figures
from diptych.checkpoint import Progress
from diptych.config import diff, to_dict
from diptych.distributed import StopFlag, World, agreed, barrier, joined, pick_device, restarted
from diptych.errors import RunFolderError, UserError
from diptych.frozen import save_backbone
from diptych.methods import Method, PatchesConfig
from diptych.progress import Terminal
from diptych.runs import RunFolder, write_json
from diptych.seeding import VIEWS, generator
from diptych.trackers.follow import Trackers
from diptych.training.build import (
    backbone_of,
    build_method,
    build_parts,
    refuse_queue,
    refuse_unusable,
    restore,
)
from diptych.training.card import run_card, saved_config, write_result
from diptych.training.config import RunConfig
from diptych.training.fit import fit_run
from diptych.training.loop import Parts, train
from diptych.training.memory import memory_errors
from diptych.training.order import Choice, Order
from diptych.training.pictures import (
    PLACES,
    Pictures,
    measured_for,
    open_pictures,
    sample_pictures,
    with_statistics,
)
from diptych.training.probe import Evaluator, OpenEvaluator, begin, observed
from diptych.training.recorder import Recorder
from diptych.training.recover import recover, since_recovery
from diptych.training.result import RunResult, Status, backbone_card
from diptych.training.warm import Start, normalised_anew, read_start
from diptych.views.pipeline import ViewMaker

SHOWN_PAIRS = 8


def pretrain(
    order: Order,
    out: str | Path,
    *,
    overwrite: bool = False,
    device: str = "auto",
    terminal: Terminal | None = None,
    evaluator: OpenEvaluator | None = None,
    trackers: Trackers | None = None,
) -> RunResult:
    """Train ``order`` into a new run folder.

    Args:
        order: the configuration and where it came from.
        out: the run folder, empty or not there yet.
        overwrite: delete an earlier run that lies there.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; nowhere if None.
        evaluator: opens what looks at the backbone at the end of each epoch; nothing does if None.
        trackers: services that get the numbers of the run; none if None.

    Raises:
        UserError: the pictures, the configuration or the folder cannot be used as asked.
    """
    with joined() as world:
        terminal = _voice(terminal, world)
        if restarted() and (begun := _begun(out, order, world)) is not None:
            if begun and (ended := RunFolder(out).read_card()["result"]) and ended["status"] == "collapsed":
                raise UserError(f"{out} was stopped because it had collapsed, so it is not begun again")
            if begun:
                return _resumed(RunFolder(out), None, device, world, terminal, evaluator, trackers)
            overwrite = True
        if world.is_main:
            RunFolder(out).refuse_if_used(overwrite=overwrite)
        # What can be refused is refused before minutes are spent on reading pictures, and before a folder is made.
        where = pick_device(device, world)
        start = read_start(order.config)
        barrier(world)  # --overwrite may delete the source: not before every process has read it
        without_gradients = isinstance(order.config.method, PatchesConfig)
        refuse_unusable(order.config, start.weights if start else None, world)
        for choice in order.choices:
            _say_choice(choice, terminal)
        for note in (f"training begins with the weights of {start.file}", *start.notes) if start else ():
            terminal.say(note)
        watch = None if without_gradients or evaluator is None else evaluator(order.config, world, terminal)
        pictures = open_pictures(order.config, world, terminal)
        begin(watch, pictures)
        order = replace(order, config=pictures.measured(order.config, world, terminal))
        refuse_queue(order.config, pictures.count)
        for choice in normalised_anew(start, order.config) if start else ():
            _say_choice(choice, terminal)
            order = replace(order, choices=[*order.choices, choice])
        run = RunFolder.create(out, overwrite=overwrite) if world.is_main else RunFolder(out)
        if world.is_main:
            terminal.log_to(run.log)
            labels = {"probe": watch.described} if watch else {}
            write_json(run.config, run_card(order, pictures, start, where, world) | labels)
            if start:
                start.keep(run)
            if not without_gradients:
                shown = pictures.some(SHOWN_PAIRS, order.config.train.seed)
                figures.view_pairs(run.views, *_some_views(order.config, shown))
        barrier(world)
        pictures.attach(run, world)
        if without_gradients:
            return fit_run(run, order.config, pictures, where, world, terminal)
        return _train(run, order.config, pictures, start, None, watch, where, world, terminal, trackers)


def resume(
    path: str | Path,
    *,
    config: RunConfig | None = None,
    device: str = "auto",
    terminal: Terminal | None = None,
    evaluator: OpenEvaluator | None = None,
    trackers: Trackers | None = None,
) -> RunResult:
    """Go on with an interrupted run, to the same loss curve as if it had not been interrupted.

    Args:
        path: the run folder.
        config: what the user asks for now; refused where it differs from the saved configuration.
        device: as for ``pretrain``.
        terminal: where to speak; nowhere if None.
        evaluator: as for ``pretrain``.
        trackers: as for ``pretrain``.

    Raises:
        UserError: no such run, other settings, changed pictures, or a damaged checkpoint.
    """
    with joined() as world:
        return _resumed(RunFolder.open(path), config, device, world, _voice(terminal, world), evaluator, trackers)


def _resumed(
    run: RunFolder,
    config: RunConfig | None,
    device: str,
    world: World,
    terminal: Terminal,
    evaluator: OpenEvaluator | None,
    trackers: Trackers | None,
) -> RunResult:
    card = run.read_card()
    saved = saved_config(run)
    changed = [] if config is None else [change for change in diff(saved, config) if not _may_change(change[0])]
    if changed:
        listed = ", ".join(f"{name} is {old}, not {new}" for name, old, new in changed)
        raise RunFolderError(
            f"{run.path} was begun with other settings ({listed}): leave these flags out, or choose a new --out"
        )
    if (begun_with := card["hardware"]["processes"]) != world.size:
        raise RunFolderError(
            f"{run.path} was begun with {begun_with} process{'es' if begun_with > 1 else ''}, and another number "
            f"would not go on to the same loss curve: resume it with `torchrun --nproc-per-node N` so that N "
            f"processes in all are {begun_with}"
        )
    saved = replace(saved, care=(config or saved).care)
    where = pick_device(device, world)
    point = checkpoint.load(run.checkpoints / "last")
    known = {record["name"] for record in run.read_lines(run.quarantine) if record["during"] == "pretrain"}
    storage = (config or saved).storage
    watch = evaluator(saved, world, terminal) if evaluator else None
    if storage.store == "auto" and (kept := card["data"].get("kept")) in PLACES:
        storage = replace(storage, store=kept)  # other free memory must not make it another run
    begun = card["data"]["fingerprint"]
    pictures = open_pictures(replace(saved, storage=storage), world, terminal, known, begun)
    if pictures.count != card["data"]["pictures"]:
        raise RunFolderError(
            f"{run.path} was begun with {card['data']['pictures']} pictures, and now there are {pictures.count}: "
            f"resume it with --store {card['data'].get('kept')}"
        )
    begin(watch, pictures, card.get("probe"))
    if world.is_main:
        terminal.log_to(run.log)
        run.keep_metrics_before(point.progress.step)
        write_json(run.config, card | {"config": card["config"] | {"care": to_dict(saved.care)}})
    barrier(world)
    pictures.attach(run, world)
    terminal.say(f"Going on with {run.path} from step {point.progress.step}")
    return _train(run, saved, pictures, None, point, watch, where, world, terminal, trackers)


def _begun(out: str | Path, order: Order, world: World) -> bool | None:
    """Whether this very command has begun a run at ``out`` that has a checkpoint; None where it has begun none."""
    run = RunFolder(out)
    begun = None
    with contextlib.suppress(RunFolderError):
        run = RunFolder.open(out)
        if run.read_card()["command"] == order.command:
            begun = (run.checkpoints / "last").exists()
    barrier(world)  # every process has looked before one of them changes anything
    return begun


def _say_choice(choice: Choice, terminal: Terminal) -> None:
    terminal.say(f"chose {choice.what}: {choice.why}")


def _may_change(name: str) -> bool:
    """Whether a setting changes no step that is taken (where pictures are kept, what is done in case of a fault)."""
    return name.startswith(("storage.", "care."))


def _voice(terminal: Terminal | None, world: World) -> Terminal:
    return terminal if terminal and world.is_main else Terminal(quiet=True)


def _train(
    run: RunFolder,
    config: RunConfig,
    pictures: Pictures,
    start: Start | None,
    point: checkpoint.Checkpoint | None,
    evaluator: Evaluator | None,
    device: torch.device,
    world: World,
    terminal: Terminal,
    trackers: Trackers | None,
) -> RunResult:
    """Build the parts, restore them from ``point`` if there is one, run the loop, and write what it came to.

    Where the guard is to recover a run, a collapsed one goes back to its last healthy checkpoint, and on from there.
    """
    if trackers and world.is_main:
        trackers.begin(run, to_dict(config), point.progress.step if point else 0, terminal.say)
    with StopFlag() as stop:
        while True:
            weights = backbone_of(point, config) if point else start.weights if start else None
            method, features, notes = build_method(config, weights)
            for note in notes:
                terminal.say(note)
            terminal.say(_summary(config, pictures.count, pictures.loader.steps_per_epoch, method, device, world))
            progress, begun = since_recovery(run, point.progress if point else Progress(step=0))
            steps = config.train.epochs * pictures.loader.steps_per_epoch
            with terminal.bar("training", steps, progress.step) as bar:
                per_epoch = pictures.loader.steps_per_epoch
                recorder = Recorder(run, config, steps, per_epoch, world, terminal, bar, trackers, begun)
                parts = build_parts(run, config, pictures, method, recorder, device, world, terminal.say)
                if evaluator:
                    parts = observed(parts, evaluator, features)
                if point:
                    restore(parts, point)
                    if evaluator:
                        evaluator.restore(point.state["evaluation"])
                # The host program's own random numbers go on as they would have.
                with torch.random.fork_rng(devices=[]), memory_errors(run, config, device, world):
                    progress, status = train(parts, progress, stop)
            barrier(world)  # the first process has written the last checkpoint by then
            if status != "collapsed" or config.care.on_collapse != "recover":
                break
            if agreed(int(stop.asked), device, world):
                status = "interrupted"  # what is resumed is found as it is now, and recovers then
                break
            recovered = recover(run, config, recorder, world, terminal)
            if not recovered:
                break
            config, point = recovered.config, recovered.point
    return _left_behind(parts, features, point, progress, status, pictures, terminal)


def _left_behind(
    parts: Parts,
    features: int,
    point: checkpoint.Checkpoint | None,
    progress: Progress,
    status: Status,
    pictures: Pictures,
    terminal: Terminal,
) -> RunResult:
    """Write the backbone of a run that is over, and what it came to."""
    run, config, world, method, recorder = parts.run, parts.config, parts.world, parts.method, parts.recorder
    pictures.tell(terminal)
    over = status in ("finished", "stopped early")
    if over and config.train.watched and (run.checkpoints / "best").exists():
        checkpoint.restore(method, checkpoint.load(run.checkpoints / "best"))
        terminal.say(f"Restored the weights of the epoch that was best by {config.train.watched}")
    if over and not all(weight.isfinite().all() for weight in method.state_dict().values()):
        raise UserError(
            f"the last step left weights that are not finite numbers: no backbone is written; try a lower --lr (now "
            f"{config.optim.lr}) with a new --out"
        )
    result = _result(run, recorder, progress, status, parts.loader.steps_per_epoch)
    if point and progress.step == point.progress.step and (before := run.read_card()["result"]):
        # No step was left to take: what the run had come to stands.
        result = replace(result, seconds=before["seconds"], images_per_second=before["images_per_second"])
    if world.is_main:
        if over:
            save_backbone(run, method.kept, backbone_card(config, features))
        figures.loss_curve(run.loss, recorder.records)
        write_result(run, {k: v for k, v in asdict(result).items() if k != "run"})
    barrier(world)
    return result


def _result(run: RunFolder, recorder: Recorder, progress: Progress, status: Status, per_epoch: int) -> RunResult:
    last = [record["loss"] for record in recorder.records if record["step"] >= progress.step - per_epoch]
    return RunResult(
        run=str(run.path),
        status=status,
        steps=progress.step,
        epochs=progress.step / per_epoch,
        loss=sum(last) / len(last) if last else None,
        seconds=recorder.seconds,
        images_per_second=recorder.images_per_second,
        warnings=recorder.warnings(),
    )


def sample_views(config: RunConfig) -> tuple[RunConfig, Tensor, list[Tensor]]:
    """Read some pictures of ``config.data`` and make their views as a run would.

    Returns:
        The configuration with its statistics measured from these pictures, the originals ``(n, C, S, S)``, and their
        views ``(n, C, s, s)`` float32 in 0..1, not normalised.

    Raises:
        DataError: the pictures cannot be found or read.
    """
    pictures = sample_pictures(config, SHOWN_PAIRS)
    config = with_statistics(config, measured_for(config, [pictures.numpy()]))
    return config, *_some_views(config, pictures)


def _some_views(config: RunConfig, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
    return pictures, ViewMaker(config.views, config.image_size).draw(pictures, generator(config.train.seed, VIEWS))


def _summary(
    config: RunConfig, pictures: int, per_epoch: int, method: Method, device: torch.device, world: World
) -> str:
    train, weights = config.train, sum(p.numel() for p in method.backbone.parameters())
    processes = f" in {world.size} processes" if world.size > 1 else ""
    return (
        f"Training {config.method.name} with {config.backbone} ({weights / 1e6:.2f} M weights) on {pictures} pictures "
        f"of {config.image_size} px: {train.epochs} epochs × {per_epoch} steps of {train.batch_size}, peak learning "
        f"rate {config.optim.told_peak_lr(train.batch_size)} ({device}{processes}, {train.precision})"
    )
