"""Real services with their real packages, and nothing sent over a network; those that are not installed are skipped."""

import contextlib
import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from types import ModuleType

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diptych.errors import ConfigError
from diptych.runs import RunFolder, read_json
from diptych.trackers import follow
from diptych.trackers.base import TrackerError
from diptych.trackers.follow import Trackers, numbers

CONFIG = {"data": "pictures/", "optim": {"lr": 0.5}}


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "mine")


def record(step, **values):
    return {"step": step, "epoch": (step + 1) / 4, "loss": -step / 8, "health": "healthy"} | values


def tracked(run, name, steps, status="finished"):
    """Follow a run over some steps, as the recorder does; returns what was said."""
    said = []
    with Trackers([name]) as trackers:
        trackers.begin(run, CONFIG, steps[0], said.append)
        for step in steps:
            run.append(run.metrics, record(step))
            trackers.log(record(step))
        trackers.close(status)
    return said


def events(run):
    """Every scalar that TensorBoard's own reader finds: name → (step, value)."""
    reader = EventAccumulator(str(run.path / "tensorboard")).Reload()
    return {name: [(e.step, e.value) for e in reader.Scalars(name)] for name in reader.Tags()["scalars"]}


def test_tensorboard_reads_every_number_and_the_configuration(run):
    assert tracked(run, "tensorboard", range(3)) == []
    assert events(run) == {"epoch": [(0, 0.25), (1, 0.5), (2, 0.75)], "loss": [(0, 0.0), (1, -0.125), (2, -0.25)]}
    reader = EventAccumulator(str(run.path / "tensorboard")).Reload()
    (text,) = reader.Tensors("configuration/text_summary")
    assert b'"lr": 0.5' in text.tensor_proto.string_val[0]


def test_tensorboard_shows_a_step_once_that_was_taken_again(run):
    tracked(run, "tensorboard", range(4), "interrupted")
    run.keep_metrics_before(2)
    tracked(run, "tensorboard", range(2, 5))
    assert [step for step, _ in events(run)["loss"]] == [0, 1, 2, 3, 4]


def test_a_service_that_comes_later_gets_what_was_recorded_before(run):
    for step in range(3):
        run.append(run.metrics, record(step))
    tracked(run, "tensorboard", range(3, 5))
    assert [step for step, _ in events(run)["loss"]] == [0, 1, 2, 3, 4]


def test_only_numbers_are_handed_on():
    assert numbers({"step": 3, "loss": 1, "health": "healthy", "ok": True, "lr": 0.5}) == {"loss": 1.0, "lr": 0.5}


def test_nothing_happens_where_nothing_is_asked(run):
    with Trackers([]) as trackers:
        trackers.begin(run, CONFIG, 0, pytest.fail)
        trackers.log(record(0))
    assert {path.name for path in run.path.iterdir()} == {".diptych-run"}


def test_an_unknown_service_gets_a_suggestion():
    with pytest.raises(ConfigError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'?"):
        Trackers(["tensorbord"])


@pytest.mark.parametrize("found", ["nothing", "a folder of that name"])
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_package_is_told_with_what_to_type(name, found, monkeypatch, tmp_path):
    if found != "nothing":  # W&B leaves a folder `wandb` where a script was run
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(TrackerError, match=rf"needs the package {name}: type `pip install 'diptych\[{name}\]'`"):
        Trackers([name])


@pytest.fixture
def service(monkeypatch):
    """A service of the test's own, in the place of TensorBoard."""

    def put(begin):
        module = ModuleType("diptych.trackers.tensorboard")
        module.begin = begin
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return put


class Failing:
    """A service that takes one record, and fails at the next."""

    def __init__(self, error):
        self.error, self.taken = error, []

    def log(self, step, values):
        if self.taken:
            raise self.error
        self.taken.append(step)

    def close(self, status):
        self.taken.append(status)


@pytest.mark.parametrize("error", [RuntimeError("the server\nis gone"), SystemExit("the server is gone")])
def test_a_service_that_fails_is_said_once_and_dropped(error, run, service):
    failing = Failing(error)
    service(lambda run: failing)
    said = tracked(run, "tensorboard", range(20))
    assert said == ["Warning: --track tensorboard has ended, and the run goes on without it: the server is gone"]
    assert failing.taken == [0]


def test_a_service_that_cannot_begin_is_said_once(run, service):
    def begin(run):
        raise OSError

    service(begin)
    assert tracked(run, "tensorboard", range(3)) == [
        "Warning: --track tensorboard has ended, and the run goes on without it: OSError"
    ]


def test_a_service_that_hangs_holds_up_nothing(run, service, monkeypatch):
    monkeypatch.setattr(follow, "LAST_SECONDS", 0.05)
    for_ever = threading.Event()
    service(lambda run: for_ever.wait())
    said = tracked(run, "tensorboard", range(3))  # returns, or this test would not
    for_ever.set()
    assert said == ["tensorboard has not taken the last records within 0 s: left behind"]


def test_a_run_that_fails_is_closed_as_failed(run, service):
    failing = Failing(RuntimeError())
    service(lambda run: failing)
    with contextlib.suppress(KeyError), Trackers(["tensorboard"]) as trackers:
        trackers.begin(run, CONFIG, 0, pytest.fail)
        raise KeyError
    assert failing.taken == ["failed"]


@pytest.mark.skipif(not find_spec("mlflow"), reason="MLflow is not installed")
@pytest.mark.filterwarnings("default")
def test_mlflow_goes_on_with_the_same_run(run, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'ml.db'}")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    assert tracked(run, "mlflow", range(2), "interrupted") == []
    client, name = MlflowClient(), read_json(run.path / "trackers.json")["mlflow"]
    assert client.get_run(name).info.status == "KILLED"
    assert tracked(run, "mlflow", range(2, 4)) == []
    found = client.get_run(name)
    assert (found.info.status, found.info.run_name) == ("FINISHED", "mine")
    assert found.data.params == {"data": "pictures/", "optim.lr": "0.5"}
    assert [metric.step for metric in client.get_metric_history(name, "loss")] == [0, 1, 2, 3]


WANDB = """
import sys
from diptych.runs import RunFolder
from diptych.trackers.follow import Trackers
with Trackers(["wandb"]) as trackers:
    trackers.begin(RunFolder(sys.argv[1]), {"optim": {"lr": 0.5}}, int(sys.argv[2]), print)
    trackers.log({"step": int(sys.argv[2]), "loss": -0.5})
    trackers.close("finished")
"""
"""W&B's client keeps what it has learned of the account for as long as its process lives."""


def wandb_says(run, step, **variables):
    """Follow a run over one step in a process of its own; returns what was said."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    words = [sys.executable, "-c", WANDB, str(run.path), str(step)]
    found = subprocess.run(words, env=kept | variables, capture_output=True, text=True, check=True, timeout=120)
    return found.stdout


@pytest.mark.skipif(not find_spec("wandb"), reason="Weights & Biases is not installed")
def test_wandb_goes_on_with_the_same_run(run):
    assert wandb_says(run, 0, WANDB_MODE="offline") == wandb_says(run, 1, WANDB_MODE="offline") == ""
    name = read_json(run.path / "trackers.json")["wandb"]
    kept = list((run.path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))
    assert kept and all(b"loss" in path.read_bytes() and b"optim" in path.read_bytes() for path in kept)


@pytest.mark.skipif(not find_spec("wandb"), reason="Weights & Biases is not installed")
def test_wandb_without_an_account_asks_nobody(run, tmp_path):
    said = wandb_says(run, 0, HOME=str(tmp_path), NETRC=str(tmp_path / "none"))
    assert "type `wandb login`" in said and said.count("\n") == 1


@pytest.mark.skipif(not find_spec("trackio"), reason="trackio is not installed")
@pytest.mark.filterwarnings("default")
def test_trackio_goes_on_with_the_same_run(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    assert tracked(run, "trackio", range(2), "interrupted") == []
    assert tracked(run, "trackio", range(2, 4)) == []
    assert capsys.readouterr().out == ""
    import trackio

    (found,) = trackio.Api().runs("diptych")
    assert found.name == read_json(run.path / "trackers.json")["trackio"]
