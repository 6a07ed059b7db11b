"""How many planted copies ``diptych duplicates`` misses, and how many pairs it compares: against all pairs.

    python benchmarks/duplicates.py 20000

Vectors have 12 or 30 dimensions among 128 numbers, none below zero, as a network's do; a tenth have a copy at the
cosine of the row. Every pair above the threshold counts, those that came about by chance too.
"""

import argparse
import time

import numpy as np
from numpy.typing import NDArray

from diptych.vectors import cells
from diptych.vectors.neighbours import normalised


def cloud(count: int, dimensions: int, width: int = 128) -> NDArray[np.float32]:
    """Vectors as a network has them."""
    random = np.random.default_rng(0)
    mixed = random.standard_normal((count, dimensions)) @ random.standard_normal((dimensions, width))
    return np.maximum(mixed, 0).astype(np.float32)


def copies(values: NDArray[np.float32], cosine: float) -> NDArray[np.float32]:
    """Vectors at about that cosine to each of ``values``."""
    noise = np.random.default_rng(1).standard_normal(values.shape)
    lengths = np.linalg.norm(values, axis=1, keepdims=True) / np.linalg.norm(noise, axis=1, keepdims=True)
    return (values + noise * lengths * (1 / cosine**2 - 1) ** 0.5).astype(np.float32)


def all_pairs(values: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Return the numbers ``first * N + second`` of all pairs above the threshold."""
    unit, found = normalised(values), []
    for start in range(0, len(values), 1024):
        close = (unit[start : start + 1024] @ unit.T >= threshold).nonzero().numpy()
        one, other = close[:, 0] + start, close[:, 1]
        found.append((one * len(values) + other)[one < other])
    return np.concatenate(found)


def main() -> None:
    """Print a line for each kind of vectors and each cosine."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=20_000)
    parser.add_argument("--probed", type=int, nargs="+", default=[cells.PROBED])
    asked = parser.parse_args()
    print(
        "vectors  dimensions  probed  threshold    pairs  missed  planted missed  compared/all  seconds  all, seconds"
    )
    for dimensions in (12, 30):
        base = cloud(asked.count, dimensions)
        for cosine in (0.9, 0.95, 0.99):
            values = np.concatenate([base, copies(base[: asked.count // 10], cosine)])
            threshold = cosine - (1 - cosine) / 5
            began = time.perf_counter()
            true = all_pairs(values, threshold)
            slow = time.perf_counter() - began
            planted = np.intersect1d(true, np.arange(asked.count // 10) * (len(values) + 1) + asked.count)
            for probed in asked.probed:
                began = time.perf_counter()
                found = cells.pairs_above(values, threshold, cells.divide(values, probed))
                seconds = time.perf_counter() - began
                numbers = found.rows[:, 0] * len(values) + found.rows[:, 1]
                print(
                    f"{len(values):7,}  {dimensions:10}  {probed:6}  {threshold:9.3f}  {len(true):7,}"
                    f"  {1 - np.isin(true, numbers).mean():6.2%}  {1 - np.isin(planted, numbers).mean():14.2%}"
                    f"  {found.compared / (len(values) ** 2 / 2):12.1%}  {seconds:7.1f}  {slow:12.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
