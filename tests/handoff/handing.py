"""Finished runs of any backbone, made in an instant: random weights, moved as training moves them."""

import numpy as np
import torch

from diptych.frozen import BackboneCard, Preprocessing, initial_backbone, save_backbone
from diptych.runs import RunFolder, write_json

SIZE, SEED = 16, 3
RGB = Preprocessing(image_size=SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))


def make_run(path, data, name="resnet20v2", made=RGB, init_from=None, spoil=None):
    """A run folder whose backbone is ``name``; ``spoil`` may change its weights."""
    run = RunFolder.create(path)
    module, width, _ = initial_backbone(name, made.image_size, SEED, made.channels)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=draws)
        module.train()(torch.randn(8, made.channels, made.image_size, made.image_size, generator=draws))
        if spoil:
            spoil(module)
    card = BackboneCard(
        schema_version=1,
        backbone=name,
        num_features=width,
        seed=SEED,
        preprocessing=made,
        init_from=init_from,
    )
    save_backbone(run, module, card)
    write_json(
        run.config,
        {
            "schema_version": 1,
            "diptych": "0.1.0",
            "recipe": "simsiam",
            "config": {"data": str(data), "data_dir": None, "method": {"name": "simsiam"}},
            "choices": [],
            "command": f"diptych pretrain {data} --out={path} --epochs 2",
            "data": {"name": str(data), "pictures": 12, "fingerprint": "ab" * 32},
            "versions": {"torch": "2.14.1"},
            "hardware": {},
            "started": "2026-01-01T00:00:00+00:00",
            "result": {"steps": 24, "epochs": 2.0},
        },
    )
    return path


def stored(count=5, made=RGB):
    """Pictures as they are stored, ``(N, C, S, S)``, over the whole range of their type."""
    shape = (count, made.channels, made.image_size, made.image_size)
    draws = np.random.default_rng(1)
    if made.depth == "float32":
        return torch.from_numpy(draws.uniform(made.low[0], made.high[0], shape).astype("float32"))
    return torch.from_numpy(draws.integers(0, np.iinfo(made.depth).max, shape, made.depth, endpoint=True))
