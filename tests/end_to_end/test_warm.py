"""Train on some pictures, go on from there on others, and ask whether the second training helped: as one types it."""

import json
import subprocess
import sys

import numpy as np
from in_process import run_command
from PIL import Image
from tiny import FLAGS, flat

COLOURS = {"blue": (60, 60, 160), "red": (160, 60, 60)}


def labelled(folder):
    """Noisy pictures whose mean colour is their class."""
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(20):
            noise = random.normal(colour, 50, (16, 16, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / name / f"{number}.png")
    return folder


def typed(*words):
    code, out, err = run_command(*words)
    assert code == 0, err
    return out, err


def test_two_processes_begin_with_the_weights_of_the_run_that_theirs_replaces(tmp_path):
    data, out = flat(tmp_path / "a", 8), tmp_path / "run"
    typed("pretrain", data, "--out", out, "--epochs", 1, *FLAGS)
    weights = (out / "backbone.safetensors").read_bytes()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "diptych"]
    words = ("pretrain", data, "--out", out, "--overwrite", "--init-from", out, "--mean", *"123", "--epochs", 1, *FLAGS)
    done = subprocess.run([*torchrun, *map(str, words)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert (out / "initial.safetensors").read_bytes() == weights != (out / "backbone.safetensors").read_bytes()
    assert done.stderr.count("what this run normalises by") == 1


def test_a_run_that_goes_on_from_another_is_judged_by_where_it_began(tmp_path):
    first, second, proof = tmp_path / "first", tmp_path / "second", labelled(tmp_path / "proof")
    typed("pretrain", flat(tmp_path / "a", 8), "--out", first, "--epochs", 1, *FLAGS)
    typed("pretrain", flat(tmp_path / "b", 12), "--out", second, "--epochs", 1, "--init-from", first, *FLAGS)
    assert (second / "initial.safetensors").read_bytes() == (first / "backbone.safetensors").read_bytes()
    page = (second / "report.html").read_text()
    assert f"as training began ({first})" in page and str(first / "backbone.safetensors") in page

    out, _ = typed("evaluate", second, proof)
    result = json.loads((second / "evaluation" / "proof.json").read_text())
    assert list(result["contenders"]) == ["pretrained", "initial", "random", "pixels"]
    assert f"for the same network before training on these pictures ({first})" in result["verdict"]["sentence"]
    assert out.startswith(result["verdict"]["sentence"]) and out.count(f"  initial ({first})  ") == 2
    page = (second / "report.html").read_text()
    assert page.count(f"initial ({first})</th>") == 2 and page.count('<path class="initial"') == 2

    typed("evaluate", first, proof)
    trained = json.loads((first / "evaluation" / "proof.json").read_text())["contenders"]
    assert trained["pretrained"] == result["contenders"]["initial"]  # one network, the same pictures: the same answer

    code, _, err = run_command("pretrain", "--resume", second, "--init-from", tmp_path / "other")
    assert code == 2 and f"init_from is {first}, not {tmp_path / 'other'}" in err
