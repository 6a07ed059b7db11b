import pytest

from diptych.evaluation.numbers.statistics import Gain
from diptych.evaluation.verdict import decide, level_for

TOP1 = {
    "pretrained": {"knn": 0.5, "linear": 0.712},
    "random": {"knn": 0.4, "linear": 0.601},
    "pixels": {"knn": 0.3, "linear": 0.35},
}


BEFORE = {"knn": "random", "linear": "random"}
STARTED = {"knn": "initial", "linear": "initial"}


def gap(points: float, half: float, level: float = 0.975) -> Gain:
    return Gain(p_value=0.5, points=points, low=points - half, high=points + half, level=level)


@pytest.mark.parametrize(
    ("knn", "linear", "outcome", "quoted"),
    [
        (gap(10, 3), gap(5, 3), "helped", "knn"),  # both above: the clearer one is quoted
        (gap(10, 5), gap(5, 1), "helped", "linear"),  # clearer = larger in units of its own width
        (gap(2, 3), gap(5, 3), "helped", "linear"),  # one suffices
        (gap(-2, 3), gap(5, 3), "helped", "linear"),  # a point estimate below 0 is no contradiction
        (gap(3, 3), gap(1, 2), "no evidence", "knn"),  # an end at 0 is not above it
        (gap(2, 3), gap(-1, 3), "no evidence", "knn"),
        (gap(-4, 3), gap(1, 3), "hurt", "knn"),
        (gap(-4, 3), gap(-9, 3), "hurt", "linear"),
        (gap(-4, 3), gap(5, 3), "no evidence", "linear"),  # they contradict
        (gap(40, 39), gap(-4, 5), "helped", "knn"),
    ],
)
def test_the_rule(knn: Gain, linear: Gain, outcome: str, quoted: str) -> None:
    found = decide({"knn": knn, "linear": linear}, TOP1, BEFORE, 1000)
    assert (found.outcome, found.probe) == (outcome, quoted)
    assert found.points == {"knn": knn, "linear": linear}[quoted].points


def test_an_undecided_probe_is_not_quoted_for_an_outcome_it_does_not_show() -> None:
    # linear is the larger in its own width but lies on neither side; only an asymmetric interval can do that
    linear = Gain(p_value=0.5, points=20, low=-0.1, high=20.1, level=0.975)
    found = decide({"knn": gap(3, 2.9), "linear": linear}, TOP1, BEFORE, 1000)
    assert (found.outcome, found.probe) == ("helped", "knn")


def test_the_sentence_can_be_quoted() -> None:
    linear = Gain(p_value=0.5, points=11.1, low=8.3, high=13.9, level=0.975)
    found = decide({"knn": gap(1, 3), "linear": linear}, TOP1, BEFORE, 1000)
    assert found.sentence == (
        "Pretraining helped: linear probe 71.2 % against 60.1 % for the same network untrained, +11.1 points "
        "(97.5 % interval +8.3 to +13.9; 1,000 unseen pictures); raw pixels reach 35.0 %."
    )
    assert found.to_dict() == {
        "outcome": "helped",
        "sentence": found.sentence,
        "probe": "linear",
        "points": 11.1,
        "interval": [8.3, 13.9],
        "level": 0.975,
    }


def test_weights_that_training_began_with_are_what_it_is_compared_with() -> None:
    top1 = TOP1 | {"initial": {"knn": 0.45, "linear": 0.7}}
    found = decide({"linear": gap(1.2, 1)}, top1, STARTED, 1000, unseen=False, init_from="timm-pretrained")
    assert found.sentence == (
        "Pretraining helped: linear probe 71.2 % against 70.0 % for the same network before training on these pictures "
        "(timm-pretrained), +1.2 points (97.5 % interval +0.2 to +2.2; 1,000 test pictures); raw pixels reach 35.0 %."
    )
    both = decide({"knn": gap(-4, 3), "linear": gap(5, 3)}, top1, STARTED, 1000, init_from="runs/first")
    assert both.sentence.count("before training on these pictures (runs/first)") == 2
    assert "45.0 %" in both.sentence and "70.0 %" in both.sentence


def test_pictures_that_pretraining_saw_are_not_called_unseen() -> None:
    found = decide({"linear": gap(5, 1)}, TOP1, BEFORE, 1000, unseen=False)
    assert "unseen" not in found.sentence
    assert "1,000 test pictures" in found.sentence


@pytest.mark.parametrize("pixels", [0.712, 0.8])
def test_raw_pixels_that_do_as_well_are_a_warning(pixels: float) -> None:
    top1 = TOP1 | {"pixels": {"knn": 0.1, "linear": pixels}}
    found = decide({"knn": gap(1, 3), "linear": gap(11, 3)}, top1, BEFORE, 1000)
    assert found.outcome == "helped"
    assert found.sentence.endswith(
        f"; but raw pixels alone reach {100 * pixels:.1f} %, so this backbone is not yet worth using here."
    )


def test_contradicting_probes_are_both_told() -> None:
    found = decide({"knn": gap(-4, 3), "linear": gap(5, 3)}, TOP1, BEFORE, 1000)
    assert "because the probes disagree" in found.sentence
    assert "-4.0 points" in found.sentence and "+5.0 points" in found.sentence
    assert found.sentence.endswith("raw pixels reach 35.0 % by linear probe.")


def test_one_probe_alone_needs_no_correction_and_has_no_pixels() -> None:
    assert level_for(1) == pytest.approx(0.95)
    assert level_for(2) == pytest.approx(0.975)
    top1 = {contender: {"linear": TOP1[contender]["linear"]} for contender in ("pretrained", "random")}
    found = decide({"linear": gap(-3, 1, level=level_for(1))}, top1, BEFORE, 200)
    assert found.sentence == (
        "Pretraining hurt: linear probe 71.2 % against 60.1 % for the same network untrained, -3.0 points "
        "(95 % interval -4.0 to -2.0; 200 unseen pictures)."
    )


def test_raw_pixels_that_win_by_the_other_probe_are_told_too() -> None:
    top1 = {
        "pretrained": {"knn": 0.42, "linear": 0.40},
        "random": {"knn": 0.34, "linear": 0.39},
        "pixels": {"knn": 0.32, "linear": 0.45},
    }
    found = decide({"knn": gap(8, 1), "linear": gap(1, 2)}, top1, BEFORE, 1000)
    assert found.outcome == "helped" and found.probe == "knn"
    assert found.sentence.endswith(
        "raw pixels reach 32.0 %, but 45.0 % by linear probe, where this backbone reaches 40.0 %."
    )


def test_fine_tuning_is_compared_with_training_from_scratch_and_with_no_pixels() -> None:
    top1 = TOP1 | {"pretrained": TOP1["pretrained"] | {"finetune": 0.8}, "scratch": {"finetune": 0.7}}
    before = BEFORE | {"finetune": "scratch"}
    gaps = {"knn": gap(1, 3), "linear": gap(5, 3), "finetune": gap(10, 1, level=level_for(3))}
    assert decide(gaps, top1, before, 500).sentence == (
        "Pretraining helped: fine-tuning 80.0 % against 70.0 % for the same network trained from scratch on the same "
        "labels, +10.0 points (98.3 % interval +9.0 to +11.0; 500 unseen pictures)."
    )
    started = {"linear": "initial", "finetune": "initial"}
    top1["initial"] = {"linear": 0.7, "finetune": 0.75}
    found = decide({"linear": gap(1, 3), "finetune": gap(5, 3)}, top1, started, 500, init_from="a.safetensors")
    assert "before training on these pictures (a.safetensors), fine-tuned on the same labels, +5.0" in found.sentence


def test_a_budget_of_labels_is_named_first() -> None:
    found = decide({"linear": gap(5, 1)}, TOP1, BEFORE, 1000, labels="1% of the labels")
    assert found.sentence.startswith("With 1% of the labels, pretraining helped: linear probe 71.2 %")
