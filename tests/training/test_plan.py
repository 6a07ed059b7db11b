import json
import subprocess
import sys
import tarfile

import pytest
import torch
from in_process import run_command
from tiny import FLAGS, config, flat, paint, tree
from torch import nn

import diptych
from diptych import hardware
from diptych.runs import RunFolder
from diptych.training.build import build_method
from diptych.training.card import saved_config

MIB = 2**20
WORDS = [*FLAGS, "--epochs", "2", "--device", "cpu"]


@pytest.fixture
def pictures(tmp_path):
    return flat(tmp_path / "pictures", 14)


@pytest.fixture
def container(tmp_path, monkeypatch):
    """Returns a function that gives this machine a container with so many bytes left."""

    def limit(free):
        folder = tmp_path / "cgroup"
        folder.mkdir(exist_ok=True)
        for name, text in (("memory.max", free), ("memory.current", 0), ("memory.stat", "inactive_file 0")):
            (folder / name).write_text(f"{text}\n")
        names = (str(folder / "memory.max"), str(folder / "memory.current"), "inactive_file")
        monkeypatch.setattr(hardware, "CGROUPS", (names,))

    return limit


def plan(*words):
    code, out, err = run_command("pretrain", *words, "--dry-run", "--json")
    assert code == 0, err
    return json.loads(out)


def forward_flop():
    """Of one view of 16 px: two for each weight at each place, counted layer by layer."""
    method, _, _ = build_method(config("x"))
    counts = []

    def count(module, _, output):
        counts.append(2 * module.weight.numel() * (output[0].numel() // output.shape[1]))

    for module in method.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    method.predictor(method.projector(method.backbone(torch.zeros(2, 3, 16, 16))))
    return sum(counts)


def mistake(*words):
    code, out, err = run_command("pretrain", *words)
    assert (code, out) == (2, "")
    return err


def test_a_plan_is_of_the_run_that_the_same_words_begin(tmp_path, pictures):
    before = tree(tmp_path)
    found = plan(pictures, *WORDS, "--out", tmp_path / "run")
    assert tree(tmp_path) == before and not (tmp_path / "run").exists()
    result = json.loads(run_command("pretrain", pictures, *WORDS, "--out", tmp_path / "run", "--json")[1])
    run = RunFolder.open(tmp_path / "run")
    card, saved = run.read_card(), saved_config(run)
    assert [found[name] for name in ("config", "choices", "command", "recipe")] == [
        card[name] for name in ("config", "choices", "command", "recipe")
    ]
    assert found["time"]["steps"] == result["steps"] == 6
    assert (found["pictures"]["count"], found["pictures"]["kept"]) == (14, card["data"]["kept"])
    method, _, _ = build_method(saved)
    assert found["parameters"] == {
        "backbone": sum(p.numel() for p in method.backbone.parameters()),
        "method": sum(p.numel() for p in method.parameters()),
        "trained": sum(p.numel() for p in method.parameters() if p.requires_grad),
    }
    checkpoint = sum(path.stat().st_size for path in (run.checkpoints / "last").iterdir())
    assert found["disk"]["checkpoint"] == pytest.approx(checkpoint, rel=0.05)
    whole = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file() and not path.is_symlink())
    # A longer run would have one checkpoint more, and a third one while it is written.
    assert found["disk"]["checkpoints"] == 3 and whole < found["disk"]["run"] < whole + 2.1 * checkpoint + 2 * MIB


def test_a_plan_tells_the_first_batch_and_the_arithmetic(pictures):
    found, more = plan(pictures, *WORDS), plan(pictures, *WORDS, "--global-views", "4")
    batch = found["first_batch"]
    assert (batch["shape"], batch["dtype"], batch["range"]) == ([4, 3, 16, 16], "uint8", [0, 255])
    # The backward pass is twice the forward pass, but for the first layer, which needs no gradient of the picture.
    assert found["flop_per_picture"] == pytest.approx(2 * 3 * forward_flop(), rel=0.02)
    assert more["flop_per_picture"] == pytest.approx(2 * found["flop_per_picture"], rel=0.02)
    memory = found["memory"]
    assert memory["total"] == sum(memory["step"].values()) + sum(memory["host"].values())
    assert memory["host"]["pictures"] == 14 * 3 * 16 * 16 and memory["fits"] and memory["pictures_at_once"] == 4
    assert len(found["time"]["step_seconds"]) == 3
    assert found["time"]["least_seconds"] <= found["time"]["seconds"] <= found["time"]["most_seconds"]


def test_a_store_is_planned_and_not_built(tmp_path, pictures):
    found = plan(pictures, *WORDS, "--store", "disk", "--store-dir", tmp_path / "stores")
    assert not (tmp_path / "stores").exists()
    assert found["pictures"]["kept"] == "disk" and found["disk"]["store"] == 14 * 3 * 16 * 16
    assert found["disk"]["store_folder"] == str(tmp_path / "stores")


def test_a_plan_in_words(pictures):
    code, out, err = run_command("pretrain", pictures, *WORDS, "--dry-run")
    assert code == 0 and "taking a few steps" in err
    lines = out.splitlines()
    assert lines[0].startswith(f"Plan of: diptych pretrain {pictures} --method simsiam")
    parts = [line.split("  ")[0] for line in lines if line and not line.startswith(" ")]
    assert parts[1:] == [
        *("Configuration", "Chosen for you", "Pictures", "First batch", "Parameters", "Arithmetic", "Memory", "Time"),
        "Disk",
    ]
    assert any(line.split() == ["train.batch_size", "4"] for line in lines)
    assert any(line.startswith("  --lr 1.0: only 6 steps") for line in lines)


def test_a_step_that_does_not_fit_is_not_taken(pictures, container):
    container(24 * MIB)
    found = plan(pictures, *WORDS, "--batch-size", "14")
    assert found["memory"]["fits"] is False and found["time"] is None and found["memory"]["free"] == 24 * MIB
    size = found["memory"]["fitting_batch_size"]
    assert size in (2, 4)
    code, out, _ = run_command("pretrain", pictures, *WORDS, "--batch-size", "14", "--dry-run")
    assert f"it does not fit; type --batch-size {size}" in out and "Time         not measured" in out


def test_shards_and_what_is_decoded_anew_are_planned(tmp_path, pictures):
    with tarfile.open(tmp_path / "a-0.tar", "w") as tar:
        tar.add(pictures, arcname="a")
    found = plan(tmp_path / "a-{0..0}.tar", *WORDS)
    assert found["pictures"] | {"note": ""} == {"note": "", "count": 14, "kept": "shards", "unreadable": 0}
    lazy = plan(pictures, *WORDS, "--store", "none")
    assert lazy["pictures"]["kept"] == "none" and lazy["memory"]["host"]["pictures"] == 0
    assert lazy["time"]["reading_seconds"] == found["time"]["reading_seconds"] == 0
    assert lazy["time"]["seconds"] > lazy["time"]["steps"] * min(lazy["time"]["step_seconds"])


def test_pictures_that_cannot_be_read_are_counted(tmp_path):
    data = flat(tmp_path / "data", 8)
    (data / "03.png").write_bytes(b"no picture")
    found = plan(data, *WORDS, "--max-bad", "0.5")
    assert found["pictures"]["unreadable"] == 1


def test_a_run_without_gradients_is_planned(tmp_path):
    data = flat(tmp_path / "data", 32)
    found = plan(data, "--method", "patches", "--backbone", "patches:8", "--image-size", "16", "--device", "cpu")
    assert found["parameters"]["trained"] == 0 < found["parameters"]["backbone"]
    assert found["flop_per_picture"] > 0 and found["memory"]["fits"] and found["disk"]["checkpoints"] == 0
    assert found["time"]["seconds"] >= found["time"]["steps"] * min(found["time"]["step_seconds"])
    out = run_command(
        "pretrain", data, "--method", "patches", "--backbone", "patches:8", "--image-size", "16", "--dry-run"
    )[1]
    assert "GFLOP a picture, to compute its codes" in out


def test_of_two_processes_one_speaks(pictures):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["-m", "diptych", "pretrain", str(pictures), *WORDS, "--method", "simclr", "--dry-run", "--json"]
    words = [
        word for place, word in enumerate(words) if "predictor" not in "".join(words[max(0, place - 1) : place + 1])
    ]
    words = [word for place, word in enumerate(words) if "layers" not in "".join(words[max(0, place - 1) : place + 1])]
    done = subprocess.run([*torchrun, *words], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["processes"] == 2 and found["memory"]["pictures_at_once"] == 2
    assert found["first_batch"]["shape"] == [2, 3, 16, 16] and found["time"]["steps"] == 6
    assert done.stderr.count("taking a few steps") == 1


def test_a_plan_refuses_what_the_run_would(tmp_path, pictures):
    assert "--dry-run plans a run that has not begun" in mistake("--resume", tmp_path / "run", "--dry-run")
    assert "is larger than the 14 pictures" in mistake(pictures, *WORDS, "--batch-size", "16", "--dry-run")
    swav = ["--method", "swav", "--queue-size", "14", "--image-size", "16", "--batch-size", "4"]
    assert "--queue-size must be below the number of pictures, 14" in mistake(pictures, *swav, "--dry-run")


# --batch-size auto

WITHOUT = [word for place, word in enumerate(WORDS) if "--batch-size" not in WORDS[max(0, place - 1) : place + 1]]


def test_auto_is_the_recipes_own_size_where_that_fits(tmp_path, pictures):
    run_command("pretrain", pictures, *WITHOUT, "--batch-size", "auto", "--out", tmp_path / "run")
    run_command("pretrain", pictures, *WITHOUT, "--out", tmp_path / "usual")
    card, usual = (RunFolder.open(tmp_path / name).read_card() for name in ("run", "usual"))
    assert card["config"]["train"] == usual["config"]["train"]
    assert card["choices"][0]["what"] == "--batch-size 2"  # a quarter of 14 is 3
    assert card["choices"][0]["why"].startswith("a power of two of which a step fits into 70 % of the free memory")
    assert "--batch-size 2" in card["command"]


def test_auto_is_smaller_where_less_fits(tmp_path, container):
    data = paint(tmp_path / "data", *(f"{number}.png" for number in range(64)))
    assert plan(data, *WITHOUT, "--batch-size=auto")["config"]["train"]["batch_size"] == 16
    container(40 * MIB)
    found = plan(data, *WITHOUT, "--batch-size", "auto")
    assert found["config"]["train"]["batch_size"] == 8 and found["memory"]["fits"]
    assert found["choices"][0]["what"] == "--batch-size 8"
    container(8 * MIB)
    assert "not even two pictures at once fit" in mistake(data, *WITHOUT, "--batch-size", "auto", "--dry-run")


def test_auto_from_python_and_where_it_means_nothing(tmp_path, pictures):
    settings = {"image_size": 16, "epochs": 1, "device": "cpu", "projector_width": 16, "predictor_width": 8}
    assert diptych.pretrain(pictures, tmp_path / "run", batch_size="auto", **settings).steps == 7
    with pytest.raises(diptych.errors.ConfigError, match="patches takes no steps"):
        diptych.pretrain(pictures, tmp_path / "p", method="patches", batch_size="auto", backbone="patches:8")
