"""A comparison of runs as plain text: a column for each run, and the evaluations that may stand side by side."""

from collections.abc import Callable, Sequence
from typing import Any

from diptych.errors import printable
from diptych.evaluation.numbers.headline import HEADLINES, MISSING, Headline
from diptych.evaluation.table import BEFORE
from diptych.evaluation.verdict import PROBE_NAMES
from diptych.markup import duration, plain
from diptych.reports.compare import Comparison, Entry, Group

WIDEST = 28
"""Characters that a run's column takes at most."""
UNKNOWN = "–"


def as_text(comparison: Comparison, width: int | None = None) -> str:
    """Return lines of plain text.

    Args:
        comparison: the runs.
        width: characters that a line may take; more runs than fit go below the others. None puts all side by side.
    """
    names = [entry.name for entry in comparison.runs]
    parts = [_columns([("", names), *facts_of(comparison.runs)], width)]
    if comparison.differences:
        rows = [(key, [plain(value) for value in values]) for key, values in comparison.differences.items()]
        parts.append("What differs in the configuration\n" + _columns([("", names), *rows], width))
    else:
        parts.append("The configurations do not differ.")
    parts += [_group(group) for group in comparison.evaluations]
    if notes := notes_of(comparison):
        parts.append("\n".join(f"Note: {note}" for note in notes))
    return "\n\n".join(parts)


def facts_of(runs: Sequence[Entry]) -> list[tuple[str, list[str]]]:
    """Return what the runs are and came to: its name, and the words for each run; a row that all lack is left out."""
    rows: list[tuple[str, Callable[[Entry], str | None]]] = [
        ("method", lambda run: run.method),
        ("backbone", lambda run: run.backbone),
        ("pictures", lambda run: f"{run.pictures:,} ({run.data})"),
        ("status", lambda run: run.status),
        ("epochs", _epochs),
        ("health", lambda run: run.health),
        ("recoveries", lambda run: str(run.recoveries) if run.recoveries else None),
        ("final loss", lambda run: _number(run.loss)),
        ("std × √d", lambda run: _number(run.embedding_std)),
        ("effective rank", lambda run: _number(run.effective_rank)),
        ("neighbour stability", lambda run: _number(run.neighbour_stability)),
        ("online kNN", lambda run: _percent(run.knn_top1)),
        ("online linear probe", lambda run: _percent(run.linear_top1)),
        ("time", lambda run: None if run.seconds is None else duration(run.seconds)),
        ("pictures/s", lambda run: None if run.images_per_second is None else f"{run.images_per_second:,.0f}"),
        ("device", lambda run: run.device),
    ]
    told = [(name, [words(run) for run in runs]) for name, words in rows]
    return [(name, [cell or UNKNOWN for cell in cells]) for name, cells in told if any(cells)]


def title_of(group: Group) -> str:
    """Say what a group of evaluations rests on."""
    return (
        f"Evaluated on {group.data}: {group.test_pictures:,} test pictures, {group.train_pictures:,} to learn the "
        f"probes from ({group.protocol} protocol, seed {group.seed})"
    )


def header_of(group: Group) -> tuple[str, ...]:
    """Return the names of the columns of ``rows_of``."""
    headline = _headline(group)
    per_cent = ", %" if headline.scale == 100 else ""
    (level, *_) = (found["difference"]["level"] for scores in group.results.values() for found in scores.values())
    gains = f"gain, {headline.gains} ({100 * level:g} %)"
    return "probe", "run", f"{headline.column} (95 %)", gains, f"before{per_cent}", f"pixels{per_cent}"


def rows_of(group: Group) -> list[tuple[str, ...]]:
    """Return probe, run, its headline with interval, the difference from before training, and raw pixels, in words."""
    rows: list[tuple[str, ...]] = []
    headline = _headline(group)
    probes = dict.fromkeys(probe for scores in group.results.values() for probe in scores)
    for probe in probes:
        for run, scores in group.results.items():
            if found := scores.get(probe):
                ours, difference = found["pretrained"], found["difference"]
                below, above = map(headline.signed, difference["ci"])
                rows.append(
                    (
                        PROBE_NAMES.get(probe, probe),
                        run,
                        f"{headline.number(ours[headline.key])} ({headline.between(*ours['ci95'])})",
                        f"{headline.signed(difference['points'])} ({below} to {above})",
                        f"{BEFORE[found['against']]} {_of(found, found['against'], headline)}",
                        _of(found, "pixels", headline),
                    )
                )
    return rows


def notes_of(comparison: Comparison) -> list[str]:
    """Return what is to be known before numbers are compared."""
    notes = []
    if len({run.method for run in comparison.runs}) > 1:
        notes.append("losses of different methods do not compare.")
    if len({(run.data, run.pictures) for run in comparison.runs}) > 1:
        notes.append("the runs did not learn from the same pictures, and an epoch is not equally long in all of them.")
    if not comparison.evaluations:
        notes.append("none of the runs has been evaluated: type `diptych evaluate RUN LABELLED` for each.")
    elif any(len(group.results) < len(comparison.runs) for group in comparison.evaluations):
        notes.append(
            "evaluations stand side by side only where pictures, split, probes and seed are the same; a run that is "
            "missing in a table was not evaluated like this."
        )
    return notes


def _group(group: Group) -> str:
    rows = [header_of(group), *rows_of(group)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            printable(cell).ljust(wide) if column < 2 else cell.rjust(wide)
            for column, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return printable(title_of(group)) + "\n" + "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _columns(rows: Sequence[tuple[str, Sequence[str]]], width: int | None) -> str:
    """Align rows to a column for each run; those for which a line has no room go below."""
    cells = [(name, [_short(printable(cell)) for cell in values]) for name, values in rows]
    first = max(len(name) for name, _ in cells)
    widths = [max(len(values[run]) for _, values in cells) for run in range(len(cells[0][1]))]
    blocks: list[list[int]] = [[]]
    for run, wide in enumerate(widths):
        taken = first + sum(2 + widths[other] for other in blocks[-1])
        if blocks[-1] and width is not None and taken + 2 + wide > width:
            blocks.append([])
        blocks[-1].append(run)
    return "\n\n".join(
        "\n".join(
            "  ".join([name.ljust(first), *(values[run].ljust(widths[run]) for run in block)]).rstrip()
            for name, values in cells
        )
        for block in blocks
    )


def _short(cell: str) -> str:
    return cell if len(cell) <= WIDEST else cell[: WIDEST - 1] + "…"


def _epochs(run: Entry) -> str:
    return f"{run.epochs:.3g}" + (f" of {run.planned_epochs}" if run.planned_epochs else "")


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{100 * value:.1f} %"


def _of(scores: dict[str, Any], contender: str, headline: Headline) -> str:
    return headline.number(scores[contender][headline.key]) if contender in scores else MISSING


def _headline(group: Group) -> Headline:
    return next(headline for headline in HEADLINES.values() if headline.key == group.headline)
