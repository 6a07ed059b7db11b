import os
import signal
import subprocess
import sys

import pytest
import torch

from diptych import checkpoint
from diptych.checkpoint import Progress
from diptych.errors import RunFolderError


def save(folder, step, best=False):
    weights = {"w": torch.full((3,), float(step))}
    return checkpoint.save(
        folder, weights, {"optimizer": {"lr": 0.1, "m": [torch.ones(2)]}}, Progress(step=step), best=best
    )


def test_round_trip(tmp_path):
    save(tmp_path, 5)
    point = checkpoint.load(tmp_path / "last")
    assert torch.equal(point.weights["w"], torch.full((3,), 5.0))
    assert point.state["optimizer"]["lr"] == 0.1 and point.progress == Progress(step=5)


def test_best_last_and_the_one_before_it_are_kept_and_nothing_else(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2, best=True)
    save(tmp_path, 3)
    save(tmp_path, 4)
    save(tmp_path, 5)
    found = sorted(p.name for p in tmp_path.iterdir())
    assert found == ["best", "last", "step-000002", "step-000004", "step-000005"]
    assert checkpoint.load(tmp_path / "best").progress.step == 2


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt"])
def test_a_checkpoint_cut_short_is_refused(tmp_path, name):
    save(tmp_path, 1, best=True)
    save(tmp_path, 2)
    file = tmp_path / "last" / name
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(RunFolderError, match=f"damaged.*{name}.*ln -sfn step-000001"):
        checkpoint.load(tmp_path / "last")


def test_none_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="no checkpoint"):
        checkpoint.load(tmp_path / "last")


WRITER = """
import sys, torch
from pathlib import Path
from diptych import checkpoint
folder = Path(sys.argv[1])
for step in range(1, 10_000):
    checkpoint.save(folder, {"w": torch.full((200_000,), float(step))}, {}, checkpoint.Progress(step=step), best=False)
    print(step, flush=True)
"""


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    for patience in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2 + 3 * patience):
            done = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        point = checkpoint.load(tmp_path / "last")
        assert point.progress.step >= done
        assert torch.equal(point.weights["w"], torch.full((200_000,), float(point.progress.step)))
