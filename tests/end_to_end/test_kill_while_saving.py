"""Processes that are killed, or have no disk left, at any moment of saving: ``last`` loads whatever happens.

``saver.py`` is what they run.
"""

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from diptych import checkpoint
from end_to_end import saver
from end_to_end.saver import SAVES_OF, save, save_for_ever, save_until, save_within
from end_to_end.test_bad_input import small_disk

# What starts and kills them


class Forker:
    """A process that has torch loaded and forks others."""

    def __init__(self, **environment):
        self.process = subprocess.Popen(
            [sys.executable, saver.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def start(self, function, *words):
        """Fork a process that calls one of the saver's functions; returns its number."""
        print(json.dumps([function.__name__, *map(str_of_path, words)]), file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def wait(self):
        assert self.process.stdout.readline() == "ended\n"

    def said(self, function, *words):
        """Let a process run to its end, and return what it wrote into its last argument, a file; None if killed."""
        self.start(function, *words)
        self.wait()
        return words[-1].read_text() if words[-1].exists() else None

    def end(self):
        self.process.communicate()


def str_of_path(word):
    return str(word) if isinstance(word, Path) else word


@pytest.fixture(scope="module")
def forker():
    forker = Forker()
    yield forker
    forker.end()


def temporaries(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def step_of(link):
    point = checkpoint.load(link)
    filled = torch.full_like(point.weights["w"], float(point.progress.step))
    assert torch.equal(point.weights["w"], filled) and torch.equal(point.state["m"], filled)
    return point.progress.step


def other_mount(folder):
    """A folder of temporary files that lies on another disk than ``folder``."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or memory.stat().st_dev == folder.stat().st_dev:
        pytest.skip("there is no /dev/shm here that is another disk")
    return str(memory)


@pytest.mark.parametrize(("kills", "elsewhere"), [(50, False), (10, True)])
def test_last_loads_after_a_kill_at_any_moment(tmp_path, request, kills, elsewhere):
    """Also where temporary files have another disk."""
    forker = Forker(TMPDIR=other_mount(tmp_path)) if elsewhere else request.getfixturevalue("forker")
    folder, done = tmp_path / "checkpoints", tmp_path / "done"
    chance, last, patience, half_done = random.Random(0), 0, 0.0, 0
    for kill in range(kills):
        done.unlink(missing_ok=True)
        process = forker.start(save_for_ever, folder, done)
        if kill == 0:  # let it save a few times, to learn how long that takes
            while not done.exists():
                time.sleep(0.001)
            started = time.monotonic()
            while len(done.read_bytes().splitlines()) < 4:
                time.sleep(0.001)
            patience = (time.monotonic() - started) * 2 / 3
        else:
            time.sleep(chance.uniform(0, patience))
        os.kill(process, signal.SIGKILL)
        forker.wait()
        half_done += bool(temporaries(folder))
        noted = done.read_text().split() if done.exists() else []
        before, last = int(noted[-1]) if noted else last, step_of(folder / "last")
        assert last in (before, before + 1)
        if last >= 3:
            assert step_of(folder / "best") >= last // 3 * 3
    assert last > kills // 10 and half_done >= kills // 25  # the kills came amid saving
    forker.said(save_within, folder, last + 1, 100, None, tmp_path / "said")
    assert not temporaries(folder) and len(list(folder.glob("step-*"))) <= 3
    if elsewhere:
        forker.end()


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of which the next one, the sixth, moves ``best`` and ``last`` and deletes one."""
    for step in range(1, 6):
        save(tmp_path / "saved", step, 100)
    return tmp_path / "saved"


def at_every_call(forker, saved, fault):
    """Save once for each call of the operating system that saving makes, and meet a fault at it."""
    for moment in itertools.count(1):
        folder, said = saved.with_name(f"moment-{moment}"), saved.with_name(f"said-{moment}")
        shutil.copytree(saved, folder, symlinks=True)
        text = forker.said(save_until, folder, 6, moment, fault, said)
        if text == "saved":
            return
        yield folder, text


def test_last_loads_after_a_kill_at_every_call_of_the_operating_system(forker, saved):
    steps, half_done = [], 0
    for folder, said in at_every_call(forker, saved, "kill"):
        assert said is None
        steps.append((step_of(folder / "last"), step_of(folder / "best")))
        half_done += bool(temporaries(folder))
        for path in folder.glob("step-*"):
            step_of(path)  # what has that name is whole
        save(folder, 7, 100)
        assert not temporaries(folder) and step_of(folder / "last") == 7
    assert steps == sorted(steps) and half_done >= 5
    assert list(dict.fromkeys(steps)) == [(5, 3), (5, 6), (6, 6)]  # `best` knows the new one before `last` does


def test_a_disk_that_is_full_at_any_moment(forker, saved):
    count = 0
    for folder, said in at_every_call(forker, saved, "ENOSPC"):
        assert re.fullmatch(
            rf"the disk is full: {folder}/step-000006 was not written and what was there is untouched; free some space "
            r"\(a checkpoint takes [\d.]+ kB, [\d,.]+ [MGT]B are free\) and type the command again "
            r"\(a run with a checkpoint goes on with `diptych pretrain --resume RUN`\)",
            said,
        )
        assert not temporaries(folder) and step_of(folder / "last") in (5, 6)
        count += 1
    assert count > 8


def test_a_quota_that_is_spent(forker, saved):
    """How much of it is left is not known."""
    said = forker.said(save_until, saved, 6, 3, "EDQUOT", saved.with_name("said"))
    assert re.search(r"; free some space \(a checkpoint takes [\d.]+ kB\) and type the command again", said)
    assert not temporaries(saved) and step_of(saved / "last") == 5


def test_a_limit_on_the_size_of_files(forker, saved):
    """Of a real process: what would be written beyond it fails, by a signal that Python has to ignore."""
    said = forker.said(save_within, saved, 6, SAVES_OF, 1_000_000, saved.with_name("said"))
    assert said == (
        f"cannot write {saved}/step-000006 (File too large); allow files of 2 MB (`ulimit -f unlimited`, where it "
        "is not the disk that allows none) and type the command again (a run with a checkpoint goes on with `diptych "
        "pretrain --resume RUN`)"
    )
    assert not temporaries(saved) and step_of(saved / "last") == 5


def test_a_small_disk(forker, tmp_path):
    with small_disk(tmp_path / "disk", "10m") as disk:
        for step in (1, 2):
            forker.said(save_within, disk / "run", step, SAVES_OF, None, tmp_path / "said")
        said = forker.said(save_within, disk / "run", 3, SAVES_OF, None, tmp_path / "said")
        assert said.startswith(
            f"the disk is full: {disk}/run/step-000003 was not written and what was there is untouch"
        )
        needed, free = map(float, re.search(r"a checkpoint takes ([\d.]+) MB, ([\d.]+) MB are free", said).groups())
        assert (needed, round(free + 2 * needed)) == (4.0, 10)
        assert not temporaries(disk / "run") and step_of(disk / "run" / "last") == 2
