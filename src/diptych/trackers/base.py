"""What every tracker is and is told. A service is one file: a function ``begin(Tracked) -> Tracker``.

What leaves the run is its name, its configuration and the numbers of its records; no code, no pictures, no environment.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from diptych.errors import UserError

PROJECT = "diptych"
"""Project, or experiment, in which a service lists the runs, where its own environment variable names no other."""
OVER = ("finished", "stopped early")
"""How a run ends that has come to its end."""


class TrackerError(UserError):
    """A service cannot be used as asked."""


@dataclass(frozen=True, kw_only=True)
class Tracked:
    """What a service is told of a run as it begins, or goes on."""

    name: str
    folder: Path
    """The run folder."""
    config: Mapping[str, Any]
    """The complete configuration, as ``run.json`` has it."""
    step: int
    """The first that will be recorded (0-based); above 0 in a run that goes on."""
    known: str | None
    """The service's own name for this run, from when it began; None in a run that the service does not know."""
    keep: Callable[[str], None]
    """Keeps the service's own name for this run in the run folder."""


class Tracker(Protocol):
    """One service, following one run."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers recorded at ``step`` (0-based)."""

    def close(self, status: str) -> None:
        """Send what is left. ``status`` is the run's (``finished``, ``interrupted`` …), or ``failed``."""
