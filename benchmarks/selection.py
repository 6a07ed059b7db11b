"""How far choosing without labels can be trusted: each metric's rank correlation with the linear probe.

    python benchmarks/selection.py cifar10.zip runs/methods/*-?/ --limit 10000 --out selection.json
    python benchmarks/selection.py cifar10.zip --out selection.json  # the table again, of what was measured

Every checkpoint is measured on pictures of DATA without labels, and by a linear probe with them. Which of all is best,
and which of one run's (means over runs with three or more)? Intervals are bootstrapped over runs, as checkpoints of one
run are alike; `lost` is the probe's accuracy of the best checkpoint less that of the one chosen, in points.
"""

import argparse
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from scipy.stats import ConstantInputWarning, spearmanr

from diptych.evaluation.choosing.candidates import candidates, read_origin
from diptych.evaluation.choosing.select import select
from diptych.evaluation.choosing.unlabelled import METRICS, clid
from diptych.evaluation.features import backbone_features
from diptych.evaluation.pictures import Labelled, open_labelled, read_labelled
from diptych.evaluation.probes.linear import fit_linear
from diptych.progress import Terminal

Run: TypeAlias = list[dict[str, Any]]
"""The checkpoints of one run: every metric, and ``probe``, the linear probe's accuracy in percent."""
RESAMPLES, FEWEST = 2000, 3


def measured(runs: Sequence[str], data: str, limit: int | None, pictures: int) -> dict[str, Run]:
    """Measure every checkpoint of every run with and without labels."""
    terminal = Terminal()
    found: dict[str, Run] = {}
    read: dict[object, Labelled] = {}
    for ranking in select(runs, data=data, pictures=pictures, terminal=terminal).runs:
        if (origin := read_origin(ranking.run)).format not in read:
            sources = open_labelled(data, None, limit, 0, origin.card.preprocessing.tile)
            read[origin.format] = read_labelled(sources, *origin.format, terminal)
        labelled = read[origin.format]
        values = {scored.checkpoint: scored.values for scored in ranking.checkpoints}
        found[ranking.run] = []
        for one in candidates(origin, "auto", terminal.say):
            if one.name in values:  # the features of the others are not finite
                train = backbone_features(one.backbone, labelled.train.images, labelled.train_labels)
                test = backbone_features(one.backbone, labelled.test.images, labelled.test_labels)
                right = fit_linear(train, test.values, len(labelled.classes), 0).logits.argmax(1) == test.labels
                found[ranking.run].append({**values[one.name], "probe": 100 * right.double().mean().item()})
                terminal.say(f"{ranking.run} {one.name}: linear probe {found[ranking.run][-1]['probe']:.1f} %")
    return found


def pairs(run: Run, metric: str) -> np.ndarray:
    """Return each checkpoint's merit by a metric, an undefined one the worst, and the probe's accuracy: ``(2, N)``."""
    return np.nan_to_num([[METRICS[metric].merit(one[metric]) for one in run], [one["probe"] for one in run]])


def correlation(run: Run, metric: str) -> float:
    """Spearman's, of a metric with the probe; 0 where the metric is the same everywhere and so says nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        return float(np.nan_to_num(spearmanr(*pairs(run, metric)).statistic))


def lost(run: Run, metric: str) -> float:
    """Points of the probe that choosing by a metric costs; of equals the later is chosen, as by ``select``."""
    merits, probes = pairs(run, metric)[:, ::-1]
    return probes.max() - probes[merits.argmax()]


def joined(run: Run) -> Run:
    """Standardise CLID over these checkpoints, as ``select`` does with those that it is given."""
    parts = ([one[name] for one in run] for name in ("learnability", "dimension"))
    return [one | {"clid": value} for one, value in zip(run, clid(*parts), strict=True)]


def interval(runs: Sequence[Run], statistic: Callable[[Sequence[Run]], float]) -> str:
    """Write a statistic of several runs with its 95 % interval over which runs there happened to be."""
    random = np.random.default_rng(0)
    draws = [statistic([runs[i] for i in random.integers(len(runs), size=len(runs))]) for _ in range(RESAMPLES)]
    low, high = np.quantile(draws, (0.025, 0.975))
    return f"{statistic(runs):+.2f} ({low:+.2f} to {high:+.2f})"


def table(runs: Sequence[Run]) -> str:
    """Write a line for each metric in Markdown."""
    rest = iter(whole := joined(sum(runs, [])))
    pooled = [[next(rest) for _ in run] for run in runs]
    long = [joined(run) for run in runs if len(run) >= FEWEST]
    lines = [
        f"{len(whole)} checkpoints of {len(runs)} runs, {len(long)} of which have {FEWEST} or more\n",
        "| metric | Spearman, all | lost | Spearman, within a run | lost |\n|---|---|---|---|---|",
    ]
    for metric in METRICS:
        cells = [interval(pooled, lambda some, m=metric: correlation(sum(some, []), m)), f"{lost(whole, metric):.1f}"]
        within = [interval(long, lambda some, m=metric: np.mean([correlation(run, m) for run in some]))] if long else []
        within += [f"{np.mean([lost(run, metric) for run in long]):.1f}"] if long else ["", ""]
        lines.append(f"| {METRICS[metric].title} | {' | '.join([*cells, *within])} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the runs that are named, if any, then print the table of all that was measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("runs", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--pictures", type=int, default=2000)
    if (asked := parser.parse_args()).runs:
        asked.out.write_text(json.dumps(measured(asked.runs, asked.data, asked.limit, asked.pictures)))
    print(table(list(json.loads(asked.out.read_text()).values())))


if __name__ == "__main__":
    main()
