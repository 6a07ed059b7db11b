"""What goes wrong in real runs of one and two real processes: signals, kills, values that are not finite."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file
from tiny import FLAGS, flat, lines, wait_until

import diptych
from diptych import checkpoint
from diptych.frozen import random_twin
from diptych.runs import RunFolder

FAULTY = """
import json, math, os, signal, sys, time
from diptych.cli import main
from diptych.training import loop
from diptych.training.step import Backward

rank, restarts = int(os.environ.get("RANK", 0)), os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
plan = json.loads(sys.argv[1])
loop.CHECKPOINT_SECONDS = plan.get("checkpoint", 60.0)
usual = Backward.__call__

def faulty(self, batch, step):
    time.sleep(plan.get("sleep", 0))
    if step == plan.get("kill") and rank == 1 and restarts == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    if step in plan.get("spoil", []) and rank == plan.get("rank", 0):
        make = self.make_views
        def spoilt(images, draws, rows):
            views = make(images, draws, rows)
            views[0][2, 0, 4, 4] = math.nan
            return views
        self.make_views = spoilt
        try:
            return usual(self, batch, step)
        finally:
            self.make_views = make
    return usual(self, batch, step)

Backward.__call__ = faulty
with open(f"{sys.argv[2]}.{rank}.pid", "w") as file:
    file.write(str(os.getpid()))
sys.exit(main(sys.argv[3:]))
"""


WORDS = ("--epochs", 5)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """Start the command line with faults planned, in so many processes."""
    folder = tmp_path_factory.mktemp("faulty")
    script = folder / "faulty.py"
    script.write_text(FAULTY)
    data = flat(folder / "pictures", 12)

    def start(plan, out, *words, processes=1, restarts=0):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        begin = [sys.executable] if processes == 1 else [*torchrun, "--max-restarts", str(restarts)]
        command = ["pretrain", data, "--out", out, *FLAGS, "--device", "cpu", *words]
        return subprocess.Popen(
            [*map(str, [*begin, script, json.dumps(plan), out.parent / "started", *command])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="module")
def whole(faulty, tmp_path_factory):
    """A run that nothing happened to, in one process and in two."""
    folder = tmp_path_factory.mktemp("whole")
    assert ended(faulty({}, folder / "1", *WORDS))[0] == 0
    assert ended(faulty({}, folder / "2", *WORDS, "--batch-size", 6, processes=2))[0] == 0
    return folder


def ended(process):
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err.replace("Traceback : to enable", ""), err
    return process.returncode, out, err


def weights(run, name="backbone.safetensors"):
    return load_file(run / name)


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def metrics(run):
    """What was recorded, but for what clocks say."""
    clocks = {"images_per_second", "wait_fraction", "seconds"}
    return [{k: v for k, v in record.items() if k not in clocks} for record in lines(run / "metrics.jsonl")]


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_ends_the_step_and_the_run_goes_on_to_the_same_end(faulty, whole, tmp_path, number):
    out = tmp_path / "run"
    process = faulty({"sleep": 0.05}, out, *WORDS)
    wait_until(lambda: len(lines(out / "metrics.jsonl")) >= 2, process)
    process.send_signal(number)
    code, said, err = ended(process)
    assert code == 143 and said == ""
    assert f"go on with `diptych pretrain --resume {shlex.quote(str(out))}`" in err
    assert not (out / "backbone.safetensors").exists()
    assert diptych.resume(out, device="cpu").status == "finished"
    assert same(weights(out), weights(whole / "1")) and metrics(out) == metrics(whole / "1")


def test_a_second_signal_ends_it_at_once_and_the_last_checkpoint_loads(faulty, tmp_path):
    out = tmp_path / "run"
    process = faulty({"sleep": 6.0, "checkpoint": 0.0}, out, "--epochs", 40)
    wait_until(lambda: (out / "checkpoints" / "last").exists(), process)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # an echo of the first
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    since = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM and time.monotonic() - since < 3
    checkpoint.load(out / "checkpoints" / "last")


@pytest.mark.parametrize("to", ["one of them", "torchrun"])
def test_a_signal_stops_two_processes_together_and_they_go_on_to_the_same_end(faulty, whole, tmp_path, to):
    out = tmp_path / "run"
    process = faulty({"sleep": 0.3}, out, *WORDS, "--batch-size", 6, processes=2)
    wait_until(lambda: len(lines(out / "metrics.jsonl")) >= 2, process)
    one = int((tmp_path / "started.1.pid").read_text()) if to == "one of them" else process.pid
    os.kill(one, signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0 and f"go on with `diptych pretrain --resume {shlex.quote(str(out))}`" in err
    if to == "one of them":
        assert err.count("exitcode  : 143") == 2, err  # torchrun lists both processes with how they ended
    stopped = checkpoint.load(out / "checkpoints" / "last").progress.step
    assert 2 <= stopped < 10 and len(lines(out / "metrics.jsonl")) == stopped
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "diptych"]
    done = subprocess.run(
        [*torchrun, "pretrain", "--resume", str(out), "--device", "cpu"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert same(weights(out), weights(whole / "2")) and metrics(out) == metrics(whole / "2")


@pytest.mark.parametrize("every", [0.0, 60.0])
def test_torchrun_starts_a_killed_run_again_and_its_end_is_the_same(faulty, whole, tmp_path, every):
    """With a checkpoint to go on from, and, killed before the first one, from the beginning."""
    plan, out = {"kill": 5, "checkpoint": every}, tmp_path / "run"
    _, err = (process := faulty(plan, out, *WORDS, "--batch-size", 6, processes=2, restarts=1)).communicate(timeout=300)
    assert process.returncode == 0, err
    assert ("Going on with" in err) is (every == 0.0)
    assert same(weights(out), weights(whole / "2")) and metrics(out) == metrics(whole / "2")


# Values that are not finite


def test_what_is_not_finite_on_one_process_moves_no_weights_anywhere(faulty, tmp_path):
    out = tmp_path / "run"
    plan = {"spoil": [3], "rank": 1, "checkpoint": 0.0}
    process = faulty(plan, out, "--epochs", 4, "--batch-size", 6, processes=2)
    _, err = process.communicate(timeout=300)
    # Each ends by itself with 2, if torchrun, which sees the other's end, does not end it before.
    assert process.returncode != 0 and "exitcode  : 2" in err and err.count("exitcode  :") == 2, err
    kept = checkpoint.load(out / "checkpoints" / "last")
    assert kept.progress.step == 3 and all(tensor.isfinite().all() for tensor in kept.weights.values())
    found = lines(out / "faults.jsonl")
    assert sorted(fault["process"] for fault in found) == [0, 1] and {fault["step"] for fault in found} == {3}
    (spoilt,) = [fault for fault in found if fault["process"] == 1]
    assert spoilt["loss"] == "nan" and spoilt["suspects"] == [spoilt["pictures"][2]] and len(spoilt["pictures"]) == 3
    assert all(name.endswith(".png") for name in spoilt["pictures"])
    assert "the loss is not a finite number at step 3" in err


def test_a_step_that_is_not_finite_may_be_left_out_a_few_times(faulty, tmp_path):
    out = tmp_path / "run"
    code, _, err = ended(faulty({"spoil": [2, 4]}, out, "--epochs", 3, "--on-nonfinite", "skip"))
    assert code == 0 and err.count("Left out: the loss is not a finite number") == 2, err
    assert [record["step"] for record in lines(out / "metrics.jsonl")] == [0, 1, 3, 5, 6, 7, 8]
    assert all(tensor.isfinite().all() for tensor in weights(out).values())
    half = ("--precision", "fp16", "--on-nonfinite", "skip")
    code, _, err = ended(faulty({"spoil": [2, 4]}, tmp_path / "half", "--epochs", 3, *half))
    assert code == 0 and err.count("Left out: the loss is not a finite number") == 2, err
    skip = ("--on-nonfinite", "skip", "--max-skips", 1)
    code, _, err = ended(faulty({"spoil": [2, 4]}, tmp_path / "other", "--epochs", 3, *skip))
    assert code == 2 and "at step 4" in err and "after 1 steps were left out, which is --max-skips" in err


def test_a_step_left_out_leaves_weights_and_statistics_as_they_were(faulty, tmp_path):
    """The first step left out, the second is the first that moves anything: as if the run had begun there."""
    out = tmp_path / "run"
    code, _, err = ended(faulty({"spoil": [0, 1, 2]}, out, "--epochs", 1, "--on-nonfinite", "skip"))
    assert code == 0, err
    begun = random_twin(out, "cpu").module.state_dict()
    kept = checkpoint.load(out / "checkpoints" / "last").weights
    ours = {key.removeprefix("backbone."): value for key, value in kept.items() if key.startswith("backbone.")}
    assert same(ours, begun) and RunFolder(out).read_card()["result"]["steps"] == 3
