"""Embedding on a CPU, against PyTorch as it is mostly written: pictures a second, as ratios of one interleaved run.

    python benchmarks/embed.py --threads 1

``eager`` is ``model.eval()`` under ``no_grad``, all pictures at once, channels first; ``ours`` is what `diptych embed`
does with a network: batch norms folded, channels last, few pictures at a time. Both get float32 tensors.
"""

import argparse
import statistics
import time

import timm
import torch
from torch import Tensor, nn

from diptych.backbones.cifar_resnet import CifarResNetV2
from diptych.backbones.folding import folded
from diptych.vectors.computing import CACHED_PICTURES, CACHED_PIXELS


def eager(module: nn.Module, pictures: Tensor) -> Tensor:
    """Return features ``(N, D)`` the usual way."""
    with torch.no_grad():
        found: Tensor = module(pictures)
        return found


def ours(module: nn.Module, pictures: Tensor) -> Tensor:
    """Return features ``(N, D)`` of a folded network."""
    at_once = max(CACHED_PICTURES, CACHED_PIXELS // pictures.shape[-1] ** 2)
    with torch.inference_mode():
        parts = pictures.split(at_once)
        return torch.cat([module(part.contiguous(memory_format=torch.channels_last)) for part in parts])


def main() -> None:
    """Measure both networks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    cases: list[tuple[str, nn.Module, int, int]] = [
        ("ResNet-20 v2, 32 px", CifarResNetV2(20), 32, 256),
        ("timm resnet18, 224 px", timm.create_model("resnet18", num_classes=0), 224, 32),
    ]
    for name, module, size, count in cases:
        module = module.eval().requires_grad_(False)
        quick, pictures = folded(module, (3, size, size)), torch.randn(count, 3, size, size)
        wanted = eager(module, pictures)
        apart = ((ours(quick, pictures) - wanted).abs().max() / wanted.abs().max()).item()
        seconds: dict[str, list[float]] = {"eager": [], "ours": []}
        for _ in range(asked.rounds):
            for way, compute, network in (("eager", eager, module), ("ours", ours, quick)):
                started = time.perf_counter()
                compute(network, pictures)
                seconds[way].append(time.perf_counter() - started)
        ratio = statistics.median(a / b for a, b in zip(seconds["eager"], seconds["ours"], strict=True))
        speeds = ", ".join(f"{way} {count / statistics.median(taken):.0f}" for way, taken in seconds.items())
        print(f"{name}: {speeds} pictures/s, {ratio:.2f} ×, features {apart:.1e} apart, {asked.threads} threads")


if __name__ == "__main__":
    main()
