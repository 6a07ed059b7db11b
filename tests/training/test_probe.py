import shutil

import pytest
import torch
from safetensors.torch import load_file
from tiny import config, flat, lines, paint, tree

from diptych import checkpoint
from diptych.api.learning import evaluator_for
from diptych.config import from_dict
from diptych.distributed import World
from diptych.errors import ConfigError, DataError
from diptych.evaluation import online
from diptych.frozen import load
from diptych.progress import Terminal
from diptych.runs import RunFolder
from diptych.training import loop
from diptych.training.config import RunConfig
from diptych.training.order import Order
from diptych.training.run import pretrain, resume

PER_EPOCH = 3
MEASURED = ("neighbour_stability", "knn_top1", "linear_top1")
TIMED = {"seconds", "images_per_second", "wait_fraction"}


@pytest.fixture(autouse=True)
def every_epoch(monkeypatch):
    """Neighbours are compared after every epoch, however short."""
    monkeypatch.setattr(online, "SHARE", 100.0)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return flat(tmp_path_factory.mktemp("data") / "pictures", 8 * PER_EPOCH)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    names = [f"{name}/{number}.png" for name in ("a", "b") for number in range(10)]
    return paint(tmp_path_factory.mktemp("labelled") / "classes", *names)


def order(data, /, **settings):
    return Order(config=config(data, **({"batch_size": 8, "epochs": 3} | settings)), recipe="none")


def followed(run):
    """What was measured on the frozen backbone, by the step of its record."""
    found = {r["step"]: {name: r[name] for name in MEASURED if name in r} for r in lines(run / "metrics.jsonl")}
    return {step: values for step, values in found.items() if values}


def ends(run):
    """All that the last checkpoint of a run holds of its weights and its optimizer."""
    point = checkpoint.load(run / "checkpoints" / "last")
    momenta = {str(key): value["momentum_buffer"] for key, value in point.state["optimizer"]["state"].items()}
    return point.weights | momenta


def trained(run):
    """What every record says of training itself."""
    records = lines(run / "metrics.jsonl")
    return [{name: value for name, value in r.items() if name not in (*TIMED, *MEASURED)} for r in records]


def assert_same(run, other):
    assert ends(run).keys() == ends(other).keys()
    assert all(torch.equal(tensor, ends(other)[name]) for name, tensor in ends(run).items())
    assert trained(run) == trained(other)


def test_training_is_the_same_bit_by_bit_with_and_without_being_measured(tmp_path, pictures, labelled):
    pretrain(order(pictures), tmp_path / "without")
    watched = order(pictures, probe=str(labelled))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    pretrain(watched, tmp_path / "with", evaluator=evaluator_for)
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(tmp_path / "with", tmp_path / "without")
    assert not followed(tmp_path / "without")
    assert {step: set(values) for step, values in followed(tmp_path / "with").items()} == {
        2: {"knn_top1", "linear_top1"},
        5: set(MEASURED),
        8: set(MEASURED),
    }


@pytest.mark.parametrize("step", [6, 7])
def test_a_run_cut_off_anywhere_in_an_epoch_measures_the_same(tmp_path, monkeypatch, pictures, labelled, step):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    asked, whole, run = order(pictures, epochs=4, keep=20, probe=str(labelled)), tmp_path / "whole", tmp_path / "run"
    pretrain(asked, whole, evaluator=evaluator_for)
    shutil.copytree(whole, run, symlinks=True)
    (run / "checkpoints" / "last").unlink()
    (run / "checkpoints" / "last").symlink_to(f"step-{step:06}")
    (run / "backbone.safetensors").unlink()
    assert resume(run, config=asked.config, evaluator=evaluator_for).status == "finished"
    assert_same(run, whole)
    assert followed(run) == followed(whole) and followed(run)[8]["neighbour_stability"] < 1
    kept = (checkpoint.load(x / "checkpoints" / "last").state["evaluation"]["neighbours"] for x in (run, whole))
    assert torch.equal(*kept)


def test_the_last_value_is_that_of_the_backbone_that_the_run_leaves(tmp_path, pictures, labelled):
    pretrain(order(pictures, probe=str(labelled)), tmp_path / "run", evaluator=evaluator_for)
    probe = evaluator_for(order(pictures, probe=str(labelled)).config, World(), Terminal(quiet=True)).probe
    assert online.accuracies(load(tmp_path / "run"), probe.labelled).items() <= followed(tmp_path / "run")[8].items()


def test_labels_that_choose_the_weights_are_named_as_such(tmp_path, pictures, labelled):
    for monitor in (None, "knn_top1"):
        run = RunFolder(tmp_path / str(monitor))
        pretrain(order(pictures, probe=str(labelled), best_by=monitor), run.path, evaluator=evaluator_for)
        said = run.read_card()["probe"]
        assert (said["name"], said["chose_weights"]) == (str(labelled), monitor is not None)
    values = {step: found["knn_top1"] for step, found in followed(run.path).items()}
    best = max(values, key=values.get) + 1
    assert checkpoint.load(run.checkpoints / "best").progress.step == best
    left, kept = load_file(run.backbone_weights), load_file(run.checkpoints / "best" / "weights.safetensors")
    assert all(torch.equal(tensor, kept[f"backbone.{name}"]) for name, tensor in left.items())


def test_a_run_without_labels_says_nothing_of_them(tmp_path, pictures):
    pretrain(order(pictures), tmp_path / "run", evaluator=evaluator_for)
    assert RunFolder(tmp_path / "run").read_card()["probe"] is None
    assert {step: set(values) for step, values in followed(tmp_path / "run").items()} == {
        5: {"neighbour_stability"},
        8: {"neighbour_stability"},
    }


def test_other_labelled_pictures_are_refused_on_resuming(tmp_path, pictures, labelled):
    data = shutil.copytree(labelled, tmp_path / "labelled")
    pretrain(order(pictures, epochs=1, probe=str(data)), tmp_path / "run", evaluator=evaluator_for)
    before = tree(tmp_path / "run")
    paint(data, "a/another.png")
    with pytest.raises(DataError, match="the labelled pictures in .*/labelled have changed since the run was begun"):
        resume(tmp_path / "run", evaluator=evaluator_for)
    assert tree(tmp_path / "run") == before
    (data / "a" / "another.png").unlink()
    assert resume(tmp_path / "run", evaluator=evaluator_for).status == "finished"


def test_labels_are_refused_before_anything_is_made(tmp_path, pictures):
    with pytest.raises(DataError, match="--probe .* cannot be used: .* has no labels"):
        pretrain(order(pictures, probe=str(pictures)), tmp_path / "run", evaluator=evaluator_for)
    with pytest.raises(ConfigError, match="--best-by neighbour_stability needs more than 20 pictures"):
        few = order(flat(tmp_path / "few", 16), best_by="neighbour_stability")
        pretrain(few, tmp_path / "run", evaluator=evaluator_for)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"best_by": "linear_top1"}, "--best-by linear_top1 needs labelled pictures: add --probe LABELLED"),
        ({"probe_every": 0}, "--probe-every must be 1 or more, not 0"),
        ({"probe_pictures": 7}, "--probe-pictures must be 8 or more, not 7"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, told):
    with pytest.raises(ConfigError, match=told):
        config("x", **settings)


def test_patches_has_no_epochs_to_follow():
    values = {"data": "x", "method": {"name": "patches"}, "backbone": "patches:64", "probe": {"probe": "y"}}
    with pytest.raises(ConfigError, match="patches has no epochs to follow: leave out --probe"):
        from_dict(RunConfig, values)
