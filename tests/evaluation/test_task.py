"""Several labels a picture, and quantities: whole evaluations of networks that see and of one that is blind."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colours import SIZE, evaluate, make_run
from PIL import Image

from diptych.errors import ConfigError
from diptych.evaluation.probes import finetune
from diptych.evaluation.table import as_text
from diptych.reports.collect import collect
from diptych.reports.compare import compare
from diptych.reports.compare_text import as_text as comparison_as_text
from diptych.reports.render import render
from diptych.runs import RunFolder, write_json


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Noisy pictures with their mean brightness, whether they are red, and both as words; no column of labels."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    rows = ["path,brightness,findings,red,bright,patient"]
    for number in range(80):
        brightness, red = random.uniform(60, 180), bool(random.random() < 0.4)
        picture = random.normal((brightness + 60 * red, brightness, brightness - 30 * red), 20, (SIZE, SIZE, 3))
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(root / f"{number:03}.png")
        bright = brightness > 120
        words = ";".join(word for word, yes in (("bright", bright), ("red", red)) if yes)
        rows.append(f"{number:03}.png,{brightness:.2f},{words},{red:d},{bright:d},p{number // 4}")
    (root / "list.csv").write_text("\n".join(rows))
    return root / "list.csv"


@pytest.fixture(scope="module")
def blind(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "blind", weights=None)


@pytest.fixture(scope="module")
def told(listed: Path, blind: Path) -> dict[str, Any]:
    """Quantities, of a network that training blinded."""
    return evaluate(blind, str(listed), targets="brightness", labels="16,100%", seeds=2, name="told")


@pytest.fixture(scope="module")
def found(listed: Path, blind: Path) -> dict[str, Any]:
    """Labels, of the same."""
    return evaluate(blind, str(listed), multilabel="findings", name="found")


def test_a_blind_network_tells_no_quantity(told: dict[str, Any], blind: Path) -> None:
    best = told["contenders"]["random"]["linear"]
    assert best["r2"] > 0.8 > best["mae"] / 20 and best["spearman"] > 0.9
    assert told["contenders"]["pretrained"]["linear"]["r2"] < 0.05
    assert told["verdict"]["outcome"] == "hurt" and told["verdict"]["points"] < -0.7
    sentence = told["verdict"]["sentence"]
    assert " R² " in sentence and "%, " not in sentence and "points" not in sentence
    assert told["task"] == "regression" and told["data"]["targets"] == ["brightness"] and "classes" not in told["data"]
    assert "changed" not in told and not (blind / "evaluation" / "told-neighbors.png").exists()
    with Image.open(blind / "evaluation" / "told-answers.png") as figure:
        assert figure.width > 500
    assert json.loads((blind / "evaluation" / "told.json").read_text()) == told


def test_budgets_of_quantities_are_drawn_and_their_intervals_possible(told: dict[str, Any], blind: Path) -> None:
    few = json.loads((blind / "evaluation" / "labels" / "told.json").read_text())["labels"]["16"]
    assert all(len(names) == 16 for names in few.values()) and few["0"] != few["1"]
    assert [point["pictures"] for point in told["curve"]] == [16, 64]
    for point in told["curve"]:
        for probes in point["contenders"].values():
            for scores in probes.values():
                low, high = scores["ci95"]
                assert low <= scores["r2"] <= high <= 1 and scores["r2"] == pytest.approx(np.mean(scores["seeds"]))


def test_a_blind_network_finds_no_label(found: dict[str, Any]) -> None:
    scores = found["contenders"]["random"]["linear"]
    assert scores["macro_average_precision"] > 0.9 and list(scores["per_label"]) == found["data"]["labels"]
    nothing = found["contenders"]["pretrained"]["linear"]
    assert nothing["macro_auroc"] == pytest.approx(0.5)  # every picture gets the same answer
    assert found["verdict"]["outcome"] == "hurt" and found["verdict"]["points"] < -20
    assert " mean average precision " in found["verdict"]["sentence"] and " points (" in found["verdict"]["sentence"]
    assert found["task"] == "multilabel" and found["data"]["labels"] == ["bright", "red"]


def test_columns_of_0_and_1_are_the_same_labels(found: dict[str, Any], listed: Path, blind: Path) -> None:
    again = evaluate(blind, str(listed), multilabel="bright,red", name="again")
    assert again["contenders"] == found["contenders"] and again["verdict"] == found["verdict"]


def test_equal_networks_are_never_told_apart(tmp_path: Path, listed: Path) -> None:
    run = make_run(tmp_path / "run")
    for asked in ({"targets": "brightness"}, {"multilabel": "findings"}):
        result = evaluate(run, str(listed), **asked)
        assert result["contenders"]["pretrained"] == result["contenders"]["random"]
        assert all(gain["points"] == 0 and gain["p_value"] == 1 for gain in result["differences"].values())
        assert result["verdict"]["outcome"] == "no evidence"
        assert "A gain that would have been found in 4 of 5" in as_text(result)


def test_what_is_printed_has_the_headlines_units(told: dict[str, Any], found: dict[str, Any]) -> None:
    text = as_text(told)
    assert "R² by labels (pictures), mean of 2 seeds, 95 % interval:" in text and " points" not in text
    first = told["contenders"]["pretrained"][told["verdict"]["probe"]]
    assert f"brightness: R² {first['r2_per_target'][0]:.4g}, mean absolute error {first['mae']:.4g}, " in text
    rows = as_text(found).splitlines()
    assert any("mean AP %" in row and "AUROC %" in row for row in rows)
    scores = found["contenders"]["random"]["knn"]
    numbers = [f"{100 * scores[key]:.1f}" for key in ("macro_average_precision", "macro_auroc")]
    assert any("kNN" in row and "untrained" in row and all(number in row for number in numbers) for row in rows)


def test_the_command_repeats_it(told: dict[str, Any]) -> None:
    words = shlex.split(told["command"])
    assert words[words.index("--targets") + 1] == "brightness" and "--multilabel" not in words


def test_groups_are_not_parted_and_leaks_are_scored_without(tmp_path: Path, listed: Path, blind: Path) -> None:
    rows = listed.read_text().replace("patient", "group").splitlines()
    for row in rows[1:]:
        name = row.split(",")[0]
        (tmp_path / name).write_bytes((listed.parent / name).read_bytes())
    (tmp_path / "grouped.csv").write_text("\n".join(rows))
    result = evaluate(blind, str(tmp_path / "grouped.csv"), targets="brightness")
    assert not result["leaks"]["groups"] and "no group parted" in result["data"]["note"]
    parted = [f"{row},{'train' if n % 4 else 'test'}" for n, row in enumerate(rows[1:41])]
    pictures = [f"{row.replace(',p', ',q')},test" for row in rows[41:60]]
    (tmp_path / "parted.csv").write_text("\n".join([f"{rows[0]},split", *parted, *pictures]))
    for asked, key in (({"targets": "brightness"}, "r2"), ({"multilabel": "findings"}, "macro_average_precision")):
        result = evaluate(blind, str(tmp_path / "parted.csv"), **asked)
        assert result["leaks"]["grouped"] == 10
        assert result["leaks"]["without"]["pretrained"]["linear"] != result["contenders"]["pretrained"]["linear"][key]
        assert "On the 19 test pictures that have not leaked: " in as_text(result)


def test_reports_and_comparisons_show_them(
    told: dict[str, Any], found: dict[str, Any], blind: Path, tmp_path: Path, listed: Path
) -> None:
    other = make_run(tmp_path / "other", weights=3)
    evaluate(other, str(listed), targets="brightness", labels="16,100%", seeds=2, name="told")
    for run in (blind, other):
        card = RunFolder(run).read_card()
        write_json(
            run / "run.json",
            card
            | {
                "data": {"pictures": 1, "name": "d", "skipped": 0, "fingerprint": "f"},
                "hardware": {"device": "cpu", "processes": 1},
                "config": {},
                "versions": {},
                "diptych": "0",
                "recipe": "r",
                "started": "2026-01-01T00:00:00+00:00",
            },
        )
    page = render(collect(blind))
    assert "Dot: R²." in page and "Dot: mean average precision." in page and "to tell brightness" in page
    assert "Confusions" not in page
    shown = re.sub("<[^>]*>", " ", page[page.index("One by one") :])
    pretrained = told["contenders"]["pretrained"][told["verdict"]["probe"]]
    before = told["contenders"]["random"][told["verdict"]["probe"]]
    cells = "".join(f"<td>{scores['mae_per_target'][0]:.4g}</td>" for scores in (pretrained, before))
    assert cells in page
    assert "mean absolute error, pretrained" in shown
    precision = found["contenders"]["pretrained"][found["verdict"]["probe"]]["per_label"]
    assert all(f"{label}  {100 * value:.1f}" in re.sub(r"\s+", "  ", shown) for label, value in precision.items())
    text = comparison_as_text(compare([blind, other]))
    assert "R² (95 %)" in text and "gain, R² (97.5 %)" in text and "mean AP % (95 %)" in text


def test_the_whole_network_learns_both(tmp_path: Path, listed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune, "RATES", (1e-3,))
    run = make_run(tmp_path / "run")
    for asked in ({"targets": "brightness"}, {"multilabel": "findings"}):
        result = evaluate(run, str(listed), probes="finetune", finetune_steps=1, limit=20, against="scratch", **asked)
        assert result["compared_with"] == {"finetune": "scratch"}
        assert result["contenders"]["pretrained"] == result["contenders"]["scratch"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"targets": "a", "multilabel": "b"}, "--targets and --multilabel ask two questions"),
        ({"targets": "a", "protocol": "keras"}, "--protocol keras asks for one class a picture"),
        ({"multilabel": "a,a"}, "--multilabel names a twice"),
    ],
)
def test_questions_that_do_not_fit_are_refused(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(tmp_path, "photos", **wrong)
