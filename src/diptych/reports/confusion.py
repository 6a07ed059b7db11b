"""Which classes are mistaken for which, and how many of each are found."""

from collections.abc import Sequence
from typing import Any

from diptych.evaluation.table import BEFORE, compared_with
from diptych.markup import get, name, percent, signed, text
from diptych.reports.collect import Evaluation
from diptych.reports.verdict import probe_name, quoted_probe, title_of

MATRIX_CLASSES = 20
"""More classes than this are shown as lists: nobody reads a matrix of thirty columns."""
PAIRS = 20
"""Most confused pairs listed."""
RECALLS = 20
"""Classes listed with their recall, the lowest first."""


def confusion_of(evaluation: Evaluation) -> str:
    """Return the pretrained backbone's confusions under the probe that the verdict quotes; nothing without classes."""
    result = evaluation.result
    if "classes" not in result["data"]:
        return ""
    probe = quoted_probe(result)
    reference = compared_with(result, probe)
    scores, reference_scores = (get(result, "contenders", kind, probe) for kind in ("pretrained", reference))
    classes, counts = result["data"]["classes"], scores["confusion"]
    before = get(reference_scores, "per_class") or {}
    body = (
        _matrix(classes, counts, scores["per_class"], before, BEFORE[reference])
        if len(classes) <= MATRIX_CLASSES
        else f'<div class="pair even">{_pairs(classes, counts)}'
        f"{_recalls(scores['per_class'], before, BEFORE[reference])}</div>"
    )
    return f'<h3>{title_of(evaluation)} <span class="muted">{text(probe_name(probe))}, pretrained</span></h3>{body}'


def _matrix(
    classes: Sequence[str],
    counts: Sequence[Sequence[int]],
    recalls: dict[str, float | None],
    before: dict[str, Any],
    over: str,
) -> str:
    heads = "".join(f'<th scope="col" class="turned" title="{text(c)}"><span>{name(c)}</span></th>' for c in classes)
    rows = []
    for i, (true, row) in enumerate(zip(classes, counts, strict=True)):
        total = sum(row)
        cells = "".join(
            _cell(count, total, i == j, f"{true} taken for {other}")
            for j, (other, count) in enumerate(zip(classes, row, strict=True))
        )
        recall, old = recalls.get(true), before.get(true)
        gain = "" if recall is None or old is None else signed(100 * (recall - old))
        rows.append(
            f'<tr><th scope="row" title="{text(true)}">{name(true)}</th>{cells}'
            f'<td class="recall">{percent(recall)}</td><td class="gain">{gain}</td></tr>'
        )
    return (
        '<div class="scroll"><table class="matrix"><thead><tr>'
        f'<td class="corner">truth ↓ &nbsp; taken for →</td>{heads}'
        '<th scope="col" class="recall">recall</th><th scope="col" class="gain">gain</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="muted">Numbers are test pictures; the shade is their part of the row. Gain: recall − that of the '
        f"{over} network, percentage points.</p>"
    )


def _cell(count: int, total: int, right: bool, said: str) -> str:
    share = count / total if total else 0.0
    # Rare mistakes would be invisible on a linear scale.
    alpha = share**0.7
    classes = ("right" if right else "wrong") + ("" if count else " zero")
    return (
        f'<td class="{classes}" style="--a:{alpha:.2f}" title="{text(said)}: {count} of {total} ({percent(share)})">'
        f"{count}</td>"
    )


def _pairs(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """List the mistakes that take the largest part of their class."""
    mistakes = [
        (count / sum(row), count, sum(row), true, other)
        for i, (true, row) in enumerate(zip(classes, counts, strict=True))
        for j, (other, count) in enumerate(zip(classes, row, strict=True))
        if count and i != j
    ]
    mistakes.sort(key=lambda mistake: mistake[:2], reverse=True)
    rows = "".join(
        f'<tr><th scope="row">{name(true)}</th><td class="name">{name(other)}</td><td>{count} of {total}</td>'
        f"<td>{percent(share)}</td></tr>"
        for share, count, total, true, other in mistakes[:PAIRS]
    )
    if not rows:
        return "<div><h4>Most often mistaken</h4><p>No test picture was mistaken.</p></div>"
    return (
        f"<div><h4>Most often mistaken <span class='muted'>({min(PAIRS, len(mistakes))} of {len(mistakes):,} pairs)"
        "</span></h4>"
        '<div class="scroll"><table class="list"><thead><tr><th scope="col">truth</th><th scope="col" class="name">'
        'taken for</th><th scope="col">pictures</th><th scope="col">of its class</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div></div>"
    )


def _recalls(recalls: dict[str, float | None], before: dict[str, Any], over: str) -> str:
    """List recall per class, the lowest first."""
    tested = sorted((recall, true) for true, recall in recalls.items() if recall is not None)
    rows = []
    for recall, true in tested[:RECALLS]:
        gain = "" if before.get(true) is None else signed(100 * (recall - before[true]))
        rows.append(
            f'<tr><th scope="row">{name(true)}</th><td>{percent(recall)}</td><td class="gain">{gain}</td>'
            f"{_bar(recall)}</tr>"
        )
    return (
        f"<div><h4>Lowest recall <span class='muted'>({len(rows)} of {len(tested):,} classes)</span></h4>"
        '<div class="scroll"><table class="list"><thead><tr><th scope="col">class</th><th scope="col">recall'
        f'</th><th scope="col" class="gain">over {over}</th><td></td></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></div>"
    )


def _bar(share: float) -> str:
    return f'<td class="bar"><span style="width:{100 * share:.1f}%"></span></td>'
