"""The pictures that a run leaves behind: view pairs, nearest neighbours, the loss curve.

Grids are laid out pixel by pixel: small pictures are enlarged by whole factors and stay crisp. Grids are transparent
and their captions mid grey, so that they read on light and dark pages alike.
"""

import math
from collections.abc import Mapping, Sequence
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
"""Pixels a side that a picture gets, about."""
TEXT = 17
"""Height of the letters' em, in pixels."""
INK, AGREES, DIFFERS = "#7a7a7a", "#2a9d63", "#d64550"
MARK = {"Software": "diptych"}
"""Inside every PNG drawn here, so that it may be drawn again in its place."""
FONT = "DejaVu Sans"  # ships with matplotlib
MISSING = "▯"


def view_pairs(path: Path, originals: Pictures, views: Sequence[Pictures]) -> None:
    """Draw pictures beside their views, one group ``original | view 1 | view 2`` a picture, as a PNG.

    Args:
        path: of the PNG, written whole or not at all.
        originals: ``(n, 3, H, W)`` uint8, 0..255, n ≥ 1.
        views: two or more, each ``(n, 3, h, w)`` float, 0..1; row i belongs to original i.
    """
    columns = [_as_uint8(pictures) for pictures in (originals, *views)]
    names = ["original", *(f"view {number}" for number in range(1, len(columns)))]
    count, cell = len(columns[0]), _cell(columns[0])
    groups = min(count, max(1, 6 // len(columns)))
    rows = math.ceil(count / groups)
    # The original stands a little apart; the views hang together like the panels of a diptych.
    offsets = [0, *(cell + 14 + number * (cell + 4) for number in range(len(columns) - 1))]
    group, header, row = offsets[-1] + cell, TEXT + 14, cell + 14
    canvas = _Canvas(groups * (group + 44) - 44, header + rows * row - 14)
    for place in range(count):
        top, left = header + place // groups * row, place % groups * (group + 44)
        for pictures, offset in zip(columns, offsets, strict=True):
            canvas.paste(pictures[place], left + offset, top, cell)
    for left in range(0, groups * (group + 44), group + 44):
        for name, offset in zip(names, offsets, strict=True):
            canvas.text(name, left + offset + cell / 2, TEXT, cell, align="center")
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
        queries: ``(n, 3, H, W)`` uint8, 0..255, n ≥ 1.
        nearest: ``(n, k, 3, H, W)`` uint8, the most similar first, k ≥ 1.
        query_labels: n names; any text is safe.
        nearest_labels: n × k names.
        similarities: ``(n, k)`` float, cosine, -1..1; 1 is the same direction.
    """
    asked, found, cosines = _as_uint8(queries), _as_uint8(nearest), np.asarray(similarities)
    cell, frame = _cell(asked), 5
    header, row, column = TEXT + 22, cell + 2 * frame + TEXT + 22, cell + 2 * frame + 12
    start = column + 28
    canvas = _Canvas(start + found.shape[1] * column - 12, header + len(asked) * row - 12)
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


def loss_curve(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Draw the loss over the epochs as a PNG: every record faintly, their running mean boldly.

    Args:
        path: of the PNG, written whole or not at all.
        records: metric records with ``epoch`` and ``loss``, oldest first; may be empty.
    """
    figure = Figure(figsize=(8, 4.5), dpi=DPI, facecolor="#fcfbf8", layout="constrained")
    axes = figure.add_subplot(facecolor="none")
    epochs, losses = (np.array([record[key] for record in records], dtype=float) for key in ("epoch", "loss"))
    if len(losses):
        window = max(1, len(losses) // 40)
        sums = np.concatenate(([0.0], losses.cumsum()))
        ends = np.arange(1, len(losses) + 1)
        starts = np.maximum(0, ends - window)
        smooth = (sums[ends] - sums[starts]) / (ends - starts)
        axes.plot(epochs, losses, color="#2f5d8a", alpha=0.3 if window > 1 else 1.0, linewidth=0.8)
        axes.plot(epochs, smooth, color="#2f5d8a", linewidth=2, marker="o" if len(losses) == 1 else "")
        said = f"{smooth[-1]:.3f} at the end" + (f" (mean of {window} records)" if window > 1 else "")
        axes.set_title(said, loc="right", fontsize=9, color="#5d6168")
    else:
        axes.text(0.5, 0.5, "no record yet", transform=axes.transAxes, ha="center", color="#5d6168")
    axes.set_title("Loss", loc="left", fontsize=12, color="#1d1f23")
    axes.set_xlabel("epoch", color="#5d6168")
    axes.set_ylabel("loss", color="#5d6168")
    axes.grid(axis="y", color="#e4e1da", linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#b8b4ab")
    axes.tick_params(colors="#5d6168", length=0)
    _write(path, figure)


class _Canvas:
    """A transparent sheet of exact pixels; ``left`` and ``top`` count from the upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width + 8, height + 8  # room for letters that overhang
        self.pixels = np.zeros((self.height, self.width, 4), dtype=np.uint8)
        self.figure = Figure(figsize=(self.width / DPI, self.height / DPI), dpi=DPI, facecolor="none")
        self.renderer = FigureCanvasAgg(self.figure).get_renderer()  # type: ignore[no-untyped-call]
        self.font = FontProperties(family=FONT, size=TEXT * 72 / DPI)
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
        self, text: str, x: float, baseline: float, room: float, *, align: str = "left", color: str = INK
    ) -> float:
        """Write one line, shortened to ``room`` pixels; returns its width in pixels."""
        text = "".join(c if c.isprintable() and ord(c) in self.known else MISSING for c in text)
        short = text
        while (width := self._width(short)) > room and len(text) > 1:
            text = text[:-1]
            short = text.rstrip() + "…"
        self.figure.text(
            x / self.width,
            1 - baseline / self.height,
            short,
            fontproperties=self.font,
            color=color,
            ha=align,
            va="baseline",
            parse_math=False,  # a class may be called "$5$"
        )
        return width

    def _width(self, text: str) -> float:
        return float(self.renderer.get_text_width_height_descent(text, self.font, ismath=False)[0])

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


def _cell(pictures: NDArray[np.uint8]) -> int:
    """Side of the square that each picture gets: a whole multiple of a small one's, so that pixels stay square."""
    side = max(pictures.shape[-2:])
    return side * round(CELL / side) if side < CELL else CELL
