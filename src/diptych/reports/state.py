"""Where a run stands, as `diptych watch` shows it and as its ``--json`` prints it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

BEST: dict[str, Callable[[Sequence[float]], float]] = {
    "loss": min,
    "embedding_std": max,
    "effective_rank": max,
    "neighbour_stability": max,
    "knn_top1": max,
    "linear_top1": max,
}
"""Metrics of which a best value can be told."""


@dataclass(frozen=True, kw_only=True)
class State:
    """One run at one moment; None where nothing is known yet."""

    run: str
    """The folder as the user named it."""
    status: str
    """``not begun``, ``running``, or how it ended."""
    method: str | None = None
    backbone: str | None = None
    pictures: int | None = None
    data: str | None = None
    epochs: int | None = None
    """That the run shall have."""
    epoch: float = 0.0
    """Epochs done."""
    seconds_left: float | None = None
    """At the pace of the last records."""
    images_per_second: float | None = None
    wait_fraction: float | None = None
    """Share of the time spent waiting for pictures."""
    seconds: float | None = None
    """Of training so far."""
    silent_seconds: float | None = None
    """Since the last record, or since the run was begun."""
    health: str | None = None
    """What the guard found last."""
    recoveries: int = 0
    """Times that the run went back to a healthy checkpoint."""
    series: dict[str, list[float]] = field(default_factory=dict)
    """Metric → its values, oldest first."""
    warnings: list[str] = field(default_factory=list)
    """The last ones of the log, oldest first, each with its time."""

    @property
    def over(self) -> bool:
        """Whether nothing more will come unless somebody resumes the run."""
        return self.status not in ("not begun", "running")

    def best(self, name: str) -> float | None:
        """Return the best value of a metric; None where there is no telling."""
        return BEST[name](self.series[name]) if name in BEST else None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values; of each metric its first, last, best, lowest and highest."""
        values = {name: value for name, value in vars(self).items() if name != "series"}
        metrics = {
            name: {
                "first": points[0],
                "last": points[-1],
                "best": self.best(name),
                "lowest": min(points),
                "highest": max(points),
            }
            for name, points in self.series.items()
        }
        return values | {"metrics": metrics}
