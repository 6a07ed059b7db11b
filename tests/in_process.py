"""The command line without a process of its own: loading torch anew would take each test seconds."""

import contextlib
import io

from diptych.cli import main


def run_command(*words):
    """Run a command as one in a pipeline runs: its exit code, and what went to standard output and standard error."""
    # A pipe of UTF-8 in memory: capsys calls its own encoding by another spelling, which tyro takes for ASCII.
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code or 0
    return code, out.buffer.getvalue().decode(), err.buffer.getvalue().decode()
