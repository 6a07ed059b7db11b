import contextlib
import html
import io
import json
import re
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

import diptych
from diptych.api import learning
from diptych.commands.learning import PretrainArgs
from diptych.commands.ordering import order
from diptych.commands.parsing import parse_known
from diptych.config import with_settings
from diptych.errors import ConfigError, DataError, RunFolderError
from diptych.frozen import random_twin
from diptych.progress import Terminal
from diptych.recipes.book import DEFAULT, RECIPES, recipe
from diptych.runs import RunFolder
from diptych.training.card import saved_config

SETTINGS = tiny.SETTINGS | {"epochs": 1}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return str(
        tiny.paint(
            tmp_path_factory.mktemp("data") / "my pictures",
            *(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(10)),
        )
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory, pictures):
    """A finished run and what the call returned."""
    out = tmp_path_factory.mktemp("runs") / "run"
    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(said):
        result = diptych.pretrain(pictures, out, **SETTINGS)
    assert said.getvalue() == ""  # silent unless given a terminal
    return out, result


@pytest.fixture(scope="module")
def heard(tmp_path_factory, pictures):
    """A run of another seed in place of an earlier one, and what was said meanwhile.

    Its learning rate of 1e-300 is zero in float32: every weight keeps its first value to the last bit.
    """
    out = RunFolder.create(tmp_path_factory.mktemp("runs") / "run").path
    (out / "old.txt").write_text("an earlier run's")
    settings = SETTINGS | {"lr": 1e-300, "weight_decay": 0.0, "seed": 5}
    with contextlib.redirect_stdout(io.StringIO()) as results, contextlib.redirect_stderr(io.StringIO()) as said:
        diptych.pretrain(pictures, out, overwrite=True, terminal=Terminal(), **settings)
    assert results.getvalue() == ""
    return out, said.getvalue().splitlines()


@pytest.fixture(scope="module")
def proof(finished, pictures):
    return diptych.evaluate(finished[0], pictures, device="cpu")


def card(run):
    return json.loads((run / "run.json").read_text())


def parsed(command):
    """What the command line makes of a command."""
    program, verb, *words = shlex.split(command)
    assert (program, verb) == ("diptych", "pretrain")
    args, rest = parse_known("pretrain", PretrainArgs, words)
    return args, order("pretrain", args, rest, args.out)


def test_pretrain_says_what_the_run_came_to(finished):
    out, result = finished
    assert isinstance(result, diptych.RunResult)
    assert (result.run, result.status, result.steps, result.epochs) == (str(out), "finished", 5, 1.0)
    assert -1 <= result.loss <= 1 and result.seconds > 0 and result.images_per_second > 0 and result.warnings == []


def test_pretrain_leaves_a_complete_run_folder(finished):
    out, result = finished
    run = RunFolder(out)
    for path in (run.config, run.log, run.backbone, run.backbone_weights, run.report, run.checkpoints / "last"):
        assert path.exists(), path
    for path in (run.views, run.loss):
        with Image.open(path) as figure:
            assert figure.format == "PNG"
    assert [record["step"] for record in run.read_lines(run.metrics)] == list(range(5))
    assert card(out)["result"] == {name: value for name, value in asdict(result).items() if name != "run"}
    assert not run.quarantine.exists()


def test_settings_reach_the_run_by_their_names(finished, pictures):
    config = saved_config(RunFolder(finished[0]))
    assert config == learning.order(DEFAULT, pictures, None, SETTINGS).config
    assert (config.data, config.image_size, config.backbone) == (pictures, 16, "resnet20v2")
    assert (config.train.batch_size, config.train.epochs, config.train.precision) == (4, 1, "fp32")
    assert (config.method.projector_width, config.method.predictor_width) == (16, 8)


def test_a_terminal_hears_what_was_chosen_and_how_it_went(heard):
    out, said = heard
    choices = card(out)["choices"]
    assert choices and all(f"chose {choice['what']}: {choice['why']}" in said for choice in choices)
    assert said[-1].startswith("training 5/5 ")
    assert [line[20:] for line in (out / "log.txt").read_text().splitlines()] == said


def test_weights_that_were_never_moved_are_the_random_twins(heard):
    trained, twin = (call(heard[0], "cpu").module for call in (diptych.load, random_twin))
    weights = dict(twin.named_parameters())
    assert all(torch.equal(parameter, weights[name]) for name, parameter in trained.named_parameters())
    assert not torch.equal(next(trained.buffers()), next(twin.buffers()))  # running statistics: it did train


def test_training_moves_the_weights_away_from_the_random_twin(finished):
    trained, twin = (call(finished[0], "cpu").module for call in (diptych.load, random_twin))
    weights = dict(twin.named_parameters())
    assert not any(torch.equal(parameter, weights[name]) for name, parameter in trained.named_parameters())


def test_load_gives_features(finished, pictures):
    backbone = diptych.load(finished[0], device="cpu")
    assert isinstance(backbone, diptych.FrozenBackbone)
    files = sorted(Path(pictures).rglob("*.png"))
    assert backbone.embed(files).shape == (len(files), backbone.num_features) == (20, 256)


def test_evaluate_returns_what_it_writes(finished, proof):
    out, _ = finished
    assert json.loads((out / "evaluation" / "my-pictures.json").read_text()) == proof
    assert set(proof["contenders"]) == {"pretrained", "random", "pixels"}
    assert proof["data"]["test_pictures"] == 4 and proof["data"]["seen_in_pretraining"]


def test_the_report_tells_the_newest_verdict(finished, proof):
    out, _ = finished
    (out / "report.html").unlink()
    assert diptych.report(out) == out / "report.html"
    page = html.unescape((out / "report.html").read_text()).replace("\N{NO-BREAK SPACE}%", " %")
    assert proof["verdict"]["sentence"] in page


def test_a_finished_run_is_resumed_to_what_it_was(finished):
    out, result = finished
    before = (out / "backbone.safetensors").read_bytes()
    (out / "backbone.safetensors").write_bytes(before[:-7])
    with pytest.raises(RunFolderError, match="damaged.*write it again with `diptych pretrain --resume"):
        diptych.load(out)
    again = diptych.resume(out)
    assert (again.status, again.steps, again.loss) == (result.status, result.steps, result.loss)
    assert (out / "backbone.safetensors").read_bytes() == before


def test_a_run_is_not_resumed_with_other_settings(finished, pictures):
    other = learning.order(DEFAULT, pictures, None, SETTINGS | {"epochs": 2}).config
    with pytest.raises(RunFolderError, match="begun with other settings.*train.epochs is 1, not 2"):
        diptych.resume(finished[0], config=other)


def test_a_used_folder_is_refused(tmp_path, pictures):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="--resume .*--overwrite"):
        diptych.pretrain(pictures, tmp_path, **SETTINGS)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_an_earlier_run_is_overwritten_when_asked(heard):
    assert not (heard[0] / "old.txt").exists() and card(heard[0])["result"]["status"] == "finished"


@pytest.mark.parametrize(
    "wrong", [{"backbone": "resnet21v2"}, {"batch_size": 1000}, {"data_dir": "x"}, {"device": "tpu"}]
)
def test_what_is_refused_leaves_no_folder_behind(tmp_path, pictures, wrong):
    with pytest.raises(diptych.UserError):
        diptych.pretrain(pictures, tmp_path / "run", **SETTINGS | wrong)
    assert not (tmp_path / "run").exists()


def test_preview_draws_again_in_place_of_what_it_drew(tmp_path, pictures):
    path = tmp_path / "views.png"
    assert diptych.preview(pictures, path, **SETTINGS) == path
    with Image.open(path) as figure:
        assert figure.format == "PNG"
    first = path.read_bytes()
    diptych.preview(pictures, path, **SETTINGS, seed=1)
    assert path.read_bytes() != first


def test_preview_replaces_nobodys_picture(pictures):
    mine = next(Path(pictures).rglob("*.png"))
    before = mine.read_bytes()
    with pytest.raises(DataError, match="diptych did not draw it: choose another --out"):
        diptych.preview(pictures, mine, **SETTINGS)
    assert mine.read_bytes() == before


def test_preview_takes_the_views_of_the_recipe_named(tmp_path, pictures):
    drawn = []
    for settings in ({"recipe": "simsiam-cifar"}, {"recipe": "keras-simsiam"}, {"recipe": "simsiam-cifar"}):
        diptych.preview(pictures, tmp_path / "views.png", **settings)
        drawn.append((tmp_path / "views.png").read_bytes())
    assert drawn[0] == drawn[2] != drawn[1]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"epohcs": 3}, "unknown setting 'epohcs'; did you mean 'epochs'?"),
        ({"epochs": "three"}, "setting 'train.epochs' must be int, not 'three'"),
        ({"epochs": 0}, "--epochs must be 1 or more, not 0"),
        ({"crop_scale": (0.5,)}, "setting 'views.crop_scale' must hold 2 values, not 1"),
        ({"precision": "fp61"}, "setting 'train.precision' is 'fp61'; did you mean 'fp16'?"),
        ({"recipe": "simsaim"}, "unknown recipe 'simsaim'; did you mean 'simsiam'?"),
        ({"device": "tpu"}, "--device tpu cannot be used here"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(tmp_path, pictures, wrong, told):
    with pytest.raises(ConfigError, match=re.escape(told)) as caught:
        diptych.pretrain(pictures, tmp_path / "run", **SETTINGS | wrong)
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_pictures_that_are_not_there_are_refused(tmp_path):
    for call in (diptych.pretrain, diptych.preview):
        with pytest.raises(DataError, match="there is no"):
            call(str(tmp_path / "nothing"), tmp_path / "out")


def test_the_saved_command_gives_the_same_run_again(finished):
    out, _ = finished
    args, asked = parsed(card(out)["command"])
    assert args.out == str(out) and not args.overwrite and args.resume is None
    assert asked.config == saved_config(RunFolder(out))
    assert asked.command == card(out)["command"]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in RECIPES),
        (DEFAULT, {"limit": 12, "seed": 3, "epochs": 7, "image_size": 24}),
        (DEFAULT, {"lr": 1e-05, "lr_scaling": False, "warmup_epochs": 0.5, "backbone": "timm:resnet50"}),
        (DEFAULT, {"crop": "padded", "crop_padding": 4, "mean": (-0.1, 0.0, 1 / 3), "std": (1, 1, 1)}),
        ("keras-simsiam", {"crop_padding": 4}),  # a padded crop is this recipe's, not the skeleton's
        ("keras-simsiam", {"lr_scaling": True, "predictor_constant_lr": True, "patience": 0, "crop": "resized"}),
        ("simsiam-imagenet", {"predictor_constant_lr": False, "crop_scale": (0.08, 1.0), "jitter_order": "fixed"}),
    ],
)
def test_a_command_gives_the_order_that_it_was_made_of(pictures, name, settings):
    asked = learning.order(name, pictures, "runs/it's here", settings)
    assert asked.config == with_settings(recipe(name, pictures, settings).config, settings)
    args, again = parsed(asked.command)
    assert args.out == "runs/it's here" and again == asked


OTHERS = {
    "--image-size": 40,
    "--backbone": "resnet56v2",
    "--batch-size": 3,
    "--epochs": 9999,
    "--lr": 0.123,
    "--blur": 0.321,
    "--hue": 0.123,
}


def test_a_choice_that_the_user_overruled_is_left_out_and_the_others_stay(pictures):
    offered = recipe(DEFAULT, pictures).choices
    overruled = [flag for flag in OTHERS if any(flag in choice.what.split() for choice in offered)]
    assert len(overruled) > 3
    for flag in overruled:
        asked = learning.order(DEFAULT, pictures, None, {flag.removeprefix("--").replace("-", "_"): OTHERS[flag]})
        left = [choice.what.split()[0] for choice in asked.choices]
        assert left == [choice.what.split()[0] for choice in offered if flag not in choice.what.split()]


def test_a_run_does_not_call_its_users_settings_choices(finished):
    kept = " ".join(choice["what"] for choice in card(finished[0])["choices"]).split()
    assert kept and not {"--image-size", "--epochs"} & set(kept)


def test_every_name_that_the_package_offers_is_there():
    for name in diptych.__all__:
        assert getattr(diptych, name).__name__ == name and getattr(diptych, name).__doc__


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'diptych' has no attribute 'pretrian'"):
        diptych.pretrian  # noqa: B018


def test_catching_an_error_of_ours_loads_no_torch():
    code = "import sys; from diptych import UserError; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_search_waits_for_nothing_that_it_does_not_need():
    unneeded = "{'timm', 'sklearn', 'matplotlib', 'scipy', 'diptych.training', 'diptych.evaluation'}"
    code = (
        f"import sys, diptych, diptych.commands.vectors as _; diptych.search; assert not {unneeded} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
