"""What `make demo` promises: "helped", and two intervals that lie apart by the linear probe, whatever the seed."""

import re
from pathlib import Path

import pytest

import diptych

MAKEFILE = Path(__file__).parents[2] / "Makefile"


def demo_epochs():
    return int(re.search(r"pretrain photos .*--epochs (\d+)", MAKEFILE.read_text())[1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_the_demo_helps(tmp_path, seed):
    diptych.pretrain("photos", tmp_path / "demo", epochs=demo_epochs(), seed=seed)
    result = diptych.evaluate(tmp_path / "demo", "photos")
    pretrained, random = (result["contenders"][name]["linear"]["ci95"] for name in ("pretrained", "random"))
    assert result["verdict"]["outcome"] == "helped"
    assert pretrained[0] > random[1], (pretrained, random)
