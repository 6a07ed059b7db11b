"""`diptych compare`: several runs side by side, as far as they can be compared.

What stands side by side is of one kind: losses of one method; accuracies on the same test pictures, by probes that
learned from the same pictures in the same way. Everything is read from the run folders.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diptych import figures
from diptych.config import flatten
from diptych.errors import ConfigError, DataError, RunFolderError
from diptych.evaluation.table import compared_with, headline_of
from diptych.markup import get
from diptych.reports.charts import Curve
from diptych.reports.collect import Evaluation, Facts, collect
from diptych.reports.sections import CURVES
from diptych.runs import writing_errors

PICTURE, PAGE = "compare.png", "compare.html"
MARK = '<meta name="generator" content="diptych compare">'
"""Inside every page made here, so that it may be made again in its place."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What one run is and came to; None where it is not known, or there is none."""

    run: str
    """The folder as the user named it."""
    name: str
    """Short, and different from the other runs'."""
    method: str | None
    backbone: str | None
    pictures: int
    data: str
    status: str
    """``unfinished``, or how it ended."""
    epochs: float
    """Done."""
    planned_epochs: int | None
    health: str | None
    """What the guard found last."""
    recoveries: int
    loss: float | None
    """Mean over the last epoch's records, as are the other metrics."""
    embedding_std: float | None
    effective_rank: float | None
    neighbour_stability: float | None
    knn_top1: float | None
    linear_top1: float | None
    seconds: float | None
    images_per_second: float | None
    device: str | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """Evaluations that may stand side by side: of the same pictures, by the same probes and the same seed."""

    data: str
    protocol: str
    seed: int
    train_pictures: int
    test_pictures: int
    headline: str
    """Key of the number that they are compared by: ``top1``, ``macro_average_precision`` or ``r2``."""
    results: dict[str, dict[str, Any]]
    """Run's name → probe → contenders' scores, the difference from the untrained network, and who that was."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs side by side."""

    runs: list[Entry]
    differences: dict[str, list[Any]]
    """Setting → its value in each run; only those that differ."""
    evaluations: list[Group]
    """Those with most runs first."""
    curves: list[tuple[Curve, list[tuple[int, list[tuple[float, float]]]]]]
    """Metric → each run's number and its (epoch, value)."""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; the curves are in the runs' own metrics.jsonl."""
        return {
            "runs": [asdict(entry) for entry in self.runs],
            "differences": self.differences,
            "evaluations": [asdict(group) for group in self.evaluations],
        }


def compare(runs: Sequence[str | Path]) -> Comparison:
    """Read runs and put them side by side.

    Raises:
        ConfigError: there are fewer than two.
        RunFolderError: one is no run folder, is damaged, or is named twice.
    """
    if len(runs) < 2:
        raise ConfigError("one run alone compares with nothing: type `diptych compare RUN RUN`")
    seen: dict[Path, str | Path] = {}
    for run in runs:
        if (place := Path(run).resolve()) in seen:
            raise RunFolderError(f"{run} is the same folder as {seen[place]}: name each run once")
        seen[place] = run
    found = [collect(run) for run in runs]
    names = _names(runs)
    return Comparison(
        runs=[_entry(facts, name) for facts, name in zip(found, names, strict=True)],
        differences=_differences([facts.card["config"] for facts in found]),
        evaluations=_groups(found, names),
        curves=_curves(found),
    )


def draw(comparison: Comparison, out: Path) -> list[Path]:
    """Draw the curves into the folder ``out``; returns the picture's path, or nothing where nothing was recorded.

    Raises:
        DataError: a file of that name is there that was not drawn here.
    """
    path = out / PICTURE
    if path.exists() and not figures.is_ours(path):
        raise DataError(f"{path} is there already, and diptych did not draw it: choose another --out")
    if not comparison.curves:
        return []
    panels = [
        (curve.title, [(number, *np.array(points, dtype=float).T) for number, points in lines])
        for curve, lines in comparison.curves
    ]
    with writing_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    figures.overlaid_curves(path, panels, [entry.name for entry in comparison.runs])
    return [path]


def _names(runs: Sequence[str | Path]) -> list[str]:
    """Name runs by their folders, or by the whole paths where two folders have one name."""
    short = [Path(run).resolve().name for run in runs]
    return short if len(set(short)) == len(short) else [str(run) for run in runs]


def _entry(facts: Facts, name: str) -> Entry:
    card, records = facts.card, facts.records
    result = card["result"]
    ended = records[-1]["epoch"] if records else 0.0
    last = [record for record in records if record["epoch"] > ended - 1]

    def mean(key: str) -> float | None:
        values = [record[key] for record in last if key in record]
        return sum(values) / len(values) if values else None

    return Entry(
        run=facts.run,
        name=name,
        method=get(card, "config", "method", "name"),
        backbone=get(card, "config", "backbone"),
        pictures=card["data"]["pictures"],
        data=card["data"]["name"],
        status=result["status"] if result else "unfinished",
        epochs=result["epochs"] if result else ended,
        planned_epochs=get(card, "config", "train", "epochs"),
        health=next((record["health"] for record in reversed(records) if "health" in record), None),
        recoveries=len(card.get("recoveries", [])),
        loss=mean("loss"),
        embedding_std=mean("embedding_std"),
        effective_rank=mean("effective_rank"),
        neighbour_stability=mean("neighbour_stability"),
        knn_top1=mean("knn_top1"),
        linear_top1=mean("linear_top1"),
        seconds=result["seconds"] if result else records[-1]["seconds"] if records else None,
        images_per_second=result["images_per_second"] if result else mean("images_per_second"),
        device=get(card, "hardware", "device"),
    )


def _differences(configs: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """List the settings that differ. Of different methods, those that only one has say nothing and are left out."""
    flat = [flatten(config) for config in configs]
    keys = list(dict.fromkeys(key for config in flat for key in config))
    if len({config.get("method.name") for config in flat}) > 1:
        keys = [key for key in keys if not key.startswith("method.") or all(key in config for config in flat)]
    rows = {key: [config.get(key) for config in flat] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}


def _groups(found: Sequence[Facts], names: Sequence[str]) -> list[Group]:
    groups: dict[str, Group] = {}
    for facts, name in zip(found, names, strict=True):
        for evaluation in facts.evaluations:  # the newest first
            result = evaluation.result
            data = result["data"]
            group = groups.setdefault(
                _same(evaluation),
                Group(
                    data=data["name"],
                    protocol=result["protocol"],
                    seed=result["seed"],
                    train_pictures=data["train_pictures"],
                    test_pictures=data["test_pictures"],
                    headline=headline_of(result).key,
                    results={},
                ),
            )
            group.results.setdefault(name, _scores(result))
    return sorted(groups.values(), key=lambda group: -len(group.results))


def _same(evaluation: Evaluation) -> str:
    """Return what two evaluations must share to be compared. Pixels are of each run's own size, and no part of it."""
    result, data = evaluation.result, evaluation.result["data"]
    settings = {name: value for name, value in result["settings"].items() if name != "pixels"}
    asked = [data.get(key) for key in ("classes", "labels", "targets", "segments")]
    shared = (data.get("fingerprint"), data["train_pictures"], data["test_pictures"], asked)
    return json.dumps([*shared, result["protocol"], result["seed"], settings], sort_keys=True)


def _scores(result: dict[str, Any]) -> dict[str, Any]:
    headline = headline_of(result).key
    return {
        probe: {
            "against": compared_with(result, probe),
            "difference": difference,
            **{
                contender: {headline: scores[probe][headline], "ci95": scores[probe]["ci95"]}
                for contender, scores in result["contenders"].items()
                if probe in scores
            },
        }
        for probe, difference in result["differences"].items()
    }


def _curves(found: Sequence[Facts]) -> list[tuple[Curve, list[tuple[int, list[tuple[float, float]]]]]]:
    """Collect what was recorded; the losses of different methods do not compare, so each method has its own panel."""
    methods = [get(facts.card, "config", "method", "name") for facts in found]
    curves = []
    for curve in CURVES:
        lines = [
            (number, points)
            for number, facts in enumerate(found)
            if (points := [(r["epoch"], r[curve.key]) for r in facts.records if r.get(curve.key) is not None])
        ]
        if curve.key != "loss" or len(set(methods)) == 1:
            curves.append((curve, lines))
            continue
        for method in dict.fromkeys(methods):
            own = [(number, points) for number, points in lines if methods[number] == method]
            curves.append((Curve(key="loss", title=f"Loss of {method}", note=curve.note), own))
    return [(curve, lines) for curve, lines in curves if lines]
