"""An evaluation as people read it on a terminal: the verdict, then who reached what."""

from collections.abc import Mapping
from typing import Any

from diptych.evaluation.verdict import PROBE_NAMES, signed

BEFORE = {"initial": "initial", "random": "untrained"}
"""Contender that a verdict compares with → its name in a difference."""

_HEADER = ("probe", "contender", "top-1 %", "95 % interval", "balanced %")


def contender_names(result: Mapping[str, Any]) -> dict[str, str]:
    """Return who met in an evaluation, in the order in which they are listed: contender → name for people."""
    initial = {"initial": f"initial ({result['init_from']})"} if "init_from" in result else {}
    return {"pretrained": "pretrained", **initial, "random": "same network, untrained", "pixels": "raw pixels"}


def compared_with(result: Mapping[str, Any]) -> str:
    """Return the contender that the verdict and the differences compare with."""
    return "initial" if "init_from" in result else "random"


def as_text(result: Mapping[str, Any]) -> str:
    """Return lines of plain text for what ``evaluate`` returned."""
    rows: list[tuple[str, ...]] = [_HEADER]
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
    lines = [result["verdict"]["sentence"], "", *_align(rows), ""]
    for probe, d in result["differences"].items():
        low, high = d["ci"]
        lines.append(
            f"{PROBE_NAMES[probe]}: pretrained - {BEFORE[compared_with(result)]} = {signed(d['points'])} points "
            f"({100 * d['level']:g} % interval {signed(low)} to {signed(high)})"
        )
    data = result["data"]
    lines.append(f"{data['train_pictures']:,} training and {data['test_pictures']:,} test pictures: {data['note']}")
    return "\n".join(lines)


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    """Pad to columns: words to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        "  ".join(
            cell.ljust(w) if column < 2 else cell.rjust(w)
            for column, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
