"""What is told of each label, class of pixels or quantity by itself: a mean over them hides which are hard."""

from collections.abc import Mapping, Sequence
from typing import Any

from diptych.evaluation.numbers.headline import MISSING
from diptych.evaluation.table import BEFORE, QUANTITIES, compared_with
from diptych.markup import get, name, number, percent, section, signed, text
from diptych.reports.collect import Evaluation, Facts
from diptych.reports.verdict import probe_name, quoted_probe, title_of


def each_section(report: Facts) -> str:
    """Return the numbers of each label or quantity, of every evaluation that asked for several labels, or for some."""
    lede = "A mean over labels, classes or quantities hides which of them are hard."
    return section("each", "One by one", lede, "".join(map(_evaluation, report.evaluations)))


def _evaluation(evaluation: Evaluation) -> str:
    """Return one table by the probe that the verdict quotes; nothing where each picture has one class."""
    result = evaluation.result
    probe = quoted_probe(result)
    before = compared_with(result, probe)
    ours, theirs = (get(result, "contenders", key, probe) for key in ("pretrained", before))
    if "labels" in result["data"]:
        heads, rows = _labels(result["data"]["labels"], ours, theirs, BEFORE[before])
    elif "segments" in result["data"]:
        heads, rows = _segments(result["data"]["segments"], ours, theirs, BEFORE[before])
    elif "targets" in result["data"]:
        heads, rows = _quantities(result["data"]["targets"], ours, theirs, BEFORE[before])
    else:
        return ""
    head = "".join(f'<th scope="col">{text(told)}</th>' for told in heads)
    body = "".join(
        f'<tr><th scope="row">{name(label)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in cells)}</tr>'
        for label, cells in rows
    )
    return (
        f'<h3>{title_of(evaluation)} <span class="muted">{text(probe_name(probe))}</span></h3><div class="scroll">'
        f'<table class="scores"><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


Rows = list[tuple[str, Sequence[str]]]
"""A label or quantity, and its cells."""


def _labels(
    labels: Sequence[str], ours: Mapping[str, Any], theirs: Mapping[str, Any], before: str
) -> tuple[Sequence[str], Rows]:
    """Compare average precisions; the hardest label comes first, one without any last."""
    rows: list[tuple[float, str, Sequence[str]]] = []
    for label in labels:
        one, other = ours["per_label"][label], theirs["per_label"][label]
        gain = MISSING if one is None or other is None else signed(100 * (one - other))
        rows.append((2 if one is None else one, label, (percent(one), percent(other), gain)))
    heads = ("average precision, pretrained", before, "gain, points")
    return heads, [(label, cells) for _, label, cells in sorted(rows, key=lambda row: row[0])]


def _segments(
    classes: Sequence[str], ours: Mapping[str, Any], theirs: Mapping[str, Any], before: str
) -> tuple[Sequence[str], Rows]:
    """Compare the IoU of each class, in the order of their numbers."""
    found = [(label, ours["per_class"][label], theirs["per_class"][label]) for label in classes]
    rows: Rows = [
        (label, [percent(one), percent(other), MISSING if one is None else signed(100 * (one - other))])
        for label, one, other in found
    ]
    return ("IoU, pretrained", before, "gain, points"), rows


def _quantities(
    names: Sequence[str], ours: Mapping[str, Any], theirs: Mapping[str, Any], before: str
) -> tuple[Sequence[str], Rows]:
    """Put what is told of each quantity beside the same before training, in its own unit."""
    heads = [f"{told}{by}" for told in QUANTITIES.values() for by in (", pretrained", f", {before}")]
    return heads, [
        (label, [_told(scores[f"{key}_per_target"][place]) for key in QUANTITIES for scores in (ours, theirs)])
        for place, label in enumerate(names)
    ]


def _told(value: float | None) -> str:
    return MISSING if value is None else number(value)
