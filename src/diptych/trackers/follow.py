"""All services that follow a run. None can stop it or slow it down.

Each has a thread of its own that takes the records from a queue, so that a network that hangs holds up nothing.
Whatever goes wrong in one is said once, and the run goes on without it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from diptych.errors import ConfigError, suggest
from diptych.runs import SCHEMA_VERSION, RunFolder, read_json, write_json
from diptych.trackers.base import Tracked, Tracker, TrackerError

INSTALL = {
    "tensorboard": "`pip install 'diptych[tensorboard]'`",
    "wandb": "`pip install 'diptych[wandb]'`",
    "mlflow": "`pip install 'diptych[mlflow]'`",
    "trackio": "what docs/watching.md says (it asks for an older Pillow than diptych does)",
}
"""Service, which is its package's name too → what to type where that is missing."""
LAST_SECONDS = 30.0
"""That a service may take, at the end of a run, to send what is left."""
_ids_lock = Lock()


def refuse_missing(names: Sequence[str]) -> None:
    """Refuse services that cannot follow a run, before anything is read for it.

    Raises:
        ConfigError: there is no such service.
        TrackerError: its package is not installed.
    """
    for name in names:
        if name not in INSTALL:
            raise ConfigError(f"unknown tracker '{name}'{suggest(name, INSTALL)}")
        if (found := find_spec(name)) is None or found.origin is None:  # a folder of that name is no package
            raise TrackerError(f"--track {name} needs the package {name}: type {INSTALL[name]}")


class Trackers:
    """The services that a user named, from before a run begins to its end; silent where none was named.

    Args:
        names: of the services.

    Raises:
        UserError: as for ``refuse_missing``.
    """

    def __init__(self, names: Sequence[str]) -> None:
        refuse_missing(names)
        self.names = list(dict.fromkeys(names))
        self._following: list[_Following] = []
        self._say: Callable[[str], None] = print

    def begin(self, run: RunFolder, config: Mapping[str, Any], step: int, say: Callable[[str], None]) -> None:
        """Begin to follow a run.

        Args:
            run: its folder.
            config: its complete configuration, as JSON values.
            step: the first that will be recorded; above 0 in a run that goes on.
            say: where to speak.
        """
        self._say = say
        ids = run.path / "trackers.json"
        before = [record for record in run.read_lines(run.metrics) if record["step"] < step]
        for name in self.names:
            known = _read_ids(ids).get(name)
            tracked = Tracked(
                name=run.path.resolve().name,
                folder=run.path.resolve(),
                config=config,
                step=step,
                known=known,
                keep=partial(_keep_id, ids, name),
            )
            self._following.append(_Following(name, tracked, [] if known else before))

    def log(self, record: Mapping[str, Any]) -> None:
        """Hand on the numbers of a record of ``metrics.jsonl``."""
        for following in self._following:
            following.queue.put(record)
        self._drop_failed()

    def close(self, status: str) -> None:
        """End the following of a run; does nothing where it has ended."""
        for following in self._following:
            following.queue.put(status)
        for following in self._following:
            following.thread.join(LAST_SECONDS)
            if following.thread.is_alive():
                self._say(f"{following.name} has not taken the last records within {LAST_SECONDS:.0f} s: left behind")
        self._drop_failed()
        self._following = []

    def _drop_failed(self) -> None:
        for following in [following for following in self._following if following.error]:
            self._following.remove(following)
            told = " ".join(str(following.error).split()) or type(following.error).__name__
            self._say(f"Warning: --track {following.name} has ended, and the run goes on without it: {told}")

    def __enter__(self) -> "Trackers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close("failed")


class _Following:
    """One service, in its thread."""

    def __init__(self, name: str, run: Tracked, before: Iterable[Mapping[str, Any]]) -> None:
        self.name = name
        self.error: BaseException | None = None
        # It cannot grow beyond what a run records, some thousands of small dictionaries.
        self.queue: SimpleQueue[Mapping[str, Any] | str] = SimpleQueue()
        for record in before:
            self.queue.put(record)
        self.thread = Thread(target=self._follow, args=(run,), name=f"track-{name}", daemon=True)
        self.thread.start()

    def _follow(self, run: Tracked) -> None:
        try:
            tracker = _begin(self.name, run)
            while not isinstance(taken := self.queue.get(), str):
                tracker.log(taken["step"], numbers(taken))
            tracker.close(taken)
        except BaseException as error:  # a service may well raise SystemExit; here that is an error like any other
            self.error = error


def numbers(record: Mapping[str, Any]) -> dict[str, float]:
    """Return what can be drawn of a record: its numbers but for the step."""
    return {
        name: float(value)
        for name, value in record.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "step"
    }


def _begin(name: str, run: Tracked) -> Tracker:
    if name == "tensorboard":
        from diptych.trackers.tensorboard import begin
    elif name == "wandb":
        from diptych.trackers.wandb import begin
    elif name == "mlflow":
        from diptych.trackers.mlflow import begin
    else:
        from diptych.trackers.trackio import begin
    return begin(run)


def _read_ids(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _keep_id(path: Path, name: str, value: str) -> None:
    with _ids_lock:
        write_json(path, {"schema_version": SCHEMA_VERSION, **_read_ids(path), name: value})
