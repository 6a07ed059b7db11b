"""A whole pretraining run: read the pictures, build the parts, train, leave a backbone behind."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from diptych import checkpoint, figures
from diptych.checkpoint import Progress
from diptych.config import diff
from diptych.data.loader import Loader
from diptych.data.open import open_data
from diptych.data.source import BadPicture, Source
from diptych.data.split import draw
from diptych.data.store import Store, build_store, write_digests
from diptych.distributed import StopFlag, World, barrier, joined, pick_device, wrapped
from diptych.errors import RunFolderError, UserError
from diptych.frozen import BackboneCard, Preprocessing, initial_backbone, save_backbone
from diptych.methods import Method
from diptych.optim.sgd import build_optimizer
from diptych.progress import Terminal
from diptych.runs import SCHEMA_VERSION, RunFolder, write_json
from diptych.seeding import VIEWS, WEIGHTS, generator
from diptych.training.card import run_card, saved_config
from diptych.training.config import RunConfig
from diptych.training.loop import Parts, Status, train
from diptych.training.order import Order
from diptych.training.recorder import Recorder
from diptych.views.pipeline import TwoViews

SHOWN_PAIRS = 8


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a run came to."""

    run: str
    """The run folder."""
    status: Status
    steps: int
    epochs: float
    loss: float
    """Mean over the last epoch's records."""
    seconds: float
    images_per_second: float
    warnings: list[str]


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
        build_method(order.config)
        for choice in order.choices:
            terminal.say(f"chose {choice.what}: {choice.why}")
        source, note, store, bad = _read_pictures(order.config, terminal)
        _loader(order.config, store, world)
        run = RunFolder.create(out, overwrite=overwrite) if world.is_main else RunFolder(out)
        if world.is_main:
            terminal.log_to(run.log)
            for picture in bad:
                run.append(run.quarantine, {"name": picture.name, "reason": picture.reason, "during": "pretrain"})
            write_json(run.config, run_card(order, source, note, store, bad, where, world))
            write_digests(run.pictures, store)
            figures.view_pairs(run.views, *_some_views(order.config, store))
        barrier(world)
        return _train(run, order.config, store, Progress(step=0), None, where, world, terminal)


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
        if config is not None and (changed := diff(saved, config)):
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
        source, _, store, _ = _read_pictures(saved, terminal)
        if source.fingerprint != card["data"]["fingerprint"]:
            raise RunFolderError(
                f"the pictures in {saved.data} have changed since {run.path} was begun; start again with --overwrite"
            )
        if world.is_main:
            terminal.log_to(run.log)
            run.keep_metrics_before(point.progress.step)
        barrier(world)
        terminal.say(f"Going on with {run.path} from step {point.progress.step}")
        return _train(run, saved, store, point.progress, point, where, world, terminal)


def _voice(terminal: Terminal | None, world: World) -> Terminal:
    return terminal if terminal and world.is_main else Terminal(quiet=True)


def _read_pictures(config: RunConfig, terminal: Terminal) -> tuple[Source, str, Store, list[BadPicture]]:
    splits = open_data(config.data, config.data_dir, on_download=terminal.downloading())
    source = splits.train if config.limit is None else draw(splits.train, config.limit)
    if splits.note:
        terminal.say(splits.note)
    bad: list[BadPicture] = []
    with terminal.bar("reading pictures", len(source)) as bar:
        store = build_store(source, config.image_size, bad.append, lambda done, _: bar.update(done))
    if bad:
        terminal.say(
            f"{len(bad)} of {len(source)} pictures could not be read and are left out: {bad[0].name} ({bad[0].reason})"
            f"{' and others' if len(bad) > 1 else ''}; quarantine.jsonl in the run folder lists them"
        )
    return source, splits.note, store, bad


def _loader(config: RunConfig, store: Store, world: World) -> Loader:
    return Loader(store, config.train.batch_size, config.train.seed, rank=world.rank, world=world.size)


def _train(
    run: RunFolder,
    config: RunConfig,
    store: Store,
    progress: Progress,
    point: checkpoint.Checkpoint | None,
    device: torch.device,
    world: World,
    terminal: Terminal,
) -> RunResult:
    """Build the parts, restore them from ``point`` if there is one, run the loop, and write what it came to."""
    loader = _loader(config, store, world)
    method, features, notes = build_method(config)
    method.to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(method.parameter_groups(), config.optim)
    if point:
        method.load_state_dict(point.weights)
        optimizer.load_state_dict(point.state["optimizer"])
    for note in notes:
        terminal.say(note)
    terminal.say(_summary(config, len(store), loader.steps_per_epoch, method, device, world))
    steps = config.train.epochs * loader.steps_per_epoch
    with terminal.bar("training", steps, progress.step) as bar, StopFlag() as stop:
        recorder = Recorder(run, config, steps, loader.steps_per_epoch, world, terminal, bar)
        parts = Parts(
            config=config,
            run=run,
            loader=loader,
            make_views=TwoViews(config.views, config.image_size),
            method=method,
            model=wrapped(method, world),
            optimizer=optimizer,
            device=device,
            world=world,
            recorder=recorder,
        )
        with torch.random.fork_rng(devices=[]):  # the host program's own random numbers go on as they would have
            progress, status = train(parts, progress, stop)
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
            save_backbone(run, method.backbone, _backbone_card(config, features))
        figures.loss_curve(run.loss, recorder.records)
        write_json(run.config, run.read_card() | {"result": {k: v for k, v in asdict(result).items() if k != "run"}})
    barrier(world)
    return result


def build_method(config: RunConfig) -> tuple[Method, int, tuple[str, ...]]:
    """Build backbone and heads with the random weights that belong to the run's seed.

    Returns:
        The method, the backbone's number of features, and what was adapted to the pictures.
    """
    backbone, features, notes = initial_backbone(config.backbone, config.image_size, config.train.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(config.train.seed, WEIGHTS, 1).initial_seed())
        return config.method.build(backbone, features), features, notes


def _backbone_card(config: RunConfig, features: int) -> BackboneCard:
    return BackboneCard(
        schema_version=SCHEMA_VERSION,
        backbone=config.backbone,
        num_features=features,
        seed=config.train.seed,
        preprocessing=Preprocessing(image_size=config.image_size, mean=config.views.mean, std=config.views.std),
    )


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


def sample_views(config: RunConfig) -> tuple[Tensor, list[Tensor]]:
    """Read some pictures of ``config.data`` and make their views as a run would.

    Returns:
        Originals ``(n, 3, S, S)`` uint8 and two views ``(n, 3, S, S)`` float32 in 0..1, not normalised.

    Raises:
        DataError: the pictures cannot be found or read.
    """
    source = open_data(config.data, config.data_dir).train
    source = source if config.limit is None else draw(source, config.limit)
    few = draw(source, min(SHOWN_PAIRS, len(source)), config.train.seed)
    return _some_views(config, build_store(few, config.image_size, lambda bad: None))


def _some_views(config: RunConfig, store: Store) -> tuple[Tensor, list[Tensor]]:
    chosen = torch.randperm(len(store), generator=generator(config.train.seed))[:SHOWN_PAIRS]
    originals = store.read(chosen)
    return originals, TwoViews(config.views, config.image_size).draw(originals, generator(config.train.seed, VIEWS))


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
