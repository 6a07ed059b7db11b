"""The guard: each state and its boundaries on records as a run leaves them, and one real run for each way to fail."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import config as tiny_config
from tiny import lines, paint

from diptych.config import to_dict, with_settings
from diptych.methods import METHODS, VICRegConfig
from diptych.progress import Terminal
from diptych.training.config import RunConfig
from diptych.training.guard import (
    FEW,
    LONGER,
    LOW_RANK,
    LOW_STD,
    MOVED,
    SAFE,
    SAID,
    SETTLED,
    THROWN,
    WINDOW,
    Look,
    Remedy,
    Verdict,
    comparable,
    judge,
    remedies,
)
from diptych.training.order import Order
from diptych.training.recover import with_recovery
from diptych.training.run import pretrain

CONFIG = with_settings(RunConfig(data="x", backbone="resnet20v2"), {"batch_size": 64, "lr": 1.0, "epochs": 10})
PER_EPOCH = 16
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def record(step, **changes):
    """What a sound run of SimSiam has after some steps; a little noise, the same for every call."""
    noise = 1 + 0.01 * math.sin(7 * step)
    return {
        "step": step,
        "epoch": (step + 1) / PER_EPOCH,
        "loss": -0.7 * noise,
        "lr": 0.25,
        "embedding_std": 0.97 * noise,
        "effective_rank": 20.0 * noise,
        "alignment": 0.6 * noise,
        "uniformity": -1.9 * noise,
        "dead_dimensions": 0.0,
        "gradient_norm": 0.2 * noise,
        "weight_norm": 70.0,
    } | changes


START = [record(step, effective_rank=40.0 - step, alignment=1.0, loss=-0.02 * step) for step in range(WINDOW)]


def after(steps, **changes):
    """A run that began well, and has been otherwise for so many steps."""
    return [*START, *(record(step, **changes) for step in range(WINDOW, WINDOW + steps))]


def state(records, config=CONFIG, **options):
    return judge(records, config, **options).state


# States and their boundaries


def test_a_sound_run_is_healthy_and_says_by_what():
    verdict = judge(after(100), CONFIG)
    assert verdict.state == "healthy" and verdict.safe and not verdict.collapsed and verdict.advice == ()
    assert verdict.told.startswith("This run looks healthy: std × √d 0.97") and "20.0 of 63 dimensions" in verdict.told


def test_a_few_records_tell_nothing():
    broken = {"embedding_std": 0.0, "effective_rank": 1.0}
    verdict = judge([record(step, **broken) for step in range(WINDOW - 1)], CONFIG)
    assert verdict.state == "healthy" and not verdict.safe
    assert state([record(step, **broken) for step in range(WINDOW)]) == "complete collapse"
    assert judge([], CONFIG).state == "healthy"


def test_a_few_bad_batches_are_no_collapse():
    assert state([*after(50), *(record(60 + step, embedding_std=0.0) for step in range(WINDOW // 2))]) == "healthy"


def test_a_collapse_that_has_passed_is_none():
    assert state([*after(50, embedding_std=0.0), *(record(60 + step) for step in range(WINDOW))]) == "healthy"


@pytest.mark.parametrize(("std", "expected"), [(1.02, "healthy"), (0.98, "complete collapse")])
def test_complete_collapse_is_told_by_the_spread(std, expected):
    assert state(after(WINDOW, embedding_std=std * LOW_STD)) == expected


@pytest.mark.parametrize(("rank", "expected"), [(1.02, "healthy"), (0.98, "dimensional collapse")])
def test_dimensional_collapse_is_told_by_the_effective_rank(rank, expected):
    assert state(after(WINDOW, effective_rank=rank * LOW_RANK)) == expected


def test_the_keras_example_is_told_apart_by_its_spread():
    """Loss -0.994, std × √d 0.12, effective rank 10.6: a loss that looks good."""
    verdict = judge(after(WINDOW, loss=-0.994, embedding_std=0.12, effective_rank=10.6), CONFIG)
    assert verdict.state == "complete collapse" and "std × √d 0.12" in verdict.evidence[0]


def test_a_low_loss_of_well_spread_embeddings_is_no_collapse():
    assert state(after(WINDOW, loss=-0.99)) == "healthy"


@pytest.mark.parametrize(("throw", "expected"), [(1.02, "diverging"), (0.98, "healthy")])
def test_diverging_is_told_by_the_length_of_the_weights(throw, expected):
    records = after(WINDOW)
    for number, made in enumerate(records[-WINDOW:], start=1):
        made["weight_norm"] = 70.0 * math.exp(throw * THROWN * number)
    assert state(records) == expected
    shrinking = [made | {"weight_norm": 4900.0 / made["weight_norm"]} for made in records]
    assert state(shrinking) == expected


def test_a_change_of_the_weights_is_one_of_a_step_not_of_a_record():
    records = after(WINDOW)
    for number, made in enumerate(records[-WINDOW:], start=1):
        made["weight_norm"] = 70.0 * math.exp(1.5 * THROWN * number)
    sparse = [made | {"step": 2 * made["step"]} for made in records]
    assert state(records) == "diverging" and state(sparse) == "healthy"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"effective_rank": 0.9 * LOW_RANK}, "diverging"),
        ({"weight_norm": 70.0 * 1.1 * LONGER}, "diverging"),
        ({"weight_norm": 70.0 / (1.1 * LONGER)}, "diverging"),
        ({"weight_norm": 70.0 * 0.9 * LONGER}, "healthy"),
    ],
)
def test_what_too_large_steps_have_done_stays_with_them(changes, expected):
    """The steps are small by now, and it is the records that remember what the run was."""
    thrown = after(WINDOW, **changes, health="diverging")
    quiet = [record(len(thrown) + step, **changes, health=expected) for step in range(2 * WINDOW)]
    assert state([*thrown, *quiet]) == expected
    recovered = [record(len(thrown) + step, health="healthy") for step in range(2 * WINDOW)]
    assert state([*thrown, *recovered]) == "healthy"
    assert state([*thrown, *recovered, *quiet]) == expected


def test_the_evidence_of_a_divergence_tells_of_loss_weights_and_damage():
    records = [
        record(step, loss=22.0 * 1.2**step, weight_norm=70.0 * 1.1**step, effective_rank=2.0) for step in range(WINDOW)
    ]
    vicreg = replace(CONFIG, method=VICRegConfig())
    told = judge(records, vicreg).told
    for part in ("weights by 9.5%", "1.6 times as long", "loss has risen from 22 to", "2.0 of the 63 dimensions"):
        assert part in told, part
    moco = replace(CONFIG, method=METHODS["moco"]())
    assert "loss" not in "".join(judge(records, moco).evidence)  # which rises there while the queue fills


@pytest.mark.parametrize(("pictures", "expected"), [(FEW - 1, "data-starved"), (FEW, "healthy")])
def test_a_run_is_starved_where_a_step_sees_few_pictures_together(pictures, expected):
    ours = with_settings(CONFIG, {"batch_size": pictures})
    assert state(after(WINDOW), ours) == expected
    assert state(after(WINDOW), with_settings(CONFIG, {"batch_size": 4 * pictures}), processes=4) == expected
    assert state(after(WINDOW), with_settings(CONFIG, {"batch_size": 2 * pictures, "accumulate": 2})) == expected


def test_two_pictures_fill_one_dimension_and_that_is_no_collapse():
    starved = with_settings(CONFIG, {"batch_size": 2})
    assert state(after(WINDOW, effective_rank=1.0), starved) == "data-starved"


def unmoved(steps):
    """The embeddings of an untrained network, and the noise of batches."""
    return [record(step, effective_rank=40 + math.sin(7 * step), lr=2.5e-5) for step in range(steps)]


def test_a_run_that_goes_nowhere_is_not_learning():
    verdict = judge(unmoved(SETTLED), CONFIG)
    assert verdict.state == "not learning" and not verdict.collapsed
    assert "the learning rate is 2.5e-05" in verdict.told and "--lr 10" in verdict.told
    assert state(unmoved(SETTLED - 1)) == "healthy"


def test_the_warm_up_is_waited_for():
    slow = with_settings(CONFIG, {"warmup_epochs": 2.0})
    assert state(unmoved(SETTLED + 2 * PER_EPOCH - 1), slow) == "healthy"
    assert state(unmoved(SETTLED + 2 * PER_EPOCH), slow) == "not learning"


@pytest.mark.parametrize("key", ["embedding_std", "effective_rank", "alignment", "uniformity"])
def test_whatever_moves_is_learning(key):
    records = unmoved(SETTLED)
    by = 1.5 * MOVED / Look(records, CONFIG, 64).moved * abs(records[-1][key]) * 0.01
    moved = [*records[:-WINDOW], *(made | {key: made[key] + max(by, 0.05)} for made in records[-WINDOW:])]
    assert state(moved) == "healthy"


def test_a_loss_that_falls_by_itself_is_no_learning():
    """SimSiam's predictor learns a little whatever the embeddings do."""
    assert state([made | {"loss": -0.001 * made["step"]} for made in unmoved(SETTLED)]) == "not learning"


def test_the_gravest_state_is_said():
    worst = {"embedding_std": 0.0, "effective_rank": 1.0}
    few = with_settings(CONFIG, {"batch_size": FEW - 1})
    thrown = [made | {"weight_norm": 70.0 * 1.1 ** made["step"]} for made in after(WINDOW, **worst)]
    assert [state(thrown, few), state(after(WINDOW, **worst), few)] == ["diverging", "complete collapse"]
    assert state(after(WINDOW, effective_rank=1.0)) == "dimensional collapse"
    assert state(unmoved(SETTLED), few) == "data-starved"


@pytest.mark.parametrize(
    "changes", [{"embedding_std": 0.9 * SAFE * LOW_STD}, {"effective_rank": 0.9 * SAFE * LOW_RANK}], ids=str
)
def test_a_state_near_a_collapse_is_healthy_and_none_to_go_back_to(changes):
    verdict = judge(after(WINDOW, **changes), CONFIG)
    assert verdict.state == "healthy" and not verdict.safe


def test_only_records_of_this_method_and_version_are_judged_together():
    old = [{"step": 0, "loss": 1.0}]
    records = [*old, *({"step": step, "health": "healthy"} for step in range(1, 9))]
    for begun, first in ((0, 1), (4, 4)):
        assert [made["step"] for made in comparable(records, begun)] == list(range(first, 9))


# Advice and remedies


def test_advice_carries_the_runs_own_values_and_flags():
    told = judge(after(WINDOW, effective_rank=3.0), CONFIG).told
    for part in (
        "(1) a lower learning rate: --lr 0.25 (now 1: a peak of 0.25; weight decay 0.0001)",
        "(2) a longer warm-up: --warmup-epochs 2.25 (now 0 epochs)",
        "(3) stronger views: --brightness 0.8 --contrast 0.8 --saturation 0.8 --hue 0.2 --crop-scale 0.1 1.0",
        "jitter with probability 0.8 at strengths 0.4/0.4/0.4/0.1, grayscale 0.2, blur 0.5",
        "(4) another method: --method vicreg --projector-width 2048",
        "(5) another backbone or heads (now resnet20v2, projector 2048 → 2048 → 2048",
    ):
        assert part in told, part


def verdict(state, epoch=2.5):
    return Verdict(state=state, evidence=("x",), epoch=epoch)


@pytest.mark.parametrize(
    ("state", "changes"),
    [
        ("healthy", []),
        ("complete collapse", ["a lower learning rate", "a longer warm-up", "stronger views", "another method"]),
        ("dimensional collapse", ["a lower learning rate", "a longer warm-up", "stronger views", "another method"]),
        ("diverging", ["a tenth of the learning rate, 0.1", "a longer warm-up", "another method"]),
        ("not learning", ["a higher learning rate", "another method"]),
        ("data-starved", ["larger batches"]),
    ],
)
def test_remedies_come_in_order(state, changes):
    assert [remedy.change for remedy in remedies(verdict(state), CONFIG)] == changes


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("state", ["complete collapse", "diverging", "not learning"])
def test_every_remedy_makes_a_configuration_that_differs(method, state):
    config = replace(CONFIG, method=METHODS[method]())
    for remedy in remedies(verdict(state), config):
        changed = with_recovery(config, dict(remedy.settings))
        assert changed != config and remedy.now, remedy.change
        if "method" in remedy.settings:
            assert changed.method.name == ("barlow" if method == "vicreg" else "vicreg")


def test_a_diverging_run_may_go_down_by_tenths():
    (first, *_) = remedies(verdict("diverging"), CONFIG)
    (second, *_) = remedies(verdict("diverging"), with_recovery(CONFIG, dict(first.settings)))
    assert (second.settings, second.change != first.change) == ({"lr": 0.01}, True)


def test_a_longer_warm_up_ends_after_the_point_at_which_it_went_wrong():
    (remedy,) = (r for r in remedies(verdict("diverging", epoch=7.5), CONFIG) if "warmup_epochs" in r.settings)
    assert remedy.settings == {"warmup_epochs": 8.5}


def test_views_that_are_as_strong_as_can_be_are_no_remedy():
    strong = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2, "crop_scale": (0.08, 1.0)}
    assert "stronger views" not in [
        r.change for r in remedies(verdict("complete collapse"), with_settings(CONFIG, strong))
    ]
    gray = {"saturation": 0.0, "hue": 0.0, "crop": "padded"}
    (remedy,) = (
        r for r in remedies(verdict("complete collapse"), with_settings(CONFIG, gray)) if r.change == "stronger views"
    )
    assert remedy.settings == {"brightness": 0.8, "contrast": 0.8}


def test_a_remedy_is_told_as_it_is_typed():
    remedy = Remedy(change="larger pictures", settings={"image_size": 64}, now="now 32")
    assert remedy.told == "larger pictures: --image-size 64 (now 32)"


# Real runs, seconds each; benchmarks/guard.py has more and longer ones


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("data"), *(f"{number:03}.png" for number in range(64)))


def trained(folder, data, settings, maimed=None):
    """Train 48 steps of 32, 16 px, and return the states of its records, in the order in which they came."""
    asked = {"backbone": "resnet11v2", "batch_size": 32, "epochs": 24, "projector_width": 64, "predictor_width": 16}
    config = tiny_config(data, **{**asked, "lr": 1.0, "weight_decay": 5e-4, **settings})
    if maimed:
        config = replace(config, method=maimed(**to_dict(config.method)))
    result = pretrain(Order(config=config, recipe="simsiam"), folder, terminal=Terminal())
    states = [record["health"] for record in lines(folder / "metrics.jsonl")]
    return list(dict.fromkeys(states)), result


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["healthy"]),
        ({"lr": 100.0}, ["healthy", "diverging"]),
        ({"lr": 1e-4}, ["healthy", "not learning"]),
        ({"batch_size": 2, "epochs": 1}, ["healthy", "data-starved"]),
    ],
    ids=["sound", "diverging", "not learning", "starved"],
)
def test_a_real_run_is_told(tmp_path, pictures, settings, expected):
    states, _ = trained(tmp_path / "run", pictures, settings)
    assert states == expected
    said = [line for line in (tmp_path / "run" / "log.txt").read_text().splitlines() if "Warning: This run" in line]
    assert len(said) == len(expected) - 1 and all(SAID[expected[-1]] in line for line in said)


@pytest.mark.parametrize("without", ["stop-gradient", "predictor"])
def test_a_real_collapse_is_told(tmp_path, pictures, without, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    from collapse import MAIMED

    states, result = trained(tmp_path / "run", pictures, {"lr": 5.0}, MAIMED[without])
    assert states == ["healthy", "dimensional collapse"]
    assert "dimensional collapse" in result.warnings[0] and "--method vicreg" in result.warnings[0]
