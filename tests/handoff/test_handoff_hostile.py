"""Odd names, places that change meanwhile, damaged runs, missing packages: one line each, and nothing is lost."""

import errno
import json
import os
import subprocess
import sys

import onnx
import pytest
import torch
import yaml
from handing import RGB, make_run, stored
from test_push import card_with
from tiny import flat, tree

from diptych import cli
from diptych.errors import ConfigError, DataError, RunFolderError
from diptych.handoff.card import last_name, without_folders
from diptych.handoff.export import export
from diptych.handoff.folders import refuse_used
from diptych.handoff.graph import PictureNetwork
from diptych.handoff.model_card import measured_in, model_card
from diptych.handoff.programs import run_onnx, trace, write_onnx
from diptych.handoff.push import _place, push
from diptych.progress import Terminal
from diptych.runs import write_json, writing_folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "own", flat(tmp_path_factory.mktemp("pictures"), 12))


def one_line(told):
    assert "\n" not in str(told.value) and str(told.value)
    return str(told.value)


# Names


@pytest.mark.parametrize("out", ["", ".", "/", ".."])
@pytest.mark.parametrize(("to", "said"), [("onnx", "a file NAME.onnx; type a name"), ("timm", "a folder NAME; type")])
def test_a_place_without_a_name(run, out, to, said):
    with pytest.raises(ConfigError, match=f"writes {said}"):
        export(run, out, to=to)


def test_what_stands_behind_a_dot_is_kept_unless_it_is_another_ending(run):
    with pytest.raises(ConfigError, match="type --out v1.2.onnx$"):
        export(run, "v1.2", to="onnx")
    with pytest.raises(ConfigError, match="type --out v1.onnx$"):
        export(run, "v1.pth", to="onnx")


@pytest.mark.parametrize("name", ["a" * 240 + ".safetensors", "a" * 300 + ".safetensors", "00.png/b.safetensors"])
def test_places_that_cannot_be(run, tmp_path, name):
    flat(tmp_path, 1)
    before = tree(tmp_path)
    with pytest.raises(RunFolderError, match="cannot write"):
        export(run, tmp_path / name, to="safetensors")
    assert tree(tmp_path) == before


def test_somebodys_home_that_is_nowhere_is_a_name_like_others(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = export(run, "~nobody-here/b.safetensors", to="safetensors")
    assert done.path.is_file() and done.path.parts[0] == "~nobody-here"
    assert push(run, "me/mine", told=str, dry_run="~nobody-here/dry").folder.is_dir()
    assert last_name("~nobody-here/b") == "b" and last_name("/") == "/" and last_name("sets/b") == "sets/b"
    assert without_folders("diptych pretrain ~nobody-here/a --out=~/b") == "diptych pretrain a --out=b"


@pytest.mark.parametrize(
    "repo",
    [
        "me/mine-",
        "me/mine.",
        "me/x.git",
        "me/" + "a" * 97,
        "m" * 97 + "/x",
        "m\u00e9/x",
        "me/\u00e9",
        "me/a--b",
        "me/x\n",
    ],
)
def test_names_that_the_hub_refuses_are_refused_before_anything_is_done(run, tmp_path, repo):
    with pytest.raises(ConfigError, match="is no name of a repository: type USER/NAME"):
        push(run, repo, told=str, dry_run=tmp_path / "dry")
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize("repo", ["m/x", "me/a.b-c_d", "me_/_x_".replace("/_", "/"), "0/" + "a" * 96])
def test_names_that_the_hub_takes(run, tmp_path, repo):
    assert push(run, repo, told=str, dry_run=tmp_path / "dry").repo == repo


@pytest.mark.parametrize("licence", ["mine \udc80", "\x1b[31mred", "a\u202eb"])
def test_a_licence_that_cannot_be_shown(run, tmp_path, licence):
    with pytest.raises(ConfigError, match="--licence '.*' holds what cannot be shown"):
        export(run, tmp_path / "b.safetensors", to="safetensors", licence=licence)


def test_a_licence_is_one_line(run, tmp_path):
    done = export(run, tmp_path / "b.safetensors", to="safetensors", licence=" CC\r\nBY\u2028 4.0 ")
    assert done.card.licence == "CC BY 4.0"
    assert export(run, tmp_path / "c.safetensors", to="safetensors", licence=" \n").card.licence == "not stated"


# What is there already, or appears meanwhile


class Meanwhile(Terminal):
    """Somebody who writes to the same place while the artefact is computed."""

    def __init__(self, act):
        super().__init__(quiet=True)
        self.act = act

    def say(self, text):
        self.act()


def test_what_appears_meanwhile_is_kept(run, tmp_path):
    file, folder = tmp_path / "b.safetensors", tmp_path / "dry"
    with pytest.raises(DataError, match="is there already"):
        export(run, file, to="safetensors", terminal=Meanwhile(lambda: file.write_bytes(b"mine")))
    assert file.read_bytes() == b"mine"
    with pytest.raises(DataError, match="is there already: choose another --dry-run$"):
        push(run, "me/mine", told=str, dry_run=folder, terminal=Meanwhile(lambda: (folder.mkdir(), flat(folder, 1))))
    assert sorted(tree(tmp_path)) == ["b.safetensors", "dry/00.png"]


def test_a_link_to_nothing_is_something(run, tmp_path):
    os.symlink("nothing", tmp_path / "b.safetensors")
    with pytest.raises(DataError, match="is there already"):
        export(run, tmp_path / "b.safetensors", to="safetensors")
    assert os.readlink(tmp_path / "b.safetensors") == "nothing"


def ours(folder):
    with writing_folder(folder) as place:
        write_json(place / "config.json", {"diptych": {}})
        (place / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_folder_of_ours_with_something_else_in_it_is_kept(tmp_path):
    folder = ours(tmp_path / "model")
    refuse_used(folder, option="--out", overwrite=True, is_folder=True)
    (folder / "thesis.tex").write_text("mine")
    with pytest.raises(DataError, match="holds other files too, so --overwrite will not delete it"):
        refuse_used(folder, option="--out", overwrite=True, is_folder=True)


def test_a_link_to_a_folder_is_replaced_and_what_it_points_to_is_kept(tmp_path):
    target = ours(tmp_path / "target")
    os.symlink(target, tmp_path / "model")
    before = tree(target)
    ours(tmp_path / "model")
    assert tree(target) == before and not (tmp_path / "model").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "target"]


def test_an_earlier_folder_is_there_until_the_new_one_is(tmp_path, monkeypatch):
    folder = ours(tmp_path / "model")
    (folder / "README.md").write_text("earlier")
    before, replace = tree(tmp_path), os.replace

    def full(source, target):
        if target == folder and source.suffix == ".tmp":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RunFolderError, match="the disk is full"):
        ours(folder)
    assert tree(tmp_path) == before
    monkeypatch.undo()
    ours(folder)
    assert sorted(tree(tmp_path)) == ["model/config.json", "model/model.safetensors"]


def test_what_a_killed_process_of_the_same_number_left_is_no_hindrance(tmp_path):
    left = tmp_path / f".model.{os.getpid()}.tmp"
    left.mkdir()
    (left / "half").write_bytes(b"")
    ours(tmp_path / "model")
    assert sorted(tree(tmp_path)) == ["model/config.json", "model/model.safetensors"]


# Damaged runs


@pytest.mark.parametrize(
    "spoil",
    [
        lambda card: card["config"].pop("method"),
        lambda card: card.update(config=None),
        lambda card: card["data"].pop("fingerprint"),
        lambda card: card["data"].update(name=None),
        lambda card: card.update(versions=["torch"]),
        lambda card: card.update(result=3),
    ],
)
def test_a_damaged_run_json_is_told(tmp_path, spoil):
    run = make_run(tmp_path / "run", flat(tmp_path / "pictures", 3))
    card = json.loads((run / "run.json").read_text())
    spoil(card)
    write_json(run / "run.json", card)
    with pytest.raises(RunFolderError, match=r"run.json is damaged"):
        export(run, tmp_path / "b.safetensors", to="safetensors")
    assert not (tmp_path / "b.safetensors").exists()


def test_a_damaged_evaluation_is_told(tmp_path):
    run = make_run(tmp_path / "run", flat(tmp_path / "pictures", 3))
    write_json(run / "evaluation" / "labels.json", {"schema_version": 1})
    with pytest.raises(RunFolderError, match=r"labels.json is damaged .*diptych evaluate") as told:
        push(run, "me/mine", told=lambda result: result["verdict"], dry_run=tmp_path / "dry")
    one_line(told)
    assert not (tmp_path / "dry").exists()


# Words of other people in the model card


@pytest.mark.parametrize(
    "word", ["a\u2028b: 1", "\U0001f600", "tab\tnul\0", "é\x85---\n---", "'\"\\", "\x7f", "# no", "- x"]
)
def test_front_matter_gives_back_every_word(word):
    text = model_card("me/mine", card_with(method=word), [], by_timm=False)
    lines = text.splitlines()
    front = yaml.safe_load("\n".join(lines[1 : lines.index("---", 1)]))
    assert front["tags"][-1] == word and set(front) == {"library_name", "pipeline_tag", "tags", "license"}


def test_a_method_is_no_markdown():
    text = model_card("me/mine", card_with(method="[x](javascript:y) <script> `"), [], by_timm=False)
    body = text.split("---\n", 2)[2]
    assert "[x](" not in body and "<script>" not in body


@pytest.mark.parametrize(
    ("licence", "name"), [("Mein Eigenes 1.0", "mein-eigenes-1.0"), ("独自", None), ("x" * 200, "x" * 96)]
)
def test_a_licence_that_the_hub_does_not_know_gets_a_name_that_it_takes(licence, name):
    text = model_card("me/mine", card_with(licence=licence), [], by_timm=False)
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["license"] == "other" and front.get("license_name") == name
    assert f"- licence: {licence}\n" in text


def test_no_folder_of_this_machine_is_in_what_was_measured():
    result = {
        "name": "labels",
        "run": "/home/me/runs/mine",
        "init_from": "/home/me/runs",
        "names": {"other": "other (/home/me/secret client/run)"},
        "data": {"name": "/home/me/labels", "parts": ["/home/me/labels/train"]},
        "paths": ["/home/me/secret client/run", "/"],
    }
    text = (
        "initial (/home/me/runs), other (/home/me/secret client/run), /home/me/runs/mine on /home/me/labels/train 1/2"
    )
    assert measured_in(result, text) == ("labels", "initial (runs), other (run), mine on train 1/2")


# ONNX


def test_the_free_side_is_called_batch(run, tmp_path):
    path = export(run, tmp_path / "b.onnx", to="onnx").path
    graph = onnx.load(path).graph
    sides = [
        [side.dim_param or side.dim_value for side in one.type.tensor_type.shape.dim]
        for one in (*graph.input, *graph.output)
    ]
    assert sides == [["batch", 3, 16, 16], ["batch", 256]]


class Half(torch.nn.Module):
    """Of a type for which ONNX has the operator and ONNX Runtime, on a CPU, no code."""

    def forward(self, values):
        return torch.special.erf(values.flatten(1).to(torch.bfloat16)).float()


def test_what_onnx_runtime_cannot_run_is_named(tmp_path):
    write_onnx(tmp_path / "b.onnx", trace(PictureNetwork(Half(), RGB), "half"), card_with())
    with pytest.raises(
        ConfigError, match=r"^ONNX Runtime cannot run what was written \(.*Erf.*\), so it was removed: choose --to"
    ) as told:
        run_onnx(tmp_path / "b.onnx", stored())
    one_line(told)


# Packages that are missing


@pytest.mark.parametrize(
    ("missing", "words", "said"),
    [
        (
            "onnx",
            ["export", "RUN", "--to", "onnx", "--out", "b.onnx"],
            "needs onnx: type `pip install 'diptych[onnx]'`",
        ),
        ("onnxruntime", ["export", "RUN", "--to", "onnx", "--out", "b.onnx"], "needs onnxruntime: type `pip install"),
        ("onnxscript", ["export", "RUN", "--to", "onnx", "--out", "b.onnx"], "needs onnxscript: type `pip install"),
        (
            "huggingface_hub",
            ["push", "RUN", "me/mine"],
            "push needs huggingface_hub: type `pip install 'diptych[hub]'`",
        ),
        ("pyarrow", ["embed", "RUN", "PICTURES", "--out", "v.parquet"], "pip install 'diptych[parquet]'"),
    ],
)
def test_a_missing_package_is_named_with_what_to_type(run, tmp_path, monkeypatch, capsys, missing, words, said):
    pictures = flat(tmp_path / "pictures", 3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, missing, None)  # importing it fails
    assert cli.main([{"RUN": str(run), "PICTURES": str(pictures)}.get(word, word) for word in words]) == 2
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith("diptych: ") and said in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pictures"]


NOTHING = """
import sys
for name in ("onnx", "onnxruntime", "onnxscript", "huggingface_hub", "pyarrow", "datasets"):
    sys.modules[name] = None
from diptych import cli
run, out = sys.argv[1:]
assert cli.main(["export", run, "--to", "safetensors", "--out", out + "/b.safetensors"]) == 0
assert cli.main(["push", run, "me/mine", "--dry-run", out + "/dry"]) == 0
"""


def test_the_other_forms_need_none_of_these(run, tmp_path):
    command = [sys.executable, "-c", NOTHING, str(run), str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    assert (tmp_path / "b.safetensors").is_file() and (tmp_path / "dry" / "README.md").is_file()


# The hub


@pytest.mark.parametrize("settings", [{"HF_HUB_OFFLINE": "1"}, {"HF_TOKEN": "hf_\u00e9"}])
def test_a_hub_that_cannot_be_spoken_to_is_one_line(run, tmp_path, settings):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_TOKEN": "hf_x", "HF_HOME": str(tmp_path)} | settings
    command = [sys.executable, "-m", "diptych", "push", str(run), "me/mine"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    told = ended.stderr.splitlines()[-1]
    assert ended.returncode == 2 and told.startswith("diptych: ") and "--dry-run FOLDER" in told


def test_a_full_disk_for_what_is_to_be_sent_is_one_line():
    with (
        pytest.raises(RunFolderError, match="the disk is full: a temporary folder was not written.*TMPDIR"),
        _place(None),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
