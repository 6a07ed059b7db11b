"""Inspecting on every core. What is under way is bounded, and a file whose decoder crashes takes nothing with it.

Each worker is a process (``worker.py``) with a thread here that hands it one job after the other. Only these jobs and
their answers are in memory.
"""

import contextlib
import itertools
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from diptych.auditing.inspect import Record
from diptych.auditing.worker import READY, send
from diptych.data.decoding.pixels import BadPicture, Pixels
from diptych.errors import DataError, printable

Found: TypeAlias = "bytes | Path | Pixels | BadPicture"
"""A picture to inspect: encoded, where it lies, decoded, or what went wrong on the way to it."""

CHUNK = 48
"""Pictures in one job, at most."""
CHUNK_BYTES = 1 << 24
"""Bytes of pictures in one job, unless one is larger."""
CRASHED = "the decoder crashed on it"
SLOW = "the decoder did not come to an end"
SECONDS = 120.0
"""A job may take so long, and a second more for every ``SLOWEST`` bytes."""
SLOWEST = 1 << 20


class Task:
    """One picture to inspect; ``key`` comes back with its record."""

    __slots__ = ("found", "key", "name")

    def __init__(self, key: Any, name: str, found: Found) -> None:
        self.key, self.name, self.found = key, name, found


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def inspect_all(tasks: Iterable[Task], workers: int) -> Iterator[list[tuple[Any, Record]]]:
    """Yield the records of ``tasks`` in batches, in the order in which they are ready.

    Args:
        tasks: drawn from as they are needed, by one thread at a time.
        workers: processes.
    """
    chunks, lock = _chunks(tasks), threading.Lock()
    done: queue.Queue[list[tuple[Any, Record]] | BaseException | None] = queue.Queue(2 * workers)
    stopped = threading.Event()

    def serve() -> None:
        try:
            with _Worker() as worker:
                while not stopped.is_set():
                    with lock:
                        chunk = next(chunks, None)
                    if chunk is None:
                        break
                    done.put(worker.inspect(chunk))
            done.put(None)
        except BaseException as error:
            done.put(error)

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    running = workers
    try:
        while running:
            answer = done.get()
            if answer is None:
                running -= 1
            elif isinstance(answer, BaseException):
                raise answer
            else:
                yield answer
    finally:
        stopped.set()
        while any(thread.is_alive() for thread in threads):
            _with_room(done)


def _with_room(answers: "queue.Queue[Any]") -> None:
    """Throw one answer away, so that a thread that waits to give its own can end."""
    try:
        answers.get(timeout=0.05)
    except queue.Empty:
        pass


def _chunks(tasks: Iterable[Task]) -> Iterator[list[Task]]:
    """Group tasks of one kind, up to ``CHUNK`` or ``CHUNK_BYTES``."""
    for _, group in itertools.groupby(tasks, lambda task: hasattr(task.found, "shape")):
        chunk: list[Task] = []
        held = 0
        for task in group:
            size = _bytes(task)
            if chunk and (len(chunk) == CHUNK or held + size > CHUNK_BYTES):
                yield chunk
                chunk, held = [], 0
            chunk.append(task)
            held += size
        if chunk:
            yield chunk


def _bytes(task: Task) -> int:
    if isinstance(task.found, bytes):
        return len(task.found)
    return getattr(task.found, "nbytes", 0)


def _size(task: Task) -> int:
    """Return the bytes that a worker has to read for a task."""
    if isinstance(task.found, Path):
        with contextlib.suppress(OSError):
            return task.found.stat().st_size
    return _bytes(task)


class _Worker:
    """One process, started again when it dies."""

    def __enter__(self) -> "_Worker":
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        # The worker finds the package where this process found it, whatever put it on its path.
        paths = os.pathsep.join(path for path in sys.path if path)
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "diptych.auditing.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": paths},
        )
        assert self._process.stdout
        if self._process.stdout.readline() != json.dumps(READY).encode() + b"\n":
            said = self._stop().decode(errors="replace").strip().splitlines()
            last = printable(said[-1]) if said else f"exit code {self._process.returncode}"
            raise DataError(
                f"the process that inspects pictures did not start ({last}); type `python -m diptych.auditing.worker` "
                "to see more"
            )

    def _stop(self) -> bytes:
        """End the process, close its pipes, and return what it said on standard error before it was ready."""
        self._process.kill()
        return self._process.communicate()[1]

    def inspect(self, chunk: Sequence[Task]) -> list[tuple[Any, Record]]:
        """Return a record for each task; where the process dies, each is tried alone to find the one that kills it."""
        sound = [task for task in chunk if not isinstance(task.found, BadPicture)]
        answers = [
            (task.key, Record(task.found.reason, "", "")) for task in chunk if isinstance(task.found, BadPicture)
        ]
        if sound and (records := self._ask(sound)) is None:
            self._restart()
            for task in sound:
                alone = self._ask([task])
                if alone is None:
                    self._restart()
                answers.append((task.key, alone[0] if alone else Record(SLOW if self._late else CRASHED, "", "")))
        elif sound:
            answers += [(task.key, record) for task, record in zip(sound, records or [], strict=True)]
        return answers

    def _restart(self) -> None:
        self._stop()
        self._start()

    def _kill(self) -> None:
        self._late = True
        self._process.kill()

    def _ask(self, tasks: Sequence[Task]) -> list[Record] | None:
        """Send one job and wait for its answer; None where the process died over it, or was killed for its time."""
        assert self._process.stdin and self._process.stdout
        header: list[Any] = []
        contents: list[bytes] = []
        for task in tasks:
            if isinstance(task.found, Path):
                header.append([task.name, "path", str(task.found)])
            elif isinstance(task.found, bytes):
                header.append([task.name, "bytes", len(task.found)])
                contents.append(task.found)
            elif not isinstance(task.found, BadPicture):
                pixels = task.found.tobytes()
                header.append([task.name, "pixels", len(pixels), task.found.shape, str(task.found.dtype)])
                contents.append(pixels)
        self._late = False
        alarm = threading.Timer(SECONDS + sum(map(_size, tasks)) / SLOWEST, self._kill)
        alarm.start()
        try:
            send(self._process.stdin, header, contents)
            answer = self._process.stdout.readline()
        except OSError:
            return None
        finally:
            alarm.cancel()
            alarm.join()
        if self._late:
            return None
        return [_record(values) for values in json.loads(answer)] if answer.endswith(b"\n") else None


def _record(values: list[Any]) -> Record:
    """Make a record of what JSON kept of it: a tuple comes back as a list."""
    return Record._make(tuple(value) if isinstance(value, list) else value for value in values)
