"""docs/scale.md: every table is computed here, from the numbers that stand at the head of that page.

    python tests/contracts/test_scale.py

prints the tables as they should be.
"""

from pathlib import Path

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from diptych.methods import SimSiamConfig

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"

NETWORKS = {"ResNet-50": "resnet50", "ViT-B/16": "vit_base_patch16_224"}
FLOP = {"ResNet-50": 48.7e9, "ViT-B/16": 210e9}
WEIGHTS = {"ResNet-50": 38.2e6, "ViT-B/16": 97.9e6}
STATE = {"ResNet-50": 4, "ViT-B/16": 8}  # bytes of the optimizer's state a weight: SGD with momentum, AdamW
RATE = {"ResNet-50": 100e12, "ViT-B/16": 300e12}  # FLOP/s of one GPU
SIDE, JPEG = 224, 110e3
DECODED = 513 / 2  # JPEGs of 500 px a second and core
LINK = {"NVLink": 450e9, "400 Gbit/s a GPU": 50e9, "100 Gbit/s a node of 8": 100e9 / 8 / 8}
GATHERED = {
    "SimCLR: embeddings of 128": 2 * 4 * 128,
    "Barlow Twins, VICReg: embeddings of 8192": 2 * 4 * 8192,
    "MoCo with batch norm: one view of each picture, to be shuffled": 4 * 3 * SIDE**2,
}  # bytes a picture
COUNTS, GPUS, BATCH = (10**6, 10**8, 10**9), (1, 8, 64), 4096


def number(value):
    """Three digits, with thousands apart."""
    if value >= 100:
        return f"{round(value, 3 - len(str(int(value)))):,.0f}"
    return f"{value:.3g}"


def size(count):
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= factor:
            return f"{number(count / factor)} {unit}"
    return f"{number(count / 1e3)} kB"


def span(seconds):
    for unit, factor in (("years", 365.25 * 86400), ("days", 86400), ("hours", 3600), ("min", 60), ("s", 1)):
        if seconds >= 2 * factor:
            return f"{number(seconds / factor)} {unit}"
    return f"{number(seconds * 1e3)} ms"


def power(count):
    return f"10{str(len(str(count)) - 1).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def table(*rows):
    head, *body = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def epoch(name, count, gpus):
    return count * FLOP[name] / (RATE[name] * gpus)


def tables():
    yield table(
        ("network", "FLOP a picture", "pictures/s and GPU", "weights", "a checkpoint", "gradients a step"),
        *(
            (
                name,
                f"{FLOP[name] / 1e9:g} G",
                number(RATE[name] / FLOP[name]),
                f"{WEIGHTS[name] / 1e6:g} M",
                size(WEIGHTS[name] * (4 + STATE[name])),
                size(4 * WEIGHTS[name]),
            )
            for name in FLOP
        ),
    )
    yield table(
        ("an epoch of", *(f"{name}, {gpus} GPU{'s' * (gpus > 1)}" for name in FLOP for gpus in GPUS)),
        *((power(n), *(span(epoch(name, n, gpus)) for name in FLOP for gpus in GPUS)) for n in COUNTS),
    )
    yield table(
        ("pictures", "as JPEG", "packed store", "an order, in each process", "names, in each process"),
        *((power(n), size(n * JPEG), size(n * 3 * SIDE**2), size(8 * n), size(100 * n)) for n in COUNTS),
    )
    yield table(
        ("GPUs", "pictures/s", "from JPEG", "from a store", "cores that decode"),
        *(
            (
                f"{gpus}, {name}",
                number(rate := gpus * RATE[name] / FLOP[name]),
                f"{size(rate * JPEG)}/s",
                f"{size(rate * 3 * SIDE**2)}/s",
                number(rate / DECODED),
            )
            for name in FLOP
            for gpus in GPUS
        ),
    )
    yield table(
        ("GPUs", "pictures each", "backward pass", *LINK),
        *(
            (
                f"{gpus}, {name}",
                BATCH // gpus,
                span(2 / 3 * epoch(name, BATCH, gpus)),
                *(
                    span(4 * WEIGHTS[name] * 2 * (gpus - 1) / gpus / speed) if (gpus > 8) == (link != "NVLink") else "–"
                    for link, speed in LINK.items()
                ),
            )
            for name in FLOP
            for gpus in GPUS[1:]
        ),
    )
    yield table(
        ("gathered by every GPU", f"bytes a step of {BATCH:,}", "over 400 Gbit/s", "over 1.56 GB/s"),
        *(
            (name, size(BATCH * each), *(span(BATCH * each / LINK[link]) for link in [*LINK][1:]))
            for name, each in GATHERED.items()
        ),
    )
    yield table(
        ("backbone", "weights", "weights, gradients, AdamW: 16 B", "with DDP's buckets: 20 B"),
        *(
            (name, f"{count / 1e9:g} B", size(16 * count), size(20 * count))
            for name, count in (("ViT-B", 0.086e9), ("ViT-L", 0.303e9), ("ViT-g", 1.1e9), ("as large as fits", 2e9))
        ),
    )


@pytest.mark.parametrize("made", [*tables()])
def test_every_table_is_what_its_arithmetic_gives(made):
    assert made in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NETWORKS)
def test_flop_and_weights_are_those_of_the_networks(name):
    with torch.device("meta"):
        network = timm.create_model(NETWORKS[name], num_classes=0)
        method = SimSiamConfig().build(network, network.num_features)
        views = [torch.zeros(2, 3, SIDE, SIDE) for _ in range(2)]
        with FlopCounterMode(display=False) as counter:
            method(views).loss.backward()
    assert counter.get_total_flops() / 2 == pytest.approx(FLOP[name], rel=0.003)
    assert sum(weight.numel() for weight in method.parameters()) == pytest.approx(WEIGHTS[name], rel=0.001)


if __name__ == "__main__":
    print("\n\n".join(tables()))
