"""Small pieces of HTML. Class and file names are hostile input: every value goes through :func:`text`."""

import base64
import html
import io
import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from PIL import Image

from diptych.errors import printable

MINUS = "\u2212"
SPACE = "\u00a0"
LARGE = 500_000
"""Bytes of a PNG above which it is embedded as WebP: a report should fit into an e-mail."""


def style() -> str:
    """Return what all our pages look like: colours, letters, the header."""
    return Path(__file__).with_name("page.css").read_text(encoding="utf-8").rstrip("\n")


def text(value: object) -> str:
    """Escape for element content and for quoted attributes; what is no visible character becomes ``�``."""
    return html.escape(printable(str(value)), quote=True)


def name(value: object) -> str:
    """Escape a class or file name, and keep its writing direction from turning the text around it."""
    return f"<bdi>{text(value)}</bdi>"


def percent(fraction: float | None) -> str:
    """Write a fraction 0..1 as ``66.1 %``; a dash where there is none."""
    return "–" if fraction is None else f"{100 * fraction:.1f}{SPACE}%"


def signed(points: float) -> str:
    """Write percentage points with their sign: ``+7.1``, ``−0.3``."""
    return f"{points:+.1f}".replace("-", MINUS)


def number(value: float, digits: int = 4) -> str:
    """Write a number with ``digits`` significant digits and a real minus sign."""
    return f"{value:.{digits}g}".replace("-", MINUS)


def plain(value: object) -> str:
    """Write a setting's value for people."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return str(value)


def duration(seconds: float) -> str:
    """Write seconds as ``2 min 31 s`` or ``3 h 12 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest}{SPACE}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{SPACE}h {minutes}{SPACE}min" if hours else f"{minutes}{SPACE}min {rest}{SPACE}s"


def date(iso: str) -> str:
    """Write an ISO 8601 time as ``24 November 2026, 16:30 UTC``."""
    moment = datetime.fromisoformat(iso)
    months = "January February March April May June July August September October November December".split()
    zone = moment.tzname() or ""
    return f"{moment.day} {months[moment.month - 1]} {moment.year}, {moment:%H:%M} {zone}".rstrip()


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return a list of terms with their values, which are HTML already."""
    return "<dl>" + "".join(f"<div><dt>{text(term)}</dt><dd>{value}</dd></div>" for term, value in pairs) + "</dl>"


def command(line: str) -> str:
    """Return a command line to be copied."""
    return f'<pre class="command"><code>{text(line)}</code></pre>'


def section(anchor: str, title: str, lede: str, body: str) -> str:
    """Return a titled section; ``lede`` and ``body`` are HTML already, and without a body there is no section."""
    if not body:
        return ""
    opening = f'<p class="lede">{lede}</p>' if lede else ""
    return f'<section id="{anchor}"><h2>{text(title)}</h2>{opening}{body}</section>'


def picture(png: bytes, alt: str) -> str:
    """Embed a PNG; a large one as WebP."""
    kind, payload = "png", png
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        width, height = image.size
        if len(png) > LARGE:
            buffer = io.BytesIO()
            image.save(buffer, "WEBP", quality=88)
            kind, payload = "webp", buffer.getvalue()
    encoded = base64.b64encode(payload).decode("ascii")
    return f'<img src="data:image/{kind};base64,{encoded}" width="{width}" height="{height}" alt="{text(alt)}">'


def ticks(low: float, high: float, about: int) -> list[float]:
    """Return round numbers inside low..high, about so many."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def tick_labels(values: Sequence[float]) -> list[str]:
    """Write the numbers of an axis with equally many decimals."""
    places = max((_decimals(value) for value in values), default=0)
    return [f"{value:.{places}f}".replace("-", MINUS) for value in values]


def _decimals(value: float) -> int:
    return len(f"{value:.10f}".rstrip("0").partition(".")[2])


def get(values: Any, *path: str) -> Any:
    """Look up ``values[path[0]][path[1]]…``; None where an object on the way lacks the key."""
    for key in path:
        values = values.get(key) if isinstance(values, dict) else None
    return values
