import time

import pytest
import torch
from tiny import config

from diptych.distributed import World
from diptych.progress import Bar, Terminal
from diptych.runs import RunFolder
from diptych.training.recorder import RECORDS, Recorder
from diptych.types import Batch, StepOutput

SPREAD = torch.eye(4)
COLLAPSED = torch.ones(4, 4)


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "run")


def make(run, steps=10, per_epoch=5, world=None, terminal=None):
    terminal = terminal or Terminal(quiet=True)
    bar = Bar(Terminal(quiet=True), "training", steps, None)
    return Recorder(run, config("x", epochs=steps // per_epoch), steps, per_epoch, world or World(), terminal, bar)


def output(embeddings=SPREAD, **metrics):
    return StepOutput(
        loss=torch.tensor(9.0),  # of this process; the mean over all is handed over beside it
        embeddings=embeddings,
        metrics={name: torch.tensor(value) for name, value in metrics.items()},
    )


def batches(count, seconds=0.0, size=4):
    for _ in range(count):
        time.sleep(seconds)
        yield Batch(images=torch.zeros(size, 3, 8, 8, dtype=torch.uint8), indices=torch.arange(size))


def test_a_record_says_where_the_run_stands(run):
    recorder = make(run)
    for step, _ in enumerate(recorder.timed(batches(2))):
        recorder.record(step, -0.5, 0.25, output(temperature=0.125))
    first, second = run.read_lines(run.metrics)
    assert list(first) == [
        *("step", "epoch", "loss", "lr", "embedding_std", "effective_rank", "images_per_second", "wait_fraction"),
        *("seconds", "temperature"),
    ]
    assert (first["step"], first["epoch"], first["loss"], first["lr"]) == (0, 0.2, -0.5, 0.25)
    assert (second["step"], second["epoch"], second["temperature"]) == (1, 0.4, 0.125)
    # four corners of a cube around their mean: each channel has a deviation of √3/4, and they span three dimensions
    assert first["embedding_std"] == pytest.approx(3**0.5 / 2)
    assert first["effective_rank"] == pytest.approx(3, abs=1e-3)
    assert 0 <= first["wait_fraction"] <= 1 and first["images_per_second"] > 0
    assert 0 < first["seconds"] < second["seconds"] <= recorder.seconds


def test_waiting_for_pictures_is_measured_and_working_is_not(run):
    recorder = make(run)
    for step, _ in enumerate(recorder.timed(batches(3, seconds=0.1))):
        recorder.record(step, 0.0, 0.1, output())
    assert recorder.waited >= 0.3
    assert all(record["wait_fraction"] > 0.5 for record in run.read_lines(run.metrics))
    for step, _ in enumerate(recorder.timed(batches(3)), start=3):
        time.sleep(0.1)
        recorder.record(step, 0.0, 0.1, output())
    assert recorder.waited < 0.6
    assert all(record["wait_fraction"] < 0.5 for record in run.read_lines(run.metrics)[3:])


def test_the_rate_counts_the_pictures_of_every_process(run):
    recorder = make(run, world=World(rank=0, size=4))
    start = time.perf_counter()
    for step, _ in enumerate(recorder.timed(batches(5, size=3))):
        recorder.record(step, 0.0, 0.1, output())
    assert recorder.images == 5 * 3 * 4
    assert recorder.images_per_second >= 60 / (time.perf_counter() - start + 1)


@pytest.mark.parametrize("steps", [1000, RECORDS, 2 * RECORDS - 1, 9000])
def test_a_run_of_any_length_leaves_at_most_so_many_records(run, steps):
    recorder = make(run, steps=steps, per_epoch=steps)
    for step in range(steps):
        recorder.record(step, 0.0, 0.1, output())
    written = [record["step"] for record in run.read_lines(run.metrics)]
    assert min(steps, RECORDS / 2) <= len(written) <= RECORDS
    assert written[-1] == steps - 1  # the end of a run is always recorded; before it they are evenly spaced
    assert len({later - earlier for earlier, later in zip(written[:-2], written[1:-1], strict=True)}) == 1


def test_only_the_first_process_writes(run):
    recorder = make(run, world=World(rank=1, size=2))
    recorder.record(0, 0.0, 0.1, output())
    assert not run.metrics.exists()


def feed(recorder, steps, embeddings):
    for step in steps:
        recorder.record(step, -0.99, 0.1, output(embeddings))


def test_a_collapse_is_said_once(run, capsys):
    recorder = make(run, steps=40, terminal=Terminal())
    feed(recorder, range(40), COLLAPSED)
    said = capsys.readouterr().err
    assert said.count("Warning: This run looks collapsed") == said.count("\n") == 1
    assert len(recorder.warnings()) == 1 and "Try, one at a time" in recorder.warnings()[0]


def test_a_healthy_run_is_left_alone(run, capsys):
    recorder = make(run, steps=40, terminal=Terminal())
    feed(recorder, range(40), SPREAD)
    assert not capsys.readouterr().err and recorder.warnings() == []


def test_a_collapse_that_passes_is_no_warning_at_the_end(run, capsys):
    recorder = make(run, steps=40, terminal=Terminal())
    feed(recorder, range(20), COLLAPSED)
    feed(recorder, range(20, 40), SPREAD)
    assert "Warning" in capsys.readouterr().err and recorder.warnings() == []


def test_a_resumed_run_goes_on_from_the_records_that_are_there(run):
    run.append(run.metrics, {"step": 0, "epoch": 0.2, "loss": 1.0, "seconds": 1000.0})
    recorder = make(run)
    recorder.record(1, 0.5, 0.1, output())
    assert [record["step"] for record in recorder.records] == [0, 1]
    assert run.read_lines(run.metrics)[1]["seconds"] > 1000 and recorder.seconds > 1000
