"""A selection as people read it on a terminal: what was chosen, then every metric of every checkpoint."""

from diptych.errors import printable
from diptych.evaluation.choosing.select import Selection
from diptych.evaluation.choosing.unlabelled import METRICS

SHORT = {"learnability": "clusters", "dimension": "dimension"}
"""Metric → its name at the head of a column, where that is not its title."""
UNKNOWN = "–"


def as_text(selection: Selection) -> str:
    """Return lines of plain text for what ``select`` returned."""
    header = ("run", "checkpoint", "rank", *(SHORT.get(name, METRICS[name].title) for name in METRICS))
    better = ("", "", "", *(METRICS[name].better for name in METRICS))
    rows = [header, better]
    for ranking in sorted(selection.runs, key=lambda ranking: ranking.rank):
        for scored in ranking.checkpoints:
            name = f"{scored.checkpoint} (finished)" if scored.finished and scored.step is not None else None
            values = (scored.values[metric] for metric in METRICS)
            rows.append(
                (
                    printable(ranking.run),
                    name or scored.checkpoint,
                    str(scored.rank),
                    *(UNKNOWN if value is None else f"{value:.3g}" for value in values),
                )
            )
    known = METRICS[selection.metric]
    lines = [selection.sentence, "", *_align(rows), ""]
    lines.append(f"{known.title} ({known.paper}): {known.weakness}.")
    lines.append(
        f"{selection.pictures:,} pictures of {printable(selection.data)}, no label read; views made {selection.views}"
    )
    lines += [f"Note: {note}" for note in selection.notes]
    return "\n".join(lines)


def _align(rows: list[tuple[str, ...]]) -> list[str]:
    """Pad to columns: words to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(wide) if column < 2 else cell.rjust(wide)
            for column, (cell, wide) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [*lines[:2], "-" * max(map(len, lines)), *lines[2:]]
