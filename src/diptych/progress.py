"""What a person sees while a run goes on: a live bar on a terminal, plain lines in a pipe or a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from diptych.errors import printable
from diptych.runs import writing_errors

PLAIN_EVERY = 15.0
"""Seconds between two lines where there is no terminal."""


class Terminal:
    """Where a command speaks: standard error, so that standard output holds results alone.

    Args:
        quiet: say nothing at all (every process but the first of a distributed run).
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self.quiet = quiet
        self._log: Path | None = None
        self._unlogged: list[str] = []

    def log_to(self, path: Path) -> None:
        """Append to ``path`` all that was said so far and all that will be said, each line with its time."""
        self._log = path
        self._write_log()

    def _write_log(self) -> None:
        if self._log:
            with writing_errors(self._log), open(self._log, "a", encoding="utf-8") as file:
                file.writelines(self._unlogged)
            self._unlogged = []

    def say(self, text: str) -> None:
        """Print one line."""
        text = printable(text)
        self._unlogged.append(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}\n")
        self._write_log()
        if self.console.is_terminal:
            self.console.print(text, markup=False)
        elif not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def downloading(self) -> Callable[[int, int], None]:
        """Return what is to be told ``(bytes done, bytes in all)``; it says a line for each quarter."""
        said = -1

        def tell(done: int, total: int) -> None:
            nonlocal said
            quarter = 4 * done // total if total else 0
            if quarter > said:
                said = quarter
                self.say(f"downloading: {done / 1e6:.0f} of {total / 1e6:.0f} MB")

        return tell

    @contextmanager
    def bar(self, what: str, total: int, done: int = 0) -> Iterator["Bar"]:
        """Show progress from ``done`` to ``total`` (steps, pictures) while the block runs."""
        if not self.console.is_terminal or self.quiet:
            yield Bar(self, what, total, None)
            return
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f} %"))
        left = TimeRemainingColumn(compact=True, elapsed_when_finished=True)
        with Progress(*columns, left, TextColumn("{task.fields[text]}"), console=self.console) as progress:
            task = progress.add_task(what, total=total, completed=done, text="")
            yield Bar(self, what, total, (progress, task))


class Bar:
    """One running bar, or its stand-in that prints a line now and then."""

    def __init__(self, terminal: Terminal, what: str, total: int, live: tuple[Progress, object] | None) -> None:
        self._terminal, self._what, self._total, self._live = terminal, what, total, live
        self._said = time.monotonic()

    def update(self, done: int, text: str = "") -> None:
        """Move the bar to ``done`` and show ``text`` beside it."""
        if self._live:
            progress, task = self._live
            progress.update(task, completed=done, text=text)  # type: ignore[arg-type]
        elif time.monotonic() - self._said >= PLAIN_EVERY or done == self._total:
            self._said = time.monotonic()
            self._terminal.say(f"{self._what} {done}/{self._total}  {text}".rstrip())
