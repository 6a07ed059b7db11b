"""From a configuration to networks, optimizer and all else that the loop moves."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from diptych import checkpoint
from diptych.backbones.checkpointing import checkpoint_activations
from diptych.checkpoint import Checkpoint
from diptych.distributed import World, wrapped
from diptych.errors import ConfigError, RunFolderError
from diptych.frozen import initial_backbone
from diptych.methods import Method, PatchesConfig
from diptych.optim.build import build_optimizer
from diptych.runs import RunFolder
from diptych.seeding import WEIGHTS, generator
from diptych.training.config import RunConfig
from diptych.training.faults import Faults
from diptych.training.fit import build_network
from diptych.training.loop import Parts
from diptych.training.pictures import Pictures
from diptych.training.recorder import Recorder
from diptych.training.step import Backward
from diptych.views.pipeline import ViewMaker


def build_method(config: RunConfig, weights: Mapping[str, Tensor] | None = None) -> tuple[Method, int, tuple[str, ...]]:
    """Build backbone and heads with the random weights that belong to the run's seed.

    Args:
        config: of the run.
        weights: for the backbone instead of random ones, before anything copies it: a momentum encoder begins with
            them too.

    Returns:
        The method, the backbone's number of features, and what was adapted to the pictures.
    """
    backbone, features, notes = initial_backbone(config.backbone, config.image_size, config.train.seed, config.channels)
    if weights:
        backbone.load_state_dict(weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(config.train.seed, WEIGHTS, 1).initial_seed())
        assert not isinstance(config.method, PatchesConfig)  # which is fitted, not trained
        return config.method.build(backbone, features), features, notes


def build_parts(
    run: RunFolder,
    config: RunConfig,
    pictures: Pictures,
    method: Method,
    recorder: Recorder,
    device: torch.device,
    world: World,
    say: Callable[[str], None],
) -> Parts:
    """Put a method on its device, and everything around it that the loop needs."""
    train = config.train
    method.to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(method.parameter_groups(), config.optim)
    model = wrapped(method, world)  # which replaces norms on GPUs: before anything is hooked onto them
    if train.checkpoint_activations:
        checkpoint_activations(method.backbone)
    if train.compile:
        method.backbone.compile()
    scaler = torch.amp.GradScaler(device.type, enabled=train.precision == "fp16")
    make_views = ViewMaker(config.views, config.image_size, device)
    slow = " by torch; `pip install 'diptych[fast]'` makes them several times faster"
    say(
        "views are made"
        + (slow if make_views.engine == "torch" and device.type == "cpu" else f" by {make_views.engine}")
    )
    return Parts(
        config=config,
        run=run,
        loader=pictures.loader,
        method=method,
        optimizer=optimizer,
        scaler=scaler,
        backward=Backward(train, make_views, method, model, scaler, device, world),
        device=device,
        world=world,
        recorder=recorder,
        faults=Faults(run, config, pictures.names, world, say),
        evaluate=lambda epochs: {},
        kept_state=lambda: {},
    )


def restore(parts: Parts, point: Checkpoint) -> None:
    """Go back to a checkpoint; of one that another method has written, ``backbone_of`` takes over what can be.

    Raises:
        RunFolderError: it belongs to another network.
    """
    if point.state["method"] != parts.config.method.name:
        return
    checkpoint.restore(parts.method, point, parts.optimizer)
    parts.scaler.load_state_dict(point.state["scaler"])


def backbone_of(point: Checkpoint, config: RunConfig) -> dict[str, Tensor] | None:
    """Return the backbone's weights of a checkpoint that another method than the run's has written, else None."""
    if missing := {"method", "optimizer", "scaler", "evaluation"} - set(point.state):
        raise RunFolderError(
            f"checkpoint {point.path} holds no '{min(missing)}', so no run goes on from it: start with --overwrite"
        )
    if point.state["method"] == config.method.name:
        return None
    return {key.removeprefix("backbone."): w for key, w in point.weights.items() if key.startswith("backbone.")}


def refuse_unusable(config: RunConfig, weights: Mapping[str, Tensor] | None, world: World) -> None:
    """Refuse what can be refused before minutes are spent on reading pictures: networks, views, portions of a batch.

    Args:
        config: of the run.
        weights: of the backbone, if training does not begin at random.
        world: the processes that share its batches.
    """
    if isinstance(config.method, PatchesConfig):
        build_network(config, world)
        return
    method, _, _ = build_method(config, weights)
    try_views(method.backbone, config)
    refuse_portions(config, world)


def refuse_portions(config: RunConfig, world: World) -> None:
    """Refuse a batch that the processes and portions cannot share evenly."""
    share, portions = config.train.batch_size // world.size, config.train.accumulate
    if share % portions or share < 2 * portions:
        raise ConfigError(
            f"each process has {share} pictures of a batch, which cannot be computed in {portions} portions of two or "
            "more: choose another --accumulate or --batch-size"
        )


def refuse_queue(config: RunConfig, pictures: int) -> None:
    """Refuse a queue that would hold every picture, the one that is compared included."""
    if getattr(config.method, "queue_size", 0) >= pictures:
        raise ConfigError(f"--queue-size must be below the number of pictures, {pictures}: choose a smaller one")


def try_views(backbone: nn.Module, config: RunConfig) -> None:
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
