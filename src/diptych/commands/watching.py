"""Commands that show runs: ``report``, ``watch``."""

import contextlib
from dataclasses import dataclass
from typing import Annotated

from rich.console import Console
from tyro.conf import Positional, arg

import diptych
from diptych.commands.parsing import USAGE, Switch, parse, tell
from diptych.errors import UserError, check
from diptych.reports.screen import view
from diptych.reports.watch import follow, look


@dataclass(frozen=True, kw_only=True)
class ReportArgs:
    """Rewrites RUN/report.html from what lies in the run folder."""

    run: Annotated[Positional[str], arg(metavar="RUN")]
    """The run folder."""
    seed: int = 0
    """Accepted by every command; a report draws nothing at random."""
    json: Switch = False
    """Print the result as JSON on standard output."""


def report(words: list[str]) -> int:
    """Run `diptych report`; returns the exit code."""
    args = parse("report", ReportArgs, words)
    path = diptych.report(args.run)
    tell(args.json, {"report": str(path)}, str(path))
    return 0


@dataclass(frozen=True, kw_only=True)
class WatchArgs:
    """A live view of runs, going on or over; ends when they are over, or with Ctrl-C."""

    runs: Annotated[Positional[tuple[str, ...]], arg(metavar="RUN")]
    """Run folders; one that is not there yet is waited for."""
    every: float = 2.0
    """Seconds from one look to the next."""
    once: Switch = False
    """Print one view and end, as is done where there is no terminal."""
    seed: int = 0
    """Accepted by every command; a view draws nothing at random."""
    json: Switch = False
    """Print one view as JSON on standard output, and end."""


def watch(words: list[str]) -> int:
    """Run `diptych watch`; returns the exit code."""
    args = parse("watch", WatchArgs, words)
    check(args, "0.1 seconds or more", lambda value: value >= 0.1, "every")
    if not args.runs:
        raise UserError(f"say which run to watch: type `{USAGE['watch']}`")
    console = Console(highlight=False)
    if args.json:
        tell(True, {"runs": [state.to_dict() for state in look(args.runs)]}, "")
    elif args.once or not console.is_terminal:
        console.print(view(look(args.runs)))
    else:
        with contextlib.suppress(KeyboardInterrupt):
            follow(args.runs, every=args.every, console=console)
    return 0
