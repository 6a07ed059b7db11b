"""Many processes give what one gives; a crash costs one file; nothing is drawn far ahead."""

import os
import signal
import struct

import numpy as np
import pytest

from auditing.made import encoded, photo, photos
from diptych.auditing import pool
from diptych.auditing.inspect import inspect_files
from diptych.auditing.pool import CRASHED, SLOW, Task, inspect_all
from diptych.data.decoding.pixels import BadPicture
from diptych.errors import DataError


def by_key(tasks, workers=2):
    return {key: record for batch in inspect_all(tasks, workers) for key, record in batch}


def test_paths_contents_and_pixels_are_inspected_as_in_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "CHUNK", 4)
    paths = sorted(photos(tmp_path, 10).iterdir())
    contents = {path.name: path.read_bytes() for path in paths}
    tasks = [Task(path.name, path.name, path) for path in paths]
    tasks += [Task(f"bytes {name}", name, content) for name, content in contents.items()]
    tasks += [Task("pixels", "p", np.asarray(photo()).transpose(2, 0, 1))]
    tasks += [Task("gone", "g", BadPicture("g", "it is gone"))]
    found = by_key(tasks)
    assert len(found) == 22 and found["gone"].reason == "it is gone"
    for name, content in contents.items():
        (alone,) = inspect_files([(name, content)])
        assert found[name] == found[f"bytes {name}"] == alone
    assert (found["pixels"].width, found["pixels"].channels, found["pixels"].format) == (64, 3, "pixels")


def test_a_decoder_that_crashes_takes_down_one_file_only(monkeypatch):
    # A real process that really dies: killed over the file that a test marks.
    ask = pool._Worker._ask

    def dying(worker, tasks):
        if any(task.name == "deadly" for task in tasks):
            os.kill(worker._process.pid, signal.SIGKILL)
            worker._process.wait()
        return ask(worker, tasks)

    monkeypatch.setattr(pool._Worker, "_ask", dying)
    content = encoded()
    names = ["a", "b", "deadly", "c"]
    found = by_key([Task(name, name, content) for name in names], workers=1)
    assert {key for key, record in found.items() if record.reason is None} == {"a", "b", "c"}
    assert found["deadly"].reason == CRASHED and not found["deadly"].digest


def test_no_more_is_drawn_than_is_needed(monkeypatch):
    monkeypatch.setattr(pool, "CHUNK", 2)
    drawn = []

    def tasks():
        for number in range(1000):
            drawn.append(number)
            yield Task(number, "a", encoded())

    batches = inspect_all(tasks(), 2)
    next(batches)
    batches.close()  # ends the processes too
    assert len(drawn) < 60


def test_an_error_on_the_way_reaches_the_caller():
    def tasks():
        yield Task(0, "a", encoded())
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(inspect_all(tasks(), 2))


@pytest.mark.parametrize(
    ("script", "told"), [("exit 3", "exit code"), ("echo one >&2; echo No module named numpy >&2", "No module named n")]
)
def test_a_worker_that_cannot_start_is_one_line(tmp_path, monkeypatch, script, told):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(pool.sys, "executable", str(python))
    with pytest.raises(DataError, match=told) as error:
        list(inspect_all([Task(0, "a", encoded())], 1))
    assert "did not start" in str(error.value) and "\n" not in str(error.value)


def test_a_decoder_that_never_ends_takes_down_one_file_only(tmp_path, monkeypatch):
    monkeypatch.setattr(pool, "SECONDS", 1.0)
    os.mkfifo(tmp_path / "endless.jpg")  # nobody writes into it: opening it waits for ever
    names = ["a", "endless", "b"]
    found = by_key([Task(n, n, tmp_path / "endless.jpg" if n == "endless" else encoded()) for n in names], workers=1)
    assert found["endless"].reason == SLOW and not found["endless"].digest
    assert found["a"].reason is found["b"].reason is None


def test_a_worker_that_says_much_is_not_held_up(tmp_path):
    """A pipe that nobody reads holds 64 kB; each of these files makes its decoder print a warning."""
    bad = b"II*\0" + struct.pack("<IHHHII", 8, 40, 256, 3, 1, 8) + bytes(600)
    found = by_key([Task(number, "a.tif", bad) for number in range(800)], workers=1)
    assert len(found) == 800 and {record.reason is None for record in found.values()} == {False}
