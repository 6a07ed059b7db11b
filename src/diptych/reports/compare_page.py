"""A comparison of runs as one HTML page that needs no network and runs no script."""

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from string import Template

from diptych.errors import DataError
from diptych.markup import date, plain, section, style, text
from diptych.reports.charts import overlay_chart
from diptych.reports.compare import MARK, PAGE, Comparison
from diptych.reports.compare_text import facts_of, header_of, notes_of, rows_of, title_of
from diptych.runs import write_text

COLOURS = 8
"""That the page's style sheet has for runs; those beyond have the same ones, dashed."""


def write_page(comparison: Comparison, out: Path) -> Path:
    """Write ``compare.html`` into the folder ``out``; returns its path.

    Raises:
        DataError: a file of that name is there that was not made here.
        RunFolderError: it cannot be written.
    """
    path = out / PAGE
    if path.exists() and MARK not in path.read_text(encoding="utf-8", errors="replace"):
        raise DataError(f"{path} is there already, and diptych did not make it: choose another --out")
    write_text(path, render(comparison))
    return path


def render(comparison: Comparison) -> str:
    """Return the whole page."""
    names = [entry.name for entry in comparison.runs]
    notes = "".join(f'<p class="note">{text(note[:1].upper() + note[1:])}</p>' for note in notes_of(comparison))
    settings = [(key, [plain(value) for value in values]) for key, values in comparison.differences.items()]
    same = "" if settings else "<p>The configurations do not differ.</p>"
    bodies = [
        section("runs", "The runs", "", _table(names, facts_of(comparison.runs)) + notes),
        section("proof", "Did it help?", "", "".join(_evaluations(comparison))),
        section("curves", "Curves", "", _curves(comparison)),
        section("settings", "What differs in the configuration", "", same or _table(names, settings)),
    ]
    return Template(Path(__file__).with_name("compare.html").read_text(encoding="utf-8")).substitute(
        mark=MARK,
        style=style(),
        title=text(" · ".join(names)),
        count=len(names),
        body="\n".join(bodies),
        made=text(date(datetime.now(UTC).isoformat(timespec="seconds"))),
        version=text(metadata.version("diptych")),
    )


def _class(number: int) -> str:
    return f"run-{number % COLOURS}" + (" dashed" if number >= COLOURS else "")


def _name(number: int, name: str) -> str:
    """Return a run's name behind its colour."""
    return f'<span class="{_class(number)}"><i class="key" aria-hidden="true"></i><bdi>{text(name)}</bdi></span>'


def _table(names: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    head = "".join(f'<th scope="col">{_name(number, name)}</th>' for number, name in enumerate(names))
    body = "".join(
        f'<tr><th scope="row">{text(title)}</th>{"".join(f"<td>{text(cell)}</td>" for cell in cells)}</tr>'
        for title, cells in rows
    )
    return f'<div class="scroll"><table><thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _evaluations(comparison: Comparison) -> list[str]:
    numbers = {entry.name: number for number, entry in enumerate(comparison.runs)}
    parts = []
    for group in comparison.evaluations:
        head = "".join(f'<th scope="col">{text(title)}</th>' for title in header_of(group))
        rows, before = [], ""
        for probe, run, *cells in rows_of(group):
            first = f' class="first"><th scope="row">{text(probe)}' if probe != before else '><th scope="row">'
            told = "".join(f"<td>{text(cell)}</td>" for cell in cells)
            rows.append(f'<tr{first}</th><td class="name">{_name(numbers[run], run)}</td>{told}</tr>')
            before = probe
        parts.append(
            f'<h3>{text(title_of(group))}</h3><div class="scroll"><table class="scores"><thead><tr>{head}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>"
        )
    return parts


def _curves(comparison: Comparison) -> str:
    names = [entry.name for entry in comparison.runs]
    charts = [
        f"<figure><figcaption><b>{text(curve.title)}</b> {text(curve.note)}</figcaption>"
        + overlay_chart(curve, [(_class(number), names[number], points) for number, points in lines])
        + "</figure>"
        for curve, lines in comparison.curves
    ]
    if not charts:
        return ""
    legend = "".join(_name(number, name) for number, name in enumerate(names))
    return f'<p class="legend">{legend}</p><div class="multiples">{"".join(charts)}</div>'
