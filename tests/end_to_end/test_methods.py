"""Every method from the command line and from Python: its own flags, a whole run, and what is refused."""

import json

import pytest
import tiny
from in_process import run_command

import diptych
from diptych.api import learning
from diptych.methods import ALL_METHODS, METHODS
from diptych.recipes.book import FITTED, methods
from diptych.runs import RunFolder
from diptych.training.card import saved_config
from diptych.training.order import flags

PICTURES = {"image_size": 16, "batch_size": 4, "epochs": 1, "precision": "fp32"}
WIDTHS = {
    "projector_width": 16,
    "projector_dim": 8,
    "predictor_width": 8,
    "prototypes": 12,
    "queue_size": 8,
    "slices": 8,
}


def settings(name):
    """Settings with which a run of any method takes a second."""
    fields = METHODS[name].__dataclass_fields__
    small = {key: value for key, value in WIDTHS.items() if key in fields}
    return PICTURES | small | ({"local_size": 8} if name in ("swav", "lejepa", "dino") else {})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tiny.flat(tmp_path_factory.mktemp("methods") / "pictures", 12)


@pytest.mark.parametrize("name", METHODS)
def test_a_whole_run(name, pictures, tmp_path):
    result = diptych.pretrain(pictures, tmp_path / "run", method=name, device="cpu", **settings(name))
    assert (result.status, result.steps) == ("finished", 3)
    card = json.loads((tmp_path / "run" / "run.json").read_text())
    assert card["recipe"] == name == card["config"]["method"]["name"]
    assert saved_config(RunFolder(tmp_path / "run")).method == METHODS[name](**card["config"]["method"])
    assert f"--method {name}" in card["command"]
    backbone = diptych.load(tmp_path / "run", "cpu")
    assert backbone.embed([next(pictures.iterdir())]).isfinite().all()


def test_every_method_has_a_recipe_and_is_listed():
    assert list(FITTED) == list(ALL_METHODS) == [entry.name for entry in methods()]
    assert all(entry.idea and entry.paper and entry.needs and entry.measured for entry in methods())


def test_methods_are_printed():
    assert run_command("methods")[1].splitlines()[0::5] == list(ALL_METHODS)
    listed = json.loads(run_command("methods", "--json")[1])["methods"]
    assert [entry["name"] for entry in listed] == list(ALL_METHODS)
    assert all(set(entry) == {"name", "idea", "paper", "needs", "measured"} for entry in listed)


def test_a_method_brings_its_own_flags(pictures, tmp_path):
    words = ("pretrain", pictures, "--out", tmp_path / "run", "--method", "byol", "--ema-momentum", "0.5")
    code, _, said = run_command(*words, *flags(settings("byol")))
    assert code == 0, said
    assert saved_config(RunFolder(tmp_path / "run")).method.ema_momentum == 0.5
    code, _, said = run_command("pretrain", "--resume", tmp_path / "run", "--ema-momentum", "0.9")
    assert code == 2 and "method.ema_momentum is 0.5, not 0.9" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--method", "boyl"), "unknown method 'boyl'; did you mean 'byol'?"),
        (("--method", "byol", "--predictor-order", "relu-norm"), "unknown option '--predictor-order'; did you mean"),
        (
            ("--recipe", "keras-simsiam", "--method", "byol"),
            "--recipe keras-simsiam learns by another method: leave out --method byol",
        ),
        (("--method", "moco", "--queue-size", "0"), "--queue-size must be"),
    ],
)
def test_what_is_refused(words, told, pictures, tmp_path):
    code, out, said = run_command("pretrain", pictures, "--out", tmp_path / "run", *words)
    assert (code, out) == (2, "") and told in said and len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_patches_has_no_views_to_preview(pictures, tmp_path):
    code, _, said = run_command("preview", pictures, "--method", "patches", "--out", tmp_path / "views.png")
    assert code == 2 and "patches makes no views, so there is nothing to draw" in said
    assert not (tmp_path / "views.png").exists()


def test_help_shows_the_flags_of_the_method():
    assert "--ema-momentum" not in run_command("pretrain", "--help")[1]
    assert "--ema-momentum" in run_command("pretrain", "--method", "byol", "--help")[1]


def test_a_method_and_its_recipe_are_the_same(pictures):
    assert learning.order("byol", pictures, None, {}) == learning.order(
        learning.recipe_for("byol", None), pictures, None, {}
    )
    assert (
        learning.recipe_for("byol", "byol") == "byol"
        and learning.recipe_for("simsiam", "simsiam-cifar") == "simsiam-cifar"
    )
    assert learning.recipe_for(None, None) == "simsiam"


def test_patches_needs_no_gradients(tmp_path):
    data = tiny.paint(tmp_path / "pictures", *(f"{kind}/{number}.png" for kind in "ab" for number in range(12)))
    small = ("--image-size", "16", "--backbone", "patches:12", "--device", "cpu")
    code, out, said = run_command("pretrain", data, "--out", tmp_path / "run", "--method", "patches", *small)
    assert code == 0, said
    assert "no loss" in out
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {
        *(".diptych-run", "run.json", "log.txt", "backbone.safetensors", "backbone.json", "report.html", "pictures.npy")
    }
    assert diptych.load(tmp_path / "run", "cpu").embed([data / "a" / "0.png"]).shape == (1, 9 * 12)
    proof = diptych.evaluate(tmp_path / "run", data, device="cpu")
    assert list(proof["contenders"]) == ["pretrained", "random", "pixels"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Nothing was trained" in page and "no loss" in page
    code, _, said = run_command("pretrain", "--resume", tmp_path / "run")
    assert code == 2 and "cannot be resumed" in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--method", "patches", "--epochs", "5"), "patches makes no views and takes no steps: leave out --epochs"),
        (("--method", "patches", "--blur", "0.5"), "leave out --blur"),
        (
            ("--method", "patches", "--backbone", "resnet20v2"),
            "--method patches and --backbone patches:FILTERS go together",
        ),
        (
            ("--method", "byol", "--backbone", "patches:64"),
            "--method patches and --backbone patches:FILTERS go together",
        ),
        (("--method", "patches", "--backbone", "patches:many"), "type patches:1024"),
        (
            ("--backbone", "timm:vit_tiny_patch16_224", "--image-size", "65"),
            "choose another --image-size or --backbone",
        ),
        (("--method", "patches", "--patch-whitening", "nan"), "--patch-whitening must be more than 0"),
        (
            ("--method", "moco", "--patience", "3"),
            "the losses of moco do not compare along a run",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(words, told, pictures, tmp_path):
    code, out, said = run_command("pretrain", pictures, "--out", tmp_path / "run", *words)
    assert (code, out) == (2, "") and told in said and len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()
