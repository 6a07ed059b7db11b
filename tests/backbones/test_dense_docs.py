"""docs/dense.md: its examples are run as they are written there."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colours import make_run
from shapes import write
from torchvision.ops import box_iou

BLOCKS = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "dense.md").read_text(), re.DOTALL)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run where the examples have theirs."""
    make_run(tmp_path / "runs" / "mine", size=32)
    monkeypatch.chdir(tmp_path)


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(compile(code, "docs/dense.md", "exec"), names)  # our own page
    return names


@pytest.mark.usefixtures("project")
def test_maps(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.png", "b.png"):
        write(Path(name), np.full((40, 50, 3), 90, np.uint8))
    run(BLOCKS[0])
    assert capsys.readouterr().out.splitlines()[-1] == "group3 4 (2, 256, 8, 8)"


@pytest.mark.usefixtures("project")
def test_a_detector_learns_a_few_pictures_by_heart() -> None:
    names = run(BLOCKS[1])
    for found, target in zip(names["found"], names["targets"], strict=True):
        sure = found["scores"] > 0.5
        assert sorted(found["labels"][sure].tolist()) == [1, 2]  # each square once, and nothing else
        for box, label in zip(found["boxes"][sure], found["labels"][sure], strict=True):
            assert box_iou(box[None], target["boxes"][label - 1][None]) > 0.7
