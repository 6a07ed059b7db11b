import hashlib
import json
import os
import pickle
import re
import shutil
import subprocess
import sys

import pytest
import torch
from tiny import tree
from torch import nn

from diptych import checkpoint
from diptych.checkpoint import META, STATE, WEIGHTS, Progress
from diptych.errors import RunFolderError
from diptych.optim.build import build_optimizer
from diptych.optim.config import OptimConfig
from diptych.types import ParameterGroup


def save(folder, step, *links, keep=2, **state):
    weights = {"w": torch.full((3,), float(step))}
    state = {"optimizer": {"lr": 0.1, "m": [torch.ones(2)]}} | state
    return checkpoint.save(folder, weights, state, Progress(step=step, best=0.5), links=links, keep=keep)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(path):
    """The one line that says why a checkpoint is not loaded."""
    with pytest.raises(RunFolderError) as refusal:
        checkpoint.load(path)
    assert "\n" not in str(refusal.value)
    return str(refusal.value)


def test_round_trip(tmp_path):
    assert save(tmp_path, 5) == tmp_path / "step-000005"
    point = checkpoint.load(tmp_path / "last")
    assert torch.equal(point.weights["w"], torch.full((3,), 5.0))
    assert point.state["optimizer"]["lr"] == 0.1 and point.progress == Progress(step=5, best=0.5)


# What is kept


def test_what_links_point_to_and_the_newest_are_kept_and_nothing_else(tmp_path):
    save(tmp_path, 1, "healthy")
    save(tmp_path, 2, "best")
    for step in range(3, 7):
        save(tmp_path, step)
    kept = ["step-000001", "step-000002", "step-000005", "step-000006"]
    assert names(tmp_path) == ["best", "healthy", "last", *kept]
    assert [checkpoint.load(tmp_path / link).progress.step for link in ("healthy", "best", "last")] == [1, 2, 6]


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_are_kept_as_is_asked(tmp_path, keep):
    for step in range(1, 6):
        save(tmp_path, step, keep=keep)
    assert names(tmp_path) == ["last", *(f"step-{step:06d}" for step in range(6 - keep, 6))]


def test_they_are_kept_by_their_steps_when_a_copy_has_lost_their_times(tmp_path):
    for step in (1, 2):
        save(tmp_path, step)
    os.utime(tmp_path / "step-000001", (2e9, 2e9))
    save(tmp_path, 3)
    assert names(tmp_path) == ["last", "step-000002", "step-000003"]


def test_what_a_link_points_to_is_never_written_over(tmp_path):
    first = save(tmp_path, 7, "best")
    before = tree(first)
    second = save(tmp_path, 7)
    assert second.name == "step-000007.2" and tree(first) == before
    assert [os.readlink(tmp_path / link) for link in ("best", "last")] == [first.name, second.name]
    assert checkpoint.load(tmp_path / "last").progress.step == 7
    assert save(tmp_path, 7, "best").name == "step-000007.3"
    assert names(tmp_path) == ["best", "last", "step-000007.2", "step-000007.3"]


def test_what_no_link_points_to_is_written_over(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    (tmp_path / "last").unlink()
    (tmp_path / "last").symlink_to("step-000001")
    (tmp_path / "step-000002" / STATE).unlink()
    save(tmp_path, 2)
    assert names(tmp_path) == ["last", "step-000001", "step-000002"]
    assert checkpoint.load(tmp_path / "last").progress.step == 2


def test_going_back_gives_up_what_came_after_and_links_to_it(tmp_path):
    save(tmp_path, 1, "best", "healthy")
    save(tmp_path, 2, "healthy")
    save(tmp_path, 3)
    save(tmp_path, 4, "best")
    assert checkpoint.go_back(tmp_path, "healthy") == 2
    assert names(tmp_path) == ["healthy", "last", "step-000002"]
    assert {checkpoint.load(tmp_path / link).progress.step for link in ("healthy", "last")} == {2}


def test_going_back_leaves_links_to_what_came_before(tmp_path):
    save(tmp_path, 1, "best")
    save(tmp_path, 2, "healthy")
    save(tmp_path, 3)
    checkpoint.go_back(tmp_path, "healthy")
    assert [os.readlink(tmp_path / link) for link in ("best", "last")] == ["step-000001", "step-000002"]


def test_a_folder_of_the_users_own_is_let_be(tmp_path):
    (tmp_path / "step-by-step").mkdir()
    save(tmp_path, 1)
    assert "step-by-step" in names(tmp_path) and checkpoint.load(tmp_path / "last").progress.step == 1


# What killed processes leave behind


def left_behind(folder, process, host=None):
    """A checkpoint half written, and a link half moved."""
    end = f"{host or os.uname().nodename}.{process}.tmp"
    (folder / f".step-000009.{end}").mkdir(parents=True)
    (folder / f".step-000009.{end}" / WEIGHTS).write_bytes(b"half")
    (folder / f".last.{end}").symlink_to("step-000009")


def test_leftovers_of_dead_processes_and_our_own_are_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left_behind(tmp_path, dead.pid)
    left_behind(tmp_path, os.getpid())
    save(tmp_path, 1)
    assert names(tmp_path) == ["last", "step-000001"]


@pytest.mark.parametrize("host", [None, "elsewhere"])
def test_those_of_processes_that_may_be_running_are_not(tmp_path, host):
    left_behind(tmp_path, os.getppid(), host)
    before = tree(tmp_path)
    save(tmp_path, 1)
    assert before.items() <= tree(tmp_path).items() and len(before) == 2


# What is not loaded


def cut_short(file):
    file.write_bytes(file.read_bytes()[:-7])


def alter(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def swap(file):
    """Take another checkpoint's."""
    shutil.copy(file.parent.parent / "step-000001" / file.name, file)


def remove(file):
    file.unlink()


@pytest.mark.parametrize("name", [WEIGHTS, STATE, META])
@pytest.mark.parametrize("damage", [cut_short, alter, swap, remove])
def test_what_is_not_as_it_was_written_is_refused(tmp_path, name, damage):
    save(tmp_path, 1)
    save(tmp_path, 2, other=1)
    damage(tmp_path / "step-000002" / name)
    what = "is missing" if damage is remove else "is cut short or altered"
    if (name, damage) == (META, swap):
        what = "tells of step 1: it was moved here from another checkpoint"
    assert refused(tmp_path / "last") == (
        f"checkpoint {tmp_path}/step-000002 is damaged ({name} {what}); to go on from the one before it, type "
        f"`ln -sfn step-000001 {tmp_path}/last` and resume again"
    )


def test_every_bit_of_a_manifest_counts(tmp_path):
    file = save(tmp_path, 1) / META
    whole = file.read_bytes()
    for place in range(len(whole)):
        if whole[place : place + 1].isspace():
            continue
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(RunFolderError):
            checkpoint.load(tmp_path / "last")


def test_a_folder_under_another_ones_name_is_refused(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    shutil.rmtree(tmp_path / "step-000002")
    shutil.copytree(tmp_path / "step-000001", tmp_path / "step-000002")
    assert "tells of step 1: it was moved here from another checkpoint" in refused(tmp_path / "last")


def test_what_to_type_names_the_newest_that_is_whole(tmp_path):
    for step in (1, 2, 3):
        save(tmp_path, step, keep=3)
    cut_short(tmp_path / "step-000003" / STATE)
    cut_short(tmp_path / "step-000002" / WEIGHTS)
    line = refused(tmp_path / "last")
    subprocess.run(re.search("`(ln .*)`", line)[1], shell=True, check=True)
    assert checkpoint.load(tmp_path / "last").progress.step == 1


def test_a_link_that_is_lost_can_be_made_again(tmp_path):
    save(tmp_path, 1, "best")
    (tmp_path / "best").unlink()
    assert refused(tmp_path / "best") == (
        f"there is no checkpoint {tmp_path}/best; to go on from the one before it, type `ln -sfn step-000001 "
        f"{tmp_path}/best` and resume again"
    )


def test_where_there_is_none_a_run_is_begun_again(tmp_path):
    assert refused(tmp_path / "last") == (
        f"there is no checkpoint {tmp_path}/last: this run cannot be resumed; start again with --overwrite"
    )
    cut_short(save(tmp_path, 1) / STATE)
    assert refused(tmp_path / "last").endswith("; it is the only one, so start again with --overwrite")


def forge(path, **changes):
    """Write a checkpoint's manifest anew, to match its files, as somebody would who means harm."""
    meta = json.loads((path / META).read_text()) | changes
    for name in (WEIGHTS, STATE):
        content = (path / name).read_bytes()
        meta["files"][name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    del meta["sha256"]
    meta["sha256"] = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
    (path / META).write_text(json.dumps(meta))


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_another_version_is_refused(tmp_path, version):
    forge(save(tmp_path, 1), schema_version=version)
    assert refused(tmp_path / "last") == (
        f"checkpoint {tmp_path}/step-000001 was written by another version of diptych (schema {version}, this one "
        "knows 2): resume with the version that run.json names, or start again with --overwrite"
    )


@pytest.mark.parametrize("progress", [{"step": "1"}, {"step": 1, "best": "high"}, {"step": 1, "more": 2}, {}, 1])
def test_a_forged_progress_is_refused(tmp_path, progress):
    forge(save(tmp_path, 1), progress=progress)
    assert "meta.json is cut short or altered" in refused(tmp_path / "last")


class Bomb:
    """Runs when it is unpickled."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("write", [torch.save, lambda bomb, file: file.write_bytes(pickle.dumps(bomb))])
def test_a_malicious_state_is_not_read_whatever_its_manifest_says(tmp_path, write):
    path, canary = save(tmp_path / "checkpoints", 1), tmp_path / "canary"
    write(Bomb(canary), path / STATE)
    forge(path)
    assert "(state.pt holds more than tensors, numbers and text, and was not read: it could run code)" in refused(path)
    assert not canary.exists()
    torch.load(path / STATE, weights_only=False) if write is torch.save else pickle.loads((path / STATE).read_bytes())
    assert canary.exists()  # the bomb was a live one


def test_weights_that_are_none_are_refused(tmp_path):
    path = save(tmp_path, 1)
    (path / WEIGHTS).write_bytes(pickle.dumps({"w": 1}))
    forge(path)
    assert "(weights.safetensors is no safetensors file)" in refused(path)


# Other networks


def network(width=4, bias=True):
    return nn.Sequential(nn.Conv2d(3, width, 3, bias=bias), nn.BatchNorm2d(width))


def optimizer_of(model, name="sgd", decay_all=True):
    groups = [ParameterGroup(parameters=list(model.parameters()))]
    return build_optimizer(groups, OptimConfig(optimizer=name, decay_all=decay_all))


def point_of(folder, model, optimizer, change=lambda state: state):
    """The checkpoint of a network that has taken a step."""
    model(torch.ones(2, 3, 5, 5)).square().mean().backward()
    optimizer.step()
    state = {"optimizer": change(optimizer.state_dict())}
    checkpoint.save(folder, model.state_dict(), state, Progress(step=1))
    return checkpoint.load(folder / "last")


def misfit(model, point, optimizer):
    """Why a checkpoint is not put to use; the network and its optimizer must be what they were."""
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(RunFolderError) as refusal:
        checkpoint.restore(model, point, optimizer)
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    assert not optimizer.state_dict()["state"]
    said = re.fullmatch(
        rf"checkpoint {point.path} belongs to another run \((.*)\): put this run's own checkpoints back, or start "
        "again with --overwrite",
        str(refusal.value),
    )
    return said[1]


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_a_network_and_its_optimizer_are_restored(tmp_path, name):
    first = network()
    point = point_of(tmp_path, first, optimizer := optimizer_of(first, name))
    second = network()
    checkpoint.restore(second, point, resumed := optimizer_of(second, name))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    own, theirs = resumed.state_dict()["state"], optimizer.state_dict()["state"]
    assert own.keys() == theirs.keys() and len(own) == 4
    assert all(torch.equal(own[n][key], theirs[n][key]) for n in own for key in own[n])


def test_weights_alone_are_restored_without_an_optimizer(tmp_path):
    first = network()
    point = point_of(tmp_path, first, optimizer_of(first))
    checkpoint.restore(second := network(), point)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"width": 8}, "0.weight is (8, 3, 3, 3) there, not (4, 3, 3, 3)"),
        ({"bias": False}, "it lacks 1 of the network's 7 weights: 0.bias"),
    ],
)
def test_weights_of_another_network_are_told_by_name(tmp_path, theirs, said):
    other, own = network(**theirs), network()
    point = point_of(tmp_path, other, optimizer_of(other))
    assert misfit(own, point, optimizer_of(own)) == said


def test_weights_that_the_network_has_not_are_told_by_name(tmp_path):
    other, own = network(), network()[:1]
    point = point_of(tmp_path, other, optimizer_of(other))
    said = misfit(own, point, optimizer_of(own))
    assert re.fullmatch(r"it holds 5 weights that the network has not: (1\.\w+, ){2}1\.\w+ and 2 more", said)


@pytest.mark.parametrize(
    ("theirs", "own", "said"),
    [
        ({"decay_all": False}, {}, r"its optimizer moves groups of \[1, 3\] weights, not \[4\]"),
        ({}, {"name": "adamw"}, "its optimizer has dampening, .*momentum, nesterov, not .*betas, .*"),
        ({"name": "adamw"}, {}, "its optimizer has .*betas, .*, not dampening, momentum, nesterov"),
        ({"name": "lars"}, {}, "its optimizer has adapt, not dampening, .*nesterov"),
    ],
)
def test_another_optimizer_is_told(tmp_path, theirs, own, said):
    model, second = network(), network()
    point = point_of(tmp_path, model, optimizer_of(model, **theirs))
    assert re.fullmatch(said, misfit(second, point, optimizer_of(second, **own)))


def test_an_optimizers_moments_of_another_shape_are_told_by_name(tmp_path):
    def reshape(state):
        state["state"][3]["momentum_buffer"] = torch.zeros(2, 2)
        return state

    model, second = network(), network()
    point = point_of(tmp_path, model, optimizer_of(model), reshape)
    assert misfit(second, point, optimizer_of(second)) == (
        "the optimizer's momentum_buffer of 1.bias is (2, 2) there, not (4,)"
    )


def test_a_state_without_an_optimizer_is_told(tmp_path):
    model, second = network(), network()
    point = point_of(tmp_path, model, optimizer_of(model), lambda state: [])
    assert misfit(second, point, optimizer_of(second)) == "its state.pt holds no optimizer"
