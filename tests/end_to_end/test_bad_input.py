"""Whatever is wrong, a user reads one line that says what to do, and nothing that was there is lost."""

import contextlib
import json
import re
import shlex
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import numpy as np
import pytest
from in_process import run_command
from PIL import Image
from tiny import FLAGS, flat, lines, paint, picture, tree

from diptych import checkpoint
from diptych.training import loop

ONE_EPOCH = (*FLAGS, "--epochs", "1")


def refused(*words):
    """Run a command that must be refused, and return the one line that says why."""
    code, out, err = run_command(*words)
    assert code == 2 and out == "", err
    said = err.splitlines()
    assert [line.startswith("diptych: ") for line in said] == [False] * (len(said) - 1) + [True], err
    return said[-1].removeprefix("diptych: ")


def succeed(*words):
    """Run a command that must succeed, and return what it said on standard error."""
    code, _, err = run_command(*words)
    assert code == 0, err
    return err


@pytest.fixture
def out(tmp_path):
    return tmp_path / "runs" / "mine"


@pytest.fixture
def untouched(tmp_path):
    """Whatever lies in the test's folder when this is called must lie there, unchanged, when the test ends."""
    seen = {}
    yield lambda: seen.update(but_logs(tmp_path))
    assert seen, "the test did not say from when on"
    assert but_logs(tmp_path) == seen


def but_logs(folder):
    """What was said may be added to a run's log even where nothing came of it."""
    return {path: found for path, found in tree(folder).items() if not path.endswith("log.txt")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with two checkpoints, and its pictures."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        succeed("pretrain", flat(folder / "pictures"), "--out", folder / "run", *ONE_EPOCH)
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run", symlinks=True)


# Pictures


def test_an_empty_folder(tmp_path, out, untouched):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "note.txt").write_text("not ours")
    untouched()
    line = refused("pretrain", tmp_path / "pictures", "--out", out, *ONE_EPOCH)
    assert line == f"the folder {tmp_path}/pictures is empty; give one that holds pictures"


def test_a_folder_without_pictures(tmp_path, out, untouched):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "notes.txt").write_text("no picture")
    untouched()
    line = refused("pretrain", tmp_path / "pictures", "--out", out, *ONE_EPOCH)
    assert line == (
        f"the folder {tmp_path}/pictures holds no pictures (it has notes.txt, but nothing named .jpg, .png, .webp, "
        ".tif, .bmp or .gif); give one that does"
    )


def test_a_folder_that_is_not_there(tmp_path, out, untouched):
    flat(tmp_path / "pictures")
    untouched()
    line = refused("pretrain", tmp_path / "picturs", "--out", out, *ONE_EPOCH)
    assert line == f"there is no {tmp_path}/picturs; did you mean 'pictures'?"


def test_one_picture(tmp_path, out, untouched):
    data = flat(tmp_path / "pictures", 1)
    untouched()
    line = refused("pretrain", data, "--out", out, *ONE_EPOCH)
    assert line == "1 picture cannot be learned from: give 2 or more"


def test_a_batch_larger_than_the_data_set(tmp_path, out, untouched):
    data = flat(tmp_path / "pictures")
    untouched()
    line = refused("pretrain", data, "--out", out, *ONE_EPOCH, "--batch-size", 64)
    assert line == "a batch of 64 is larger than the 8 pictures there are; type --batch-size 8 or less"


def test_nothing_but_broken_pictures(tmp_path, out, untouched):
    (tmp_path / "pictures").mkdir()
    for number in range(8):
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(b"")
    untouched()
    line = refused("pretrain", tmp_path / "pictures", "--out", out, *ONE_EPOCH)
    assert line.startswith(f"none of 8 pictures drawn from {tmp_path}/pictures can be read")


def cut_short(path):
    Image.fromarray(picture(99)).resize((64, 64)).save(path)
    path.write_bytes(path.read_bytes()[:-300])


def text(path):
    path.write_text("This is a letter, not a picture.")


def empty(path):
    path.write_bytes(b"")


def bomb(path):
    """A PNG of a few bytes that claims 40,000 × 40,000 pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40_000, 40_000, 8, 2, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


@pytest.mark.parametrize(
    ("name", "spoil", "reason"),
    [
        ("broken.jpg", cut_short, "cut short or damaged"),
        ("letter.jpg", text, "not a picture, or in a format that is not read"),
        ("empty.png", empty, "the file is empty"),
        ("bomb.png", bomb, "it is more than 179 million pixels"),
    ],
)
def test_a_picture_that_cannot_be_read_is_left_out_counted_and_listed(tmp_path, out, name, spoil, reason):
    data = flat(tmp_path / "pictures")
    spoil(data / name)
    err = succeed("pretrain", data, "--out", out, *ONE_EPOCH, "--max-bad", "0.2")
    assert f"1 of 9 pictures could not be read and are left out: {name} ({reason}" in err
    assert "quarantine.jsonl in the run folder lists them" in err
    (listed,) = lines(out / "quarantine.jsonl")
    assert (listed["name"], listed["during"]) == (name, "pretrain") and listed["reason"].startswith(reason)
    described = json.loads((out / "run.json").read_text())["data"]
    assert (described["pictures"], described["skipped"]) == (8, 1)


def test_pictures_of_every_kind_are_read(tmp_path, out):
    data = flat(tmp_path / "pictures", 1)
    rgb = Image.fromarray(picture(1, size=20))
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.convert("CMYK").save(data / "cmyk.jpg")
    rgb.convert("P").save(data / "palette.png")
    rgb.convert("L").save(data / "gray.jpg")
    rgb.convert("1").save(data / "bits.png")
    rgb.convert("RGBA").save(data / "alpha.png")
    rgb.convert("P").save(data / "clear.png", transparency=0)
    rgb.save(data / "turned.jpg", exif=turned)
    Image.fromarray(np.full((20, 20), 40_000, dtype=np.uint16)).save(data / "deep.png")
    err = succeed("pretrain", data, "--out", out, *ONE_EPOCH)
    assert "could not be read" not in err and not (out / "quarantine.jsonl").exists()
    assert json.loads((out / "run.json").read_text())["data"]["pictures"] == 9


# Labels


def test_a_class_with_one_picture(tmp_path, run, untouched):
    data = paint(tmp_path / "labelled", "cat/1.png", "cat/2.png", "dog/1.png")
    untouched()
    line = refused("evaluate", run, data)
    assert line == (
        f"class 'dog' of {data} has a single picture (dog/1.png), which cannot be both learned from and tested on; "
        "add pictures to the class, remove it, or raise --limit"
    )


def test_pictures_without_labels(tmp_path, run, untouched):
    data = flat(tmp_path / "pictures")
    untouched()
    line = refused("evaluate", run, data)
    assert line.startswith(f"{data} has no labels, which evaluating needs: put each picture into a folder named after")


def test_a_csv_that_names_a_picture_that_is_not_there(tmp_path, run, untouched):
    flat(tmp_path / "pictures")
    (tmp_path / "labels.csv").write_text("file,label\npictures/00.png,a\npictures/99.png,b\n")
    untouched()
    line = refused("evaluate", run, tmp_path / "labels.csv")
    assert line.startswith(f"{tmp_path}/labels.csv, row 3: cannot find pictures/99.png (No such file or directory)")


# Run folders


COMMANDS = {
    "resume": lambda run, data: ("pretrain", "--resume", run),
    "evaluate": lambda run, data: ("evaluate", run, data),
    "report": lambda run, data: ("report", run),
}


def labelled(folder):
    return paint(folder, *(f"{name}/{number}.png" for name in "ab" for number in range(4)))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["nothing", "file", "pictures"])
def test_a_run_that_is_none(tmp_path, untouched, command, kind):
    data, run = labelled(tmp_path / "labelled"), tmp_path / "run"
    if kind == "file":
        run.write_text("a letter")
    if kind == "pictures":
        flat(run)
    untouched()
    line = refused(*COMMANDS[command](run, data))
    assert line == (
        f"{run} is not a run folder of diptych (it has no run.json); give the folder named by --out"
        if kind == "pictures"
        else f"there is no run folder {run}; make one with `diptych pretrain DATA --out {run}`"
    )


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("content", [b"half a {", b"\xff\x00", b"[1, 2]", b"{}", b'{"schema_version": 1}'])
def test_a_run_json_that_is_damaged(tmp_path, run, untouched, command, content):
    data = labelled(tmp_path / "labelled")
    (run / "run.json").write_bytes(content)
    untouched()
    line = refused(*COMMANDS[command](run, data))
    assert f"{run}/run.json" in line
    if content[0] in b"h\xff":
        assert line == f"cannot read {run}/run.json (not valid JSON); is {run} the folder given to --out?"


@pytest.mark.parametrize("command", ["resume", "evaluate"])
def test_a_run_that_has_not_come_to_a_checkpoint(tmp_path, run, untouched, command):
    shutil.rmtree(run / "checkpoints")
    for name in ("backbone.json", "backbone.safetensors"):
        (run / name).unlink()
    untouched()
    line = refused(*COMMANDS[command](run, tmp_path))
    expected = {
        "resume": f"there is no checkpoint {run}/checkpoints/last: this run cannot be resumed; start again with "
        "--overwrite",
        "evaluate": f"{run} holds no backbone yet: the run has not finished; go on with "
        f"`diptych pretrain --resume {run}`",
    }
    assert line == expected[command]


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt", "meta.json"])
def test_a_checkpoint_cut_short_and_what_is_to_be_typed(run, name):
    damaged = run / "checkpoints" / "last" / name
    damaged.write_bytes(damaged.read_bytes()[:-20])
    before = tree(run)
    line = refused("pretrain", "--resume", run)
    assert line == (
        f"checkpoint {run}/checkpoints/step-000002 is damaged ({name} is cut short or altered); to go on from the one "
        f"before it, type `ln -sfn step-000001 {run}/checkpoints/last` and resume again"
    )
    assert tree(run) == before
    subprocess.run(re.search("`(ln .*?)`", line)[1], shell=True, check=True)
    succeed("pretrain", "--resume", run)
    assert checkpoint.load(run / "checkpoints" / "last").progress.step == 2


def test_the_only_checkpoint_cut_short(run, untouched):
    shutil.rmtree(run / "checkpoints" / "step-000001")
    damaged = run / "checkpoints" / "last" / "weights.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-20])
    untouched()
    assert refused("pretrain", "--resume", run).endswith("; it is the only one, so start again with --overwrite")


def test_a_backbone_cut_short(tmp_path, run, untouched):
    data = labelled(tmp_path / "labelled")
    (run / "backbone.safetensors").write_bytes((run / "backbone.safetensors").read_bytes()[:-20])
    untouched()
    line = refused("evaluate", run, data)
    assert line == (
        f"{run}/backbone.safetensors is damaged or belongs to another network; write it again with "
        f"`diptych pretrain --resume {run}`"
    )


def test_resuming_with_other_flags(run, untouched):
    untouched()
    line = refused("pretrain", "--resume", run, "--batch-size", 8, "--seed", 3)
    assert line == (
        f"{run} was begun with other settings (train.batch_size is 4, not 8, train.seed is 0, not 3): leave these "
        "flags out, or choose a new --out"
    )


def test_an_out_that_is_not_empty(tmp_path, run, untouched):
    data = flat(tmp_path / "pictures")
    untouched()
    line = refused("pretrain", data, "--out", run, *ONE_EPOCH)
    assert line == (
        f"{run} is not empty: to go on with it type `diptych pretrain --resume {run}`, to delete it and start again "
        f"add `--overwrite` to `diptych pretrain DATA --out {run}`"
    )


def test_commands_that_are_printed_can_be_typed(tmp_path):
    """A name with a space in it must come quoted."""
    spaced = tmp_path / "my run"
    paint(spaced, "1.png")
    line = refused("pretrain", flat(tmp_path / "pictures"), "--out", spaced, *ONE_EPOCH)
    for typed in re.findall("`(diptych [^`]*)`", line):
        assert shlex.split(typed)[-1] == str(spaced), typed


def test_overwriting_what_is_not_ours(tmp_path, untouched):
    data, mine = flat(tmp_path / "pictures"), tmp_path / "holiday"
    paint(mine, "1.png")
    untouched()
    line = refused("pretrain", data, "--out", mine, "--overwrite", *ONE_EPOCH)
    assert line == f"{mine} was not made by diptych, so --overwrite will not delete it; choose another --out"


def test_what_can_be_refused_at_once_is_refused_before_the_pictures_are_read(tmp_path, run):
    data, mine = flat(tmp_path / "pictures"), paint(tmp_path / "holiday", "1.png")
    for words in (("--out", run), ("--out", mine, "--overwrite"), ("--out", tmp_path / "new", "--device", "tpu")):
        code, _, err = run_command("pretrain", data, *words, *ONE_EPOCH)
        assert code == 2 and "reading pictures" not in err, words
    code, _, err = run_command("pretrain", "--resume", run, "--device", "tpu")
    assert code == 2 and "reading pictures" not in err


def test_an_out_that_is_a_file(tmp_path, untouched):
    data, file = flat(tmp_path / "pictures"), tmp_path / "letter.txt"
    file.write_text("a letter")
    untouched()
    assert "letter.txt" in refused("pretrain", data, "--out", file, *ONE_EPOCH)
    assert "letter.txt" in refused("pretrain", data, "--out", file, "--overwrite", *ONE_EPOCH)
    assert "cannot write" in refused("pretrain", data, "--out", file / "run", *ONE_EPOCH)


def test_an_out_inside_the_pictures(tmp_path):
    """What a run draws must not be taken for pictures when it goes on."""
    data = flat(tmp_path / "pictures")
    code, _, err = run_command("pretrain", data, "--out", data / "run", *ONE_EPOCH)
    if code == 0:
        succeed("pretrain", "--resume", data / "run")
    else:
        assert code == 2 and err.splitlines()[-1].startswith("diptych: ") and not (data / "run").exists()


# Numbers


def test_a_learning_rate_far_too_high(tmp_path, out):
    data = flat(tmp_path / "pictures")
    line = refused("pretrain", data, "--out", out, *FLAGS, "--epochs", 3, "--lr", 1e38)
    told = r"the loss is not a finite number at step \d \(.*\): try a lower --lr \(now 1e\+38\) or a longer --warmup"
    assert re.match(told, line)
    assert not (out / "backbone.safetensors").exists()


# Disks

FULL = r"the disk is full: (\S+) was not written and what was there is untouched; free some space"


@contextlib.contextmanager
def small_disk(folder, size):
    """A real file system of ``size`` bytes, mounted for the block."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    try:
        subprocess.run(["mount", *options], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only the super-user may mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(path, leave):
    """Take all of a disk's space but ``leave`` bytes."""
    path.write_bytes(bytes(shutil.disk_usage(path.parent).free - leave))


# 1 MB: the first checkpoint is too large; 5.5 MB: it fits, the backbone beside it does not; 20 kB: nor does views.png.
@pytest.mark.parametrize("size", ["1m", "5500k", "20k"])
def test_a_disk_that_is_too_small_for_a_run(tmp_path, size):
    data = flat(tmp_path / "pictures")
    before = tree(data)
    with small_disk(tmp_path / "disk", size) as disk:
        line = refused("pretrain", data, "--out", disk / "run", *ONE_EPOCH)
        assert re.match(FULL, line)[1].startswith(str(disk / "run"))
        assert not [path for path in (disk / "run").rglob("*") if path.name.endswith(".tmp")]
        if (disk / "run" / "checkpoints" / "last").exists():
            checkpoint.load(disk / "run" / "checkpoints" / "last")
    assert tree(data) == before


def test_a_disk_that_fills_up_while_a_run_goes_on(tmp_path, finished):
    with small_disk(tmp_path / "disk", "20m") as disk:
        run = shutil.copytree(finished, disk / "run", symlinks=True)
        (run / "checkpoints" / "last").unlink()
        (run / "checkpoints" / "last").symlink_to("step-000001")  # one step is left to do
        fill(disk / "rubbish", leave=500_000)
        before = tree(run / "checkpoints")
        line = refused("pretrain", "--resume", run)
        assert re.match(FULL, line)[1] == f"{run}/checkpoints/step-000002"
        assert tree(run / "checkpoints") == before
        (disk / "rubbish").unlink()
        succeed("pretrain", "--resume", run)
        for name in ("backbone.safetensors", "checkpoints/last/weights.safetensors"):
            assert (run / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_while_pictures_are_listed_as_broken(tmp_path, run):
    """Anyone may write to /dev/full, and is told that the disk is full."""
    data = labelled(tmp_path / "labelled")
    text(data / "a" / "letter.jpg")
    (run / "quarantine.jsonl").symlink_to("/dev/full")
    line = refused("evaluate", run, data)
    assert re.match(FULL, line)[1] == f"{run}/quarantine.jsonl"
    assert not (run / "evaluation").exists()


def test_a_disk_that_may_not_be_written(tmp_path):
    data = flat(tmp_path / "pictures")
    with small_disk(tmp_path / "disk", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        line = refused("pretrain", data, "--out", disk / "run", *ONE_EPOCH)
        assert line.startswith(f"cannot write {disk}/run (Read-only file system)")


def test_a_name_that_is_too_long(tmp_path):
    data, out = flat(tmp_path / "pictures"), tmp_path / ("x" * 300)
    assert "File name too long" in refused("pretrain", data, "--out", out, *ONE_EPOCH)
