"""What ``diptych duplicates`` finds of copies that were made worse, planted among real pictures.

    python benchmarks/copies.py runs/mine cifar10.zip --sheet called.png

For each way of making them, copies of some pictures are planted alone, and counted as found where they end in the group
of their original. Beside it, what the best single cosine would find: the one that no more than a thousandth of the
pictures reach without any copies. The pictures that are called near-duplicates of each other without any copies are
drawn on the sheet, to be looked at: real sets hold real ones.
"""

import argparse
import io
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from diptych.data.sources.open import open_data
from diptych.frozen import load
from diptych.vectors.duplicates import Duplicates, duplicates
from diptych.vectors.neighbours import nearest, normalised
from diptych.vectors.table import Vectors

Change = Callable[[Image.Image], Image.Image]


def saved(quality: int) -> Change:
    """As JPEG."""

    def change(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file).convert("RGB")

    return change


def cut(part: float) -> Change:
    """At two edges, by this part of a side; then as large as before."""
    return lambda picture: resized(
        picture.crop((round(picture.width * part), round(picture.height * part), *picture.size)), picture.size
    )


def brighter(factor: float) -> Change:
    """By a factor, cut off at white."""
    return lambda picture: picture.point(lambda value: min(255, round(value * factor)))


def shrunk(part: float) -> Change:
    """To this part of its sides, and enlarged again."""
    return lambda picture: resized(
        resized(picture, (round(picture.width * part), round(picture.height * part))), picture.size
    )


def resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Bicubic."""
    return picture.resize(size, Image.Resampling.BICUBIC)


KINDS: dict[str, Change] = {
    "JPEG quality 75": saved(75),
    "JPEG quality 50": saved(50),
    "JPEG quality 30": saved(30),
    "10 % brighter": brighter(1.1),
    "20 % brighter": brighter(1.2),
    "1/32 cut at two edges": cut(1 / 32),
    "2/32 cut at two edges": cut(2 / 32),
    "mirrored": ImageOps.mirror,
    "shrunk to 3/4 and enlarged": shrunk(3 / 4),
    "shrunk to 1/2 and enlarged": shrunk(1 / 2),
}


def table(values: NDArray[np.float32]) -> Vectors:
    """Vectors without names."""
    names = [str(row) for row in range(len(values))]
    return Vectors(values=values, names=names, labels=None, groups=None, card=None, path=None)


def leaders(found: Duplicates) -> NDArray[np.int64]:
    """The picture kept for each."""
    kept = np.arange(found.pictures)
    for group in found.groups:
        kept[[one.row for one in group.others]] = group.kept.row
    return kept


def draw(found: Duplicates, pictures: list[Image.Image], path: str, columns: int = 10) -> None:
    """Each picture that can go beside the one that is kept, and their cosine."""
    pairs = sorted((one.similarity, group.kept.row, one.row) for group in found.groups for one in group.others)
    sheet = Image.new("RGB", (150 * columns, 90 * max(1, -(-len(pairs) // columns))), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (similarity, *rows) in enumerate(pairs):
        left, top = 150 * (place % columns), 90 * (place // columns)
        for side, row in enumerate(rows):
            sheet.paste(pictures[row].resize((70, 70), Image.Resampling.LANCZOS), (left + 72 * side, top))
        pen.text((left, top + 72), f"{similarity:.4f}", fill="black")
    sheet.save(path)


def main() -> None:
    """Print a line for each way of making copies worse."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("data", help="colour pictures of 8 bits")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--copies", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sheet", default="called.png")
    asked = parser.parse_args()
    random, network, source = np.random.default_rng(asked.seed), load(asked.run, "cpu"), open_data(asked.data).train
    drawn = random.permutation(len(source))[: asked.pictures]
    pictures = [Image.fromarray(source.read(index).transpose(1, 2, 0)) for index in drawn.tolist()]
    originals = random.permutation(len(pictures))[: asked.copies]
    values = network.embed(pictures).numpy()

    alone = duplicates(table(values))
    draw(alone, pictures, asked.sheet)
    print(alone.as_text().splitlines()[0])
    print(f"{asked.sheet}: {alone.removed} pictures beside those that they are near-duplicates of")
    beside, _ = nearest(values, values, 1, leave_out=np.arange(len(values)))
    best = float(np.quantile(beside, 0.999))
    print(f"\ncopies                      found by auto   at cosine {best:.4f}, which 0.1 % reach")
    for kind, change in KINDS.items():
        made = network.embed([change(pictures[place]) for place in originals]).numpy()
        kept = leaders(duplicates(table(np.concatenate([values, made]))))
        auto = (kept[originals] == kept[len(values) :]).mean()
        cosine = (normalised(made) * normalised(values[originals])).sum(1)
        print(f"{kind:26}  {auto:13.1%}   {float((cosine >= best).float().mean()):.1%}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
