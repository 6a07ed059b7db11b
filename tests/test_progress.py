import io
import os
import pty
import re
import subprocess
import sys

import pytest
from rich.console import Console

from diptych import progress
from diptych.progress import Terminal


@pytest.fixture
def screen():
    """A terminal of 100 columns, and what was drawn on it."""
    terminal, drawn = Terminal(), io.StringIO()
    terminal.console = Console(file=drawn, force_terminal=True, width=100, highlight=False, soft_wrap=True)
    return terminal, drawn


def train(terminal, total=3, done=0, text=""):
    with terminal.bar("training", total, done) as bar:
        for step in range(done + 1, total + 1):
            bar.update(step, text)


def test_a_pipe_gets_plain_lines_on_standard_error(capsys):
    terminal = Terminal()
    terminal.say("[bold]a[/bold] · 50 %")
    train(terminal, text="loss -0.5")
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "[bold]a[/bold] · 50 %\ntraining 3/3  loss -0.5\n"


def test_a_pipe_hears_of_a_long_wait_now_and_then(capsys, monkeypatch):
    monkeypatch.setattr(progress, "PLAIN_EVERY", 0.0)
    train(Terminal())
    assert capsys.readouterr().err == "training 1/3\ntraining 2/3\ntraining 3/3\n"


def test_quiet_says_nothing(capsys):
    terminal = Terminal(quiet=True)
    terminal.say("a")
    train(terminal)
    assert capsys.readouterr() == ("", "")


def test_quiet_says_nothing_on_a_terminal_either():
    terminal, drawn = Terminal(quiet=True), io.StringIO()
    terminal.console = Console(file=drawn, force_terminal=True, quiet=True)
    terminal.say("a")
    train(terminal)
    assert drawn.getvalue() == ""


def test_a_terminal_gets_a_bar_that_ends_at_its_last_step(screen):
    terminal, drawn = screen
    train(terminal, text="loss -0.5")
    last = drawn.getvalue().split("\r")[-1]
    assert "\x1b[" in drawn.getvalue()
    assert "training" in last and "100 %" in last and "loss -0.5" in last


def test_a_bar_goes_on_from_where_a_run_was_resumed(screen):
    terminal, drawn = screen
    with terminal.bar("training", 10, done=5):
        pass
    assert " 50 %" in drawn.getvalue()


def test_what_is_said_beside_a_bar_stays_whole(screen):
    terminal, drawn = screen
    long = "Warning: [bold]" + "x" * 150
    with terminal.bar("training", 3) as bar:
        bar.update(1)
        terminal.say(long)
    assert f"{long}\n" in drawn.getvalue()


def test_the_log_holds_all_that_was_said_even_quietly_with_its_time(tmp_path, capsys):
    terminal = Terminal(quiet=True)
    terminal.say("before")
    terminal.log_to(tmp_path / "log.txt")
    terminal.say("after")
    train(terminal, text="loss -0.5")
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line[20:] for line in lines] == ["before", "after", "training 3/3  loss -0.5"]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line[:19]) for line in lines)
    assert capsys.readouterr().err == ""


SPEAKER = """
from diptych.progress import Terminal
terminal = Terminal()
terminal.say("hello")
with terminal.bar("training", 3) as bar:
    for step in (1, 2, 3):
        bar.update(step, "loss -0.5")
print("result")
"""


def speak(stderr):
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return subprocess.Popen(
        [sys.executable, "-c", SPEAKER], stdout=subprocess.PIPE, stderr=stderr, env=environment | {"TERM": "xterm"}
    )


def read_all(descriptor):
    found = b""
    try:
        while part := os.read(descriptor, 4096):
            found += part
    except OSError:  # how Linux reports that the other side of a pseudo-terminal was closed
        pass
    return found.decode()


def test_a_real_terminal_gets_the_bar_and_results_stay_apart():
    ours, theirs = pty.openpty()
    process = speak(theirs)
    os.close(theirs)
    drawn = read_all(ours)
    os.close(ours)
    assert process.communicate() == (b"result\n", None) and process.returncode == 0
    assert "\x1b[" in drawn and "hello" in drawn and "100 %" in drawn and "loss -0.5" in drawn


def test_a_real_pipe_gets_no_escape_codes():
    out, err = speak(subprocess.PIPE).communicate()
    assert out == b"result\n" and err.decode() == "hello\ntraining 3/3  loss -0.5\n"


def test_names_do_not_steer_the_terminal(capsys):
    Terminal().say("broken: \x1b[31mred\x07.jpg (bad)")
    assert capsys.readouterr().err == "broken: \ufffd[31mred\ufffd.jpg (bad)\n"
