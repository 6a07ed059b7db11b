"""A run that labels watch: by the command line, and by two processes that must agree on when to stop."""

import json
import subprocess
import sys

import pytest
from in_process import run_command
from tiny import FLAGS, flat, lines, paint


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures without labels, and others with."""
    folder = tmp_path_factory.mktemp("data")
    names = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(10)]
    return flat(folder / "pictures", 24), paint(folder / "labelled", *names)


def test_labels_watch_a_run_that_learns_without_them(tmp_path, data):
    pictures, labelled = data
    run = tmp_path / "run"
    words = ["pretrain", pictures, "--out", run, *FLAGS, "--epochs", 3, "--probe", labelled, "--probe-every", 2]
    code, out, err = run_command(*words)
    assert code == 0, err
    ends = {r["step"]: r for r in lines(run / "metrics.jsonl") if "knn_top1" in r}
    assert list(ends) == [11, 17]  # after the second epoch of six steps, and after the last one
    assert all(0 <= r[name] <= 1 for r in ends.values() for name in ("knn_top1", "linear_top1"))
    last = ends[17]
    assert f"kNN {last['knn_top1']:.1%}  linear {last['linear_top1']:.1%}" in err
    assert "8 labelled pictures to learn a probe from, 8 to judge it by; training sees no label\n" in err
    card = json.loads((run / "run.json").read_text())
    assert card["probe"]["classes"] == ["cat", "dog"] and f"--probe {labelled}" in card["command"]
    assert "knn_top1" not in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--probe", "PICTURES"], "--probe PICTURES cannot be used: PICTURES has no labels"),
        (["--probe", "PICTURES/none"], "--probe PICTURES/none cannot be used: there is no PICTURES/none"),
        (["--best-by", "knn_top1"], "--best-by knn_top1 needs labelled pictures: add --probe LABELLED"),
        (["--best-by", "neighbour_stability"], "--best-by neighbour_stability needs --epochs 34 or more"),
    ],
)
def test_what_cannot_be_watched_is_refused_in_one_line(tmp_path, data, words, told):
    pictures, _ = data
    words, told = [word.replace("PICTURES", str(pictures)) for word in words], told.replace("PICTURES", str(pictures))
    code, out, err = run_command("pretrain", pictures, "--out", tmp_path / "run", *FLAGS, "--epochs", 33, *words)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith(f"diptych: {told}")
    assert not (tmp_path / "run").exists()


def test_two_processes_agree_on_the_epoch_that_the_labels_choose(tmp_path, data):
    pictures, labelled = data
    run = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    settings = ["--epochs", "30", "--probe", labelled, "--best-by", "knn_top1", "--patience", "2"]
    words = [*torchrun, "-m", "diptych", "pretrain", pictures, "--out", run, *FLAGS, *settings]
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    values = [r["knn_top1"] for r in lines(run / "metrics.jsonl") if "knn_top1" in r]
    best = values.index(max(values))  # of several that are equal, the first
    assert len(values) == best + 3 < 30
    assert json.loads((run / "run.json").read_text())["result"]["status"] == "stopped early"
    assert "Restored the weights of the epoch that was best by knn_top1" in done.stderr
