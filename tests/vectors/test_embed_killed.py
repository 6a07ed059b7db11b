"""Processes killed before each change that they make to the disk: the same command goes on to the same bytes."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from test_frozen import make_run
from tiny import paint


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    make_run(folder / "run", "resnet11v2")
    paint(folder / "data", *(f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(2)))
    (folder / "data" / "cat" / "1.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(scope="module")
def start():
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("embedder.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def run(place, out, moment=0):
        print(json.dumps([str(place / "run"), str(place / "data"), str(out), moment]), file=process.stdin, flush=True)
        return int(process.stdout.readline())

    yield run
    process.communicate()


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


MOMENTS = {"v.npy": [*range(1, 20, 3), *range(20, 99)], "v.parquet": range(2, 99, 4)}
"""Nothing but parts is written by the first; each change at the end is another one."""


@pytest.mark.parametrize(("name", "moments"), MOMENTS.items())
def test_a_kill_at_any_moment(place, start, tmp_path, name, moments):
    whole = tmp_path / "whole"
    whole.mkdir()
    assert start(place, whole / name) == 0
    wanted = content(whole)
    assert len(wanted) == {"v.parquet": 2, "v.npy": 4}[name]  # one picture was left out, and is listed
    for moment in moments:
        folder = tmp_path / f"moment-{moment}"
        folder.mkdir()
        status = start(place, folder / name, moment)
        if (folder / name).exists():
            assert (folder / name).read_bytes() == wanted[name]  # never half of it
        if status == 0:
            break
        assert status == signal.SIGKILL
        assert start(place, folder / name) == 0
        assert content(folder) == wanted
    assert moment > 20
