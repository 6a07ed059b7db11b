"""What works within 50,000 views: SimSiam's settings compared at one small budget, chosen on training pictures alone.

    python benchmarks/short_schedule.py cifar10.zip runs/short [NAME ...]

Every variant sees the same 10,000 CIFAR-10 training pictures five times (ResNet-20 v2). It is then scored by kNN and by
the linear probe learned from these 10,000 and tested on 5,000 *other training* pictures: the test pictures are never
opened here. Prints a line of JSON a variant.
"""

import json
import sys
import time

import torch

import diptych
from diptych.data.decoding.pixels import PixelFormat
from diptych.data.sources.open import open_data
from diptych.data.sources.source import Subset
from diptych.data.sources.split import draw
from diptych.data.stores.memory import build_memory_store
from diptych.evaluation.features import backbone_features, pixel_features
from diptych.evaluation.probes import knn, linear
from diptych.frozen import random_twin
from diptych.seeding import DRAW, generator

PICTURES, VALIDATION, EPOCHS = 10_000, 5_000, 5

VARIANTS: dict[str, dict[str, object]] = {
    "paper": {"batch_size": 512},
    "batch-64-lr-0.1": {"batch_size": 64, "lr": 0.1},
    "batch-128-lr-0.3": {"batch_size": 128, "lr": 0.3},
    "batch-128-lr-0.3-crop-0.5": {"batch_size": 128, "lr": 0.3, "crop_scale": (0.5, 1.0)},
    "batch-128-lr-1": {"batch_size": 128, "lr": 1.0},
    "batch-64-lr-1": {"batch_size": 64, "lr": 1.0},
    "batch-128-lr-1-constant-predictor": {"batch_size": 128, "lr": 1.0, "predictor_constant_lr": True},
    "batch-128-lr-2": {"batch_size": 128, "lr": 2.0},
}


def main(data: str, folder: str, names: list[str]) -> None:
    """Run the named variants, or all."""
    train = open_data(data).train
    learned = draw(train, PICTURES)
    assert isinstance(learned, Subset)
    used = set(learned.indices)
    order = torch.randperm(len(train), generator=generator(1, DRAW)).tolist()
    unseen = Subset(train, sorted([index for index in order if index not in used][:VALIDATION]))
    stores = [build_memory_store(source, 32, PixelFormat(), lambda bad: None) for source in (learned, unseen)]
    labels = [torch.tensor([source.label(i) for i in range(len(source))]) for source in (learned, unseen)]

    def scored(features) -> dict[str, float]:
        fit, test = features
        found, _ = knn.classify(fit, test.values, len(train.classes))
        probe = linear.fit_linear(fit, test.values, len(train.classes), seed=0)
        return {
            "knn": (found.argmax(1) == test.labels).float().mean().item(),
            "linear": (probe.logits.argmax(1) == test.labels).float().mean().item(),
        }

    baselines = False
    for name in names or VARIANTS:
        out = f"{folder}/{name}"
        begun = time.monotonic()
        settings = {"backbone": "resnet20v2", "precision": "bf16", "epochs": EPOCHS, "limit": PICTURES}
        result = diptych.pretrain(data, out, recipe="simsiam-cifar", overwrite=True, **(settings | VARIANTS[name]))
        last = [json.loads(line) for line in open(f"{out}/metrics.jsonl", encoding="utf-8")][-1]
        networks = {name: diptych.load(out)}
        if not baselines:
            networks = {"random": random_twin(out)} | networks
            pixels = [pixel_features(store.images, known) for store, known in zip(stores, labels, strict=True)]
            print(json.dumps({"variant": "pixels", **scored(pixels)}), flush=True)
            baselines = True
        for what, network in networks.items():
            pair = [backbone_features(network, s.images, known) for s, known in zip(stores, labels, strict=True)]
            line = {"variant": what, **scored(pair)}
            if what == name:
                line |= {"loss": result.loss, "std": last["embedding_std"], "rank": last["effective_rank"]}
                line |= {"training_s": result.seconds, "all_s": time.monotonic() - begun}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
