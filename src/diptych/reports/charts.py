"""The report's charts: pure functions from numbers to inline SVG, coloured by the page's style sheet.

No script: a chart's values appear on hovering because each band of it carries its own hidden label.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from diptych.evaluation.numbers.headline import TOP1, Headline
from diptych.markup import number, text, tick_labels, ticks
from diptych.reports.headlines import axis, between, caption, written

BANDS = 96
"""Stretches of equal length into which a long run's records are put; each shows its mean and its range."""


@dataclass(frozen=True, kw_only=True)
class Curve:
    """How one metric is drawn."""

    key: str
    """In ``metrics.jsonl``."""
    title: str
    note: str
    low: float | None = None
    """A value that the axis must reach down to."""
    high: float | None = None
    """A value that the axis must reach up to."""
    references: tuple[tuple[float, str], ...] = ()
    """Values drawn as named lines."""


def line_chart(curve: Curve, points: Sequence[tuple[float, float]]) -> str:
    """Draw one metric over the epochs.

    Args:
        curve: what it is.
        points: (epoch, value), oldest first, at least one.
    """
    bands = _bands(points)
    frame = _Frame(curve, bands)
    x, y, parts = frame.x, frame.y, frame.grid()
    for value, label in curve.references:
        at = y(value)
        parts.append(f'<line class="reference" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="reference" x="{LEFT + 4}" y="{at - 5:.1f}">{text(label)}</text>')
    upper = [f"{x(band.epoch):.1f},{y(band.high):.1f}" for band in bands]
    lower = [f"{x(band.epoch):.1f},{y(band.low):.1f}" for band in reversed(bands)]
    parts.append(f'<polygon class="range" points="{" ".join(upper + lower)}"/>')
    line = " ".join(f"{x(band.epoch):.1f},{y(band.mean):.1f}" for band in bands)
    parts.append(f'<polyline class="curve" points="{line}"/>')
    last = bands[-1]
    parts.append(f'<circle class="end" cx="{x(last.epoch):.1f}" cy="{y(last.mean):.1f}" r="3.5"/>')
    shown = f'x="{WIDTH - RIGHT}" y="13" text-anchor="end"'
    parts.append(f'<text class="last" {shown}>{number(last.mean, 3)} at the end</text>')
    edges = [LEFT, *((x(a.epoch) + x(b.epoch)) / 2 for a, b in pairwise(bands)), WIDTH - RIGHT]
    for band, (start, stop) in zip(bands, pairwise(edges), strict=True):
        at = x(band.epoch)
        parts.append(
            f'<g class="band"><rect x="{start:.1f}" y="{TOP}" width="{stop - start:.1f}" '
            f'height="{HEIGHT - TOP - BOTTOM}"/>'
            f'<g><line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
            f'<circle cx="{at:.1f}" cy="{y(band.mean):.1f}" r="3.5"/>'
            f"<text {shown}>{number(band.mean, 3)} at epoch {number(band.epoch, 3)}</text></g></g>"
        )
    said = f"{curve.title} from {number(points[0][1], 3)} to {number(last.mean, 3)} over {number(frame.end, 3)} epochs"
    return frame.svg(parts, said)


def overlay_chart(curve: Curve, lines: Sequence[tuple[str, str, Sequence[tuple[float, float]]]]) -> str:
    """Draw one metric of several runs over the epochs.

    Args:
        curve: what it is.
        lines: each run's class in the page's style sheet, its name, and (epoch, value), oldest first, at least one.
    """
    drawn = [(style, name, _bands(points)) for style, name, points in lines]
    frame = _Frame(curve, [band for _, _, bands in drawn for band in bands])
    parts = frame.grid()
    for style, name, bands in drawn:
        shown = " ".join(f"{frame.x(band.epoch):.1f},{frame.y(band.mean):.1f}" for band in bands)
        last = bands[-1]
        parts.append(
            f'<g class="{style}"><title>{text(name)}: {number(last.mean, 3)} at epoch {number(last.epoch, 3)}'
            f'</title><polyline class="curve" points="{shown}"/>'
            f'<circle class="end" cx="{frame.x(last.epoch):.1f}" cy="{frame.y(last.mean):.1f}" r="3.5"/></g>'
        )
    return frame.svg(parts, f"{curve.title} of {', '.join(name for _, name, _ in lines)}")


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 440, 226, 52, 10, 24, 40
"""Of a chart over the epochs, and what lies around its curves."""


class _Frame:
    """The axes of a chart over the epochs."""

    def __init__(self, curve: Curve, bands: Sequence["_Band"]) -> None:
        lowest = min([band.low for band in bands] + ([] if curve.low is None else [curve.low]))
        highest = max([band.high for band in bands] + ([] if curve.high is None else [curve.high]))
        room = (highest - lowest or abs(highest) or 1.0) * 0.06
        self.lowest, self.highest = lowest - room, highest + room
        self.end = max(band.epoch for band in bands) or 1.0

    def x(self, epoch: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * epoch / self.end

    def y(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.highest - value) / (self.highest - self.lowest)

    def grid(self) -> list[str]:
        parts = []
        marks = ticks(self.lowest, self.highest, 4)
        for value, label in zip(marks, tick_labels(marks), strict=True):
            at = self.y(value)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
        marks = ticks(0, self.end, 5)
        for value, label in zip(marks, tick_labels(marks), strict=True):
            at = self.x(value)
            parts.append(f'<text class="tick" x="{at:.1f}" y="{HEIGHT - 22}" text-anchor="middle">{label}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text class="tick" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">epoch</text>')
        return parts

    def svg(self, parts: Sequence[str], said: str) -> str:
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(said)}">{"".join(parts)}</svg>'


@dataclass(frozen=True, kw_only=True)
class _Band:
    epoch: float
    mean: float
    low: float
    high: float


def _bands(points: Sequence[tuple[float, float]]) -> list[_Band]:
    count = min(BANDS, len(points))
    cuts = [round(place * len(points) / count) for place in range(count + 1)]
    bands = []
    for start, stop in pairwise(cuts):
        epochs, values = zip(*points[start:stop], strict=True)
        bands.append(
            _Band(
                # The first and the last band reach to the ends, so that the curve does too.
                epoch=epochs[0] if start == 0 else epochs[-1] if stop == len(points) else sum(epochs) / len(epochs),
                mean=sum(values) / len(values),
                low=min(values),
                high=max(values),
            )
        )
    return bands


@dataclass(frozen=True, kw_only=True)
class Interval:
    """One contender under one probe; fractions 0..1, or another headline."""

    label: str
    kind: str
    """``pretrained``, ``initial``, ``random``, ``scratch``, ``pixels``, or another contender: decides the marker."""
    value: float
    low: float
    high: float


MARKERS = {
    "pretrained": '<circle class="pretrained" cx="{x:.1f}" cy="{y:.1f}" r="5.5"/>',
    "initial": '<path class="initial" d="M{x:.1f} {y:.1f}m-4.5 -4.5h9v9h-9z"/>',
    "random": '<circle class="random" cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
    "scratch": '<path class="scratch" d="M{x:.1f} {y:.1f}m0 -5.5l5.5 9.5h-11z"/>',
    "pixels": '<path class="pixels" d="M{x:.1f} {y:.1f}m-5 0l5 -5l5 5l-5 5z"/>',
}


OTHER = '<path class="other" d="M{x:.1f} {y:.1f}m-5 -5l10 10m0 -10l-10 10"/>'
"""Of contenders that the user named."""


def interval_chart(
    groups: Sequence[tuple[str, Sequence[Interval]]], shaded: Mapping[str, str], headline: Headline = TOP1
) -> str:
    """Draw a dot and a 95 % interval for every contender, probe by probe, on one axis, such as accuracy in per cent.

    Args:
        groups: each probe's name and its intervals.
        shaded: probe's name → the kind whose interval is shaded through its rows: what stands clear of it differs.
        headline: what the values are.
    """
    width, left, right, row, header = 410, 164, 12, 31, 30
    everything = [interval for _, intervals in groups for interval in intervals]
    low, high = min(i.low for i in everything), max(i.high for i in everything)
    room = max(0.01, 0.06 * (high - low))
    low, high = low - room if headline.lowest is None else max(headline.lowest, low - room), min(1.0, high + room)
    height = sum(header + row * len(intervals) + 10 for _, intervals in groups) + 38

    def x(value: float) -> float:
        return left + (width - left - right) * (value - low) / (high - low)

    back, front, top = [], [], 0
    for probe, intervals in groups:
        front.append(f'<text class="probe" x="0" y="{top + 20}">{text(probe)}</text>')
        for interval in intervals:
            if interval.kind == shaded.get(probe):
                start, wide, tall = x(interval.low), x(interval.high) - x(interval.low), row * len(intervals)
                back.append(
                    f'<rect class="shade" x="{start:.1f}" y="{top + header}" width="{wide:.1f}" height="{tall}"/>'
                )
        top += header
        for interval in intervals:
            y = top + row / 2
            ends = between(headline, (interval.low, interval.high))
            said = f"{probe}, {interval.label}: {written(headline, interval.value)} ({ends})"
            style = interval.kind if interval.kind in MARKERS else "other"
            front.append(
                f'<g class="interval {style}"><title>{text(said)}</title>'
                f'<text class="label" x="0" y="{y + 4.5:.1f}">{text(interval.label)}</text>'
                f'<line x1="{x(interval.low):.1f}" x2="{x(interval.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
                + MARKERS.get(interval.kind, OTHER).format(x=x(interval.value), y=y)
                + "</g>"
            )
            top += row
        top += 10
    marks = ticks(headline.scale * low, headline.scale * high, 5)
    for value, label in zip(marks, tick_labels(marks), strict=True):
        at = x(value / headline.scale)
        back.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="14" y2="{top}"/>')
        front.append(f'<text class="tick" x="{at:.1f}" y="{top + 16}" text-anchor="middle">{label}</text>')
    middle = (left + width - right) / 2
    front.append(f'<text class="tick" x="{middle}" y="{top + 33}" text-anchor="middle">{axis(headline)}</text>')
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{caption(headline)} with 95 % intervals; the '
        f'table has the numbers">{"".join(back + front)}</svg>'
    )
