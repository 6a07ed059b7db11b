import time

import pytest
import torch
from tiny import config

from diptych.distributed import World
from diptych.progress import Bar, Terminal
from diptych.runs import RunFolder
from diptych.training.guard import WINDOW
from diptych.training.recorder import RECORDS, Recorder
from diptych.types import Batch, StepOutput

SPREAD = torch.eye(16)
COLLAPSED = torch.ones(16, 4)
WEIGHTS = [torch.full((2, 2), 2.0), torch.tensor([3.0])]


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run")


def make(run, steps=10, per_epoch=5, world=None, terminal=None, begun=0, **settings):
    terminal = terminal or Terminal(quiet=True)
    bar = Bar(Terminal(quiet=True), "training", steps, None)
    ours = config("x", epochs=steps // per_epoch, **{"batch_size": 16, **settings})
    return Recorder(run, ours, steps, per_epoch, world or World(), terminal, bar, begun=begun)


def output(embeddings=SPREAD, positives=None, **metrics):
    return StepOutput(
        loss=torch.tensor(9.0),  # of this process; the mean over all is handed over beside it
        embeddings=embeddings,
        positives=embeddings if positives is None else positives,
        metrics={name: torch.tensor(value) for name, value in metrics.items()},
    )


def batches(count, seconds=0.0, size=4):
    for _ in range(count):
        time.sleep(seconds)
        yield Batch(images=torch.zeros(size, 3, 8, 8, dtype=torch.uint8), indices=torch.arange(size))


def test_a_record_says_where_the_run_stands(run):
    recorder = make(run)
    for step, _ in enumerate(recorder.timed(batches(2))):
        recorder.record(
            step, -0.5, 0.25, output(positives=-SPREAD, temperature=0.125), 0.5, WEIGHTS, {"knn_top1": 0.25}
        )
    first, second = run.read_lines(run.metrics)
    assert list(first) == [
        *("step", "epoch", "loss", "lr", "embedding_std", "effective_rank", "alignment", "uniformity"),
        *("dead_dimensions", "gradient_norm", "weight_norm", "images_per_second", "wait_fraction", "seconds"),
        *("temperature", "knn_top1", "health"),
    ]
    assert (first["step"], first["epoch"], first["loss"], first["lr"]) == (0, 0.2, -0.5, 0.25)
    assert (second["step"], second["epoch"], second["temperature"]) == (1, 0.4, 0.125)
    # sixteen corners of a cube around their mean: each channel has a deviation of √15/16, and they span 15 dimensions
    assert first["embedding_std"] == pytest.approx(15**0.5 / 4)
    assert first["effective_rank"] == pytest.approx(15, abs=1e-3)
    assert (first["alignment"], first["uniformity"], first["dead_dimensions"]) == pytest.approx((4, -4, 0))
    assert (first["gradient_norm"], first["weight_norm"], first["health"]) == (0.5, 5.0, "healthy")
    assert 0 <= first["wait_fraction"] <= 1 and first["images_per_second"] > 0
    assert 0 < first["seconds"] < second["seconds"] <= recorder.seconds


def test_a_gradient_that_is_not_finite_is_left_out(run):
    """Steps that fp16 leaves out: JSON has no such number."""
    make(run).record(0, -0.5, 0.25, output(), float("inf"), WEIGHTS)
    assert "gradient_norm" not in run.read_lines(run.metrics)[0]


def test_waiting_for_pictures_is_measured_and_working_is_not(run):
    recorder = make(run)
    for step, _ in enumerate(recorder.timed(batches(3, seconds=0.1))):
        recorder.record(step, 0.0, 0.1, output(), 0.5, WEIGHTS)
    assert recorder.waited >= 0.3
    assert all(record["wait_fraction"] > 0.5 for record in run.read_lines(run.metrics))
    for step, _ in enumerate(recorder.timed(batches(3)), start=3):
        time.sleep(0.1)
        recorder.record(step, 0.0, 0.1, output(), 0.5, WEIGHTS)
    assert recorder.waited < 0.6
    assert all(record["wait_fraction"] < 0.5 for record in run.read_lines(run.metrics)[3:])


def test_the_rate_counts_the_pictures_of_every_process(run):
    recorder = make(run, world=World(rank=0, size=4))
    start = time.perf_counter()
    for step, _ in enumerate(recorder.timed(batches(5, size=3))):
        recorder.record(step, 0.0, 0.1, output(), 0.5, WEIGHTS)
    assert recorder.images == 5 * 3 * 4
    assert recorder.images_per_second >= 60 / (time.perf_counter() - start + 1)


@pytest.mark.parametrize("steps", [1000, RECORDS, 2 * RECORDS - 1, 9000])
def test_a_run_of_any_length_leaves_at_most_so_many_records(run, steps):
    recorder = make(run, steps=steps, per_epoch=steps)
    for step in range(steps):
        recorder.record(step, 0.0, 0.1, output(), 0.5, WEIGHTS)
    written = [record["step"] for record in run.read_lines(run.metrics)]
    assert min(steps, RECORDS / 2) <= len(written) <= RECORDS
    assert written[-1] == steps - 1  # the end of a run is always recorded; before it they are evenly spaced
    assert len({later - earlier for earlier, later in zip(written[:-2], written[1:-1], strict=True)}) == 1


def test_only_the_first_process_writes(run):
    recorder = make(run, world=World(rank=1, size=2))
    recorder.record(0, 0.0, 0.1, output(), 0.5, WEIGHTS)
    assert not run.metrics.exists()


def feed(recorder, steps, embeddings):
    for step in steps:
        recorder.record(step, -0.99, 0.1, output(embeddings), 0.5, WEIGHTS)


def test_a_collapse_is_said_once(run, capsys):
    recorder = make(run, steps=40, terminal=Terminal())
    feed(recorder, range(35), COLLAPSED)
    said = capsys.readouterr().err
    assert said.count("Warning: This run is in complete collapse") == said.count("\n") == 1
    assert len(recorder.warnings()) == 1 and "Try, one at a time" in recorder.warnings()[0]
    health = [record["health"] for record in run.read_lines(run.metrics)]
    assert health == ["healthy"] * (WINDOW - 1) + ["complete collapse"] * (36 - WINDOW)


def test_a_healthy_run_is_left_alone(run, capsys):
    recorder = make(run, steps=40, terminal=Terminal())
    feed(recorder, range(35), SPREAD)
    assert not capsys.readouterr().err and recorder.warnings() == []
    assert recorder.healthy and recorder.verdict.state == "healthy"


def test_a_collapse_that_passes_is_no_warning_at_the_end_and_one_that_comes_back_is_not_said_again(run, capsys):
    recorder = make(run, steps=60, terminal=Terminal())
    feed(recorder, range(15), COLLAPSED)
    feed(recorder, range(15, 30), SPREAD)
    assert recorder.warnings() == []
    feed(recorder, range(30, 45), COLLAPSED)
    assert len(recorder.warnings()) == 1 and capsys.readouterr().err.count("Warning") == 1


@pytest.mark.parametrize("policy", ["warn", "stop", "recover"])
def test_a_collapsed_run_is_to_be_stopped_where_that_was_asked_for(run, policy):
    recorder = make(run, steps=40, on_collapse=policy)
    feed(recorder, range(WINDOW - 1), COLLAPSED)
    assert not recorder.unhealthy and not recorder.healthy  # too few records to go back to
    feed(recorder, [WINDOW - 1], COLLAPSED)
    assert recorder.unhealthy is (policy != "warn") and not recorder.healthy


def test_a_starved_run_is_warned_of_and_not_stopped(run):
    recorder = make(run, steps=40, on_collapse="stop", batch_size=2)
    feed(recorder, range(WINDOW), SPREAD)
    assert recorder.verdict.state == "data-starved" and not recorder.unhealthy and not recorder.healthy


def test_only_the_first_process_decides(run):
    feed(make(run, steps=40), range(20), COLLAPSED)
    recorder = make(run, steps=40, world=World(rank=1, size=2), on_collapse="stop")
    assert recorder.verdict.collapsed and not recorder.unhealthy


def test_a_resumed_run_is_judged_as_one_that_never_stopped(run, capsys):
    whole = make(run, steps=40, terminal=Terminal())
    feed(whole, range(20), COLLAPSED)
    resumed = make(run, steps=40, terminal=Terminal())
    assert resumed.verdict == whole.verdict
    capsys.readouterr()
    feed(resumed, range(20, 25), COLLAPSED)
    assert not capsys.readouterr().err  # it was said


def test_records_of_another_method_are_not_judged(run):
    feed(make(run, steps=40), range(20), COLLAPSED)
    recorder = make(run, steps=40, begun=20)
    assert recorder.verdict.state == "healthy"
    feed(recorder, range(20, 20 + WINDOW), SPREAD)
    assert recorder.verdict.state == "healthy" and recorder.healthy
    assert len(run.read_lines(run.metrics)) == 20 + WINDOW


def test_a_resumed_run_goes_on_from_the_records_that_are_there(run):
    run.append(run.metrics, {"step": 0, "epoch": 0.2, "loss": 1.0, "seconds": 1000.0})
    recorder = make(run)
    recorder.record(1, 0.5, 0.1, output(), 0.5, WEIGHTS)
    assert [record["step"] for record in recorder.records] == [0, 1]
    assert run.read_lines(run.metrics)[1]["seconds"] > 1000 and recorder.seconds > 1000
