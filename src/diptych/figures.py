"""The pictures that a run leaves behind: view pairs, nearest neighbours, the loss curve.

Grids are laid out pixel by pixel: small pictures are enlarged by whole factors and stay crisp. Grids are transparent
and their captions mid grey, so that they read on light and dark pages alike.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from numpy.typing import NDArray
from PIL import Image

from diptych.runs import writing

if TYPE_CHECKING:
    from torch import Tensor

Pictures: TypeAlias = "Tensor | NDArray[Any]"

DPI = 128
"""A power of two: pixels / DPI * DPI is exact, so no row or column of pixels is lost to rounding."""
CELL = 160
"""Pixels a side that a neighbour gets, about."""
PANEL = 120
"""Pixels a side that an original and each of its views get, about: two groups of them fit side by side."""
SHEET = 1200
"""Pixels across that a sheet of several groups takes at most."""
NARROWEST = 720
"""Pixels across that a sheet of policies takes at least: their sentences are to be read."""
SHOWN = 4
"""Pictures that a sheet shows under each policy at most."""
TEXT = 17
"""Height of the letters' em, in pixels."""
LINE = TEXT + 7
"""Pixels from one line of a text to the next."""
PAGE = "#fcfbf8"
COLOURS = ("#2f5d8a", "#b4532a", "#3f7d4e", "#7a4d8f", "#a3821a", "#3a8c94", "#8a3d5a", "#5d6168")
LINES = ("solid", "dashed", "dotted")
"""Of curves side by side: first all colours, then all again with the next kind of line."""
INK, AGREES, DIFFERS = "#7a7a7a", "#2a9d63", "#d64550"
MARK = {"Software": "diptych"}
"""Inside every PNG drawn here, so that it may be drawn again in its place."""
FONT = "DejaVu Sans"  # ships with matplotlib
MISSING = "▯"


def view_pairs(path: Path, originals: Pictures, views: Sequence[Pictures]) -> None:
    """Draw pictures beside their views, one group ``original | view 1 | view 2 | local views`` a picture, as a PNG.

    Args:
        path: of the PNG, written whole or not at all.
        originals: ``(n, C, H, W)`` uint8, uint16 or float32 of any range, n ≥ 1.
        views: two or more, each ``(n, C, h, w)`` float, 0..1; row i belongs to original i. Those that are smaller than
            the first are drawn as much smaller.
    """
    panels = _panels(originals, views)
    noted = _wrapped(panels.note, panels.across)
    canvas = _Canvas(panels.across, panels.down + len(noted) * LINE + 6)
    canvas.lines(noted, panels.draw(canvas, 0) + 6)
    canvas.save(path)


def policy_sheet(path: Path, rows: Sequence[tuple[str, str, Pictures, Sequence[Pictures]]]) -> None:
    """Draw what each view policy does, one under the other, on one sheet, as a PNG.

    Args:
        path: of the PNG, written whole or not at all.
        rows: policy, a sentence on when to choose it (two lines of it are shown), and originals and views as for
            ``view_pairs``, of which the first four are shown.
    """
    every = [_panels(originals[:SHOWN], [view[:SHOWN] for view in views]) for _, _, originals, views in rows]
    width = max(NARROWEST, *(panels.across for panels in every))
    said = [_wrapped(sentence, width) for _, sentence, _, _ in rows]
    noted = [line for note in dict.fromkeys(panels.note for panels in every) for line in _wrapped(note, width)]
    head, gap = TEXT + 8, 34
    heights = [head + len(lines) * LINE + 8 + panels.down + gap for lines, panels in zip(said, every, strict=True)]
    canvas = _Canvas(width, sum(heights) - gap + len(noted) * LINE + 6)
    top = 0
    for (name, *_), lines, panels, height in zip(rows, said, every, heights, strict=True):
        canvas.text(name, 0, top + TEXT, width, bold=True)
        panels.draw(canvas, canvas.lines(lines, top + head) + 8)
        top += height
    canvas.lines(noted, top - gap + 6)
    canvas.save(path)


def neighbors(
    path: Path,
    queries: Pictures,
    nearest: Pictures,
    query_labels: Sequence[str],
    nearest_labels: Sequence[Sequence[str]],
    similarities: Pictures,
) -> None:
    """Draw pictures beside their nearest neighbours as a PNG; a neighbour of another class is marked ✗, dashed and red.

    Args:
        path: of the PNG, written whole or not at all.
        queries: ``(n, C, H, W)`` of any type, n ≥ 1.
        nearest: ``(n, k, C, H, W)`` of the same type, the most similar first, k ≥ 1.
        query_labels: n names; any text is safe.
        nearest_labels: n × k names.
        similarities: ``(n, k)`` float, cosine, -1..1; 1 is the same direction.
    """
    asked, found, cosines = np.asarray(queries), np.asarray(nearest), np.asarray(similarities)
    (every,), note = _visible(np.concatenate([asked, found.reshape(-1, *found.shape[2:])]), [])
    asked, found = every[: len(asked)], every[len(asked) :].reshape(*found.shape[:2], *every.shape[1:])
    cell, frame = _cell(asked, CELL), 5
    header, row, column = TEXT + 22, cell + 2 * frame + TEXT + 22, cell + 2 * frame + 12
    start = column + 28
    height = header + len(asked) * row - 12
    canvas = _Canvas(start + found.shape[1] * column - 12, height + (TEXT + 14 if note else 0))
    canvas.text(note, 0, height + TEXT + 8, canvas.width)
    canvas.text("test picture", frame, TEXT, cell)
    canvas.text("nearest training pictures, most similar first", start + frame, TEXT, column * found.shape[1])
    for i, label in enumerate(query_labels):
        top = header + i * row
        base = top + cell + 2 * frame + TEXT + 1
        canvas.paste(asked[i], frame, top + frame, cell)
        canvas.text(label, frame, base, cell)
        for j, other in enumerate(nearest_labels[i]):
            left, agrees = start + j * column, other == label
            color = AGREES if agrees else DIFFERS
            canvas.frame(left, top, cell + 2 * frame, frame, color, dashed=not agrees)
            canvas.paste(found[i, j], left + frame, top + frame, cell)
            canvas.text("✓" if agrees else "✗", left, base, cell, color=color)
            right = left + cell + 2 * frame
            taken = canvas.text(f"{cosines[i, j]:.2f}", right, base, cell, align="right")
            canvas.text(other, left + TEXT + 3, base, right - left - TEXT - taken - 10)
    canvas.save(path)


def mistakes(path: Path, blocks: Sequence[tuple[str, Pictures, Sequence[tuple[str, str]]]]) -> None:
    """Draw pictures with what they show and what they were taken for, as a PNG.

    Args:
        path: of the PNG, written whole or not at all.
        blocks: a heading, pictures ``(n, C, H, W)`` of any type, n ≥ 0, and for each what it shows and what it was
            taken for; any text is safe. At least one block has a picture.
    """
    every = np.concatenate([np.asarray(pictures) for _, pictures, _ in blocks])
    (visible,), note = _visible(every, [])
    cell, gap, head = _cell(visible, PANEL), 14, TEXT + 16
    row = head + cell + 2 * LINE + 22
    across = max(len(said) for _, _, said in blocks)
    width = max(NARROWEST, across * (cell + gap) - gap)
    canvas = _Canvas(width, row * len(blocks) - 16 + (TEXT + 14 if note else 0))
    done = 0
    for number, (title, _, said) in enumerate(blocks):
        top = number * row
        canvas.text(title, 0, top + TEXT, width, bold=True)
        for place, (truth, taken) in enumerate(said):
            left, base = place * (cell + gap), top + head + cell + TEXT + 4
            canvas.paste(visible[done], left, top + head, cell)
            canvas.text(truth, left, base, cell, color=AGREES)
            canvas.text(f"✗ {taken}", left, base + LINE, cell, color=DIFFERS)
            done += 1
        if not said:
            canvas.text("none", 0, top + head + TEXT, width)
    canvas.text(note, 0, row * len(blocks) - 16 + TEXT + 8, width)
    canvas.save(path)


def loss_curve(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Draw the loss over the epochs as a PNG: every record faintly, their running mean boldly.

    Args:
        path: of the PNG, written whole or not at all.
        records: metric records with ``epoch`` and ``loss``, oldest first; may be empty.
    """
    figure = Figure(figsize=(8, 4.5), dpi=DPI, facecolor=PAGE, layout="constrained")
    axes = figure.add_subplot(facecolor="none")
    epochs, losses = (np.array([record[key] for record in records], dtype=float) for key in ("epoch", "loss"))
    if len(losses):
        smooth, window = _smoothed(losses)
        axes.plot(epochs, losses, color=COLOURS[0], alpha=0.3 if window > 1 else 1.0, linewidth=0.8)
        axes.plot(epochs, smooth, color=COLOURS[0], linewidth=2, marker="o" if len(losses) == 1 else "")
        said = f"{smooth[-1]:.3f} at the end" + (f" (mean of {window} records)" if window > 1 else "")
        axes.set_title(said, loc="right", fontsize=9, color="#5d6168")
    else:
        axes.text(0.5, 0.5, "no record yet", transform=axes.transAxes, ha="center", color="#5d6168")
    axes.set_ylabel("loss", color="#5d6168")
    _dress(axes, "Loss")
    _write(path, figure)


def overlaid_curves(
    path: Path,
    panels: Sequence[tuple[str, Sequence[tuple[int, NDArray[Any], NDArray[Any]]]]],
    names: Sequence[str],
) -> None:
    """Draw metrics of several runs over the epochs as a PNG, one panel a metric, each curve a running mean.

    Args:
        path: of the PNG, written whole or not at all.
        panels: each metric's title, and its curves: the run's number, and epochs ``(n,)`` and values ``(n,)``, n ≥ 1.
        names: of the runs, by their numbers.
    """
    rows = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(10, 0.6 + 3.2 * rows), dpi=DPI, facecolor=PAGE, layout="constrained")
    drawn: dict[int, Any] = {}
    for place, (title, curves) in enumerate(panels):
        axes = figure.add_subplot(rows, 2, place + 1, facecolor="none")
        for number, epochs, values in curves:
            smooth, _ = _smoothed(values)
            (drawn[number],) = axes.plot(
                epochs,
                smooth,
                color=COLOURS[number % len(COLOURS)],
                linestyle=LINES[number // len(COLOURS) % len(LINES)],
                linewidth=2,
                marker="o" if len(values) == 1 else "",
            )
        _dress(axes, title)
    told = [names[number].replace("$", r"\$") for number in sorted(drawn)]  # a folder may be called "$5$"
    figure.legend([drawn[number] for number in sorted(drawn)], told, loc="outside upper left", ncols=4, frameon=False)
    _write(path, figure)


def answers(path: Path, panels: Sequence[tuple[str, NDArray[Any], Sequence[tuple[str, NDArray[Any]]]]]) -> None:
    """Draw answered quantities over the true ones as a PNG, one panel a quantity; on the line they are right.

    Args:
        path: of the PNG, written whole or not at all.
        panels: each quantity's name, the truth ``(n,)``, and who answered with the answers ``(n,)``, the best first.
    """
    rows = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(10, 4.4 * rows), dpi=DPI, facecolor=PAGE, layout="constrained")
    known = get_font(findfont(FontProperties(family=FONT))).get_charmap()
    for place, (name, truth, found) in enumerate(panels):
        axes = figure.add_subplot(rows, 2, place + 1, facecolor="none")
        axes.axline((float(truth.mean()), float(truth.mean())), slope=1, color="#b8b4ab", linewidth=1)
        for number, (who, values) in reversed(list(enumerate(found))):
            axes.scatter(truth, values, s=14, color=COLOURS[number], alpha=0.6, linewidths=0, label=who)
        shown = "".join(c if c.isprintable() and ord(c) in known else MISSING for c in name).replace("$", r"\$")
        _dress(axes, shown)
        axes.set_xlabel("truth", color="#5d6168")
        axes.set_ylabel("answer", color="#5d6168")
        axes.legend(frameon=False, fontsize=9)
    _write(path, figure)


def _smoothed(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Return the running mean, and over how many values each goes: a fortieth of them."""
    window = max(1, len(values) // 40)
    sums = np.concatenate(([0.0], values.cumsum()))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    return (sums[ends] - sums[starts]) / (ends - starts), window


def _dress(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=12, color="#1d1f23")
    axes.set_xlabel("epoch", color="#5d6168")
    axes.grid(axis="y", color="#e4e1da", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#b8b4ab")
    axes.tick_params(colors="#5d6168", length=0)


@dataclass(frozen=True, kw_only=True)
class _Panels:
    """Where an original and its views stand in a group, pixels from the group's upper left corner."""

    columns: Sequence[NDArray[np.uint8]]
    """Originals, then each view: ``(n, 3, h, w)``."""
    places: Sequence[tuple[int, int, int]]
    """Left, top and side of the square that each of the columns gets."""
    names: Sequence[tuple[str, int, int]]
    """What is written above, its middle, and the room for it."""
    width: int
    height: int
    note: str
    """How pictures that no screen can show were made visible; may be empty."""

    HEADER, APART, BELOW = TEXT + 14, 44, 14

    @property
    def count(self) -> int:
        """Groups: one for each original."""
        return len(self.columns[0])

    @property
    def groups(self) -> int:
        """Groups side by side: no more than a sheet of usual width holds, and as many in every row as can be."""
        fitting = max(1, (SHEET + self.APART) // (self.width + self.APART))
        return math.ceil(self.count / math.ceil(self.count / fitting))

    @property
    def across(self) -> int:
        """Pixels that the groups of one row take."""
        return self.groups * (self.width + self.APART) - self.APART

    @property
    def down(self) -> int:
        """Pixels that all rows take, with the names above them."""
        return self.HEADER + math.ceil(self.count / self.groups) * (self.height + self.BELOW) - self.BELOW

    def draw(self, canvas: "_Canvas", top: int) -> int:
        """Put all onto ``canvas``; returns where they end."""
        groups = self.groups
        for left in range(0, groups * (self.width + self.APART), self.width + self.APART):
            for name, middle, room in self.names:
                canvas.text(name, left + middle, top + TEXT, room, align="center")
        for number in range(self.count):
            row, column = divmod(number, groups)
            for pictures, (left, down, side) in zip(self.columns, self.places, strict=True):
                left += column * (self.width + self.APART)
                down += top + self.HEADER + row * (self.height + self.BELOW)
                canvas.paste(pictures[number], left, down, side)
        return top + self.down


def _panels(originals: Pictures, views: Sequence[Pictures]) -> _Panels:
    """Place an original, a little apart, and its views, which hang together like the panels of a diptych."""
    columns, note = _visible(originals, views)
    cell = _cell(columns[0], PANEL)
    largest = max(columns[1].shape[-2:])
    places, names = [(0, 0, cell)], [("original", cell // 2, cell)]
    left, height, local = cell + 14, cell, 0
    for number, view in enumerate(columns[1:], 1):
        side = round(cell * max(view.shape[-2:]) / largest)
        if side >= cell:
            places.append((left, 0, cell))
            names.append((f"view {number}", left + cell // 2, cell))
            left += cell + 4
            continue
        high = max(1, (cell + 12) // (side + 4))  # so many stand one above the other
        column, row = divmod(local, high)
        places.append((left + 6 + column * (side + 4), row * (side + 4), side))
        height, local = max(height, (row + 1) * (side + 4) - 4), local + 1
    if local:
        right = max(place[0] + place[2] for place in places)
        names.append(("local views" if right - left > 100 else "local", (left + 6 + right) // 2, right - left))
        left = right + 4
    return _Panels(columns=columns, places=places, names=names, width=left - 4, height=height, note=note)


def _visible(originals: Pictures, views: Sequence[Pictures]) -> tuple[list[NDArray[np.uint8]], str]:
    """Return originals and views as ``(n, 3, h, w)``, and what had to be done for it.

    8 bits of gray or colour are shown as they are. Of other pictures the first three bands (of two, the first) are
    stretched: what lies between the 1st and the 99th percentile of a band fills the screen's range.
    """
    first, others = np.asarray(originals), [np.asarray(view) for view in views]
    channels = first.shape[1]
    if first.dtype == np.uint8 and channels in (1, 3):
        return [_three(_as_uint8(pictures)) for pictures in (first, *others)], ""
    bands = 3 if channels >= 3 else 1
    first, others = first[:, :bands], [view[:, :bands] for view in others]
    if first.dtype.kind == "u":
        first = first / np.iinfo(first.dtype).max
        limits = views_limits = _limits([first])
    else:  # which numbers became 0 and 1 is not known here
        limits, views_limits = _limits([first]), _limits(others or [first])
    which = {1: "", 2: "band 1 of 2, ", 3: "each band "}.get(channels, f"bands 1, 2, 3 of {channels}, each ")
    note = f"{which}stretched from its 1st to its 99th percentile"
    stretched = [_stretched(first, limits), *(_stretched(view, views_limits) for view in others)]
    return [_three(_as_uint8(pictures)) for pictures in stretched], note


def _limits(pictures: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """1st and 99th percentile of each band over all pictures, ``(2, C, 1, 1)``."""
    flat = [part.swapaxes(0, 1).reshape(part.shape[1], -1) for part in pictures]
    limits: NDArray[Any] = np.percentile(np.concatenate(flat, axis=1), (1, 99), axis=1)
    return limits[:, :, None, None]


def _stretched(pictures: NDArray[Any], limits: NDArray[Any]) -> NDArray[Any]:
    low, high = limits
    return np.asarray((pictures - low) / np.where(high > low, high - low, 1))


def _three(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Show one channel as gray."""
    return np.repeat(pictures, 3, axis=1) if pictures.shape[1] == 1 else pictures


class _Canvas:
    """A transparent sheet of exact pixels; ``left`` and ``top`` count from the upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width + 8, height + 8  # room for letters that overhang
        self.pixels = np.zeros((self.height, self.width, 4), dtype=np.uint8)
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor="none")
        self.renderer = FigureCanvasAgg(self.figure).get_renderer()  # type: ignore[no-untyped-call]
        self.font = FontProperties(family=FONT, size=TEXT * 72 / DPI)
        self.bold = FontProperties(family=FONT, size=TEXT * 72 / DPI, weight="bold")
        self.known = get_font(findfont(self.font)).get_charmap()

    def paste(self, picture: NDArray[np.uint8], left: int, top: int, cell: int) -> None:
        """Put a picture ``(3, h, w)`` into the middle of a square cell, as large as it fits."""
        height, width = picture.shape[1:]
        scale = cell / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        resample = Image.Resampling.NEAREST if scale == int(scale) else Image.Resampling.LANCZOS
        resized = np.asarray(Image.fromarray(picture.transpose(1, 2, 0)).resize(size, resample))
        top, left = top + (cell - size[1]) // 2, left + (cell - size[0]) // 2
        box = self.pixels[top : top + size[1], left : left + size[0]]
        box[..., :3], box[..., 3] = resized, 255

    def frame(self, left: int, top: int, side: int, width: int, color: str, *, dashed: bool) -> None:
        """Fill a square that a picture will cover but for a margin of ``width`` pixels."""
        down, right = np.mgrid[:side, :side]
        shown = (down + right) // 10 % 2 == 0 if dashed else np.ones((side, side), dtype=bool)
        outer = (np.minimum(down, right) < width - 1) | (np.maximum(down, right) > side - width)
        red, green, blue = bytes.fromhex(color[1:])
        self.pixels[top : top + side, left : left + side][shown & outer] = (red, green, blue, 255)

    def text(
        self,
        text: str,
        x: float,
        baseline: float,
        room: float,
        *,
        align: str = "left",
        color: str = INK,
        bold: bool = False,
    ) -> float:
        """Write one line, shortened to ``room`` pixels; returns its width in pixels."""
        text = self._known(text)
        font, short = self.bold if bold else self.font, text
        while (width := self._width(short, font)) > room and len(text) > 1:
            text = text[:-1]
            short = text.rstrip() + "…"
        self.figure.text(
            x / self.width,
            1 - baseline / self.height,
            short,
            fontproperties=font,
            color=color,
            ha=align,
            va="baseline",
            parse_math=False,  # a class may be called "$5$"
        )
        return width

    def lines(self, lines: Sequence[str], top: int) -> int:
        """Write one line under the other; returns where they end."""
        for number, line in enumerate(lines):
            self.text(line, 0, top + number * LINE + TEXT, self.width)
        return top + len(lines) * LINE

    def measured(self, text: str) -> float:
        """Pixels that ``text`` would take."""
        return self._width(self._known(text), self.font)

    def _known(self, text: str) -> str:
        return "".join(c if c.isprintable() and ord(c) in self.known else MISSING for c in text)

    def _width(self, text: str, font: FontProperties) -> float:
        return float(self.renderer.get_text_width_height_descent(text, font, ismath=False)[0])

    def save(self, path: Path) -> None:
        """Write the PNG."""
        self.figure.figimage(self.pixels, origin="upper")
        _write(path, self.figure)


def _write(path: Path, figure: Figure) -> None:
    with writing(path) as temporary:
        canvas = FigureCanvasAgg(figure)
        canvas.print_figure(str(temporary), format="png", dpi=figure.dpi, facecolor="auto", metadata=MARK)


def is_ours(path: Path) -> bool:
    """Whether ``path`` is a PNG that was drawn here."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            return picture.info.get("Software") == MARK["Software"]
    except (OSError, ValueError):
        return False


def _as_uint8(pictures: Pictures) -> NDArray[np.uint8]:
    values = np.asarray(pictures)
    if values.dtype == np.uint8:
        return values
    return (values.clip(0, 1) * 255).round().astype(np.uint8)


def _cell(pictures: NDArray[np.uint8], about: int) -> int:
    """Side of the square that each picture gets: a whole multiple of a small one's, so that pixels stay square."""
    side = max(pictures.shape[-2:])
    return side * round(about / side) if side < about else about


def _wrapped(text: str, room: float, most: int = 2) -> list[str]:
    """Break ``text`` between words into lines of ``room`` pixels; the last of ``most`` keeps what is left over."""
    measure = _Canvas(0, 0)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and (len(lines) == most or measure.measured(longer) <= room):
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
