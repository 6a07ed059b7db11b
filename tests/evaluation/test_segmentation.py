"""Runs made by hand, judged by segmentation of coloured squares."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from colours import FILE, make_run
from PIL import Image
from shapes import shapes

from diptych.data.sources.folder import scan
from diptych.data.sources.source import Files
from diptych.errors import ConfigError, DataError
from diptych.evaluation.contenders import open_contenders
from diptych.evaluation.segmentation.config import SegmentationConfig
from diptych.evaluation.segmentation.pairs import open_pairs
from diptych.evaluation.segmentation.pixels import levels_of
from diptych.evaluation.segmentation.run import evaluate_segmentation
from diptych.evaluation.segmentation.table import as_text


def evaluate(run: Path, data: Path, **settings: Any) -> dict[str, Any]:
    return evaluate_segmentation(run, str(data), SegmentationConfig(**{"pixels": 500, **settings}))


def reached(result: dict[str, Any], contender: str) -> float:
    found: float = result["contenders"][contender]["linear"]["miou"]
    return found


def in_folders(data: Path, frames: int) -> Path:
    """Put each picture so many times into a folder of its own, and its mask likewise."""
    for kind in ("images", "masks"):
        for path in sorted((data / kind).iterdir()):
            (data / kind / path.stem).mkdir()
            for frame in range(frames):
                (data / kind / path.stem / f"{frame}.png").write_bytes(path.read_bytes())
            path.unlink()
    return data


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


def test_what_contenders_see(same: tuple[Path, dict[str, Any]]) -> None:
    pretrained, _, pixels = open_contenders(same[0], None, "cpu")
    pictures = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    (last,), every = (levels_of(pretrained, maps)(pictures) for maps in ("last", "all"))
    assert last.shape == (2, 256, 4, 4) and len(every) == 4 and torch.equal(every[-1], last)
    (seen,) = levels_of(pixels, "last")(pictures)
    torch.testing.assert_close(seen[:, :3], (pictures / 255 - 0.5) / 0.25)
    assert seen[1, 3, :, 5].tolist() == seen[1, 4, 5, :].tolist() == torch.linspace(0, 1, 16).tolist()
    assert (seen[:, 3, 0] == 0).all() and (seen[:, 4, :, 0] == 0).all()


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
    assert text.startswith(result["verdict"]["sentence"]) and "raw pixels and position" in text
    assert "IoU %, pretrained" in text and "20 training and 5 test pictures" in text
    assert text.endswith("5 pictures to test on are few: intervals are wide, and small gains cannot be shown")
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
    assert result["data"]["seen_in_pretraining"] == 0 and "5 unseen pictures" in result["verdict"]["sentence"]


def test_masks_of_other_pictures_leave_chance(tmp_path: Path) -> None:
    data = shapes(tmp_path / "shifted", 25, shift=7)
    copied = (data / "images" / "00.png").read_bytes()
    tested = open_pairs(str(data), None, 0).test.images
    assert "00.png" not in {tested.name_of(place) for place in range(5)}
    for place in (0, 1):
        (data / "images" / tested.name_of(place)).write_bytes(copied)
    result = evaluate(make_run(tmp_path / "run", seed=1), data)
    assert result["data"]["copies_of_training"] == 2 and "5 test pictures" in result["verdict"]["sentence"]
    assert "2 test pictures also among those that the probe learns from" in result["data"]["note"]
    for contender in ("pretrained", "random", "pixels"):
        assert reached(result, contender) < 0.4  # the ground alone makes 0.28
    assert result["verdict"]["outcome"] == "no evidence"


def test_a_run_that_began_with_other_weights_is_compared_with_them(tmp_path: Path, data: Path) -> None:
    pictures = Files("images", (listing := scan(data / "images")).entries, listing.load)
    run = make_run(tmp_path / "run", seed=2, weights=1, began=1, learned=pictures)
    assert evaluate(run, data, pixels=100, size=24)["data"]["seen_in_pretraining"] == 5  # it knows them by its own size
    result = evaluate(run, data, pixels=100)
    assert result["compared_with"] == {"linear": "initial"} and result["init_from"] == FILE
    assert result["differences"]["linear"]["points"] == 0
    assert result["data"]["seen_in_pretraining"] == 5 and "the backbone saw 5 of the test" in result["data"]["note"]
    assert "5 test pictures" in result["verdict"]["sentence"]


def test_two_test_pictures_leave_everything_possible_and_nothing_else(tmp_path: Path) -> None:
    result = evaluate(make_run(tmp_path / "run", weights=None), shapes(tmp_path / "few", 10), pixels=100)
    low, high = result["differences"]["linear"]["ci"]
    assert -100 <= low <= result["differences"]["linear"]["points"] <= high <= 100
    assert "2 pictures to test on are few" in result["data"]["note"]


def test_what_cannot_be_asked(tmp_path: Path, data: Path) -> None:
    with pytest.raises(DataError, match="--size 18: pictures of 18 × 18 px do not divide .* multiples of 4 px"):
        evaluate(make_run(tmp_path / "run"), data, size=18)
    with pytest.raises(ConfigError, match="--name may hold letters, digits, - and _ alone, not '../x'"):
        SegmentationConfig(name="../x")
    with pytest.raises(ConfigError, match="unknown --group-by 'folders'; did you mean 'folder'?"):
        SegmentationConfig(group_by="folders")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown --maps 'lst'; did you mean 'last'?"):
        SegmentationConfig(maps="lst")  # type: ignore[arg-type]
    for name in ("size", "pixels", "limit"):
        with pytest.raises(ConfigError, match=f"--{name} must be 1 or more, not 0"):
            SegmentationConfig(**{name: 0})


def test_pictures_of_one_folder_are_judged_as_one(tmp_path: Path) -> None:
    """Each picture ten times over: as many pictures, and no more certainty."""
    data = in_folders(shapes(tmp_path / "films", 20), 10)
    run = make_run(tmp_path / "run", weights=None)
    folders = evaluate(run, data, group_by="folder", name="folders")
    alone = evaluate(run, data, name="alone")
    assert alone["data"]["copies_of_training"] > 0 and folders["data"]["copies_of_training"] == 0
    assert folders["data"]["test_pictures"] == 40 and "belong to 4 groups" in folders["data"]["note"]
    assert folders["command"].endswith("--task segmentation --pixels 500 --group-by folder --seed 0 --name folders")
    assert folders["settings"]["linear"]["group_by"] == "folder"
    wide, narrow = (np.diff(found["differences"]["linear"]["ci"])[0] for found in (folders, alone))
    assert wide > 2 * narrow


def test_copies_in_one_folder_do_not_choose_the_strength(tmp_path: Path) -> None:
    """Masks of other pictures cannot be learned, but by heart: a copy that is held out would praise that."""
    data = in_folders(shapes(tmp_path / "films", 20, shift=7), 5)
    contenders = evaluate(make_run(tmp_path / "run"), data, group_by="folder")["contenders"]
    assert all(found["linear"]["l2"] > 0.1 for found in contenders.values())
