"""An evaluation as people read it on a terminal: the verdict, then who reached what."""

from collections.abc import Mapping, Sequence
from typing import Any

from diptych.evaluation.numbers.headline import HEADLINES, MISSING, Headline
from diptych.evaluation.verdict import PROBE_NAMES

BEFORE = {"initial": "initial", "random": "untrained", "scratch": "from scratch"}
"""Contender that a verdict compares with → its name in a difference."""

EARLIER = {"pretrained": "pretrained", "random": "same network, untrained", "pixels": "raw pixels"}
Row = tuple[str, ...]
QUANTITIES = {"r2": "R²", "mae": "mean absolute error", "rmse": "root mean squared error", "spearman": "Spearman"}
"""What is told of every quantity, by its key in ``metrics.py``."""


def contender_names(result: Mapping[str, Any]) -> dict[str, str]:
    """Return who met in an evaluation, in the order in which they are listed: contender → name for people."""
    names: dict[str, str] = result.get("names", EARLIER)  # results of before contenders could be chosen have none
    if "init_from" not in result:
        return names
    initial = {"initial": f"initial ({result['init_from']})"}
    return {key: (names | initial)[key] for key in dict.fromkeys(["pretrained", *initial, *names])}


def compared_with(result: Mapping[str, Any], probe: str) -> str:
    """Return the contender that the verdict compares with under a probe."""
    earlier = "initial" if "init_from" in result else "random"
    return str(result.get("compared_with", {}).get(probe, earlier))


def headline_of(result: Mapping[str, Any]) -> Headline:
    """Return what the verdict compares by."""
    return HEADLINES[result.get("task", "classes")]


def as_text(result: Mapping[str, Any]) -> str:
    """Return lines of plain text for what ``evaluate`` returned."""
    lines = [point["verdict"]["sentence"] for point in result.get("curve", [])] or [result["verdict"]["sentence"]]
    if "curve" in result:
        lines += [*_saved(result), "", *_curve(result)]
    else:
        lines += ["", *_scores(result)]
    lines += [*_quantities(result), ""]
    headline = headline_of(result)
    for probe, d in result["differences"].items():
        other = BEFORE[compared_with(result, probe)]
        lines.append(f"{PROBE_NAMES[probe]}: pretrained - {other} = {_gain(d, headline)}")
    if result["verdict"]["outcome"] == "no evidence":
        smallest = ", ".join(
            f"{PROBE_NAMES[p]} {d['detectable']:.{headline.decimals}f}" for p, d in result["differences"].items()
        )
        lines.append(f"A gain that would have been found in 4 of 5 such evaluations, in {headline.gains}: {smallest}")
    for key, found in result.get("gains", {}).items():
        for probe, d in found.items():
            if key != compared_with(result, probe):
                lines.append(
                    f"{PROBE_NAMES[probe]}: pretrained - {contender_names(result)[key]} = {_gain(d, headline)}"
                )
    if without := result["leaks"]["without"]:
        left = result["leaks"]["test_pictures"] - result["leaks"]["tainted"]
        told = "; ".join(
            f"{contender_names(result)[key]} "
            + ", ".join(f"{PROBE_NAMES[p]} {headline.written(value)}" for p, value in found.items())
            for key, found in without.items()
        )
        lines.append(f"On the {left:,} test pictures that have not leaked: {told}")
    if "imbalance" in result:
        lines.append(f"{result['imbalance']}")
    data = result["data"]
    lines.append(f"{data['train_pictures']:,} training and {data['test_pictures']:,} test pictures: {data['note']}")
    return "\n".join(lines)


def _gain(d: Mapping[str, Any], headline: Headline) -> str:
    gain, low, high = (headline.signed(value) for value in (d["points"], *d["ci"]))
    p = f", p {_p(d['p_value'])}" if "p_value" in d else ""  # results of before p-values were given have none
    return f"{gain}{headline.unit} ({100 * d['level']:.3g} % interval {low} to {high}{p})"


def _p(value: float) -> str:
    return "below 0.001" if value < 0.001 else f"{value:.3f}"


def _scores(result: Mapping[str, Any]) -> list[str]:
    headline = headline_of(result)
    second = headline.second
    rows: list[Row] = [("probe", "contender", headline.column, "95 % interval", headline.second_column)]
    for probe in result["differences"]:
        for contender, name in contender_names(result).items():
            if scores := result["contenders"].get(contender, {}).get(probe):
                found, between = headline.number(scores[headline.key]), headline.between(*scores["ci95"])
                rows.append((PROBE_NAMES[probe], name, found, between, headline.number(scores[second])))
    return _align(rows)


def _quantities(result: Mapping[str, Any]) -> list[str]:
    """Return every quantity's own numbers, by the probe that the verdict quotes; their units forbid a mean."""
    probe = result["verdict"]["probe"]
    scores = result["contenders"]["pretrained"][probe]
    lines = []
    for place, name in enumerate(result["data"].get("targets", ())):
        found = {told: scores[f"{key}_per_target"][place] for key, told in QUANTITIES.items()}
        told = ", ".join(f"{key} {MISSING if value is None else f'{value:.4g}'}" for key, value in found.items())
        lines.append(f"{name}: {told} ({PROBE_NAMES[probe]}, pretrained)")
    return ["", *lines] if lines else []


def _curve(result: Mapping[str, Any]) -> list[str]:
    """One row a probe and contender, one column a budget of labels: the mean over the seeds, and its interval."""
    points, headline = result["curve"], headline_of(result)
    told = [f"{point['labels']} ({point['pictures']:,})" for point in points]
    rows: list[Row] = [("probe", "contender", *told)]
    for probe in result["differences"]:
        for contender, name in contender_names(result).items():
            scores = [point["contenders"].get(contender, {}).get(probe) for point in points]
            if any(scores):
                cells = (_cell(s, headline) for s in scores)
                rows.append((PROBE_NAMES[probe], name, *cells))
    seeds = len(next(iter(points[-1]["contenders"]["pretrained"].values()))["seeds"])
    column = headline.column[0].upper() + headline.column[1:]
    note = f"{column} by labels (pictures), mean of {seeds} seed{'s' if seeds > 1 else ''}, 95 % interval:"
    return [note, *_align(rows)]


def _cell(scores: Mapping[str, Any], headline: Headline) -> str:
    low, high = map(headline.number, scores["ci95"])
    return f"{headline.number(scores[headline.key])} ({low}{' to ' if '-' in low + high else '-'}{high})"


def saved_of(result: Mapping[str, Any], point: Mapping[str, Any], probe: str) -> str | None:
    """Say what the labels of one budget are worth without pretraining.

    Returns:
        None where it has shown no gain there, or fewer labels are worth more than all already.
    """
    saved = point["saved"].get(probe)
    if not saved or point is result["curve"][-1] or point["gains"][saved["against"]][probe]["ci"][0] <= 0:
        return None
    fewer = result["curve"][: result["curve"].index(point)]
    if any(saved_of(result, one, probe) and one["saved"][probe]["labels"] is None for one in fewer):
        return None
    if saved["labels"] is None:
        worth = f"more than all {result['curve'][-1]['pictures']:,} labels"
    else:
        worth = f"{saved['labels']:,.0f} labels ({saved['factor']:.1f} times as many)"
    return f"{point['pictures']:,} labels with pretraining are worth {worth} {BEFORE[saved['against']]}"


def _saved(result: Mapping[str, Any]) -> list[str]:
    found = [(probe, saved_of(result, point, probe)) for point in result["curve"] for probe in point["saved"]]
    return [f"{PROBE_NAMES[probe]}: {said}" for probe, said in found if said]


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
