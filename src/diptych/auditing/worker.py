"""The process that inspects pictures for an audit: jobs come in on standard input, records go out on standard output.

A message is a line of JSON followed by the bytes that it announces, so nothing is ever unpickled. Started as
``python -P -m diptych.auditing.worker`` rather than through ``multiprocessing``, which would run the user's script
again in every worker; and when a decoder crashes, its process goes down alone, and ``pool.py`` knows what it was
reading.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import IO, Any

import numpy as np

from diptych.auditing.inspect import Record, inspect_files, inspect_pixels

READY = ["ready"]
"""What a worker says first."""


def send(stream: IO[bytes], header: list[Any], contents: list[bytes]) -> None:
    """Write one message: ``header`` as JSON, then ``contents``, whose lengths the header holds."""
    stream.write(json.dumps(header).encode() + b"\n")
    for content in contents:
        stream.write(content)
    stream.flush()


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then closes our input
    jobs, records = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    send(records, READY, [])
    # What a decoder's C library prints would end up among the records, or fill a pipe that is read no more.
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    for line in jobs:
        send(records, _inspect([_take(item, jobs) for item in json.loads(line)]), [])


def _take(item: list[Any], jobs: IO[bytes]) -> tuple[str, Any]:
    """Turn one item of a job's header, ``[name, kind, ...]``, into what is to be inspected."""
    name, kind, *rest = item
    if kind == "path":
        return name, Path(rest[0])
    if kind == "bytes":
        return name, jobs.read(rest[0])
    length, shape, dtype = rest
    return name, np.frombuffer(jobs.read(length), dtype).reshape(shape)


def _inspect(items: list[tuple[str, Any]]) -> list[Record]:
    if isinstance(items[0][1], np.ndarray):
        return inspect_pixels([picture for _, picture in items])
    return inspect_files(items)


if __name__ == "__main__":
    main()
