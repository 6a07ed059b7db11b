"""What `diptych watch` sees: the state of runs, read again and again from the files in their folders and nothing else.

So it works for any run, going on or over, on this machine or on a disk that several share. Only new bytes are read; a
line that is half written waits for its end, and a file that a resumed run has written anew is read anew.
"""

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from diptych.errors import printable
from diptych.markup import get
from diptych.reports.screen import view
from diptych.reports.state import State
from diptych.runs import MARKER, RunFolder

WARNINGS = 3
"""Of the log, shown."""
RECENT = 50
"""Records from which the time that is left is reckoned."""
OVER = ("finished", "stopped early")
"""How a run ends that cannot go on."""
NOT_METRICS = ("step", "epoch", "seconds", "images_per_second", "wait_fraction")
"""Numbers of a record that say where the run stands, not how it does."""


def follow(runs: Sequence[str | Path], *, every: float, console: Console) -> None:
    """Show runs until the last one is over; a run that is not there yet is waited for.

    Args:
        runs: run folders.
        every: seconds from one look to the next.
        console: a terminal.

    Raises:
        RunFolderError: one of them is something else, or is damaged.
    """
    watched = [Watched(run) for run in runs]
    with Live(console=console, auto_refresh=False) as live:
        while True:
            states = [one.look() for one in watched]
            live.update(view(states), refresh=True)
            if all(state.over for state in states):
                return
            time.sleep(every)


def look(runs: Sequence[str | Path]) -> list[State]:
    """Return what is to be seen of runs at this moment.

    Raises:
        RunFolderError: one of them is not there, is no run folder, or is damaged.
    """
    for run in runs:
        RunFolder.open(run)
    return [Watched(run).look() for run in runs]


class Tail:
    """A file of lines that grows, is written anew, or is not there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0
        self._identity: tuple[int, int] | None = None

    def read(self) -> tuple[list[str], bool]:
        """Return the lines completed since the last call, and whether what was returned before no longer counts."""
        try:
            file = open(self._path, "rb")
        except FileNotFoundError:
            anew, self._at, self._identity = self._identity is not None, 0, None
            return [], anew
        with file:
            status = os.fstat(file.fileno())
            identity = status.st_dev, status.st_ino  # a file that is written whole and renamed is another one
            anew = self._identity is not None and (identity != self._identity or status.st_size < self._at)
            if anew:
                self._at = 0
            self._identity = identity
            file.seek(self._at)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._at += len(whole) + len(newline)
        return whole.decode(errors="replace").split("\n") if newline else [], anew


@dataclass
class Watched:
    """One run, and what has been read of it."""

    path: str | Path
    records: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = RunFolder(self.path)
        self._metrics, self._log = Tail(self.run.metrics), Tail(self.run.log)

    def look(self) -> State:
        """Read what is new, and return where the run stands."""
        self._read_metrics()
        self._read_log()
        card = self._card()
        if card is None:
            return State(run=str(self.path), status="not begun")
        config, data = card["config"], card["data"]
        status = self._status(card)
        last = self.records[-1] if self.records else {}
        # Of a run that is over, what it came to counts, not how its last steps went.
        rate = last.get("images_per_second") if status == "running" else card["result"]["images_per_second"]
        epochs = get(config, "train", "epochs")
        return State(
            run=str(self.path),
            status=status,
            method=_said(get(config, "method", "name")),
            backbone=_said(config.get("backbone")),
            pictures=data["pictures"],
            data=_said(data["name"]),
            epochs=epochs,
            epoch=last.get("epoch", 0.0),
            seconds_left=self._seconds_left(epochs) if status == "running" else None,
            images_per_second=rate,
            wait_fraction=last.get("wait_fraction") if status == "running" else None,
            seconds=last.get("seconds"),
            silent_seconds=self._silent_seconds() if status == "running" else None,
            health=_said(next((r["health"] for r in reversed(self.records) if "health" in r), None)),
            recoveries=len(card.get("recoveries", [])),
            series=self._series(),
            warnings=self.warnings[-WARNINGS:],
        )

    def _read_metrics(self) -> None:
        lines, anew = self._metrics.read()
        if anew:
            self.records.clear()
        for line in lines:
            record = _parsed(line)
            if "step" in record and "epoch" in record:
                self.records.append(record)

    def _read_log(self) -> None:
        lines, anew = self._log.read()
        if anew:
            self.warnings.clear()
        self.warnings += [printable(line.rstrip("\r")) for line in lines if " Warning: " in line]

    def _card(self) -> dict[str, Any] | None:
        """Return ``run.json``; None where no run has been begun here yet."""
        path = self.run.path
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return None
        if (path / MARKER).is_file() and not self.run.config.exists():
            return None
        return RunFolder.open(self.path).read_card()

    def _status(self, card: Mapping[str, Any]) -> str:
        result = card["result"]
        if result is None:
            return "running"
        # The result of a run that was interrupted stays until it has gone on to its end: what is younger tells.
        resumed = bool(self.records) and self.records[-1]["step"] >= result["steps"]
        if result["status"] not in OVER and self.run.log.exists():
            resumed |= self.run.log.stat().st_mtime > self.run.config.stat().st_mtime
        return "running" if resumed else str(_said(result["status"]))

    def _seconds_left(self, epochs: int | None) -> float | None:
        recent = [record for record in self.records[-RECENT:] if "seconds" in record]
        if not epochs or len(recent) < 2 or recent[-1]["epoch"] <= recent[0]["epoch"]:
            return None
        pace = (recent[-1]["seconds"] - recent[0]["seconds"]) / (recent[-1]["epoch"] - recent[0]["epoch"])
        return float(pace * (epochs - recent[-1]["epoch"]))

    def _silent_seconds(self) -> float:
        """Seconds since the last record was written, or since the run was begun."""
        written = self.run.metrics if self.run.metrics.exists() else self.run.config
        return max(0.0, time.time() - written.stat().st_mtime)

    def _series(self) -> dict[str, list[float]]:
        series: dict[str, list[float]] = {}
        for record in self.records:
            for name, value in record.items():
                if name not in NOT_METRICS and _is_number(value):
                    series.setdefault(_said(name) or "", []).append(float(value))
        return series


def _parsed(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _said(value: object) -> str | None:
    """Make words out of files fit for a terminal."""
    return None if value is None else printable(str(value))
