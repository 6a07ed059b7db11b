"""A folder of 500 px JPEGs to batches of two 224 px views: the epochs after the first, beside torchvision.

    python benchmarks/epochs.py [ROUNDS [PICTURES]]

Theirs: ``ImageFolder`` and a DataLoader with 2 workers that stay alive, which decodes every file in every epoch. Ours:
the disk store, which has decoded each file once (its building is timed apart), read and augmented in this process. Both
make two views of each picture in batches of 64, once with crops and flips alone, once with all of SimSiam's ImageNet
augmentation. Contenders take turns; medians over the rounds are printed.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from diptych.data.decoding.pixels import PixelFormat
from diptych.data.loader import Loader
from diptych.data.sources.open import open_data
from diptych.data.sources.photos import photo_files
from diptych.data.stores.store import StoreConfig, open_store
from diptych.seeding import generator
from diptych.views.config import ViewsConfig
from diptych.views.pipeline import ViewMaker

BATCH, SIZE, SIDE = 64, 224, 500
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CROPS = ViewsConfig(jitter=0.0, grayscale=0.0, blur=0.0)
ALL = ViewsConfig()


def write_pictures(folder: Path, count: int) -> None:
    """Cut ``count`` JPEGs of 500 × 375 px out of the photographs inside scikit-image and scikit-learn."""
    photos = [Image.open(path).convert("RGB") for path in photo_files()]
    (folder / "all").mkdir(parents=True)
    draws = torch.rand(count, 3, generator=generator(0))
    for number in range(count):
        photo = photos[number % len(photos)]
        scale, left, top = draws[number].tolist()
        width = min(photo.width, photo.height * 4 / 3) * (0.5 + scale / 2)
        box = (left * (photo.width - width), top * (photo.height - width * 3 / 4))
        cut = photo.resize((SIDE, SIDE * 3 // 4), box=(*box, box[0] + width, box[1] + width * 3 / 4))
        cut.save(folder / "all" / f"{number:05}.jpg", quality=90)


class Two:
    """A transform applied twice."""

    def __init__(self, once: Callable[[Image.Image], torch.Tensor]) -> None:
        self.once = once

    def __call__(self, picture: Image.Image) -> list[torch.Tensor]:
        """Return two views."""
        return [self.once(picture), self.once(picture)]


def theirs(folder: Path, whole: bool) -> DataLoader[list[torch.Tensor]]:
    """Return torchvision's loader."""
    colour = [
        transforms.RandomApply([transforms.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8),
        transforms.RandomGrayscale(0.2),
        transforms.RandomApply([transforms.GaussianBlur(23, (0.1, 2.0))], 0.5),
    ]
    steps = [transforms.RandomResizedCrop(SIZE, (0.2, 1.0)), transforms.RandomHorizontalFlip()]
    steps += [*(colour if whole else []), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    pictures = datasets.ImageFolder(str(folder), Two(transforms.Compose(steps)))
    return DataLoader(pictures, BATCH, shuffle=True, drop_last=True, num_workers=2, persistent_workers=True)


def ours(loader: Loader, maker: ViewMaker, epoch: int) -> Iterator[list[torch.Tensor]]:
    """Yield the views of an epoch."""
    for step, batch in enumerate(loader.epoch(epoch)):
        views = maker(batch.images, generator(0, epoch, step))
        yield [view.contiguous(memory_format=torch.channels_last) for view in views]


def main(rounds: int, count: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "pictures"
        write_pictures(folder, count)
        source, config = open_data(str(folder)).train, StoreConfig(store_dir=str(Path(place) / "stores"))
        begun = time.perf_counter()
        store = open_store("disk", source, SIZE, PixelFormat(), config, key="bench", on_bad=print)
        built = time.perf_counter() - begun
        loader = Loader(store, BATCH, 0)
        makers = {"crops": ViewMaker(CROPS, SIZE), "all": ViewMaker(ALL, SIZE)}
        peers = {"crops": theirs(folder, False), "all": theirs(folder, True)}
        seconds: dict[tuple[str, str], list[float]] = {}
        for epoch in range(rounds + 1):
            for kind in makers:
                for who, batches in (
                    ("torchvision", iter(peers[kind])),
                    ("diptych", ours(loader, makers[kind], epoch)),
                ):
                    begun = time.perf_counter()
                    seen = sum(len(batch[0][0] if who == "torchvision" else batch[0]) for batch in batches)
                    if epoch:  # the first one starts workers and compiles
                        seconds.setdefault((kind, who), []).append((time.perf_counter() - begun) / seen)
    engine = makers["all"].engine
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {count} pictures, engine {engine}")
    print(f"building the store: {count / built:.0f} pictures/s, once")
    for kind in makers:
        them, us = (1 / statistics.median(seconds[kind, who]) for who in ("torchvision", "diptych"))
        what = "all augmentation" if kind == "all" else "crops and flips"
        print(f"two views with {what}: torchvision {them:.0f}, diptych {us:.0f} pictures/s: {us / them:.1f} ×")


if __name__ == "__main__":
    main(*(int(word) for word in (*sys.argv[1:], "5", "512")[:2]))
