"""A whole pretraining run: read the pictures, build the parts, train, leave a backbone behind."""

from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from diptych import checkpoint, figures
from diptych.checkpoint import Progress
from diptych.config import diff
from diptych.distributed import StopFlag, World, barrier, joined, pick_device, wrapped
from diptych.errors import ConfigError, RunFolderError, UserError
from diptych.frozen import initial_backbone, save_backbone
from diptych.methods import Method, PatchesConfig
from diptych.optim.build import build_optimizer
from diptych.progress import Terminal
from diptych.runs import RunFolder, write_json
from diptych.seeding import VIEWS, WEIGHTS, generator
from diptych.training.card import run_card, saved_config, write_result
from diptych.training.config import RunConfig
from diptych.training.fit import build_network, fit_run
from diptych.training.loop import Parts, train
from diptych.training.order import Choice, Order
from diptych.training.pictures import (
    PLACES,
    Pictures,
    measured_for,
    open_pictures,
    sample_pictures,
    with_statistics,
)
from diptych.training.recorder import Recorder
from diptych.training.result import RunResult, Status, backbone_card
from diptych.training.warm import Start, normalised_anew, read_start
from diptych.views.pipeline import ViewMaker

SHOWN_PAIRS = 8


def pretrain(
    order: Order, out: str | Path, *, overwrite: bool = False, device: str = "auto", terminal: Terminal | None = None
) -> RunResult:
    """Train ``order`` into a new run folder.

    Args:
        order: the configuration and where it came from.
        out: the run folder, empty or not there yet.
        overwrite: delete an earlier run that lies there.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        terminal: where to speak; nowhere if None.

    Raises:
        UserError: the pictures, the configuration or the folder cannot be used as asked.
    """
    with joined() as world:
        terminal = _voice(terminal, world)
        if world.is_main:
            RunFolder(out).refuse_if_used(overwrite=overwrite)
        # What can be refused is refused before minutes are spent on reading pictures, and before a folder is made.
        where = pick_device(device, world)
        start = read_start(order.config)
        barrier(world)  # --overwrite may delete the source: not before every process has read it
        without_gradients = isinstance(order.config.method, PatchesConfig)
        if without_gradients:
            build_network(order.config, world)
        else:
            method, _, _ = build_method(order.config, start)
            _try_views(method.backbone, order.config)
        for choice in order.choices:
            _say_choice(choice, terminal)
        for note in (f"training begins with the weights of {start.file}", *start.notes) if start else ():
            terminal.say(note)
        pictures = open_pictures(order.config, world, terminal)
        order = replace(order, config=pictures.measured(order.config, world, terminal))
        if getattr(order.config.method, "queue_size", 0) >= pictures.count:
            raise ConfigError(
                f"--queue-size must be below the number of pictures, {pictures.count}: choose a smaller one"
            )
        for choice in normalised_anew(start, order.config) if start else ():
            _say_choice(choice, terminal)
            order = replace(order, choices=[*order.choices, choice])
        run = RunFolder.create(out, overwrite=overwrite) if world.is_main else RunFolder(out)
        if world.is_main:
            terminal.log_to(run.log)
            write_json(run.config, run_card(order, pictures, start, where, world))
            if start:
                start.keep(run)
            if not without_gradients:
                shown = pictures.some(SHOWN_PAIRS, order.config.train.seed)
                figures.view_pairs(run.views, *_some_views(order.config, shown))
        barrier(world)
        pictures.attach(run, world)
        if without_gradients:
            return fit_run(run, order.config, pictures, where, world, terminal)
        return _train(run, order.config, pictures, start, None, where, world, terminal)


def resume(
    path: str | Path, *, config: RunConfig | None = None, device: str = "auto", terminal: Terminal | None = None
) -> RunResult:
    """Go on with an interrupted run, to the same loss curve as if it had not been interrupted.

    Args:
        path: the run folder.
        config: what the user asks for now; refused where it differs from the saved configuration.
        device: as for ``pretrain``.
        terminal: where to speak; nowhere if None.

    Raises:
        UserError: no such run, other settings, changed pictures, or a damaged checkpoint.
    """
    with joined() as world:
        terminal = _voice(terminal, world)
        run = RunFolder.open(path)
        card = run.read_card()
        saved = saved_config(run)
        changed = [] if config is None else [change for change in diff(saved, config) if not _is_storage(change[0])]
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
        where = pick_device(device, world)
        point = checkpoint.load(run.checkpoints / "last")
        known = {record["name"] for record in run.read_lines(run.quarantine) if record["during"] == "pretrain"}
        storage = (config or saved).storage
        if storage.store == "auto" and (kept := card["data"].get("kept")) in PLACES:
            storage = replace(storage, store=kept)  # other free memory must not make it another run
        begun = card["data"]["fingerprint"]
        pictures = open_pictures(replace(saved, storage=storage), world, terminal, known, begun)
        if pictures.count != card["data"]["pictures"]:
            raise RunFolderError(
                f"{run.path} was begun with {card['data']['pictures']} pictures, and now there are {pictures.count}: "
                f"resume it with --store {card['data'].get('kept')}"
            )
        if world.is_main:
            terminal.log_to(run.log)
            run.keep_metrics_before(point.progress.step)
        barrier(world)
        pictures.attach(run, world)
        terminal.say(f"Going on with {run.path} from step {point.progress.step}")
        return _train(run, saved, pictures, None, point, where, world, terminal)


def _say_choice(choice: Choice, terminal: Terminal) -> None:
    terminal.say(f"chose {choice.what}: {choice.why}")


def _is_storage(name: str) -> bool:
    """Whether a setting only says where pictures are kept: a run may go on with another."""
    return name.startswith("storage.")


def _voice(terminal: Terminal | None, world: World) -> Terminal:
    return terminal if terminal and world.is_main else Terminal(quiet=True)


def _train(
    run: RunFolder,
    config: RunConfig,
    pictures: Pictures,
    start: Start | None,
    point: checkpoint.Checkpoint | None,
    device: torch.device,
    world: World,
    terminal: Terminal,
) -> RunResult:
    """Build the parts, restore them from ``point`` if there is one, run the loop, and write what it came to."""
    loader = pictures.loader
    progress = point.progress if point else Progress(step=0)
    method, features, notes = build_method(config, start)
    method.to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(method.parameter_groups(), config.optim)
    if point:
        method.load_state_dict(point.weights)
        optimizer.load_state_dict(point.state["optimizer"])
    make_views = ViewMaker(config.views, config.image_size, device)
    slow = " by torch; `pip install 'diptych[fast]'` makes them several times faster"
    views = slow if make_views.engine == "torch" and device.type == "cpu" else f" by {make_views.engine}"
    for note in (*notes, f"views are made{views}"):
        terminal.say(note)
    terminal.say(_summary(config, pictures.count, loader.steps_per_epoch, method, device, world))
    steps = config.train.epochs * loader.steps_per_epoch
    with terminal.bar("training", steps, progress.step) as bar, StopFlag() as stop:
        recorder = Recorder(run, config, steps, loader.steps_per_epoch, world, terminal, bar)
        parts = Parts(
            config=config,
            run=run,
            loader=loader,
            make_views=make_views,
            method=method,
            model=wrapped(method, world),
            optimizer=optimizer,
            device=device,
            world=world,
            recorder=recorder,
        )
        with torch.random.fork_rng(devices=[]):  # the host program's own random numbers go on as they would have
            progress, status = train(parts, progress, stop)
    pictures.tell(terminal)
    if status != "interrupted" and config.train.patience:
        barrier(world)  # the first process has written it by then
        method.load_state_dict(checkpoint.load(run.checkpoints / "best").weights)
        terminal.say("Restored the weights of the epoch with the lowest loss")
    if not all(weight.isfinite().all() for weight in method.state_dict().values()):
        raise UserError(
            f"the last step left weights that are not finite numbers: no backbone is written; try a lower --lr (now "
            f"{config.optim.lr}) with a new --out"
        )
    result = _result(run, recorder, progress, status, loader.steps_per_epoch)
    if point and progress.step == point.progress.step and (before := run.read_card()["result"]):
        # No step was left to take: what the run had come to stands.
        result = replace(result, seconds=before["seconds"], images_per_second=before["images_per_second"])
    if world.is_main:
        if status != "interrupted":
            save_backbone(run, method.kept, backbone_card(config, features))
        figures.loss_curve(run.loss, recorder.records)
        write_result(run, {k: v for k, v in asdict(result).items() if k != "run"})
    barrier(world)
    return result


def build_method(config: RunConfig, start: Start | None = None) -> tuple[Method, int, tuple[str, ...]]:
    """Build backbone and heads with the random weights that belong to the run's seed.

    Args:
        config: of the run.
        start: weights for the backbone instead of random ones, before anything copies it: a momentum encoder begins
            with them too.

    Returns:
        The method, the backbone's number of features, and what was adapted to the pictures.
    """
    backbone, features, notes = initial_backbone(config.backbone, config.image_size, config.train.seed, config.channels)
    if start:
        backbone.load_state_dict(start.weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(config.train.seed, WEIGHTS, 1).initial_seed())
        assert not isinstance(config.method, PatchesConfig)  # which is fitted, not trained
        return config.method.build(backbone, features), features, notes


def _try_views(backbone: nn.Module, config: RunConfig) -> None:
    """Refuse views that the backbone cannot take, before anything is read."""
    _try_view(backbone, config, config.image_size, "--image-size")
    if config.views.local_views:
        size = config.views.local_size
        if size >= config.image_size:
            raise ConfigError(f"--local-size must be below the {config.image_size} px of --image-size, not {size}")
        _try_view(backbone, config, size, "--local-size")


def _try_view(backbone: nn.Module, config: RunConfig, size: int, flag: str) -> None:
    try:
        with torch.no_grad():
            backbone.eval()(torch.zeros(1, config.channels, size, size))
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ConfigError(
            f"{config.backbone} cannot take views of {size} px: choose another {flag} or --backbone "
            f"({str(error).partition(chr(10))[0]})"
        ) from error


def _result(run: RunFolder, recorder: Recorder, progress: Progress, status: Status, per_epoch: int) -> RunResult:
    last = [record["loss"] for record in recorder.records if record["step"] >= progress.step - per_epoch]
    return RunResult(
        run=str(run.path),
        status=status,
        steps=progress.step,
        epochs=progress.step / per_epoch,
        loss=sum(last) / max(1, len(last)),
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
