"""How accuracy grows with the labels: the label-efficiency curve of an evaluation, its table, and the labels saved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diptych.evaluation.numbers.headline import Headline
from diptych.evaluation.table import BEFORE, contender_names, headline_of, saved_of
from diptych.markup import get, section, text, tick_labels, ticks
from diptych.reports.collect import Evaluation, Facts
from diptych.reports.headlines import between, caption, gained, written
from diptych.reports.verdict import BADGES, probe_name, title_of

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 500, 290, 44, 172, 14, 46
"""Of a chart, and what lies around its curves; names stand on the right."""
APART = 15
"""Pixels between two names at least."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One contender under one probe; fractions 0..1, or another headline."""

    style: str
    """Its class in the style sheet."""
    name: str
    points: Sequence[tuple[int, float, float, float]]
    """Labels, accuracy or another headline, and its interval's ends; fewest labels first."""


def labels_section(report: Facts) -> str:
    """Return the curves of every evaluation with several budgets of labels, or several seeds."""
    shown = [evaluation for evaluation in report.evaluations if "curve" in evaluation.result]
    lede = (
        "Every contender learns from the same labels. Shades are 95 % intervals over test pictures and seeds; labels "
        "grow by factors."
    )
    return section("labels", "What a label is worth", lede, "".join(map(_evaluation, shown))) if shown else ""


def _evaluation(evaluation: Evaluation) -> str:
    result = evaluation.result
    headline = headline_of(result)
    charts = "".join(
        f"<figure>{label_chart(lines, headline)}<figcaption><b>{text(probe_name(probe))}</b></figcaption></figure>"
        for probe in result["differences"]
        if len(result["curve"]) > 1 and (lines := _lines(result, probe))
    )
    drawn = f'<div class="multiples labels">{charts}</div>'
    return f"<h3>{title_of(evaluation)}</h3>{drawn}{_verdicts(result)}{_table(result)}"


def _lines(result: dict[str, Any], probe: str) -> list[Line]:
    lines, key_of = [], headline_of(result).key
    for key, name in contender_names(result).items():
        points = [
            (point["pictures"], scores[key_of], *scores["ci95"])
            for point in result["curve"]
            if (scores := get(point, "contenders", key, probe))
        ]
        if points:
            style = key if key in ("pretrained", "pixels", *BEFORE) else "other"
            lines.append(Line(style=style, name="initial" if key == "initial" else name, points=points))
    return lines


def label_chart(lines: Sequence[Line], headline: Headline) -> str:
    """Draw a headline over the logarithm of the labels, a line and a shade for each contender."""
    every = [point for line in lines for point in line.points]
    fewest, most = min(point[0] for point in every), max(point[0] for point in every)
    scale = headline.scale
    low, high = scale * min(point[2] for point in every), scale * max(point[3] for point in every)
    room = max(0.005 * scale, 0.05 * (high - low))
    low = low - room if headline.lowest is None else max(scale * headline.lowest, low - room)
    high = min(scale, high + room)

    def x(labels: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(labels / fewest) / (math.log(most / fewest) or 1)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - scale * value) / (high - low)

    parts = []
    marks = ticks(low, high, 5)
    for value, label in zip(marks, tick_labels(marks), strict=True):
        at = y(value / scale)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    for labels in sorted({point[0] for point in every}):
        parts.append(
            f'<text class="tick" x="{x(labels):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{labels:,}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">labels</text>')
    heights = _apart([y(line.points[-1][1]) for line in lines])
    for line, height in zip(lines, heights, strict=True):
        upper = [f"{x(n):.1f},{y(top):.1f}" for n, _, _, top in line.points]
        lower = [f"{x(n):.1f},{y(bottom):.1f}" for n, _, bottom, _ in reversed(line.points)]
        path = " ".join(f"{x(n):.1f},{y(value):.1f}" for n, value, _, _ in line.points)
        dots = "".join(
            f'<circle cx="{x(n):.1f}" cy="{y(value):.1f}" r="3.5"><title>{text(line.name)}, {n:,} labels: '
            f"{written(headline, value)} ({between(headline, (bottom, top))})</title></circle>"
            for n, value, bottom, top in line.points
        )
        parts.append(
            f'<g class="line {line.style}"><polygon points="{" ".join(upper + lower)}"/><polyline points="{path}"/>'
            f'{dots}<text x="{WIDTH - RIGHT + 10}" y="{height + 4:.1f}">{text(line.name)}</text></g>'
        )
    said = f"{caption(headline)} over the number of labels; the table has the numbers"
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{said}">{"".join(parts)}</svg>'


def _apart(heights: Sequence[float]) -> list[float]:
    """Move names apart that would lie on one another, as little as it takes from top to bottom."""
    placed: dict[int, float] = {}
    last = -math.inf
    for place in sorted(range(len(heights)), key=lambda place: heights[place]):
        last = max(heights[place], last + APART)
        placed[place] = last
    over = max(0.0, last - (HEIGHT - BOTTOM))  # the lowest ones go up again
    return [placed[place] - over for place in range(len(heights))]


def _verdicts(result: dict[str, Any]) -> str:
    items = []
    for point in result["curve"]:
        style, sign = BADGES.get(point["verdict"]["outcome"], ("none", "?"))
        said, saved = f"{sign} {point['verdict']['outcome']}", saved_of(result, point, point["verdict"]["probe"])
        worth = f" <b>{text(saved)}.</b>" if saved else ""
        items.append(
            f'<li><span class="badge {style}">{text(said)}</span> {text(point["verdict"]["sentence"])}{worth}</li>'
        )
    return f'<ul class="budgets">{"".join(items)}</ul>'


def _table(result: dict[str, Any]) -> str:
    points, headline = result["curve"], headline_of(result)
    heads = "".join(f'<th scope="col">{text(point["labels"])}<br>{point["pictures"]:,}</th>' for point in points)
    bodies = []
    for probe in result["differences"]:
        rows = []
        for key, name in contender_names(result).items():
            cells = [get(point, "contenders", key, probe) for point in points]
            if any(cells):
                told = "".join(f"<td>{_cell(cell, headline)}</td>" for cell in cells)
                rows.append(f'<tr class="{key}"><th scope="row">{text(name)}</th>{told}</tr>')
        gains = [point["gains"][point["compared_with"][probe]][probe] for point in points]
        told = "".join(
            f"<td><b>{gained(headline, gain['points'])}</b><br>{_ends(gain['ci'], headline)}</td>" for gain in gains
        )
        other = BEFORE[points[-1]["compared_with"][probe]]
        rows.append(f'<tr class="difference"><th scope="row">pretrained − {text(other)}</th>{told}</tr>')
        bodies.append(
            f'<tbody><tr class="group"><th colspan="{len(points) + 1}" scope="rowgroup">{text(probe_name(probe))}</th>'
            f"</tr>{''.join(rows)}</tbody>"
        )
    return (
        f'<div class="scroll"><table class="scores"><thead><tr><td>labels</td>{heads}</tr></thead>{"".join(bodies)}'
        "</table></div>"
    )


def _cell(scores: dict[str, Any], headline: Headline) -> str:
    muted = f'<span class="muted">{between(headline, scores["ci95"])}</span>'
    return f"{written(headline, scores[headline.key])}<br>{muted}"


def _ends(interval: Sequence[float], headline: Headline) -> str:
    low, high = (gained(headline, end) for end in interval)
    return f'<span class="muted">{low} to {high}</span>'
