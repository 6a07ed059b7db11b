"""A segmentation as people read it on a terminal: the verdict, who reached what, and each class by itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from diptych.evaluation.numbers.headline import MIOU, MISSING
from diptych.evaluation.table import BEFORE, contender_names

PROBE = "linear"


def as_text(result: Mapping[str, Any]) -> str:
    """Return lines of plain text for what ``evaluate_segmentation`` returned."""
    names = contender_names(result)
    scores = {key: result["contenders"][key][PROBE] for key in names}
    rows = [("contender", MIOU.column, "95 % interval", MIOU.second_column)]
    for key, found in scores.items():
        numbers = (MIOU.number(found[MIOU.key]), MIOU.between(*found["ci95"]), MIOU.number(found[MIOU.second]))
        rows.append((names[key], *numbers))
    before = result["compared_with"][PROBE]
    ours, theirs = (scores[key]["per_class"] for key in ("pretrained", before))
    each = [("class", "IoU %, pretrained", BEFORE[before], "gain, points")]
    for name in result["data"]["segments"]:
        gain = MISSING if ours[name] is None else MIOU.signed(100 * (ours[name] - theirs[name]))
        each.append((name, MIOU.number(ours[name]), MIOU.number(theirs[name]), gain))
    data, d = result["data"], result["differences"][PROBE]
    lines = [result["verdict"]["sentence"], "", *_aligned(rows), "", *_aligned(each), ""]
    if result["verdict"]["outcome"] == "no evidence":
        lines.append(f"A gain that would have been found in 4 of 5 such evaluations: {d['detectable']:.1f}{MIOU.unit}")
    lines.append(f"{data['train_pictures']:,} training and {data['test_pictures']:,} test pictures: {data['note']}")
    return "\n".join(lines)


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Pad to columns: names to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows]
    return [lines[0], "-" * len(lines[0]), *lines[1:]]
