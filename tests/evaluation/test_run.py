import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colours import FILE, evaluate, make_run, paint
from PIL import Image

from diptych.data.sources.open import open_data
from diptych.data.sources.source import digest
from diptych.data.stores.digests import read_digests
from diptych.errors import ConfigError, DataError, RunFolderError
from diptych.evaluation.run import default_name
from diptych.evaluation.table import as_text
from diptych.progress import Terminal
from diptych.runs import RunFolder, write_json


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint(tmp_path_factory.mktemp("data") / "colours", 60)


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "divided"
    paint(root / "train", 20)
    paint(root / "test", 10, seed=1)
    return root


@pytest.fixture(scope="module")
def same(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> tuple[Path, dict[str, Any]]:
    """A run whose weights were not trained at all, evaluated."""
    run = make_run(tmp_path_factory.mktemp("runs") / "same")
    return run, evaluate(run, str(pictures))


def test_a_run_that_learned_nothing_gives_no_evidence(same: tuple[Path, dict[str, Any]]) -> None:
    _, result = same
    assert result["contenders"]["pretrained"] == result["contenders"]["random"]
    assert result["contenders"]["pretrained"]["knn"]["top1"] > 0.6  # so that equality is not that of two broken probes
    assert {probe: d["points"] for probe, d in result["differences"].items()} == {"knn": 0, "linear": 0}
    assert all(d["ci"][0] < 0 < d["ci"][1] and d["level"] == 0.975 for d in result["differences"].values())
    assert result["verdict"]["outcome"] == "no evidence"


def test_a_backbone_that_sees_nothing_is_said_to_hurt(tmp_path: Path, pictures: Path) -> None:
    result = evaluate(make_run(tmp_path / "run", weights=None), str(pictures))
    assert result["contenders"]["pretrained"]["linear"]["top1"] == pytest.approx(1 / 3)
    assert result["verdict"]["outcome"] == "hurt"
    assert result["verdict"]["points"] < -30
    assert "raw pixels alone reach" in result["verdict"]["sentence"]


def test_what_is_written(same: tuple[Path, dict[str, Any]], pictures: Path) -> None:
    run, result = same
    assert json.loads((run / "evaluation" / "colours.json").read_text()) == result
    assert list(result) == [
        *("schema_version", "name", "created", "diptych", "command", "run", "data", "protocol", "settings", "seed"),
        *("names", "contenders", "compared_with", "differences", "gains", "verdict", "changed", "leaks", "seconds"),
    ]
    assert list(result["contenders"]) == ["pretrained", "random", "pixels"]
    for probes in result["contenders"].values():
        assert list(probes) == ["knn", "linear"]
        for found in probes.values():
            assert 0 <= found["ci95"][0] <= found["top1"] <= found["ci95"][1] <= 1
            assert np.sum(found["confusion"], axis=1).tolist() == [12, 12, 12]
            assert found["top1"] == pytest.approx(np.trace(found["confusion"]) / 36)
            assert list(found["per_class"]) == result["data"]["classes"] == ["blue", "green", "red"]
        assert probes["linear"]["l2"] > 0 and probes["linear"]["converged"] is True
    assert result["settings"]["knn"] == {"k": 20, "temperature": 0.07, "similarity": "cosine"}
    data = result["data"]
    assert (data["train_pictures"], data["test_pictures"], data["skipped"]) == (144, 36, 0)
    assert data["fingerprint"] == digest([open_data(str(pictures)).train.fingerprint])
    assert "stratified split by seed 0" in data["note"] and not data["seen_in_pretraining"]
    with Image.open(run / "evaluation" / "colours-neighbors.png") as figure:
        assert figure.format == "PNG"
    assert not (run / "quarantine.jsonl").exists()


def test_a_run_that_began_with_other_weights_is_compared_with_them(tmp_path: Path, pictures: Path) -> None:
    """What it came to are the weights it began with: nothing was gained, however far they are from random ones."""
    run = make_run(tmp_path / "run", seed=2, weights=1, began=1)
    result = evaluate(run, str(pictures))
    found = result["contenders"]
    assert list(found) == ["pretrained", "initial", "random", "pixels"]
    assert found["initial"] == found["pretrained"] != found["random"]
    assert (
        found["random"] == evaluate(make_run(tmp_path / "other", weights=2), str(pictures))["contenders"]["pretrained"]
    )
    assert all(d["points"] == 0 for d in result["differences"].values())
    assert result["init_from"] == FILE and result["verdict"]["outcome"] == "no evidence"
    assert (
        f"for the same network before training on these pictures ({FILE}), +0.0 points" in result["verdict"]["sentence"]
    )
    assert json.loads((run / "evaluation" / "colours.json").read_text()) == result


def test_training_that_spoils_the_weights_it_began_with_hurt(tmp_path: Path, pictures: Path) -> None:
    result = evaluate(make_run(tmp_path / "run", weights=None, began=1), str(pictures))
    assert result["verdict"]["outcome"] == "hurt" and result["verdict"]["points"] < -30


def test_what_weights_from_elsewhere_have_seen_is_not_known(tmp_path: Path, divided: Path) -> None:
    result = evaluate(make_run(tmp_path / "run", began=1), str(divided))
    assert f"which pictures the weights of {FILE} had seen before is not known" in result["data"]["note"]
    assert "30 test pictures" in result["verdict"]["sentence"] and "unseen" not in result["verdict"]["sentence"]


def test_what_the_run_has_seen_whose_weights_it_began_with_counts(tmp_path: Path, divided: Path) -> None:
    source = make_run(tmp_path / "source", learned=open_data(str(divided / "test")).train)
    digests = read_digests(RunFolder(source))
    for name, seen, said in (("some", digests[:7], "30 test pictures"), ("none", digests[:0], "30 unseen pictures")):
        run = make_run(tmp_path / name, began=1)
        RunFolder(run).initial_pictures.write_bytes(seen.tobytes())
        result = evaluate(run, str(divided))
        assert result["data"]["seen_in_pretraining"] == len(seen)
        assert said in result["verdict"]["sentence"] and "not known" not in result["data"]["note"]


def test_a_name_that_steers_a_terminal_is_defused(tmp_path: Path, pictures: Path) -> None:
    run = make_run(tmp_path / "run", began=1)
    card = json.loads((run / "backbone.json").read_text())
    write_json(run / "backbone.json", card | {"init_from": "\x1b[2J.safetensors"})
    assert "\x1b" not in as_text(evaluate(run, str(pictures), protocol="keras"))


def test_train_and_test_folders_are_kept_apart(tmp_path: Path, divided: Path) -> None:
    run = make_run(tmp_path / "run", weights=1, learned=open_data(str(divided)).train)
    result = evaluate(run, str(divided))
    assert (result["data"]["train_pictures"], result["data"]["test_pictures"]) == (60, 30)
    assert "divided/train and are tested on " in result["data"]["note"]
    # pretraining on train/ leaves test/ unseen
    assert not result["data"]["seen_in_pretraining"]
    assert "30 unseen pictures" in result["verdict"]["sentence"]


def test_pictures_of_pretraining_are_not_passed_off_as_unseen(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor where they were read from an archive, under other names, and only some of them."""
    copies = tmp_path / "copies"
    copies.mkdir()
    for number, file in enumerate(sorted(pictures.rglob("*.png"))[::2]):
        shutil.copy(file, copies / f"{number}.png")
    archive = shutil.make_archive(str(tmp_path / "copies"), "zip", copies)
    run = make_run(tmp_path / "run", learned=open_data(archive).train)
    result = evaluate(run, str(pictures), terminal=Terminal())
    seen = result["data"]["seen_in_pretraining"]
    assert 5 < seen < 30
    assert f"the backbone saw {seen} of the test pictures, without labels" in result["data"]["note"]
    assert "unseen" not in result["verdict"]["sentence"]
    assert f"The backbone saw {seen} of 36 test pictures, without their labels" in capsys.readouterr().err


def test_test_pictures_that_the_probes_learn_from_are_counted(tmp_path: Path, divided: Path) -> None:
    mixed = shutil.copytree(divided, tmp_path / "mixed")
    for number in range(4):
        shutil.copy(mixed / "train" / "red" / f"{number:03}.png", mixed / "test" / "red" / f"copy{number}.png")
    result = evaluate(make_run(tmp_path / "run"), str(mixed))
    assert result["data"]["copies_of_training"] == 4
    assert "4 of 34 test pictures are exact copies of training pictures" in result["data"]["note"]
    assert "34 test pictures" in result["verdict"]["sentence"] and "unseen" not in result["verdict"]["sentence"]


def test_the_seed_decides_the_split_and_limit_draws_before_it(tmp_path: Path, pictures: Path) -> None:
    run = make_run(tmp_path / "run", weights=1)
    first, again, other = (evaluate(run, str(pictures), limit=60, seed=seed) for seed in (0, 0, 1))
    assert first["data"]["train_pictures"] + first["data"]["test_pictures"] == 60
    assert "60 drawn by a fixed seed before the split" in first["data"]["note"]
    assert first["contenders"] == again["contenders"] != other["contenders"]


def test_limit_draws_from_each_folder(tmp_path: Path, divided: Path) -> None:
    result = evaluate(make_run(tmp_path / "run"), str(divided), limit=25)
    assert (result["data"]["train_pictures"], result["data"]["test_pictures"]) == (25, 25)


def test_the_keras_protocol_has_one_probe_and_no_pixels(tmp_path: Path, pictures: Path) -> None:
    run = make_run(tmp_path / "run", weights=1)
    result = evaluate(run, str(pictures), protocol="keras")
    assert (result["name"], result["protocol"]) == ("colours-keras", "keras")
    assert {contender: list(probes) for contender, probes in result["contenders"].items()} == {
        "pretrained": ["linear"],
        "random": ["linear"],
    }
    assert result["differences"]["linear"]["level"] == result["verdict"]["level"] == 0.95
    assert result["settings"] == {
        "linear": {
            "optimizer": "SGD",
            "lr": 0.03,
            "momentum": 0.9,
            "batch_size": 128,
            "epochs": 5,
            "augmentation": "horizontal flip",
        }
    }
    assert {path.name for path in (run / "evaluation").iterdir()} == {"colours-keras.json", "colours-keras-changed.png"}


def test_an_earlier_result_of_that_name_is_replaced_and_that_is_said(
    tmp_path: Path, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run")
    evaluate(run, str(pictures), name="mine", terminal=Terminal())
    assert "Replacing" not in capsys.readouterr().err
    evaluate(run, str(pictures), name="mine", protocol="keras", terminal=Terminal())
    assert f"Replacing the earlier {run}/evaluation/mine.json" in capsys.readouterr().err
    assert [path.name for path in (run / "evaluation").iterdir()] == ["mine.json"]  # no figure of the earlier protocol
    assert json.loads((run / "evaluation" / "mine.json").read_text())["protocol"] == "keras"


def test_broken_pictures_are_left_out_counted_and_listed_once(tmp_path: Path, pictures: Path) -> None:
    folder = tmp_path / "colours"
    shutil.copytree(pictures, folder)
    (folder / "red" / "000.png").write_text("no picture")
    whole = (folder / "green" / "001.png").read_bytes()
    (folder / "green" / "001.png").write_bytes(whole[: len(whole) // 2])
    run = make_run(tmp_path / "run")
    for _ in range(2):
        result = evaluate(run, str(folder))
    data = result["data"]
    assert (data["train_pictures"] + data["test_pictures"], data["skipped"]) == (178, 2)
    listed = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(record["name"] for record in listed) == ["green/001.png", "red/000.png"]
    assert all(record["reason"] and record["during"] == "evaluate" for record in listed)


def test_labels_go_with_their_pictures_when_some_are_broken(tmp_path: Path, divided: Path) -> None:
    folder = tmp_path / "divided"
    shutil.copytree(divided, folder)
    for number in range(15):
        (folder / "train" / "blue" / f"{number:03}.png").write_text("no picture")
    result = evaluate(make_run(tmp_path / "run"), str(folder))
    assert result["data"]["train_pictures"] == 45
    assert result["contenders"]["pixels"]["linear"]["top1"] == 1  # shifted labels would show


def test_the_command_repeats_the_evaluation(tmp_path: Path, divided: Path) -> None:
    run = make_run(tmp_path / "a run")
    result = evaluate(run, str(divided), limit=25, seed=3, name="n")
    expected = ["diptych", "evaluate", str(run), str(divided), "--limit", "25", "--seed", "3", "--name", "n"]
    assert shlex.split(result["command"]) == expected
    plain = evaluate(run, str(divided))
    assert shlex.split(plain["command"]) == ["diptych", "evaluate", str(run), str(divided), "--seed", "0"]


def flat(root: Path) -> Path:
    folder = paint(root / "one", 4, ("red",))
    return folder / "red"


def one_class_csv(root: Path) -> Path:
    flat(root)
    (root / "list.csv").write_text("file,label\n" + "".join(f"one/red/{n:03}.png,red\n" for n in range(4)))
    return root / "list.csv"


def one_class_trained(root: Path) -> Path:
    paint(root / "d" / "train", 4, ("red",))
    paint(root / "d" / "test", 4, ("red", "blue"))
    return root / "d"


def unknown_test_class(root: Path) -> Path:
    paint(root / "d" / "train", 4, ("red", "blue"))
    paint(root / "d" / "test", 4, ("red", "green"))
    return root / "d"


def single_picture(root: Path) -> Path:
    paint(root / "d", 4, ("red", "blue"))
    paint(root / "d2", 1, ("green",))
    shutil.move(root / "d2" / "green", root / "d" / "green")
    return root / "d"


def lost_class(root: Path) -> Path:
    paint(root / "d" / "train", 4, ("red", "blue", "green"))
    paint(root / "d" / "test", 4, ("red", "green"))
    for path in (root / "d" / "train" / "green").iterdir():
        path.write_text("no picture")
    return root / "d"


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (flat, "has no labels, which evaluating needs: put each picture into a folder named after its class"),
        (one_class_csv, "needs two classes or more, and all training pictures show 'red'"),
        (one_class_trained, "needs two classes or more, and all training pictures show 'red'"),
        (unknown_test_class, "some test pictures show 'green', but no training picture does"),
        (single_picture, "class 'green' of .* has a single picture"),
        (lost_class, "some test pictures show 'green', but no training picture does"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_in_one_line(tmp_path: Path, layout: Any, message: str) -> None:
    run = make_run(tmp_path / "run")
    with pytest.raises(DataError, match=message) as error:
        evaluate(run, str(layout(tmp_path)))
    assert "\n" not in str(error.value)
    assert not (run / "evaluation").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"protocol": "kears"}, "unknown protocol 'kears'; did you mean 'keras'?"),
        ({"limit": 0}, "--limit must be at least 1, not 0"),
        ({"seed": -1}, "--seed must be 0 or more, not -1"),
        ({"name": "../x"}, "--name may hold letters, digits, - and _ alone, not '../x'"),
    ],
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        evaluate(tmp_path, "photos", **wrong)


def test_a_run_without_a_backbone_is_refused(tmp_path: Path, pictures: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "backbone.json").unlink()
    with pytest.raises(RunFolderError, match="holds no backbone yet"):
        evaluate(run, str(pictures))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("cifar10", "cifar10"),
        ("/a/b/my pictures.tar.gz", "my-pictures"),
        ("x/labels.csv", "labels"),
        ("x/cats_2/", "cats_2"),
        ("x/Ünï.zip", "n"),
        ("x/日本", "data"),
        ("x/v1.5", "v1-5"),
    ],
)
def test_results_are_named_after_their_data(data: str, name: str) -> None:
    assert default_name(data, "standard") == name
    assert default_name(data, "keras") == f"{name}-keras"


def test_the_folder_one_stands_in_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert default_name(".", "standard") == "here"


def test_the_table_puts_the_verdict_first_and_every_contender_under_every_probe(
    same: tuple[Path, dict[str, Any]],
) -> None:
    _, result = same
    lines = as_text(result).splitlines()
    assert lines[0] == result["verdict"]["sentence"]
    rows = [line for line in lines if re.match(r"(kNN|linear probe)  ", line)]
    assert len(rows) == 6
    knn = result["contenders"]["pixels"]["knn"]
    numbers = [knn["top1"], *knn["ci95"], knn["balanced_accuracy"]]
    assert re.findall(r"\d+\.\d", rows[2]) == [f"{100 * number:.1f}" for number in numbers]
    assert "raw pixels" in rows[2]
    assert len({len(row) for row in rows}) == 1  # columns line up


def test_the_table_of_the_keras_protocol_has_two_rows(tmp_path: Path, pictures: Path) -> None:
    text = as_text(evaluate(make_run(tmp_path / "run"), str(pictures), protocol="keras"))
    assert len(re.findall("^linear probe  ", text, flags=re.MULTILINE)) == 2
    assert "raw pixels" not in text


def test_the_table_names_what_training_began_with(tmp_path: Path, pictures: Path) -> None:
    result = evaluate(make_run(tmp_path / "run", weights=1, began=1), str(pictures), protocol="keras")
    lines = as_text(result).splitlines()
    rows = [line for line in lines if line.startswith("linear probe  ")]
    assert [re.split("  +", row)[1] for row in rows] == ["pretrained", f"initial ({FILE})", "same network, untrained"]
    assert any(line.startswith("linear probe: pretrained - initial = +0.0 points (95 % interval") for line in lines)
