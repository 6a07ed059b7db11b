"""Exact search of 1,000 queries among 100,000 × 256 vectors: ours, scikit-learn's brute force and FAISS's flat index.

    python benchmarks/search.py

All take the same float32 vectors and return the 20 nearest by cosine. Ours normalises both and gives similarities of
float64 in a fixed order; for the others, vectors of length 1 are made beforehand, outside of the clock, and FAISS's
index is filled outside of it. Each is run three times, by turns, and the quickest run counts.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from diptych.vectors.index import faiss
from diptych.vectors.neighbours import nearest, normalised

ROUNDS = 3


def main() -> None:
    """Print the seconds of each, their ratios, and whether all found the same."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--queries", type=int, default=1000)
    parser.add_argument("-k", type=int, default=20)
    asked = parser.parse_args()
    library = faiss()
    library.omp_set_num_threads(torch.get_num_threads())
    random = np.random.default_rng(0)
    vectors = random.standard_normal((asked.vectors, asked.width), dtype=np.float32)
    queries = random.standard_normal((asked.queries, asked.width), dtype=np.float32)
    unit, wanted = normalised(vectors).numpy(), normalised(queries).numpy()
    flat = library.IndexFlatIP(asked.width)
    flat.add(unit)
    brute = NearestNeighbors(n_neighbors=asked.k, algorithm="brute").fit(unit)
    half = vectors.astype(np.float16)
    ways: dict[str, Callable[[], np.ndarray]] = {
        "ours": lambda: nearest(queries, vectors, asked.k)[1],
        "ours, float16": lambda: nearest(queries, half, asked.k)[1],
        "scikit-learn": lambda: brute.kneighbors(wanted, return_distance=False),
        "faiss flat": lambda: flat.search(wanted, asked.k)[1],
    }
    seconds = dict.fromkeys(ways, float("inf"))
    found: dict[str, np.ndarray] = {}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter()
            found[name] = way()
            seconds[name] = min(seconds[name], time.perf_counter() - began)
    print(f"{asked.queries:,} queries, {asked.vectors:,} × {asked.width}, {torch.get_num_threads()} threads")
    for name, rows in found.items():
        same = np.mean([len(np.intersect1d(*both)) / asked.k for both in zip(rows, found["ours"], strict=True)])
        print(f"{name:14} {seconds[name]:6.2f} s  × {seconds[name] / seconds['ours']:.2f}  the same {same:.4%}")


if __name__ == "__main__":
    main()
