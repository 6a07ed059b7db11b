"""A run without gradients: the pictures are gone through a few times, and the weights follow from what was counted."""

import time
from dataclasses import asdict

import torch

from diptych.backbones.patches import PatchNetwork
from diptych.distributed import World
from diptych.errors import ConfigError
from diptych.frozen import initial_backbone, prepared, save_backbone
from diptych.methods.patches import PASSES, PatchesConfig, fit
from diptych.progress import Terminal
from diptych.runs import RunFolder
from diptych.seeding import WEIGHTS, generator
from diptych.training.card import write_result
from diptych.training.config import RunConfig
from diptych.training.pictures import Pictures
from diptych.training.result import RunResult, backbone_card


def build_network(config: RunConfig, world: World) -> tuple[PatchNetwork, int, tuple[str, ...]]:
    """Build the network that will be fitted, with the random weights that belong to the run's seed.

    Returns:
        The network, its number of features, and what was adapted to the pictures.

    Raises:
        ConfigError: there are several processes: what is counted is counted in one.
    """
    if world.size > 1:
        raise ConfigError("patches runs in one process: start it without torchrun")
    module, features, notes = initial_backbone(config.backbone, config.image_size, config.train.seed, config.channels)
    assert isinstance(module, PatchNetwork)  # RunConfig has seen to it
    return module, features, notes


def fit_run(
    run: RunFolder, config: RunConfig, pictures: Pictures, device: torch.device, world: World, terminal: Terminal
) -> RunResult:
    """Fit the network to all pictures, and leave it behind as any other run leaves its backbone."""
    assert isinstance(config.method, PatchesConfig)
    network, features, notes = build_network(config, world)
    network.to(device)
    loader, made = pictures.loader, backbone_card(config, features).preprocessing
    total = PASSES * loader.steps_per_epoch * config.train.batch_size
    for note in notes:
        terminal.say(note)
    terminal.say(
        f"Fitting {config.backbone} to {pictures.count} pictures of {config.image_size} px, {PASSES} times ({device})"
    )
    started = time.perf_counter()
    with terminal.bar("fitting", total) as bar:
        fit(
            network,
            lambda: (prepared(batch.images, made, device) for batch in loader.epoch(0)),
            config.method,
            generator(config.train.seed, WEIGHTS, 1),
            bar.update,
        )
    seconds = time.perf_counter() - started
    pictures.tell(terminal)
    result = RunResult(
        run=str(run.path),
        status="finished",
        steps=0,
        epochs=float(PASSES),
        loss=None,
        seconds=seconds,
        images_per_second=total / seconds,
        warnings=[],
    )
    save_backbone(run, network, backbone_card(config, features))
    write_result(run, {name: value for name, value in asdict(result).items() if name != "run"})
    return result
