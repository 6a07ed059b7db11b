"""A process that loads torch once, which takes seconds, and forks others that embed, to be killed.

A line on standard input is a call, ``[run, data, out, moment]``: the process that is forked for it is killed before the
change to the disk that has this number, or, with 0, not at all. Its exit status is told.
"""

import json
import os
import signal
import sys
import traceback

import pyarrow.parquet  # noqa: F401  once, not in every process

from diptych.vectors import computing
from diptych.vectors.embed import EmbedConfig, embed

BATCH = 2
CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir")


def embed_until(run, data, out, moment):
    """Embed; every batch becomes a part of its own."""
    computing.PART_SECONDS = 0
    calls = 0

    def count(event, words):
        nonlocal calls
        if event in CHANGES or (event == "open" and words[1] in ("w", "wb")):
            calls += 1
            if calls == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    embed(run, data, out, EmbedConfig(batch_size=BATCH, max_bad=0.5), device="cpu")


if __name__ == "__main__":
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                embed_until(*json.loads(line))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        print(os.waitpid(child, 0)[1], flush=True)
