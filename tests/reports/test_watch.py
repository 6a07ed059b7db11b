import json
import os
import pty
import shutil
import signal
import subprocess
import time

import pytest
import tiny
from run_folders import add, card, make_run, record, result

from diptych.errors import RunFolderError
from diptych.reports.watch import Tail, Watched, look


def steps_of(watched):
    watched.look()
    return [record["step"] for record in watched.records]


def test_a_tail_reads_only_what_is_new_and_waits_for_the_end_of_a_line(tmp_path):
    path, tail = tmp_path / "x", Tail(tmp_path / "x")
    assert tail.read() == ([], False)
    path.write_bytes(b"one\ntw")
    assert tail.read() == (["one"], False) and tail.read() == ([], False)
    with open(path, "ab") as file:
        file.write(b"o\n\xff\n")
    assert tail.read() == (["two", "\ufffd"], False)


@pytest.mark.parametrize("text", ["a\n", "another that is longer than what was there\n"])
def test_a_tail_begins_anew_where_a_file_was_written_anew(tmp_path, text):
    path, tail = tmp_path / "x", Tail(tmp_path / "x")
    path.write_text("one\ntwo\n")
    tail.read()
    (tmp_path / "new").write_text(text)
    os.replace(tmp_path / "new", path)
    assert tail.read() == (text.splitlines(), True)
    path.unlink()
    assert tail.read() == ([], True) and tail.read() == ([], False)


def test_a_tail_begins_anew_where_a_file_has_shrunk(tmp_path):
    path, tail = tmp_path / "x", Tail(tmp_path / "x")
    path.write_text("one\ntwo\n")
    tail.read()
    with open(path, "r+") as file:  # the same file, cut short
        file.truncate(4)
    assert tail.read() == (["one"], True)


def test_a_run_that_goes_on_is_followed_through_half_lines_and_a_resume(tmp_path):
    run = make_run(tmp_path / "run", steps=2)
    watched = Watched(run)
    assert steps_of(watched) == [0, 1]
    half = json.dumps(record(2))
    add(run, half[:20])
    assert steps_of(watched) == [0, 1]
    add(run, half[20:] + "\n", "nonsense\n", "[1]\n", '{"loss": 1}\n')
    assert steps_of(watched) == [0, 1, 2]
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "new").write_text(lines[0])
    os.replace(run / "new", run / "metrics.jsonl")  # as a resumed run drops what it takes again
    assert steps_of(watched) == [0]
    add(run, record(1))
    assert steps_of(watched) == [0, 1]


def test_what_a_run_is_and_how_far(tmp_path):
    run = make_run(tmp_path / "run", steps=20, recoveries=[{}])
    add(run, record(20, health="healthy"), record(21, loss=float("nan"), health="complete collapse", note="x", ok=True))
    (state,) = look([run])
    assert (state.method, state.backbone, state.pictures, state.data) == ("simsiam", "resnet20v2", 1000, "pictures")
    assert (state.status, state.over, state.epoch, state.epochs) == ("running", False, 2.2, 10)
    assert state.seconds_left == pytest.approx(78 * 2)
    assert (state.images_per_second, state.wait_fraction, state.recoveries) == (812.0, 0.03, 1)
    assert state.health == "complete collapse" and 0 <= state.silent_seconds < 60
    told = state.to_dict()["metrics"]
    assert list(told) == ["loss", "lr", "embedding_std", "effective_rank"]
    assert told["loss"] == {"first": 0.0, "last": -0.2, "best": -0.2, "lowest": -0.2, "highest": 0.0}
    assert told["lr"]["best"] is None
    json.dumps(state.to_dict(), allow_nan=False)


@pytest.mark.parametrize("file", ["metrics.jsonl", "run.json"])
def test_how_long_a_run_has_been_silent(tmp_path, file):
    run = make_run(tmp_path / "run")
    if file == "run.json":
        (run / "metrics.jsonl").unlink()
    then = time.time() - 500
    os.utime(run / file, (then, then))
    assert 500 <= look([run])[0].silent_seconds < 560


def test_what_files_say_cannot_steer_the_terminal(tmp_path):
    hostile = card()
    hostile["data"] |= {"name": "\x1b[31mred"}
    hostile["config"]["backbone"] = "\x1b]0;x"
    run = make_run(tmp_path / "run", 1, "x Warning: \x1b[2J\n", data=hostile["data"], config=hostile["config"])
    add(run, record(1, health="\x1b[5m", **{"\x1b[6m": 1.0}))
    assert "\x1b" not in repr(look([run])[0]).replace(r"\x1b", "\x1b")


def test_the_last_warnings_of_the_log(tmp_path):
    log = "".join(f"2026-11-25 08:00:0{i} Warning: number {i}\n2026-11-25 08:00:0{i} all well\n" for i in range(5))
    run = make_run(tmp_path / "run", 1, log)
    assert [line[-8:] for line in look([run])[0].warnings] == ["number 2", "number 3", "number 4"]


@pytest.mark.parametrize("status", ["finished", "stopped early", "interrupted", "collapsed"])
def test_a_run_is_over_with_its_result(tmp_path, status):
    run = make_run(tmp_path / "run", 100, result=result(status))
    (state,) = look([run])
    assert (state.status, state.over, state.images_per_second) == (status, True, 700.0)
    assert state.seconds_left is state.wait_fraction is state.silent_seconds is None


def test_an_interrupted_run_that_goes_on_is_not_over(tmp_path):
    run = make_run(tmp_path / "run", 50, result=result("interrupted", 50))
    watched = Watched(run)
    assert watched.look().over
    add(run, record(50))
    assert watched.look().status == "running"


def test_an_interrupted_run_is_not_over_once_its_log_goes_on(tmp_path):
    run = make_run(tmp_path / "run", 50, result=result("interrupted", 50))
    later = (run / "run.json").stat().st_mtime + 1
    os.utime(run / "log.txt", (later, later))
    assert look([run])[0].status == "running"


def test_a_run_is_waited_for_but_not_if_it_is_something_else(tmp_path):
    run = tmp_path / "run"
    watched = Watched(run)
    assert watched.look().status == "not begun"
    run.mkdir()
    assert watched.look().status == "not begun"
    (run / ".diptych-run").touch()
    assert watched.look().status == "not begun"
    (run / "run.json").write_text(json.dumps(card()))
    assert watched.look().status == "running"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(RunFolderError, match="not a run folder"):
        Watched(tmp_path / "other").look()
    with pytest.raises(RunFolderError, match="no run folder"):
        look([tmp_path / "nowhere"])


def test_a_run_that_is_overwritten_is_seen_anew(tmp_path):
    run = make_run(tmp_path / "run", 9)
    watched = Watched(run)
    assert len(steps_of(watched)) == 9
    shutil.rmtree(run)
    assert steps_of(watched) == []
    make_run(run, 2)
    assert steps_of(watched) == [0, 1]


class Screen:
    """`diptych watch` in a folder, on a terminal of 80 columns."""

    def __init__(self, folder, *words):
        self.ours, theirs = pty.openpty()
        environment = os.environ | {"TERM": "xterm", "COLUMNS": "80", "LINES": "40"}
        words = [tiny.DIPTYCH, "watch", *words, "--every", "0.1"]
        self.process = subprocess.Popen(
            words, cwd=folder, stdout=theirs, stderr=subprocess.PIPE, env=environment, preexec_fn=_hear_interrupts
        )
        os.close(theirs)
        self.shown = ""

    def read_until(self, words, seconds=60):
        end = time.monotonic() + seconds
        while words not in self.shown:
            assert time.monotonic() < end, f"never shown: {words}\n{self.shown}"
            self.read()

    def read(self):
        try:
            self.shown += os.read(self.ours, 65536).decode(errors="replace")
            return True
        except OSError:  # the other end is closed
            return False

    def end(self):
        while self.read():
            pass
        code = self.process.wait(timeout=30)
        os.close(self.ours)
        self.process.stderr.close()
        return code


def _hear_interrupts():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_terminal_shows_a_run_from_before_it_begins_to_its_end(tmp_path):
    make_run(tmp_path / "done", 100, result=result())
    screen = Screen(tmp_path, "run", "done")
    screen.read_until("Nothing is here yet")
    run = make_run(tmp_path / "run", 5)
    screen.read_until("epoch 0.5 of 10")
    add(run, record(5, health="dimensional collapse"))
    screen.read_until("dimensional collapse")
    assert screen.process.poll() is None  # one run is over, the other goes on
    (run / "new").write_text(json.dumps(card(result=result("stopped early", 6))))
    os.replace(run / "new", run / "run.json")
    assert screen.end() == 0 and "stopped early" in screen.shown


def test_an_interrupt_ends_the_view_and_is_no_failure(tmp_path):
    make_run(tmp_path / "run", 5)
    screen = Screen(tmp_path, "run")
    screen.read_until("epoch 0.5 of 10")
    screen.process.send_signal(signal.SIGINT)
    assert screen.end() == 0 and "Traceback" not in screen.shown
