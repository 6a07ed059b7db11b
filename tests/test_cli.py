import os
import signal
import subprocess
import sys
import time
from importlib import metadata

import pytest
import tiny
from in_process import run_command

from diptych.cli import COMMANDS, USAGE, command

KNOWN = (
    "known: audit, compare, duplicates, embed, evaluate, explore, export, methods, outliers, pretrain, preview, push, "
    "recipes, report, search, select, select-labels, watch"
)


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",), ("help",)])
def test_usage(words):
    assert run_command(*words) == (0, USAGE, "")


def test_every_command_is_there_and_in_the_usage():
    for name in COMMANDS:
        assert callable(command(name)) and f"\n  diptych {name} " in USAGE


def test_version():
    assert run_command("--version") == (0, f"{metadata.version('diptych')}\n", "")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("pretrian", "did you mean 'pretrain'?"),
        ("xyzzy", KNOWN),
        ("--jsno", KNOWN),
    ],
)
def test_an_unknown_command_gets_a_suggestion(word, told):
    assert run_command(word, "--out", "x") == (2, "", f"diptych: unknown command '{word}'; {told}\n")


@pytest.mark.parametrize("program", [[tiny.DIPTYCH], [sys.executable, "-m", "diptych"]])
def test_a_real_mistake_is_one_line_and_code_2(program):
    found = subprocess.run([*program, "pretrian"], capture_output=True, text=True)
    told = "diptych: unknown command 'pretrian'; did you mean 'pretrain'?\n"
    assert (found.returncode, found.stdout, found.stderr) == (2, "", told)


def test_a_mistyped_command_is_told_without_loading_torch():
    code = (
        "import sys; from diptych.cli import main; assert main(['pretrian']) == 2; "
        "assert not {'torch', 'tyro', 'diptych.commands'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_interrupt_is_one_line_and_code_130(tmp_path):
    """The command is caught while it waits for a CSV file that is a pipe into which nobody writes."""
    pipe = tmp_path / "labels.csv"
    os.mkfifo(pipe)
    words = [tiny.DIPTYCH, "pretrain", str(pipe), "--out", str(tmp_path / "run")]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_interrupts
    )
    writer = open_for_writing(pipe, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    os.close(writer)
    assert (process.returncode, out, err) == (130, "", "diptych: interrupted\n")
    assert not (tmp_path / "run").exists()


def hear_interrupts():
    """A job in the background of a script is started deaf to SIGINT, and so are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def open_for_writing(pipe, process):
    """Open a named pipe as soon as ``process`` reads from it."""
    while process.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # no reader yet
            time.sleep(0.01)
    raise AssertionError(process.communicate())
