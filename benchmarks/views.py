"""Views a second, ours beside lightly, torchvision and kornia: SimSiam's augmentation of the same pictures.

    python benchmarks/views.py [ROUNDS]

Needs torchvision, lightly, kornia and numba (``make bench`` installs them into an environment of their own). All take
turns, so that a machine whose speed drifts slows all of them alike; medians over the rounds are printed, and ratios as
medians of each round's own ratio. Pictures are uint8 of the views' own size, in memory; a view is counted when it is
normalised float32, in a batch.

- 32 px, CIFAR: crop 0.2 to 1, mirror image, jitter 0.4, 0.4, 0.4, 0.1 with probability 0.8 in random order, gray 0.2.
- 224 px, ImageNet: the same and a blur, sigma 0.1 to 2, with probability 0.5.

lightly: SimSiamTransform on Pillow pictures in a DataLoader with two workers, timed from the workers' first batches
on, so that starting processes costs it nothing. torchvision: v2 on tensors, picture by picture, in this process.
kornia: batches in this process, boxes cut with ``cropping_mode="slice"``, which was measured to be faster than
"resample". "Between products": the kernel after a matrix product, whose threads PyTorch leaves spinning, as they are in
training. "Policy": the kernel with everything that a policy of ours does, at either size; ``grayscale`` gets pictures
of one channel.
"""

import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import version
from typing import get_args

import kornia.augmentation as kornia
import torch
from lightly.transforms import SimSiamTransform
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from diptych.seeding import generator
from diptych.views.config import IMAGENET_MEAN, IMAGENET_STD, PolicyName, ViewsConfig, for_channels
from diptych.views.pipeline import ViewMaker
from diptych.views.policies import POLICIES

Work = Callable[[], tuple[int, float]]
"""Makes views; returns how many, and the seconds they took."""
BATCH = {32: 256, 224: 32}
KERNEL = 13
"""Pixels that a blur's kernel spans."""


class Pictures(Dataset[list[Tensor]]):
    """Pillow pictures behind lightly's transform."""

    def __init__(self, images: Tensor, transform: Callable[[Image.Image], list[Tensor]]) -> None:
        self.pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(self.pictures[index])


def timed(make: Callable[[Tensor], object], images: Tensor, before: Callable[[], object] = lambda: None) -> Work:
    """Time ``make``, which makes one view of each picture twice."""

    def work() -> tuple[int, float]:
        before()
        begun = time.perf_counter()
        make(images)
        return 2 * len(images), time.perf_counter() - begun

    return work


def ours(images: Tensor, size: int, engine: str, before: Callable[[], object] = lambda: None) -> Work:
    """Make views with one of our engines, in channels-last order as training wants them."""
    maker = ViewMaker(ViewsConfig(blur=0.5 if size == 224 else 0.0), size, engine=engine)  # type: ignore[arg-type]
    draws = generator(0)
    return timed(lambda batch: maker(batch, draws), images, before)


def policy(name: PolicyName, images: Tensor, size: int) -> Work:
    """Make views by a policy with the kernel."""
    images = images[:, :1].contiguous() if name == "grayscale" else images
    channels = images.shape[1]
    config, _ = for_channels(ViewsConfig(policy=name, **POLICIES[name].values), channels)
    config = replace(config, mean=(0.5,) * channels, std=(0.25,) * channels)
    maker, draws = ViewMaker(config, size, engine="kernel"), generator(0)
    return timed(lambda batch: maker(batch, draws), images)


def lightly_loader(images: Tensor, size: int) -> Work:
    """Iterate a DataLoader of two workers over many pictures."""
    transform = SimSiamTransform(input_size=size, gaussian_blur=0.5 if size == 224 else 0.0)
    per_batch = len(images) // 4
    dataset = Pictures(images.repeat(8 if size == 32 else 2, 1, 1, 1), transform)

    def work() -> tuple[int, float]:
        batches: Iterator[list[Tensor]] = iter(DataLoader(dataset, batch_size=per_batch, num_workers=2))
        next(batches), next(batches)  # one of each worker: from here on they are as fast as they will be
        begun = time.perf_counter()
        count = sum(2 * len(views[0]) for views in batches)
        return count, time.perf_counter() - begun

    return work


def torchvision_tensors(images: Tensor, size: int) -> Work:
    """Apply torchvision's transforms to one tensor after the other."""
    blur = [v2.RandomApply([v2.GaussianBlur(KERNEL, (0.1, 2.0))], 0.5)] if size == 224 else []
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, (0.2, 1.0), antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
            v2.RandomGrayscale(0.2),
            *blur,
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    make = lambda batch: [torch.stack([transform(image) for image in batch]) for _ in range(2)]  # noqa: E731
    return timed(make, images[: len(images) // 4])


def kornia_batches(images: Tensor, size: int) -> Work:
    """Apply kornia's augmentations to the whole batch."""
    blur = [kornia.RandomGaussianBlur((KERNEL, KERNEL), (0.1, 2.0), p=0.5)] if size == 224 else []
    transform = torch.nn.Sequential(
        kornia.RandomResizedCrop((size, size), (0.2, 1.0), cropping_mode="slice"),
        kornia.RandomHorizontalFlip(),
        kornia.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        kornia.RandomGrayscale(p=0.2),
        *blur,
        kornia.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)),
    )
    return timed(lambda batch: [transform(batch / 255) for _ in range(2)], images)


@torch.inference_mode()
def main(rounds: int) -> None:
    """Measure and print."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)  # lightly forks beside our threads
    names = ("torch", "torchvision", "lightly", "kornia", "numba", "pillow")
    print(", ".join(f"{name} {version(name)}" for name in names), f"- {torch.get_num_threads()} threads")
    square = torch.randn(1024, 1024)
    for size, count in BATCH.items():
        images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator(0))
        work = {
            "ours, kernel": ours(images, size, "kernel"),
            "ours, kernel, between products": ours(images, size, "kernel", lambda: square @ square),
            **{f"ours, kernel, policy {name}": policy(name, images, size) for name in get_args(PolicyName)},
            "ours, torch": ours(images, size, "torch"),
            "lightly, 2 workers": lightly_loader(images, size),
            "torchvision v2, tensors": torchvision_tensors(images, size),
            "kornia": kornia_batches(images, size),
        }
        rates: dict[str, list[float]] = {name: [] for name in work}
        for number in range(rounds + 1):  # the first warms up
            for name, run in work.items():
                views, seconds = run()
                while seconds < 0.5:  # what is fast is measured over many batches
                    more, taken = run()
                    views, seconds = views + more, seconds + taken
                if number:
                    rates[name].append(views / seconds)
        print(f"\n{size} px, batches of {count}")
        for name, found in rates.items():
            each = zip(rates["ours, kernel"], found, strict=True)
            ratio = statistics.median(mine / other for mine, other in each)
            spread = f"({min(found):,.0f} to {max(found):,.0f})"
            print(f"{name:<33}{statistics.median(found):>9,.0f} views/s {spread:<20} kernel is {ratio:.1f} ×")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
