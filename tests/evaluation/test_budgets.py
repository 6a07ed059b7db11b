"""Several budgets of labels, seeds and contenders at once, from the call to what is written, said and shown."""

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from colours import COLOURS, SIZE, evaluate, make_run, paint
from PIL import Image
from safetensors.torch import save_file

from diptych.data.sources.open import open_data
from diptych.errors import ConfigError, DataError
from diptych.evaluation import given
from diptych.evaluation.config import EvaluateConfig
from diptych.evaluation.probes import finetune, holding_out, linear
from diptych.evaluation.probes.finetune import Lesson
from diptych.evaluation.table import as_text, saved_of
from diptych.frozen import FrozenBackbone, initial_backbone
from diptych.reports.collect import Evaluation, Facts
from diptych.reports.label_curve import labels_section
from diptych.runs import RunFolder, write_json

SETTINGS = {"labels": "6,100%", "seeds": 2, "finetune_steps": 1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "colours"
    paint(root / "train", 12)
    paint(root / "test", 10, seed=1)
    return root


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> tuple[Path, dict[str, Any]]:
    """A run that learned nothing, against all that there is."""
    root = tmp_path_factory.mktemp("runs")
    run, other = make_run(root / "run"), make_run(root / "other", weights=3)
    save_file(initial_backbone("resnet20v2", SIZE, 5)[0].state_dict(), root / "w.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "RATES", (1e-3,))
        against = f"random,scratch,pixels,imagenet:{root / 'w.safetensors'},{other}"
        return run, evaluate(run, str(pictures), against=against, **SETTINGS)


def test_every_contender_meets_every_budget_and_seed(found: tuple[Path, dict[str, Any]]) -> None:
    _, result = found
    assert [(point["labels"], point["pictures"]) for point in result["curve"]] == [("6", 6), ("100%", 36)]
    frozen = ["knn", "linear"]
    expected = {"pretrained": [*frozen, "finetune"], "random": frozen, "scratch": ["finetune"], "pixels": frozen}
    expected |= {"imagenet": [*frozen, "finetune"], "other": [*frozen, "finetune"]}
    for point in result["curve"]:
        assert {key: list(probes) for key, probes in point["contenders"].items()} == expected
        for probes in point["contenders"].values():
            for scores in probes.values():
                assert len(scores["seeds"]) == 2
                assert scores["top1"] == pytest.approx(sum(scores["seeds"]) / 2)
                assert 0 <= scores["ci95"][0] <= scores["top1"] <= scores["ci95"][1] <= 1
    assert json.loads((found[0] / "evaluation" / "colours.json").read_text()) == result


def test_equal_networks_are_never_told_apart(found: tuple[Path, dict[str, Any]]) -> None:
    """The run's weights are those of the untrained network: the same labels, crops and order give the same answers."""
    for point in found[1]["curve"]:
        for key, probe in (("random", "knn"), ("random", "linear"), ("scratch", "finetune")):
            gain = point["gains"][key][probe]
            assert gain["points"] == 0 and gain["p_value"] == 1 and gain["ci"][0] < 0 < gain["ci"][1]
        assert point["verdict"]["outcome"] == "no evidence"
        assert point["compared_with"] == {"knn": "random", "linear": "random", "finetune": "scratch"}
    assert found[1]["curve"][-1]["verdict"] == found[1]["verdict"]


def test_labels_are_worth_nothing_more_where_no_gain_was_shown(found: tuple[Path, dict[str, Any]]) -> None:
    few = found[1]["curve"][0]
    assert few["saved"] and "are worth" not in as_text(found[1])
    assert all(saved_of(found[1], few, probe) is None for probe in few["saved"])


def test_labels_are_nested_stratified_and_listed(tmp_path: Path, pictures: Path) -> None:
    run = make_run(tmp_path / "run")
    evaluate(run, str(pictures), labels="6,50%,100%", seeds=2)
    listed = json.loads((run / "evaluation" / "labels" / "colours.json").read_text())["labels"]
    assert list(listed) == ["6", "50%"]  # 100% needs no list
    for seed in ("0", "1"):
        few, half = (listed[budget][seed] for budget in ("6", "50%"))
        assert (len(few), len(half)) == (6, 18) and set(few) < set(half)
        for colour in COLOURS:
            assert [sum(f"{colour}/" in name for name in names) for names in (few, half)] == [2, 6]
    assert listed["6"]["0"] != listed["6"]["1"]


def test_the_verdict_of_each_budget_names_its_labels(found: tuple[Path, dict[str, Any]]) -> None:
    text = as_text(found[1])
    for told in ("6", "100%"):
        assert f"With {told} of the labels, no evidence that pretraining helped or hurt: " in text
    rows = [re.split("  +", line) for line in text.splitlines() if re.match("(kNN|linear probe|fine-tuning)  ", line)]
    assert len(rows) == 5 + 5 + 4  # contenders of each probe
    assert {len(row) for row in rows} == {4}  # probe, contender, two budgets
    assert "Top-1 % by labels (pictures), mean of 2 seeds, 95 % interval:" in text
    assert "linear probe: pretrained - other = " in text


def test_the_command_and_the_settings_repeat_it(found: tuple[Path, dict[str, Any]]) -> None:
    words = shlex.split(found[1]["command"])
    assert words[words.index("--labels") + 1] == "6,100%" and words[words.index("--seeds") + 1] == "2"
    assert found[1]["settings"]["labels"] == {"budgets": ["6", "100%"], "seeds": 2}
    assert found[1]["settings"]["finetune"]["optimizer"] == "AdamW"


def test_the_report_shows_the_curves(found: tuple[Path, dict[str, Any]]) -> None:
    page = labels_section(facts_of(found[1]))
    assert page.count('class="line pretrained"') == 3  # one chart a probe
    assert page.count('class="line scratch"') == 1 and page.count('class="line other"') == 6
    assert "What a label is worth" in page and "With 6 of the labels" in page


def test_features_are_computed_once(
    found: tuple[Path, dict[str, Any]], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("computed again")

    run, result = found
    monkeypatch.setattr("diptych.frozen.FrozenBackbone.embed", never)
    again = evaluate(run, str(pictures), labels="6,100%", seeds=2, name="again")
    for mine, theirs in zip(again["curve"], result["curve"], strict=True):
        for key in ("pretrained", "random"):
            assert mine["contenders"][key]["linear"] == theirs["contenders"][key]["linear"]


def test_an_earlier_list_of_labels_does_not_stay(tmp_path: Path, pictures: Path) -> None:
    run = make_run(tmp_path / "run")
    evaluate(run, str(pictures), labels="50%", name="n")
    assert (run / "evaluation" / "labels" / "n.json").is_file()
    evaluate(run, str(pictures), name="n")
    assert not (run / "evaluation" / "labels" / "n.json").exists()


def facts_of(result: dict[str, Any]) -> Facts:
    shown = Evaluation(name=result["name"], result=result, neighbors=None)
    return Facts(run="r", card={}, records=[], health=None, evaluations=[shown], views=None, quarantine=[])


def test_gains_with_few_labels_are_told_in_labels(tmp_path: Path, pictures: Path) -> None:
    """A blind network that pretraining taught to see needs few labels to beat what it was with all of them."""
    run = make_run(tmp_path / "run", weights=0, began=0)
    state = initial_backbone("resnet20v2", SIZE, 0)[0].state_dict()
    save_file({key: torch.zeros_like(value) for key, value in state.items()}, run / "initial.safetensors")
    result = evaluate(run, str(pictures), labels="9,18,100%", seeds=2)
    few = result["curve"][0]
    assert few["verdict"]["outcome"] == "helped"
    assert few["saved"]["linear"] == {"against": "initial", "labels": None, "low": None, "high": None, "factor": None}
    assert "linear probe: 9 labels with pretraining are worth more than all 36 labels initial" in as_text(result)
    assert "9 labels with pretraining are worth more than all 36 labels initial" in labels_section(facts_of(result))
    assert result["curve"][1]["saved"]["linear"]["labels"] is None and "18 labels" not in as_text(result)


def test_pictures_that_pretraining_changed_are_counted_and_drawn(tmp_path: Path, pictures: Path) -> None:
    run = make_run(tmp_path / "run", weights=None)
    result = evaluate(run, str(pictures))
    changed = result["changed"]
    assert changed["against"] == "random" and changed["broke"] > 10
    right = [
        sum(row[place] for place, row in enumerate(result["contenders"][key][changed["probe"]]["confusion"]))
        for key in ("pretrained", "random")
    ]
    assert changed["fixed"] - changed["broke"] == right[0] - right[1]
    with Image.open(run / "evaluation" / "colours-changed.png") as figure:
        assert figure.width > 500


def test_whom_the_verdict_needs_is_always_met(tmp_path: Path, pictures: Path) -> None:
    run, began = make_run(tmp_path / "run"), make_run(tmp_path / "began", began=1)
    assert list(evaluate(run, str(pictures), against="pixels")["contenders"]) == ["pretrained", "random", "pixels"]
    assert list(evaluate(began, str(pictures), against="pixels")["contenders"]) == ["pretrained", "initial", "pixels"]
    tuned = evaluate(run, str(pictures), against="pixels", probes="finetune", finetune_steps=1)
    assert tuned["compared_with"] == {"finetune": "scratch"}
    assert list(tuned["contenders"]) == ["pretrained", "scratch"]


def test_what_another_run_has_seen_is_told(tmp_path: Path, pictures: Path) -> None:
    other = make_run(tmp_path / "other", learned=open_data(str(pictures / "test")).train)
    result = evaluate(make_run(tmp_path / "run"), str(pictures), against=str(other))
    assert "other saw 30 of the test pictures, without labels, during pretraining" in result["data"]["note"]
    assert "30 unseen pictures" in result["verdict"]["sentence"]


def test_flips_of_fine_tuning_are_those_of_the_run(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run")
    card = RunFolder(run).read_card()
    write_json(run / "run.json", card | {"config": {"views": {"horizontal_flip": 0.0, "vertical_flip": 1.0}}})
    seen = []
    real = finetune.choose_start

    def noted(backbone: FrozenBackbone, lesson: Lesson) -> tuple[float, bool]:
        seen.append(lesson.views)
        return real(backbone, lesson)

    monkeypatch.setattr(finetune, "choose_start", noted)
    evaluate(run, str(pictures), probes="finetune", finetune_steps=1)
    assert {(views.horizontal_flip, views.vertical_flip) for views in seen} == {(0.0, 1.0)}


def test_another_size_of_pictures_is_read_for_another_run(tmp_path: Path, pictures: Path) -> None:
    other = make_run(tmp_path / "small", weights=3, size=8)
    result = evaluate(make_run(tmp_path / "run"), str(pictures), against=f"{other},pixels")
    assert list(result["contenders"]) == ["pretrained", "random", "small", "pixels"]
    assert result["contenders"]["pretrained"]["knn"]["top1"] > 0.6 < result["contenders"]["small"]["knn"]["top1"]


def test_features_of_a_layer_are_measured_and_said(tmp_path: Path, pictures: Path) -> None:
    run = make_run(tmp_path / "run")
    last = evaluate(run, str(pictures))
    first = evaluate(run, str(pictures), features="grid", layer="stem", name="stem")
    assert first["settings"]["features"] == {"kind": "grid", "layer": "stem"}
    assert first["contenders"]["pretrained"]["linear"] != last["contenders"]["pretrained"]["linear"]
    with pytest.raises(ConfigError, match="^pretrained: --layer: this backbone has no 'group9'"):
        evaluate(run, str(pictures), layer="group9")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"labels": "half"}, "--labels cannot be 'half': give shares"),
        ({"labels": "37"}, "--labels 37: there are 36 pictures to learn from"),
        ({"seeds": 0}, "--seeds must be at least 1, not 0"),
        ({"probes": "knn,tune"}, "unknown probe 'tune'; did you mean 'finetune'?"),
        ({"finetune_steps": 5}, "--finetune-steps needs --probes knn,linear,finetune"),
        ({"against": "randon"}, "did you mean 'random'?"),
        ({"features": "pool"}, "did you mean 'pooled'?"),
        ({"protocol": "keras", "seeds": 2}, "--protocol keras has one linear probe"),
        ({"protocol": "keras", "against": "scratch"}, "--protocol keras has one linear probe"),
    ],
)
def test_what_cannot_be_asked_is_refused(tmp_path: Path, pictures: Path, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=re.escape(message)) as error:
        evaluate(make_run(tmp_path / "run"), str(pictures), **wrong)
    assert "\n" not in str(error.value)


def test_pictures_that_only_one_size_can_be_read_in_are_refused(tmp_path: Path, pictures: Path) -> None:
    """A file that changes between two readings is the simplest way to get there."""
    run, other = make_run(tmp_path / "run"), make_run(tmp_path / "small", size=8)
    copy = Path(shutil.copytree(pictures, tmp_path / "copy"))
    real = given.read_labelled
    with pytest.MonkeyPatch.context() as patch:

        def read(*words: Any) -> Any:
            found = real(*words)
            (copy / "train" / "red" / "003.png").write_text("no picture any more")
            return found

        patch.setattr(given, "read_labelled", read)
        with pytest.raises(ConfigError, match="--against small: .*not the same pictures can be read"):
            evaluate(run, str(copy), against=str(other))


def test_leaks_are_counted_told_and_left_out(tmp_path: Path, pictures: Path) -> None:
    mixed = Path(shutil.copytree(pictures, tmp_path / "mixed"))
    paint(tmp_path / "noise", 2, seed=7)
    for number, colour in enumerate(COLOURS):  # under a wrong label: the probes would fail on these
        wrong = list(COLOURS)[number - 1]
        shutil.copy(mixed / "train" / colour / "003.png", mixed / "test" / wrong / "copy.png")
    result = evaluate(make_run(tmp_path / "run"), str(mixed))
    leaks = result["leaks"]
    assert (leaks["copied"], leaks["tainted"], len(leaks["copies"])) == (3, 3, 3)
    for key, probe in (("pretrained", "linear"), ("pixels", "linear")):
        clean, all_ = leaks["without"][key][probe], result["contenders"][key][probe]["top1"]
        assert clean == pytest.approx(all_ * 33 / 30)  # all others were right or wrong as before, these three wrong
    text = as_text(result)
    assert "On the 30 test pictures that have not leaked: pretrained kNN " in text
    assert "3 of 33 test pictures are exact copies of training pictures" in result["data"]["note"]


def test_groups_on_both_sides_are_told(tmp_path: Path, pictures: Path) -> None:
    rows = ["path,label,split,group"]
    for part in ("train", "test"):
        for path in sorted((pictures / part).rglob("*.png")):
            patient = "p1" if path.stem in ("000", "001") else f"{part}-{path.stem}"
            rows.append(f"{path},{path.parent.name},{part},{patient}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    result = evaluate(make_run(tmp_path / "run"), str(tmp_path / "list.csv"))
    assert result["leaks"]["groups"] == [{"name": "p1", "train": 6, "test": 6}]
    assert "1 group has training pictures too ('p1'): 6 of 30 test pictures are no test of new ones" in as_text(result)


def test_of_groups_whole_ones_are_drawn(tmp_path: Path, pictures: Path) -> None:
    results = []
    for name, each in (("alone", 1), ("whole", 5)):  # of each colour ten test pictures
        rows = ["path,label,split,group"]
        for part in ("train", "test"):
            for number, path in enumerate(sorted((pictures / part).rglob("*.png"))):
                rows.append(f"{path},{path.parent.name},{part},{part}-{number // each}")
        (tmp_path / f"{name}.csv").write_text("\n".join(rows))
        results.append(evaluate(make_run(tmp_path / name), str(tmp_path / f"{name}.csv"), against="pixels"))
    alone, whole = results
    assert "the 30 test pictures belong to 6 groups" in whole["data"]["note"]
    assert "belong to" not in alone["data"]["note"]
    for probe in ("knn", "linear"):
        first, second = (result["contenders"]["random"][probe] for result in results)
        assert first["top1"] == second["top1"] and first["ci95"] != second["ci95"]


def test_what_probes_learn_from_is_held_out_by_group(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["path,label,split,group"]
    for part in ("train", "test"):
        for path in sorted((pictures / part).rglob("*.png")):
            rows.append(f"{path},{path.parent.name},{part},{part}-{int(path.stem) // 3}")  # of every colour three
    (tmp_path / "list.csv").write_text("\n".join(rows))
    met: list[list[int]] = []

    def hold_out(labels: torch.Tensor, seed: int, groups: torch.Tensor | None = None) -> object:
        kept, held = holding_out.hold_out(labels, seed, groups=groups)
        assert groups is not None and not set(groups[kept].tolist()) & set(groups[held].tolist())
        met.append(groups.bincount().tolist())
        return kept, held

    for probe in (linear, finetune):
        monkeypatch.setattr(probe, "hold_out", hold_out)
    monkeypatch.setattr(finetune, "RATES", (1e-3,))
    evaluate(
        make_run(tmp_path / "run"), str(tmp_path / "list.csv"), probes="linear,finetune", finetune_steps=1, seeds=1
    )
    assert len(met) == 5 and all(
        sizes == [9] * 4 for sizes in met
    )  # linear: ours, random, pixels; fine-tuning: ours, scratch


def test_the_newest_pictures_are_tested_on(tmp_path: Path, pictures: Path) -> None:
    rows = ["path,label,time"]
    for path in sorted(pictures.rglob("*.png")):
        rows.append(f"{path},{path.parent.name},2026-01-{1 + int(path.stem):02d}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    result = evaluate(make_run(tmp_path / "run"), str(tmp_path / "list.csv"), split="time")
    assert "split by time: the pictures of 2026-01-10 and later are tested on" in result["data"]["note"]
    assert (result["data"]["train_pictures"], result["data"]["test_pictures"]) == (54, 12)  # days 10 to 12
    with pytest.raises(DataError, match="--split time: .* says itself what to test on"):
        evaluate(make_run(tmp_path / "other"), str(pictures), split="time")
    with pytest.raises(DataError, match="cannot be split by time: .* has none"):
        evaluate(make_run(tmp_path / "third"), str(pictures / "train"), split="time")
    with pytest.raises(ConfigError, match="unknown --split 'tme'; did you mean 'time'?"):
        evaluate(tmp_path / "run", str(pictures), split="tme")


def test_skewed_classes_are_told_which_number_to_read(tmp_path: Path) -> None:
    data = paint(tmp_path / "d", 60, ("blue",))
    paint(tmp_path / "few", 6, ("red",))
    shutil.move(tmp_path / "few" / "red", data / "red")
    result = evaluate(make_run(tmp_path / "run"), str(data))
    assert "read the balanced accuracy or macro-F1 instead of top-1" in as_text(result)
    scores = result["contenders"]["pretrained"]["linear"]
    assert scores["positive"] == "red" and 0 <= scores["auroc"] <= 1 and scores["top5"] is None


def test_what_could_have_been_found_stands_beside_no_evidence(found: tuple[Path, dict[str, Any]]) -> None:
    smallest = found[1]["differences"]["linear"]["detectable"]
    assert "in points: kNN " in as_text(found[1]) and f"linear probe {smallest:.1f}" in as_text(found[1])


def test_an_empty_configuration_repeats_itself() -> None:
    assert EvaluateConfig().words == "--seed 0"
    assert EvaluateConfig(labels="1%", seed=3).words == "--labels 1% --seed 3"
