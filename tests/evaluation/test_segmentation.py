"""Runs made by hand, judged by segmentation of coloured squares."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colours import FILE, make_run
from PIL import Image
from shapes import shapes

from diptych.data.sources.folder import scan
from diptych.data.sources.source import Files
from diptych.errors import ConfigError, DataError
from diptych.evaluation.segmentation.config import SegmentationConfig
from diptych.evaluation.segmentation.run import evaluate_segmentation
from diptych.evaluation.segmentation.table import as_text


def evaluate(run: Path, data: Path, **settings: Any) -> dict[str, Any]:
    return evaluate_segmentation(run, str(data), SegmentationConfig(**{"pixels": 500, **settings}))


def reached(result: dict[str, Any], contender: str) -> float:
    found: float = result["contenders"][contender]["linear"]["miou"]
    return found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shapes(tmp_path_factory.mktemp("data") / "squares", 25)


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Path, dict[str, Any]]:
    """A run whose weights were not trained at all, evaluated."""
    run = make_run(tmp_path_factory.mktemp("runs") / "same")
    return run, evaluate(run, data, maps="all")


def test_a_run_that_learned_nothing_gives_no_evidence(same: tuple[Path, dict[str, Any]]) -> None:
    _, result = same
    assert result["contenders"]["pretrained"] == result["contenders"]["random"]
    assert result["differences"]["linear"]["points"] == 0 and result["verdict"]["outcome"] == "no evidence"
    assert "linear probe mean IoU 9" in result["verdict"]["sentence"]


def test_what_colours_tell_is_learned(same: tuple[Path, dict[str, Any]]) -> None:
    """The finest maps of a random network hold the colours."""
    _, result = same
    assert reached(result, "pretrained") > 0.9 and reached(result, "pixels") > 0.97
    assert all(value > 0.9 for value in result["contenders"]["pixels"]["linear"]["per_class"].values())
    assert 500 <= result["settings"]["linear"]["pixels"] < 520  # and some of squares that a draw had missed


def test_what_is_written(same: tuple[Path, dict[str, Any]], data: Path) -> None:
    run, result = same
    path = run / "evaluation" / "squares-segmentation.json"
    assert json.loads(path.read_text()) == result and result["schema_version"] == 1
    assert result["command"].endswith("squares --task segmentation --maps all --pixels 500 --seed 0")
    found = result["data"]
    assert (found["train_pictures"], found["test_pictures"], found["segments"]) == (20, 5, ["0", "1", "2"])
    assert found["seen_in_pretraining"] == 0 and found["copies_of_training"] == 0
    for scores in result["contenders"].values():
        low, high = scores["linear"]["ci95"]
        assert 0 <= low <= scores["linear"]["miou"] <= high <= 1 and scores["linear"]["converged"]
    text = as_text(result)
    assert text.startswith(result["verdict"]["sentence"]) and "colours and position of a pixel" in text
    assert "IoU %, pretrained" in text and "20 training and 5 test pictures" in text
    with Image.open(path.with_name("squares-segmentation-masks.png")) as figure:
        pixels = np.asarray(figure.convert("RGBA"))
    for colour in ("#2f5d8a", "#b4532a", "#3f7d4e"):  # of the three classes, in truth and predictions
        assert (pixels[..., :3] == tuple(bytes.fromhex(colour[1:]))).all(axis=2).mean() > 0.01


def test_a_backbone_that_sees_nothing_is_said_to_hurt(tmp_path: Path, data: Path) -> None:
    result = evaluate(make_run(tmp_path / "run", weights=None), data, size=20, name="larger")
    shares = result["contenders"]["pretrained"]["linear"]["per_class"]
    assert shares["1"] == shares["2"] == 0  # the ground, everywhere
    assert reached(result, "pretrained") == pytest.approx(shares["0"] / 3)
    assert result["verdict"]["outcome"] == "hurt" and result["verdict"]["points"] < -15
    assert (tmp_path / "run" / "evaluation" / "larger-segmentation.json").is_file()
    assert result["command"].endswith("--task segmentation --size 20 --pixels 500 --seed 0 --name larger")
    assert result["data"]["seen_in_pretraining"] is None and "not known, at another size" in result["data"]["note"]
    assert "5 test pictures" in result["verdict"]["sentence"]


def test_masks_of_other_pictures_leave_chance(tmp_path: Path) -> None:
    data = shapes(tmp_path / "shifted", 25, shift=7)
    copied = (data / "images" / "00.png").read_bytes()
    for place in (8, 10):  # seed 0 tests on these, and learns from the first
        (data / "images" / f"{place:02}.png").write_bytes(copied)
    result = evaluate(make_run(tmp_path / "run", seed=1), data)
    assert result["data"]["copies_of_training"] == 2 and "5 test pictures" in result["verdict"]["sentence"]
    assert "2 test pictures also among those that the probe learns from" in result["data"]["note"]
    for contender in ("pretrained", "random", "pixels"):
        assert reached(result, contender) < 0.4  # the ground alone makes 0.28
    assert result["verdict"]["outcome"] == "no evidence"


def test_a_run_that_began_with_other_weights_is_compared_with_them(tmp_path: Path, data: Path) -> None:
    pictures = Files("images", (listing := scan(data / "images")).entries, listing.load)
    run = make_run(tmp_path / "run", seed=2, weights=1, began=1, learned=pictures)
    result = evaluate(run, data, pixels=100)
    assert result["compared_with"] == {"linear": "initial"} and result["init_from"] == FILE
    assert result["differences"]["linear"]["points"] == 0
    assert result["data"]["seen_in_pretraining"] == 5 and "the backbone saw 5 of the test" in result["data"]["note"]
    assert "5 test pictures" in result["verdict"]["sentence"]


def test_what_cannot_be_asked(tmp_path: Path, data: Path) -> None:
    with pytest.raises(DataError, match="--size 18: pictures of 18 × 18 px do not divide .* multiples of 4 px"):
        evaluate(make_run(tmp_path / "run"), data, size=18)
    with pytest.raises(ConfigError, match="unknown --maps 'lst'; did you mean 'last'?"):
        SegmentationConfig(maps="lst")  # type: ignore[arg-type]
    for name in ("size", "pixels", "limit"):
        with pytest.raises(ConfigError, match=f"--{name} must be 1 or more, not 0"):
            SegmentationConfig(**{name: 0})
