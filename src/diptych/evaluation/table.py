"""An evaluation as people read it on a terminal: the verdict, then who reached what."""

from collections.abc import Mapping, Sequence
from typing import Any

from diptych.evaluation.verdict import PROBE_NAMES, signed

BEFORE = {"initial": "initial", "random": "untrained", "scratch": "from scratch"}
"""Contender that a verdict compares with → its name in a difference."""

EARLIER = {"pretrained": "pretrained", "random": "same network, untrained", "pixels": "raw pixels"}
Row = tuple[str, ...]
_HEADER = ("probe", "contender", "top-1 %", "95 % interval", "balanced %")


def contender_names(result: Mapping[str, Any]) -> dict[str, str]:
    """Return who met in an evaluation, in the order in which they are listed: contender → name for people."""
    names: dict[str, str] = result.get("names", EARLIER)  # results of before contenders could be chosen have none
    return names | ({"initial": f"initial ({result['init_from']})"} if "init_from" in result else {})


def compared_with(result: Mapping[str, Any], probe: str) -> str:
    """Return the contender that the verdict compares with under a probe."""
    earlier = "initial" if "init_from" in result else "random"
    return str(result.get("compared_with", {}).get(probe, earlier))


def as_text(result: Mapping[str, Any]) -> str:
    """Return lines of plain text for what ``evaluate`` returned."""
    lines = [point["verdict"]["sentence"] for point in result.get("curve", [])] or [result["verdict"]["sentence"]]
    if "curve" in result:
        lines += [*_saved(result), "", *_curve(result)]
    else:
        lines += ["", *_scores(result)]
    lines.append("")
    for probe, d in result["differences"].items():
        lines.append(f"{PROBE_NAMES[probe]}: pretrained - {BEFORE[compared_with(result, probe)]} = {_points(d)}")
    if result["verdict"]["outcome"] == "no evidence":
        smallest = ", ".join(f"{PROBE_NAMES[p]} {d['detectable']:.1f}" for p, d in result["differences"].items())
        lines.append(f"A gain that would have been found in 4 of 5 such evaluations, in points: {smallest}")
    for key, found in result["gains"].items():
        for probe, d in found.items():
            if key != compared_with(result, probe):
                lines.append(f"{PROBE_NAMES[probe]}: pretrained - {contender_names(result)[key]} = {_points(d)}")
    if without := result["leaks"]["without"]:
        left = result["leaks"]["test_pictures"] - result["leaks"]["tainted"]
        told = "; ".join(
            f"{contender_names(result)[key]} "
            + ", ".join(f"{PROBE_NAMES[p]} {100 * top1:.1f} %" for p, top1 in found.items())
            for key, found in without.items()
        )
        lines.append(f"On the {left:,} test pictures that have not leaked: {told}")
    if "imbalance" in result:
        lines.append(f"{result['imbalance']}")
    data = result["data"]
    lines.append(f"{data['train_pictures']:,} training and {data['test_pictures']:,} test pictures: {data['note']}")
    return "\n".join(lines)


def _points(d: Mapping[str, Any]) -> str:
    low, high = d["ci"]
    return (
        f"{signed(d['points'])} points ({100 * d['level']:.3g} % interval {signed(low)} to {signed(high)}, "
        f"p {_p(d['p_value'])})"
    )


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def _scores(result: Mapping[str, Any]) -> list[str]:
    rows: list[Row] = [_HEADER]
    for probe in result["differences"]:
        for contender, name in contender_names(result).items():
            if scores := result["contenders"].get(contender, {}).get(probe):
                low, high = scores["ci95"]
                rows.append(
                    (
                        PROBE_NAMES[probe],
                        name,
                        f"{100 * scores['top1']:.1f}",
                        f"{100 * low:.1f} to {100 * high:.1f}",
                        f"{100 * scores['balanced_accuracy']:.1f}",
                    )
                )
    return _align(rows)


def _curve(result: Mapping[str, Any]) -> list[str]:
    """One row a probe and contender, one column a budget of labels: mean accuracy over the seeds, and its interval."""
    points = result["curve"]
    told = [f"{point['labels']} ({point['pictures']:,})" for point in points]
    rows: list[Row] = [("probe", "contender", *told)]
    for probe in result["differences"]:
        for contender, name in contender_names(result).items():
            scores = [point["contenders"].get(contender, {}).get(probe) for point in points]
            if any(scores):
                cells = (f"{100 * s['top1']:.1f} ({100 * s['ci95'][0]:.1f}-{100 * s['ci95'][1]:.1f})" for s in scores)
                rows.append((PROBE_NAMES[probe], name, *cells))
    seeds = len(next(iter(points[-1]["contenders"]["pretrained"].values()))["seeds"])
    note = f"Top-1 % by labels (pictures), mean of {seeds} seed{'s' if seeds > 1 else ''}, 95 % interval:"
    return [note, *_align(rows)]


def _saved(result: Mapping[str, Any]) -> list[str]:
    """Say what the labels that were used are worth without pretraining."""
    lines = []
    for point in result["curve"][:-1]:
        for probe, saved in point["saved"].items():
            other = BEFORE[saved["against"]]
            if point["gains"][saved["against"]][probe]["ci"][0] <= 0:
                continue
            if saved["labels"] is None:
                worth = f"more than all {result['curve'][-1]['pictures']:,} labels"
            else:
                worth = f"{saved['labels']:,.0f} labels ({saved['factor']:.1f} times as many)"
            lines.append(
                f"{PROBE_NAMES[probe]}: {point['pictures']:,} labels with pretraining are worth {worth} {other}"
            )
    return lines


def _align(rows: Sequence[Row]) -> list[str]:
    """Pad to columns: words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(w) if column < 2 else cell.rjust(w)
            for column, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
