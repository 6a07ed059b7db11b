"""The main job, as a user does it: the installed command, in processes of its own."""

import json
import re
import shlex
import signal
import subprocess
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from tiny import DIPTYCH, FLAGS, flat, lines, wait_until

CLASSES = {"blue": (60, 60, 190), "red": (190, 60, 60)}


def diptych(*words):
    return subprocess.run([DIPTYCH, *map(str, words)], capture_output=True, text=True, timeout=600)


def paint_classes(folder, per_class=10, seed=0):
    """Noisy pictures whose mean colour is their class, in a folder each."""
    random = np.random.default_rng(seed)
    for name, colour in CLASSES.items():
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            noise = random.normal(colour, 30, (16, 20, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / name / f"{number:02}.jpg", quality=95)
    return folder


def zipped(folder):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, f"{folder.name}/{file.relative_to(folder)}")
    return path


def tarred(folder):
    path = folder.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        archive.add(folder, folder.name)
    return path


@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    return paint_classes(tmp_path_factory.mktemp("data") / "colours")


@pytest.fixture(scope="module")
def run(tmp_path_factory, nested):
    """A run on class folders, evaluated on them and on a CSV file that lists some of them: its folder, and all said."""
    out = tmp_path_factory.mktemp("runs") / "mine"
    listed = [f"colours/{name}/{number:02}.jpg,{name}s" for name in CLASSES for number in range(5)]
    (nested.parent / "labels.csv").write_text("\n".join(["file,label", *listed]))
    said = [
        diptych("pretrain", nested, "--out", out, *FLAGS, "--epochs", "2"),
        diptych("evaluate", out, nested),
        diptych("evaluate", out, nested.parent / "labels.csv", "--json"),
    ]
    assert [done.returncode for done in said] == [0, 0, 0], said
    return out, *said


def test_pretraining_says_what_it_chose_and_what_to_type_next(run):
    out, pretrained, _, _ = run
    assert "chose --lr" in pretrained.stderr and "2 epochs × 5 steps of 4" in pretrained.stderr
    assert pretrained.stdout.startswith(f"{out}: finished after 2 epochs (10 steps, ")
    assert pretrained.stdout.endswith(f"Next: `diptych evaluate {out} LABELLED/`   Report: {out}/report.html\n")
    assert len(lines(out / "metrics.jsonl")) == 10 and not (out / "quarantine.jsonl").exists()


def test_evaluating_prints_the_verdict_that_it_writes(run):
    out, _, evaluated, _ = run
    result = json.loads((out / "evaluation" / "colours.json").read_text())
    assert evaluated.stdout.splitlines()[0] == result["verdict"]["sentence"]
    assert "pretrained: kNN" not in evaluated.stdout and "pretrained: knn" in evaluated.stderr


@pytest.mark.parametrize(
    ("name", "classes", "tested"), [("colours", ["blue", "red"], 4), ("labels", ["blues", "reds"], 2)]
)
def test_the_result_has_the_fields_that_others_read(run, name, classes, tested):
    result = json.loads((run[0] / "evaluation" / f"{name}.json").read_text())
    assert result["schema_version"] == 1
    assert set(result["contenders"]) == {"pretrained", "random", "pixels"}
    for probes in result["contenders"].values():
        assert set(probes) == {"knn", "linear"}
        for score in probes.values():
            low, high = score["ci95"]
            assert 0 <= low <= score["top1"] <= high <= 1
    verdict = result["verdict"]
    assert verdict["outcome"] in {"helped", "no evidence", "hurt"}
    assert verdict["sentence"].startswith(("Pretraining helped", "No evidence", "Pretraining hurt"))
    assert result["data"]["classes"] == classes and result["data"]["test_pictures"] == tested


def test_with_json_standard_output_holds_the_result_and_nothing_else(run):
    assert json.loads(run[3].stdout) == json.loads((run[0] / "evaluation" / "labels.json").read_text())


def test_the_report_is_written_again(run):
    out = run[0]
    (out / "report.html").unlink()
    done = diptych("report", out)
    assert (done.returncode, done.stdout) == (0, f"{out / 'report.html'}\n")
    page = (out / "report.html").read_text().replace("\N{NO-BREAK SPACE}%", " %")
    for name in ("colours", "labels"):
        assert json.loads((out / "evaluation" / f"{name}.json").read_text())["verdict"]["sentence"] in page


def test_views_can_be_looked_at_beforehand(tmp_path, nested):
    out = tmp_path / "views.png"
    done = diptych("preview", nested, "--out", out, "--image-size", "16")
    assert (done.returncode, done.stdout) == (0, f"{out}\n")
    with Image.open(out) as figure:
        assert figure.format == "PNG" and min(figure.size) > 100
    assert list(tmp_path.iterdir()) == [out]


def test_an_archive_of_pictures_without_labels_is_learned_from_and_limit_takes_some_of_them(tmp_path):
    data, out = tarred(flat(tmp_path / "pictures", 11)), tmp_path / "run"
    done = diptych("pretrain", data, "--out", out, *FLAGS, "--epochs", "1", "--json", "--limit", "8")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["run"], result["status"], result["steps"]) == (str(out), "finished", 2)
    card = json.loads((out / "run.json").read_text())
    assert card["config"]["limit"] == card["data"]["pictures"] == 8
    assert card["data"]["note"] == f"{data} holds 11 pictures, without labels"


def test_train_is_learned_from_and_test_is_tested_on(tmp_path):
    """In a .zip; a broken picture in test/ would be listed if pretraining opened it, as the one in train/ is."""
    folder = tmp_path / "divided"
    paint_classes(folder / "train")
    paint_classes(folder / "test", 4, seed=1)
    for broken in ("train/red/broken.jpg", "test/red/broken.jpg"):
        (folder / broken).write_text("no picture")
    data, out = zipped(folder), tmp_path / "run"
    done = diptych("pretrain", data, "--out", out, *FLAGS, "--epochs", "1", "--max-bad", "0.1")
    assert done.returncode == 0, done.stderr
    assert "divided/train/ (21 pictures) and divided/test/ (9): pretraining uses only divided/train/" in done.stderr
    assert "1 of 21 pictures could not be read" in done.stderr
    assert json.loads((out / "run.json").read_text())["data"]["pictures"] == 20
    assert [record["name"] for record in lines(out / "quarantine.jsonl")] == ["divided/train/red/broken.jpg"]

    done = diptych("evaluate", out, data)
    assert done.returncode == 0, done.stderr
    assert "/train and are tested on " in done.stderr
    result = json.loads((out / "evaluation" / "divided.json").read_text())
    described = result["data"]
    assert (described["train_pictures"], described["test_pictures"], described["skipped"]) == (20, 8, 2)
    assert not described["seen_in_pretraining"]
    assert lines(out / "quarantine.jsonl")[-1]["name"] == "divided/test/red/broken.jpg"


def test_ctrl_c_leaves_a_run_that_the_printed_command_goes_on_with(tmp_path):
    """On a flat folder of pictures."""
    out = tmp_path / "my run"
    words = ["pretrain", str(flat(tmp_path / "pictures", 12)), "--out", str(out), *FLAGS, "--epochs", "20"]
    process = subprocess.Popen([DIPTYCH, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(lines(out / "metrics.jsonl")) >= 2, process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=600)
    assert process.returncode == 143 and stdout == "" and "Traceback" not in stderr
    last = stderr.splitlines()[-1]
    assert last.startswith(f"{out}: interrupted after ")
    typed = shlex.split(re.search("go on with `(.*)`$", last)[1])
    assert typed == ["diptych", "pretrain", "--resume", str(out)]
    done = diptych(*typed[1:])
    assert done.returncode == 0, done.stderr
    assert f"Going on with {out} from step " in done.stderr
    assert done.stdout.startswith(f"{out}: finished after 20 epochs (60 steps")
    assert [record["step"] for record in lines(out / "metrics.jsonl")] == list(range(60))
