import subprocess
import sys
import tarfile

import pytest
from tiny import flat

from diptych.data.decoding.crashes import named

CRASH = """
import ctypes, sys
from diptych.cli import main
from diptych.data.decoding import decode as decoding
whole = decoding._decode

def crashing(file, name, *rest):
    return ctypes.string_at(0) if name.endswith("05.png") else whole(file, name, *rest)

decoding._decode = crashing
main(sys.argv[1:])
"""


@pytest.mark.parametrize("kept", ["memory", "shards"])
def test_a_decoder_that_crashes_names_its_picture(tmp_path, kept):
    data = flat(tmp_path / "data", 8)
    if kept == "shards":
        with tarfile.open(tmp_path / "a-0.tar", "w") as tar:
            tar.add(data, arcname="data")
        data = tmp_path / "a-{0..0}.tar"
    words = ["pretrain", data, "--out", tmp_path / "run", "--batch-size", "4", "--epochs", "1", "--image-size", "16"]
    done = subprocess.run([sys.executable, "-c", CRASH, *map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == -11
    assert 'File "' in done.stderr and '05.png", line' in done.stderr, done.stderr
    assert "_decoding_this_picture" in done.stderr and "Segmentation fault" in done.stderr


def test_what_is_run_is_returned_and_raises_as_it_would():
    assert named("a.jpg", lambda: 3) == 3
    with pytest.raises(KeyError):
        named("odd \udcff\n name", lambda: {}[1])
