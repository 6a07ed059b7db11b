"""Runs and weights are real files; what is opened is compared with what was written."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from diptych.data.stores.digests import write_digests
from diptych.errors import UserError
from diptych.evaluation.against import Asked, parse_against
from diptych.evaluation.contenders import Contender, open_contenders
from diptych.frozen import BackboneCard, Preprocessing, initial_backbone, save_backbone, save_weights
from diptych.runs import RunFolder, write_json

SIZE = 16
FILE = "imagenet.safetensors"


def weights(seed: int, name: str = "resnet20v2", size: int = SIZE) -> dict[str, torch.Tensor]:
    return dict(initial_backbone(name, size, seed)[0].state_dict())


def make_run(
    path: Path, *, name: str = "resnet20v2", began: int | None = None, seen: tuple[int, ...] = (1, 2), **made: Any
) -> Path:
    """A finished run: seed 0, "trained" weights of seed 1, begun with the weights of the seed ``began`` if given."""
    settings: dict[str, Any] = {"image_size": SIZE, "mean": (0.5,) * 3, "std": (0.25,) * 3} | made
    preprocessing = Preprocessing(**settings)
    run = RunFolder.create(path)
    module, width, _ = initial_backbone(name, preprocessing.image_size, 1, preprocessing.channels)
    card = BackboneCard(
        schema_version=1,
        backbone=name,
        num_features=width,
        seed=0,
        preprocessing=preprocessing,
        init_from=None if began is None else FILE,
    )
    save_backbone(run, module, card)
    if began is not None:
        save_weights(run.initial, weights(began, name))
    write_digests(run, np.array(seen, np.uint64))
    write_json(run.config, {})
    return path


def write(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return path


def refusal(run: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        open_contenders(run, parse_against(text), "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def holds(contender: Contender, state: dict[str, torch.Tensor]) -> bool:
    assert contender.backbone is not None
    own = contender.backbone.module.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in own)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another network with pictures of another size."""
    return make_run(tmp_path_factory.mktemp("runs") / "second", name="patches:8", image_size=24, seen=(7, 8, 9))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# What is typed


def test_words_files_and_folders_are_told_apart(here: Path) -> None:
    (here / "my run").mkdir()
    found = parse_against("random, initial,scratch,pixels,imagenet:w.safetensors,my run,mine:./my run/")
    assert [(asked.kind, asked.key) for asked in found] == [
        *((word, word) for word in ("random", "initial", "scratch", "pixels")),
        *(("weights", "imagenet"), ("run", "my-run"), ("run", "mine")),
    ]
    assert [asked.path for asked in found] == [None] * 4 + [Path("w.safetensors"), Path("my run"), Path("my run")]
    with pytest.raises(UserError, match="two contenders called 'my-run': leave one out, or type NAME:my run with"):
        parse_against("my run,./my run")


def test_a_word_is_a_word_and_a_path_is_the_folder_of_its_name(here: Path) -> None:
    (here / "random").mkdir()
    assert parse_against("random") == [Asked(kind="random", key="random")]
    with pytest.raises(UserError, match="'random' means something else: type NAME:./random with another NAME"):
        parse_against("./random")
    assert parse_against("r:./random") == [Asked(kind="run", key="r", path=Path("random"))]


def test_paths_may_hold_commas_and_colons(here: Path) -> None:
    (here / "a,b:c,d").mkdir()
    (here / "w,1.safetensors").touch()
    found = parse_against("pixels,./a,b:c,d,random,w:./w,1.safetensors")
    assert [asked.key for asked in found] == ["pixels", "a-b-c-d", "random", "w"]
    assert found[1].path == Path("a,b:c,d") and found[3].path == Path("w,1.safetensors")


def test_what_can_be_read_in_two_ways_is_refused(here: Path) -> None:
    for name in ("a", "a,b", "x:y"):
        (here / name).mkdir()
    with pytest.raises(UserError, match="^--against ./a,b is a path, and so is ./a before a comma: rename one"):
        parse_against("random,./a,b")
    with pytest.raises(UserError, match="type ./x:y for the one, x:./y for the other"):
        parse_against("x:y")
    assert parse_against("./x:y") == [Asked(kind="run", key="x-y", path=Path("x:y"))]
    assert parse_against("x:./y") == [Asked(kind="weights", key="x", path=Path("y"))]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("radnom", "knows no 'radnom'; did you mean 'random'? (or a run folder, or NAME:FILE.safetensors)"),
        ("imagenet", "; known: initial, pixels, random, scratch (or a run folder, or NAME:FILE.safetensors)"),
        ("runs/none", "--against: there is no run folder runs/none"),
        ("n" * 400 + "/", "there is no run folder nnn"),
        ("w.safetensors", "--against w.safetensors needs a name for the result: type --against NAME:w.safetensors"),
        ("random,,pixels", "names nothing between two commas, or at an end"),
        ("", "names nothing"),
        ("imagenet:", "no file after 'imagenet:': type for instance --against random,imagenet:FILE.safetensors"),
        ("pixels:w.safetensors", "'pixels' means something else"),
        ("pretrained:w.safetensors", "'pretrained' means something else"),
        ("pixels,pixels", "two contenders called 'pixels': leave one out"),
        ("a:x.safetensors,a:y.safetensors", "called 'a': leave one out, or type NAME:y.safetensors with another NAME"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(here: Path, text: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_against(text)
    assert told in str(caught.value) and "\n" not in str(caught.value)


# What is opened


def test_without_a_choice_the_random_network_and_pixels_are_met(run: Path) -> None:
    pretrained, random, pixels = open_contenders(run, None, "cpu")
    assert [(c.key, c.kind, c.network) for c in (pretrained, random, pixels)] == [
        ("pretrained", "pretrained", "resnet20v2"),
        ("random", "random", "resnet20v2"),
        ("pixels", "pixels", None),
    ]
    assert holds(pretrained, weights(1)) and holds(random, weights(0)) and pixels.backbone is None
    assert pretrained.seen.tolist() == [1, 2] and not len(random.seen) and not len(pixels.seen)
    assert pretrained.unknown is random.unknown is pixels.unknown is None
    assert pretrained.preprocessing == random.preprocessing == pixels.preprocessing


def test_a_run_that_began_with_other_weights_meets_them_too(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", began=2)
    pretrained, initial, random, _ = open_contenders(run, None, "cpu")
    assert (initial.key, initial.name) == ("initial", FILE)
    assert holds(pretrained, weights(1)) and holds(initial, weights(2)) and holds(random, weights(0))
    assert pretrained.unknown == initial.unknown == FILE and random.unknown is None
    RunFolder(run).initial_pictures.write_bytes(np.array([5], np.uint64).tobytes())
    pretrained, initial, *_ = open_contenders(run, None, "cpu")
    assert pretrained.unknown is initial.unknown is None
    assert sorted(pretrained.seen.tolist()) == [1, 2, 5] and initial.seen.tolist() == [5]


def test_another_run_keeps_its_own_network_and_pictures(run: Path, other: Path) -> None:
    _, scratch, found = open_contenders(run, parse_against(f"scratch,{other}"), "cpu")
    assert holds(scratch, weights(0)) and scratch.name == "same network, from scratch" and not len(scratch.seen)
    assert (found.key, found.kind, found.network) == ("second", "run", "patches:8")
    assert found.preprocessing.image_size == 24 and found.seen.tolist() == [7, 8, 9]
    assert found.backbone is not None
    assert found.backbone.embed(torch.zeros(2, 3, 24, 24, dtype=torch.uint8)).shape == (2, 72)


def test_weights_of_a_file_are_put_into_the_runs_own_network(run: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", {f"module.{k}": v for k, v in weights(3).items()} | {"x": torch.ones(2)})
    pretrained, found = open_contenders(run, parse_against(f"imagenet:{path}"), "cpu")
    assert holds(found, weights(3)) and (found.key, found.name, found.kind) == ("imagenet", "imagenet", "weights")
    assert found.unknown == str(path) and not len(found.seen) and found.preprocessing == pretrained.preprocessing
    assert found.notes == (
        f"left out of imagenet:{path}, because the backbone has none of it: x",
        f"pictures are normalised for imagenet as for {run}",
    )


def test_equal_hashes_mean_equal_networks(run: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", weights(1))
    pretrained, random, scratch, same = open_contenders(run, parse_against(f"random,scratch,again:{path}"), "cpu")
    assert pretrained.weights_hash == same.weights_hash != random.weights_hash == scratch.weights_hash
    flip = [make_run(tmp_path / name, name=name) for name in ("patches:8", "patches:8-flip")]
    one, two = (open_contenders(found, [], "cpu")[0] for found in flip)
    assert holds(one, weights(1, "patches:8")) and holds(two, weights(1, "patches:8"))
    assert one.weights_hash != two.weights_hash


# What is refused


def test_what_cannot_be_compared_with_a_run_is_refused(run: Path, other: Path, tmp_path: Path) -> None:
    assert refusal(run, f"mine:{run}/") == f"--against {run} is the run that is evaluated: leave it out"
    assert refusal(run, "initial").startswith(f"{run} began at random, not with other weights: type --against random")
    assert refusal(other, "scratch").startswith(f"{other} was made by patches, which has no weights to train: leave")
    assert "is not a run folder of diptych" in refusal(run, str(tmp_path))
    unfinished = make_run(tmp_path / "unfinished")
    (unfinished / "backbone.json").unlink()
    assert "the run has not finished; go on with `diptych pretrain --resume" in refusal(run, str(unfinished))


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (
            {"tile": 64},
            "has learned from squares of 64 px and RUN from whole pictures: compare runs with the same --tile",
        ),
        (
            {"channels": 4, "mean": (0.5,) * 4, "std": (0.5,) * 4},
            "takes 4 channels of uint8 and RUN takes 3 channels of uint8: no picture can be shown to both; compare "
            "runs of the same --channels and --depth",
        ),
        ({"depth": "float32", "low": (0.0,) * 3, "high": (1.0,) * 3}, "takes 3 channels of float32 and RUN takes"),
    ],
)
def test_runs_of_other_pictures_are_refused(run: Path, tmp_path: Path, made: dict[str, Any], told: str) -> None:
    strange = make_run(tmp_path / "strange", **made)
    assert told.replace("RUN", str(run)) in refusal(run, str(strange))


def test_gray_and_16_bit_runs_can_be_shown_the_same_pictures(run: Path, tmp_path: Path) -> None:
    gray = make_run(tmp_path / "gray", channels=1, depth="uint16", mean=(0.5,), std=(0.5,))
    _, found = open_contenders(run, parse_against(str(gray)), "cpu")
    assert found.preprocessing.pixels == replace(found.preprocessing.pixels, channels=1, depth="uint16")


def test_files_that_do_not_fit_are_refused(run: Path, tmp_path: Path) -> None:
    some = write(tmp_path / "some.safetensors", {k: v for k, v in weights(1).items() if not k.startswith("final")})
    assert refusal(run, f"imagenet:{some}") == (
        f"--against imagenet:{some} lacks 4 of the 102 weights of resnet20v2 (final.0.weight, final.0.bias, "
        f"final.0.running_mean and 1 more): give weights of the network that {run} has"
    )
    gray = write(tmp_path / "gray.safetensors", dict(initial_backbone("resnet20v2", SIZE, 0, 1)[0].state_dict()))
    assert refusal(run, f"i:{gray}").endswith(f"not (16, 3, 3, 3); give weights for the pictures of {run}")
    pickle = tmp_path / "w.pt"
    pickle.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    said = refusal(run, f"i:{pickle}")
    assert said.startswith(f"--against i:{pickle} is no .safetensors file, and other formats can run code")
    assert said.endswith(f"and type --against i:{tmp_path}/w.safetensors")
    assert "none.safetensors cannot be read (No such file" in refusal(run, f"i:{tmp_path}/none.safetensors")


def test_names_of_folders_cannot_steer_a_terminal(run: Path, tmp_path: Path) -> None:
    odd = make_run(tmp_path / "\x1b[2J")
    _, found = open_contenders(run, parse_against(str(odd)), "cpu")
    assert found.key == found.name == "2J"
    card = json.loads((odd / "backbone.json").read_text())
    write_json(odd / "backbone.json", card | {"init_from": "\x1b.safetensors"})
    assert "\x1b" not in str(open_contenders(run, parse_against(str(odd)), "cpu")[1].unknown)
