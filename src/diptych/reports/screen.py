"""How `diptych watch` draws the state of runs on a terminal: charts out of braille dots, sparklines out of blocks."""

from collections.abc import Sequence
from itertools import pairwise

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from diptych.errors import typed
from diptych.markup import duration
from diptych.reports.state import State

BLOCKS = "▁▂▃▄▅▆▇█"
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Bits of a braille character: columns from the left, rows from the top."""
MAIN = ("loss", "embedding_std", "effective_rank")
"""Metrics that get a chart of their own; the others get a line."""
TALL = 5
"""Rows of a chart."""
AXES = {"embedding_std": (0.0, 1.0), "effective_rank": (0.0, 0.0)}
"""Values that a metric's axis must reach, as in the report: what is near 0 shall be seen to be."""
NAMES = {"embedding_std": "std × √d", "lr": "learning rate", "knn_top1": "kNN top-1", "linear_top1": "linear top-1"}
MARKS = {"running": ("●", "green"), "finished": ("✓", "green"), "stopped early": ("✓", "green")}
"""Status → its sign and colour; everything else is to be looked at."""
HEALTH = {"healthy": "green", "not learning": "yellow", "data-starved": "yellow"}
"""The guard's finding → its colour; the others are failures."""
SILENT = 120.0
"""Seconds without a record after which a run is suspected to stand still."""


def view(states: Sequence[State]) -> RenderableType:
    """Draw runs one below the other: a single one with charts, several with a sparkline for each metric."""
    return Group(*(_run(state, alone=len(states) == 1) for state in states))


def _run(state: State, *, alone: bool) -> RenderableType:
    parts: list[RenderableType] = [_title(state)]
    if state.status == "not begun":
        parts.append(Text("Nothing is here yet: a run makes its folder once it has found its pictures.", style="dim"))
        return Padding(Group(*parts), (0, 0, 1, 0))
    parts += [_what(state), _progress(state)]
    main = [name for name in MAIN if name in state.series]
    if alone and main:
        parts += ["", _charts(state, main)]
    rest = sorted((name for name in state.series if not alone or name not in main), key=lambda name: name == "lr")
    if rest:
        parts += ["", _table(state, rest)]
    if not state.series:
        none = (
            "It is trained without gradients, and records nothing." if state.method == "patches" else "No record yet."
        )
        parts.append(Text(none, style="dim"))
    if state.warnings:
        parts += ["", *(_warning(line) for line in state.warnings)]
    if state.status in ("interrupted", "collapsed"):
        parts.append(Text(f"Go on with {typed('diptych pretrain --resume', state.run)}", style="dim"))
    return Padding(Group(*parts), (0, 0, 1, 0))


def _title(state: State) -> Text:
    sign, colour = MARKS.get(state.status, ("○" if state.status == "not begun" else "■", "yellow"))
    title = Text.assemble((state.run, "bold"), "  ", (f"{sign} {state.status}", colour))
    if state.health:
        title.append("  ")
        title.append(f"♥ {state.health}", style=HEALTH.get(state.health, "bold red"))
    if state.recoveries:
        title.append(f"  {_count(state.recoveries, 'recovery', 'recoveries')}", style="yellow")
    return title


def _what(state: State) -> Text:
    pictures = f"{state.pictures:,} pictures of {state.data}"
    return Text(" · ".join(str(part) for part in (state.method, state.backbone, pictures) if part), style="dim")


def _progress(state: State) -> RenderableType:
    """Say how far the run is, and how fast it goes."""
    told = [f"epoch {state.epoch:.3g} of {state.epochs}"]
    if state.seconds_left is not None:
        told.append(f"{duration(state.seconds_left)} left")
    elif state.over and state.seconds is not None:
        told.append(duration(state.seconds))
    if state.images_per_second is not None:
        told.append(f"{state.images_per_second:,.0f} pictures/s")
    if state.wait_fraction is not None:
        told.append(f"waiting {100 * state.wait_fraction:.0f} %")
    bar = ProgressBar(total=state.epochs or 1, completed=state.epoch, width=12, complete_style="cyan")
    line = Table.grid(padding=(0, 2))
    line.add_column(no_wrap=True)
    line.add_column()
    line.add_row(bar, Text(" · ".join(told)))
    if (state.silent_seconds or 0) < SILENT:
        return line
    silent = f"No record for {duration(state.silent_seconds or 0)}: the run stands still, or was killed."
    return Group(line, Text(silent, style="yellow"))


def _charts(state: State, names: Sequence[str]) -> RenderableType:
    grid = Table.grid(expand=True, padding=(0, 2, 0, 0), pad_edge=False)
    for _ in names:
        grid.add_column(ratio=1)
    grid.add_row(*(_chart(state, name) for name in names))
    return grid


def _chart(state: State, name: str) -> RenderableType:
    values = state.series[name]
    best = state.best(name)
    head = _pair(Text(_name(name)), Text(_number(name, values[-1]), style="bold"))
    foot = _pair(
        Text(f"first {_number(name, values[0], 2)}", style="dim"),
        Text("" if best is None else f"best {_number(name, best, 2)}", style="dim"),
    )
    return Group(head, _Drawn(values, TALL, AXES.get(name, ())), foot)


def _pair(left: Text, right: Text) -> RenderableType:
    grid = Table.grid(expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", no_wrap=True)
    grid.add_row(left, right)
    return grid


def _table(state: State, names: Sequence[str]) -> RenderableType:
    table = Table.grid(expand=True, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True)
    table.add_row("", "", *(Text(word, style="dim") for word in ("first", "last", "best")))
    for name in names:
        values, best = state.series[name], state.best(name)
        told = "" if best is None else _number(name, best)
        last = Text(_number(name, values[-1]), style="bold")
        table.add_row(_name(name), _Drawn(values, 1, AXES.get(name, ())), _number(name, values[0]), last, told)
    return table


def _warning(line: str) -> Text:
    """Write a warning of the log in two lines at most: its advice is there to be read in the log and the report."""
    when, _, what = line.partition(" Warning: ")
    head, advice, _ = what.partition(" Try, one at a time:")
    text = Text.assemble(("⚠ ", "yellow"), (f"{when[11:]} ", "dim"), (head, "yellow"))
    if advice:
        text.append(" (what to try: log.txt)", style="dim")
    return text


class _Drawn:
    """Values as a chart of as many columns as there is room for: one row of blocks, or several of braille."""

    def __init__(self, values: Sequence[float], rows: int, reach: Sequence[float]) -> None:
        self._values, self._rows, self._reach = values, rows, reach

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [spark(self._values, options.max_width, self._reach)]
        if self._rows > 1:
            lines = braille(self._values, options.max_width, self._rows, self._reach)
        for line in lines:
            yield Segment(line, console.get_style("cyan"))
            yield Segment.line()

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(8, options.max_width)


def spark(values: Sequence[float], width: int, reach: Sequence[float] = ()) -> str:
    """Draw values as blocks, lowest to highest; no more of them than values.

    Args:
        values: oldest first, at least one.
        width: characters at most.
        reach: values that the axis must reach beside these.
    """
    shown = _sampled(values, min(width, len(values)))
    return "".join(BLOCKS[round(place * (len(BLOCKS) - 1))] for place in _scaled(shown, reach))


def braille(values: Sequence[float], width: int, height: int, reach: Sequence[float] = ()) -> list[str]:
    """Draw values as a line of dots, two by four in a character; the lowest stands at the bottom.

    Args:
        values: oldest first, at least one.
        width: characters.
        height: rows.
        reach: values that the axis must reach beside these.
    """
    rows = [round((1 - place) * (4 * height - 1)) for place in _scaled(_sampled(values, 2 * width), reach)]
    cells = [[0] * width for _ in range(height)]
    for column, (before, row) in enumerate(pairwise([rows[0], *rows])):
        # The line is closed from the last dot to this one, or it would fall apart where it is steep.
        start = before + (row > before) - (row < before)
        for dot in range(min(start, row), max(start, row) + 1):
            cells[dot // 4][column // 2] |= DOTS[column % 2][dot % 4]
    return ["".join(chr(0x2800 + cell) for cell in line) for line in cells]


def _sampled(values: Sequence[float], count: int) -> list[float]:
    """Return so many values: means of stretches where there are more, points between them where there are fewer."""
    if len(values) >= count:
        cuts = [round(place * len(values) / count) for place in range(count + 1)]
        return [sum(values[start:stop]) / (stop - start) for start, stop in pairwise(cuts)]
    made = []
    for place in range(count):
        at = place * (len(values) - 1) / (count - 1)
        left = int(at)
        right = min(left + 1, len(values) - 1)
        made.append(values[left] + (at - left) * (values[right] - values[left]))
    return made


def _scaled(values: Sequence[float], reach: Sequence[float]) -> list[float]:
    """Bring values to 0..1; where all are equal, to the middle."""
    low, high = min([*values, *reach]), max([*values, *reach])
    return [(value - low) / (high - low) if high > low else 0.5 for value in values]


def _name(name: str) -> str:
    return NAMES.get(name, name.replace("_", " "))


def _number(name: str, value: float, digits: int = 3) -> str:
    if name.endswith("_top1"):
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if 10**digits <= abs(value) < 10**6 else f"{value:.{digits}g}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
