"""A process that loads torch once, which takes seconds, and forks others that save checkpoints, to be killed.

A line on standard input is a call, ``["name of a function here", arguments…]``; it forks a process for it, tells its
number, waits for it and says so.
"""

import errno
import json
import os
import resource
import signal
import sys
from pathlib import Path

import torch

from diptych import checkpoint
from diptych.checkpoint import Progress
from diptych.errors import RunFolderError

SAVES_OF = 500_000
"""Numbers in each of a checkpoint's two tensors, which makes 4 MB."""


def save(folder, step, numbers):
    filled = torch.full((numbers,), float(step))
    links = ["best"] if step % 3 == 0 else []
    checkpoint.save(Path(folder), {"w": filled}, {"m": filled.clone()}, Progress(step=step), links=links)


def save_for_ever(folder, done):
    """Go on from ``last``, and note every step that is saved in the file ``done``."""
    folder = Path(folder)
    step = checkpoint.load(folder / "last").progress.step if (folder / "last").exists() else 0
    with open(done, "wb", buffering=0) as noted:
        while True:
            step += 1
            save(folder, step, SAVES_OF)
            noted.write(b"%d\n" % step)


def save_until(folder, step, moment, fault, said):
    """Save once, and meet ``fault`` at the given call of the operating system; what is said of it goes to a file."""
    calls = 0

    def count(event, words):
        nonlocal calls
        makes = event in ("os.mkdir", "os.symlink", "os.rename") or (event == "open" and words[1] in ("w", "wb"))
        if makes or event in ("open", "os.remove", "os.rmdir", "os.scandir", "shutil.rmtree"):
            calls += 1
            if calls == moment and fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if calls >= moment and fault in ("ENOSPC", "EDQUOT") and makes and words[0] != said:
                number = getattr(errno, fault)
                raise OSError(number, os.strerror(number))

    sys.addaudithook(count)
    try:
        save(folder, step, 100)
        text = "saved"
    except RunFolderError as error:
        text = str(error)
    Path(said).write_text(text)


def save_within(folder, step, numbers, limit, said):
    """Save once where no file may be larger than ``limit`` bytes; what is said of it goes to a file."""
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        save(folder, step, numbers)
        text = "saved"
    except RunFolderError as error:
        text = str(error)
    Path(said).write_text(text)


def main():
    for line in sys.stdin:
        name, *words = json.loads(line)
        child = os.fork()
        if not child:
            try:
                globals()[name](*words)
            finally:
                os._exit(0)
        print(child, flush=True)
        os.waitpid(child, 0)
        print("ended", flush=True)


if __name__ == "__main__":
    main()
