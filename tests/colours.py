"""Noisy pictures whose mean colour is their class, and finished runs that are made by hand instead of by training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from diptych.data.decoding.pixels import PixelFormat
from diptych.data.sources.source import Source
from diptych.data.stores.digests import write_digests
from diptych.data.stores.memory import MemoryStore, build_memory_store
from diptych.evaluation.config import EvaluateConfig
from diptych.evaluation.run import evaluate as evaluate_with
from diptych.frozen import BackboneCard, Preprocessing, initial_backbone, save_backbone, save_weights
from diptych.progress import Terminal
from diptych.runs import CARD, RunFolder, write_json

COLOURS = {"blue": (60, 60, 160), "green": (60, 160, 60), "red": (160, 60, 60)}
SIZE = 16
FILE = "w.safetensors"


def evaluate(run: Path, data: str, terminal: Terminal | None = None, **settings: Any) -> dict[str, Any]:
    return evaluate_with(run, data, EvaluateConfig(**settings), terminal=terminal)


def paint(folder: Path, per_class: int, classes: tuple[str, ...] = tuple(COLOURS), seed: int = 0) -> Path:
    """Noisy pictures whose mean colour is their class."""
    random = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            noise = random.normal(COLOURS[name], 50, (SIZE, SIZE + 4, 3))
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number:03}.png")
    return folder


def make_run(
    path: Path,
    *,
    seed: int = 0,
    weights: int | None = 0,
    learned: Source | None = None,
    began: int | None = None,
    size: int = SIZE,
) -> Path:
    """A run whose "trained" weights are those of the random seed ``weights``, or all zero if None.

    ``learned`` is what it was trained on; pictures that are nowhere else if None. Where ``began`` is given, training
    began with the weights of that random seed, "out of a file".
    """
    run = RunFolder.create(path)
    module, width, _ = initial_backbone("resnet20v2", size, weights or 0)
    if weights is None:
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
    preprocessing = Preprocessing(image_size=size, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    card = BackboneCard(
        schema_version=1,
        backbone="resnet20v2",
        num_features=width,
        seed=seed,
        preprocessing=preprocessing,
        init_from=None if began is None else FILE,
    )
    save_backbone(run, module, card)
    if began is not None:
        save_weights(run.initial, initial_backbone("resnet20v2", SIZE, began)[0].state_dict())
    nowhere = MemoryStore(images=torch.zeros(1, 3, SIZE, SIZE, dtype=torch.uint8), source_indices=torch.zeros(1))
    store = build_memory_store(learned, SIZE, PixelFormat(), lambda bad: None) if learned else nowhere
    write_digests(run, store.digests)
    write_json(run.config, dict.fromkeys(CARD) | {"schema_version": 1})
    return path
