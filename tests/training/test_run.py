import contextlib
import hashlib
import io
import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import SETTINGS, config, flat, lines, paint, tree, wait_until

import diptych
from diptych import checkpoint
from diptych.config import from_dict
from diptych.data.sources.open import open_data
from diptych.data.stores.digests import read_digests
from diptych.errors import DataError, RunFolderError
from diptych.progress import Terminal
from diptych.runs import RunFolder
from diptych.training import loop, recorder
from diptych.training.config import RunConfig
from diptych.training.guard import WINDOW
from diptych.training.order import Choice, Order
from diptych.training.run import pretrain, resume

# 14 pictures in batches of 4: three steps an epoch, two pictures left out of each, so that resuming in the middle of an
# epoch and at its end both occur.
LONG = SETTINGS | {"epochs": 20, "warmup_epochs": 2.0, "momentum": 0.9}
STEPS = 60


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return flat(tmp_path_factory.mktemp("data") / "pictures", 14)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pictures):
    """A run that nobody interrupted."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert diptych.pretrain(str(pictures), out, **LONG).status == "finished"
    return out


def order(data, /, **settings):
    return Order(config=config(data, **settings), recipe="none", choices=[Choice(what="a", why="b")], command="c d")


def losses(run):
    return [(record["step"], record["loss"]) for record in lines(run / "metrics.jsonl")]


def state(run):
    """Everything that the last checkpoint holds, and the backbone."""
    point = checkpoint.load(run / "checkpoints" / "last")
    momenta = {str(key): value["momentum_buffer"] for key, value in point.state["optimizer"]["state"].items()}
    return point.progress, load_file(run / "backbone.safetensors") | point.weights | momenta


def assert_same(run, other):
    """Two runs came to the same end, bit for bit, along the same loss curve."""
    (progress, tensors), (other_progress, other_tensors) = state(run), state(other)
    assert progress == other_progress and tensors.keys() == other_tensors.keys() and len(tensors) > 100
    assert all(torch.equal(tensors[name], other_tensors[name]) for name in tensors)
    assert losses(run) == losses(other)


# The seed


def test_a_seed_decides_every_loss_and_every_weight(tmp_path, pictures):
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        pretrain(order(pictures, epochs=2, seed=seed), tmp_path / name)
    assert len(losses(tmp_path / "first")) == 6
    assert_same(tmp_path / "first", tmp_path / "again")
    assert not {loss for _, loss in losses(tmp_path / "first")} & {loss for _, loss in losses(tmp_path / "other")}
    (_, first), (_, other) = state(tmp_path / "first"), state(tmp_path / "other")
    assert not torch.equal(first["backbone.stem.0.weight"], other["backbone.stem.0.weight"])


def test_the_random_numbers_of_the_program_around_it_do_not_matter(tmp_path, pictures):
    for name, seed in (("first", 5), ("again", 6)):
        torch.manual_seed(seed)
        pretrain(order(pictures, epochs=1), tmp_path / name)
    assert_same(tmp_path / "first", tmp_path / "again")


# Resuming


PRETRAIN = """
import json, sys, diptych
from diptych.training import loop
loop.CHECKPOINT_SECONDS = float(sys.argv[3])
print(diptych.pretrain(sys.argv[1], sys.argv[2], **json.loads(sys.argv[4])).status)
"""


def begin(pictures, out, seconds):
    """Start the long run in another process, with a checkpoint every so many seconds."""
    words = [sys.executable, "-c", PRETRAIN, str(pictures), str(out), str(seconds), json.dumps(LONG)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_a_run_stopped_by_sigterm_goes_on_to_the_same_end(tmp_path, pictures, whole):
    out = tmp_path / "run"
    process = begin(pictures, out, 3600)
    wait_until(lambda: len(losses(out)) >= 4, process)
    process.send_signal(signal.SIGTERM)
    assert process.communicate()[0] == "interrupted\n" and process.returncode == 0
    assert json.loads((out / "run.json").read_text())["result"]["status"] == "interrupted"
    assert 4 <= len(losses(out)) == checkpoint.load(out / "checkpoints" / "last").progress.step < STEPS
    assert not (out / "backbone.safetensors").exists()
    result = diptych.resume(out)
    assert (result.status, result.steps, result.epochs) == ("finished", STEPS, 20.0)
    assert_same(out, whole)


def test_a_run_killed_at_any_moment_goes_on_to_the_same_end(tmp_path, pictures, whole):
    out = tmp_path / "run"
    process = begin(pictures, out, 0.2)
    meta = out / "checkpoints" / "last" / "meta.json"

    def ahead():
        """Records have been written that the last checkpoint knows nothing of."""
        return meta.exists() and len(losses(out)) > json.loads(meta.read_text())["progress"]["step"]

    wait_until(ahead, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert checkpoint.load(out / "checkpoints" / "last").progress.step < STEPS
    assert diptych.resume(out).status == "finished"
    assert_same(out, whole)


def test_a_finished_run_has_nothing_left_to_do(tmp_path, whole):
    out = tmp_path / "run"
    shutil.copytree(whole, out, symlinks=True)
    assert diptych.resume(out).status == "finished"
    assert_same(out, whole)


def test_other_settings_are_refused_with_the_difference(whole):
    card = json.loads((whole / "run.json").read_text())["config"]
    asked = config(card["data"], **LONG | {"lr": 3.5, "epochs": 21})
    before = tree(whole)
    with pytest.raises(RunFolderError) as caught:
        resume(whole, config=asked)
    assert f"optim.lr is {card['optim']['lr']}, not 3.5" in str(caught.value)
    assert "train.epochs is 20, not 21" in str(caught.value)
    assert "batch_size" not in str(caught.value)
    assert "leave these flags out, or choose a new --out" in str(caught.value)
    assert tree(whole) == before


def test_the_same_settings_are_no_difference(tmp_path, pictures):
    settings = order(pictures, epochs=1)
    pretrain(settings, tmp_path / "run")
    assert resume(tmp_path / "run", config=settings.config).status == "finished"


def test_changed_pictures_are_refused(tmp_path):
    data, out = flat(tmp_path / "pictures", 4), tmp_path / "run"
    pretrain(order(data, epochs=1), out)
    before = tree(out)
    paint(data, "another.png")
    with pytest.raises(DataError, match="the pictures in .*/pictures have changed since the run was begun"):
        resume(out)
    assert tree(out) == before
    (data / "another.png").unlink()
    assert resume(out).status == "finished"


def test_a_damaged_checkpoint_is_refused_and_what_is_to_be_typed_works(tmp_path, monkeypatch, pictures):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    run, twin = tmp_path / "run", tmp_path / "twin"
    pretrain(order(pictures, epochs=2), run)
    shutil.copytree(run, twin, symlinks=True)
    weights = run / "checkpoints" / "last" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    before = tree(run)
    with pytest.raises(RunFolderError, match="step-000006 is damaged .weights.safetensors is cut short") as caught:
        resume(run)
    assert tree(run) == before
    typed = re.search("`(ln .*?)`", str(caught.value))[1]
    subprocess.run(typed, shell=True, check=True)
    assert resume(run).status == "finished"
    assert_same(run, twin)


def test_a_run_without_a_checkpoint_is_refused(tmp_path, pictures):
    out = tmp_path / "run"
    pretrain(order(pictures, epochs=1), out)
    shutil.rmtree(out / "checkpoints")
    with pytest.raises(RunFolderError, match="there is no checkpoint .*cannot be resumed; start again"):
        resume(out)


# Beginning with the weights of another run


@pytest.fixture(scope="module")
def warm(tmp_path_factory, whole):
    """A run that begins with the weights of ``whole``, on other pictures; and what it said."""
    folder = tmp_path_factory.mktemp("runs")
    data, out = flat(folder / "others", 10), folder / "warm"
    with contextlib.redirect_stderr(io.StringIO()) as said:
        pretrain(order(data, epochs=4, init_from=str(whole), mean=(0.5,) * 3), out, terminal=Terminal())
    return out, said.getvalue()


def test_training_begins_with_the_weights_of_a_run_and_the_folder_keeps_them(warm, whole):
    out, said = warm
    began, ended = (load_file(out / f"{name}.safetensors") for name in ("initial", "backbone"))
    assert (out / "initial.safetensors").read_bytes() == (whole / "backbone.safetensors").read_bytes()
    assert (out / "initial.safetensors").stat().st_mode == (out / "backbone.safetensors").stat().st_mode
    assert not torch.equal(began["stem.0.weight"], ended["stem.0.weight"])
    drift = torch.nn.functional.cosine_similarity(began["stem.0.weight"].flatten(), ended["stem.0.weight"].flatten(), 0)
    assert drift > 0.9  # that of two random networks is near 0
    card = json.loads((out / "run.json").read_text())
    assert card["initial"] == {
        "from": str(whole),
        "file": str(whole / "backbone.safetensors"),
        "sha256": hashlib.sha256((out / "initial.safetensors").read_bytes()).hexdigest(),
        "notes": [],
    }
    assert json.loads((out / "backbone.json").read_text())["init_from"] == str(whole)
    assert len(read_digests(RunFolder(out))) == 24


def test_what_it_normalises_by_is_said_and_saved_where_the_weights_knew_another(warm):
    out, said = warm
    (choice,) = json.loads((out / "run.json").read_text())["choices"][1:]
    assert choice["what"].startswith("--mean 0.5 0.5 0.5") and f"chose {choice['what']}: {choice['why']}" in said


def test_the_notes_of_the_weights_are_said_and_saved(tmp_path, pictures, whole, capsys):
    save_file(load_file(whole / "backbone.safetensors") | {"head.bias": torch.ones(2)}, tmp_path / "w.safetensors")
    asked = order(pictures, epochs=1, init_from=str(tmp_path / "w.safetensors"))
    pretrain(asked, tmp_path / "run", terminal=Terminal())
    (note,) = json.loads((tmp_path / "run" / "run.json").read_text())["initial"]["notes"]
    assert note.endswith("none of it: head.bias") and note in capsys.readouterr().err


def test_a_run_goes_on_to_the_same_end_when_the_source_of_its_weights_is_gone(tmp_path, monkeypatch, pictures, whole):
    source = shutil.copytree(whole, tmp_path / "source", symlinks=True)
    asked, run, twin = order(pictures, epochs=2, init_from=str(source)), tmp_path / "run", tmp_path / "twin"
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    pretrain(asked, twin)
    shutil.copytree(twin, run, symlinks=True)
    (run / "checkpoints" / "last").unlink()
    (run / "checkpoints" / "last").symlink_to("step-000005")
    (run / "backbone.safetensors").unlink()
    shutil.rmtree(source)
    assert resume(run, config=asked.config).status == "finished"
    assert_same(run, twin)


def test_to_go_on_from_other_weights_is_refused_as_every_other_setting_is(warm):
    out, _ = warm
    asked = from_dict(RunConfig, json.loads((out / "run.json").read_text())["config"])
    with pytest.raises(RunFolderError, match="init_from is .*/whole, not other.safetensors.: leave these flags out"):
        resume(out, config=replace(asked, init_from="other.safetensors"))


def test_weights_that_do_not_fit_are_refused_before_anything_is_made(tmp_path, pictures, whole):
    for impossible in ({"init_from": str(tmp_path / "none")}, {"init_from": str(whole), "channels": 1}):
        with pytest.raises(diptych.UserError, match="--init-from"):
            pretrain(order(pictures, epochs=1, **impossible), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_may_be_overwritten_by_one_that_begins_with_its_weights(tmp_path, pictures, whole):
    out = shutil.copytree(whole, tmp_path / "run", symlinks=True)
    pretrain(order(pictures, epochs=1, init_from=str(out)), out, overwrite=True)
    assert (out / "initial.safetensors").read_bytes() == (whole / "backbone.safetensors").read_bytes()


def test_a_run_that_begins_at_random_has_no_trace_of_it(whole):
    assert not list(whole.glob("*initial*"))
    assert json.loads((whole / "run.json").read_text())["initial"] is None
    assert json.loads((whole / "backbone.json").read_text())["init_from"] is None


# What is left behind


def test_run_json_says_all_that_a_repetition_needs(tmp_path, pictures):
    data = shutil.copytree(pictures, tmp_path / "mixed")
    (data / "broken.png").write_text("no picture")
    asked = order(data, epochs=1, max_bad=0.1)
    result = pretrain(asked, tmp_path / "run")
    card = json.loads((tmp_path / "run" / "run.json").read_text())
    assert from_dict(type(asked.config), card["config"]) == asked.config
    assert card["schema_version"] == 1 and card["diptych"] == metadata.version("diptych")
    assert (card["recipe"], card["command"], card["choices"]) == ("none", "c d", [{"what": "a", "why": "b"}])
    assert card["data"] == {
        "name": str(data),
        "note": f"{data} holds 15 pictures, without labels",
        "pictures": 14,
        "kept": "memory",
        "skipped": 1,
        "fingerprint": open_data(str(data)).train.fingerprint,
    }
    assert {name: card["versions"][name] for name in ("torch", "numpy")} == {
        name: metadata.version(name) for name in ("torch", "numpy")
    }
    assert card["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(diptych.__file__).parent, capture_output=True, text=True
    )
    assert card["git_commit"] == (head.stdout.strip() or None)
    assert (card["hardware"]["device"], card["hardware"]["processes"]) == ("cpu", 1)
    assert card["result"]["loss"] == result.loss == pytest.approx(sum(loss for _, loss in losses(tmp_path / "run")) / 3)
    assert (card["result"]["status"], card["result"]["steps"], card["result"]["warnings"]) == ("finished", 3, [])


def test_the_loss_of_a_run_whose_last_epoch_left_no_record_is_that_of_the_last_record(tmp_path, monkeypatch, pictures):
    monkeypatch.setattr(recorder, "RECORDS", 2)
    result = pretrain(order(pictures, epochs=5, batch_size=14), tmp_path / "run")
    assert result.loss == losses(tmp_path / "run")[-1][1]


def test_a_batch_of_two_pictures_is_not_taken_for_a_collapse(tmp_path, pictures):
    result = pretrain(order(pictures, epochs=2, batch_size=2), tmp_path / "run")
    assert result.steps > WINDOW
    assert min(record["embedding_std"] for record in lines(tmp_path / "run" / "metrics.jsonl")) > 0.5
    assert len(result.warnings) == 1 and "starved of data: a step sees 2 pictures" in result.warnings[0]


def test_pictures_of_views_and_loss_are_there(whole):
    for name in ("views.png", "loss.png"):
        with Image.open(whole / name) as figure:
            figure.load()
            assert figure.format == "PNG" and min(figure.size) > 100
            assert len(figure.convert("RGB").getcolors(1 << 24)) > 10  # something is drawn


def test_an_earlier_run_is_overwritten_only_if_asked_to_and_only_when_the_new_one_can_begin(tmp_path, pictures):
    out = tmp_path / "run"
    pretrain(order(pictures, epochs=1), out)
    before = tree(out)
    with pytest.raises(RunFolderError, match="is not empty"):
        pretrain(order(pictures, epochs=1), out)
    for impossible in ({"backbone": "resnet21v2"}, {"batch_size": 99}, {"data": str(tmp_path / "nowhere")}):
        with pytest.raises(diptych.UserError):
            pretrain(order(pictures, epochs=1, **impossible), out, overwrite=True)
    assert tree(out) == before
    pretrain(order(pictures, epochs=2), out, overwrite=True)
    assert len(losses(out)) == 6
