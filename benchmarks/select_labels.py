"""What choosing pictures to label is worth: a linear probe that learns from them, beside one that learns from others.

    diptych embed RUN cifar10.zip --part train --out train.parquet
    diptych embed RUN cifar10.zip --part test --out test.parquet
    python benchmarks/select_labels.py train.parquet test.parquet --out select_labels.json

Every method of ``diptych select-labels`` chooses among the training pictures with each seed, without their labels; the
probe of ``diptych evaluate`` learns from the labels of those, and is tested on all test pictures. Intervals are
Student's over seeds; a gain is the paired difference from random choice by seed. `apart` says whether the intervals of
the method and of random choice have nothing in common.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from scipy.stats import t

from diptych.evaluation.features import Features
from diptych.evaluation.probes.linear import fit_linear
from diptych.vectors.choices import CHOICES
from diptych.vectors.select_labels import select_labels
from diptych.vectors.table import Vectors, read_vectors

LEVEL = 0.95


def labels_of(vectors: Vectors, classes: Sequence[str]) -> torch.Tensor:
    """Return the class of each picture as its place among all, ``(N,)`` int64."""
    assert vectors.labels is not None
    return torch.tensor([classes.index(label or "") for label in vectors.labels])


def measure(train: Vectors, test: Vectors, budgets: Sequence[int], seeds: Sequence[int], out: Path) -> None:
    """Write the probe's accuracy in percent, budget → method → of each seed, after every budget."""
    classes = sorted({label for label in train.labels or () if label is not None})
    learned, truth = labels_of(train, classes), labels_of(test, classes)
    values, tested = (torch.from_numpy(part.values[:]).float() for part in (train, test))
    unlabelled = replace(train, labels=None)
    found: dict[str, dict[str, list[float]]] = {}
    for budget in budgets:
        for method in CHOICES:
            for seed in seeds:
                rows = torch.tensor(
                    [one.row for one in select_labels(unlabelled, budget, method=method, seed=seed).listed]
                )
                probe = fit_linear(Features(values[rows], learned[rows]), tested, len(classes), seed)
                right = 100 * (probe.logits.argmax(1) == truth).double().mean().item()
                found.setdefault(str(budget), {}).setdefault(method, []).append(right)
            print(f"{budget} labels, {method}: {found[str(budget)][method]}", flush=True)
        out.write_text(json.dumps(found))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean, and where that of other seeds would lie."""
    mean = statistics.fmean(values)
    half = t.ppf((1 + LEVEL) / 2, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """Write a line for each budget and method in Markdown."""
    lines = ["| labels | method | accuracy, % (95 %) | gain over random (95 %) | apart |", "|---|---|---|---|---|"]
    for budget, methods in found.items():
        _, low, high = interval(methods["random"])
        for method, values in methods.items():
            mean, least, most = interval(values)
            cells = f"{mean:.1f} ({least:.1f} to {most:.1f})"
            if method == "random":
                lines.append(f"| {budget} | random | {cells} | | |")
                continue
            gain = interval([one - other for one, other in zip(values, methods["random"], strict=True)])
            apart = "yes" if least > high else "yes, below" if most < low else "no"
            told = "{:+.1f} ({:+.1f} to {:+.1f})".format(*gain)
            lines.append(f"| {budget} | {method} | {cells} | {told} | {apart} |")
    return "\n".join(lines)


def main() -> None:
    """Measure if vectors are given, then print the table of all that was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("vectors", nargs="*", metavar="TRAIN TEST")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budgets", type=int, nargs="+", default=[50, 100, 500])
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    if asked.vectors:
        train, test = map(read_vectors, asked.vectors)
        measure(train, test, asked.budgets, range(asked.seeds), asked.out)
    print(table(json.loads(asked.out.read_text())))


if __name__ == "__main__":
    main()
