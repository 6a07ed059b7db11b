"""Files from elsewhere: whatever lies under a name that is read, nothing in it is run, and one line says what is wrong.

Every file is replaced by bombs: pickles, bare and in the wrappings that torch, numpy and Arrow have for them, which
make a folder, the canary, when they are unpickled.
"""

import io
import pickle
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import run_command
from PIL import Image
from test_checkpoint import Bomb, forge
from tiny import DIPTYCH, FLAGS, flat, paint, picture, tree

from diptych import checkpoint
from diptych.training import loop

SHORT = (*FLAGS, "--epochs", "1")


def bare(bomb):
    return pickle.dumps(bomb)


def of_torch(bomb):
    buffer = io.BytesIO()
    torch.save({"model": bomb}, buffer)
    return buffer.getvalue()


def of_numpy(bomb):
    buffer = io.BytesIO()
    np.save(buffer, np.array([bomb], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def of_arrow(bomb):
    """A table whose column is of a type that older Arrows unpickle (CVE-2023-47248)."""
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    kind = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": pickle.dumps(bomb)}
    schema = arrow.schema([arrow.field("path", arrow.string(), metadata=kind)])
    buffer = io.BytesIO()
    parquet.write_table(arrow.table([arrow.array(["a.png"])], schema=schema), buffer)
    return buffer.getvalue()


WRAPPED = [bare, of_torch, of_numpy]
OWN = {
    ".pt": [of_torch],
    ".safetensors": [of_torch],
    ".zip": [of_torch],
    ".npy": [of_numpy, of_torch],  # numpy opens zip archives too
    ".parquet": [of_arrow],
}
"""Besides a bare pickle, what is tried on files of these names."""


def bombs(*cases):
    """Pair each case, which begins with a file's name or ending, with each wrapping that is tried on it."""
    return [(*case, wrap) for case in cases for wrap in (bare, *OWN.get(Path(f"file{case[0]}").suffix, []))]


@pytest.fixture
def canary(tmp_path):
    """Where bombs leave their trace; none may have when the test ends."""
    yield tmp_path / "canary"
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("wrap", WRAPPED)
def test_the_bombs_are_live_ones(tmp_path, wrap):
    content = wrap(Bomb(tmp_path / "canary"))
    if wrap is of_torch:
        torch.load(io.BytesIO(content), weights_only=False)
    elif wrap is of_numpy:
        np.load(io.BytesIO(content), allow_pickle=True)
    else:
        pickle.loads(content)
    assert (tmp_path / "canary").exists()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Two runs, the second of which begins with the first one's weights; a store, an audit, and their pictures."""
    folder = tmp_path_factory.mktemp("whole")
    data = paint(folder / "data", *(f"{name}/{number}.png" for name in "ab" for number in range(4)))
    stored = ("--store", "disk", "--store-dir", folder / "stores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
        for words in (
            ("pretrain", data, "--out", folder / "first", *SHORT, *stored),
            ("pretrain", data, "--out", folder / "run", *SHORT, "--init-from", folder / "first", *stored),
            ("evaluate", folder / "run", data),
            ("audit", data, "--out", folder / "audit"),
        ):
            code, _, err = run_command(*words)
            assert code == 0, err
    return folder


@pytest.fixture
def own(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "own", symlinks=True)


def said(*words, code):
    """Run a command, and return the last line of what it said; an exception of any kind fails the test."""
    found, _, err = run_command(*words)
    assert found == code and "Traceback" not in err, err
    return err.splitlines()[-1] if err else ""


def refused(*words):
    line = said(*words, code=2)
    assert line.startswith("diptych: ")
    return line.removeprefix("diptych: ")


COMMANDS = {
    "resume": lambda own: ("pretrain", "--resume", own / "run"),
    "again": lambda own: (
        ("pretrain", own / "data", "--out", own / "new", *SHORT, "--store-dir", own / "stores") + ("--store", "disk")
    ),
    "warm": lambda own: ("pretrain", own / "data", "--out", own / "new", *SHORT, "--init-from", own / "run"),
    "evaluate": lambda own: ("evaluate", own / "run", own / "data"),
    "report": lambda own: ("report", own / "run"),
    "audit": lambda own: ("audit", own / "data", "--out", own / "audit"),
}


@pytest.mark.parametrize(
    ("file", "command", "wrap"),
    bombs(
        ("run/run.json", "resume"),
        ("run/checkpoints/last/meta.json", "resume"),
        ("run/checkpoints/last/state.pt", "resume"),
        ("run/checkpoints/last/weights.safetensors", "resume"),
        ("run/backbone.json", "evaluate"),
        ("run/backbone.safetensors", "evaluate"),
        ("run/backbone.safetensors", "warm"),
        ("run/initial.safetensors", "evaluate"),
        ("run/pictures.npy", "evaluate"),
        ("run/evaluation/data.json", "report"),
        ("run/evaluation/data-neighbors.png", "report"),
        ("run/views.png", "report"),
    ),
)
def test_a_file_that_is_needed_is_refused_by_name(own, canary, file, command, wrap):
    (own / file).write_bytes(wrap(Bomb(canary)))
    assert Path(file).name in refused(*COMMANDS[command](own))


@pytest.mark.parametrize(
    ("file", "command", "wrap"),
    bombs(
        ("run/metrics.jsonl", "report"),
        ("run/metrics.jsonl", "resume"),
        ("run/quarantine.jsonl", "report"),
        ("run/quarantine.jsonl", "resume"),
        ("stores/*/store.json", "again"),
        ("stores/*/source_indices.npy", "again"),
        ("stores/*/digests.npy", "again"),
        ("stores/*/pixels.bin", "again"),
        ("audit/index.sqlite", "audit"),
        ("audit/audit.json", "audit"),
        ("run/pictures-initial.u64", "evaluate"),
        ("run/log.txt", "resume"),
    ),
)
def test_what_can_be_done_without_a_file_is_done(own, canary, file, command, wrap):
    for path in list(own.glob(file)) or [own / file]:
        path.write_bytes(wrap(Bomb(canary)))
    said(*COMMANDS[command](own), code=0)


# Checkpoints whose manifest fits


@pytest.mark.parametrize(("name", "wrap"), bombs((checkpoint.STATE,), (checkpoint.WEIGHTS,)))
def test_a_manifest_that_fits_makes_no_file_a_good_one(own, canary, name, wrap):
    path = (own / "run" / "checkpoints" / "last").resolve()
    (path / name).write_bytes(wrap(Bomb(canary)))
    forge(path)
    what = {
        checkpoint.STATE: "state.pt holds more than tensors, numbers and text, and was not read: it could run code",
        checkpoint.WEIGHTS: "weights.safetensors is no safetensors file",
    }
    checkpoints = own / "run" / "checkpoints"
    assert refused("pretrain", "--resume", own / "run") == (
        f"checkpoint {checkpoints}/step-000002 is damaged ({what[name]}); to go on from the one before it, type "
        f"`ln -sfn step-000001 {checkpoints}/last` and resume again"
    )


def test_the_installed_command_says_so_in_one_line(own, canary):
    path = (own / "run" / "checkpoints" / "last").resolve()
    (path / checkpoint.STATE).write_bytes(of_torch(Bomb(canary)))
    forge(path)
    done = subprocess.run([DIPTYCH, "pretrain", "--resume", own / "run"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stdout == "" and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"diptych: checkpoint {own}/run/checkpoints/step-000002 is damaged (state.pt holds ")


def cut_short(path):
    content = (path / checkpoint.WEIGHTS).read_bytes()
    (path / checkpoint.WEIGHTS).write_bytes(content[: len(content) // 2])


def swapped(path):
    shutil.copy(path.parent / "step-000001" / checkpoint.STATE, path / checkpoint.STATE)


def moved(path):
    shutil.rmtree(path)
    shutil.copytree(path.parent / "step-000001", path)


def of_another_version(path):
    forge(path, schema_version=99)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (
            cut_short,
            "is damaged (weights.safetensors is cut short or altered); to go on from the one before it, type `ln",
        ),
        (swapped, "is damaged (state.pt is cut short or altered); to go on from the one before it, type `ln"),
        (moved, "is damaged (meta.json tells of step 1: it was moved here from another checkpoint); to go on from"),
        (
            of_another_version,
            "was written by another version of diptych (schema 99, this one knows 2): resume with the",
        ),
    ],
)
def test_a_checkpoint_that_is_not_as_it_was_written(own, change, what):
    change((own / "run" / "checkpoints" / "last").resolve())
    before = tree(own / "run" / "checkpoints")
    line = refused("pretrain", "--resume", own / "run")
    assert line.startswith(f"checkpoint {own}/run/checkpoints/step-000002 {what}")
    assert tree(own / "run" / "checkpoints") == before


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--backbone", "resnet56v2"), "(it lacks "),
        (("--projector-width", "24"), "(24, 256) there, not (16, 256)"),
        (("--optimizer", "adamw"), "its optimizer has amsgrad, betas"),
    ],
)
def test_a_checkpoint_of_another_run(own, tmp_path, words, what):
    """That of another network, of other heads, and of another optimizer."""
    data, run = own / "data", own / "run"
    said("pretrain", data, "--out", tmp_path / "other", *SHORT, *words, code=0)
    shutil.rmtree(run / "checkpoints")
    shutil.copytree(tmp_path / "other" / "checkpoints", run / "checkpoints", symlinks=True)
    line = refused("pretrain", "--resume", run)
    assert line.startswith(f"checkpoint {run}/checkpoints/step-000002 belongs to another run (") and what in line
    assert line.endswith("): put this run's own checkpoints back, or start again with --overwrite")


# Weights to begin with


@pytest.mark.parametrize(("ending", "wrap"), bombs((".safetensors",), (".pt",), (".pth",), (".bin",), (".pkl",)))
def test_weights_to_begin_with(own, canary, ending, wrap):
    file = own / f"weights{ending}"
    file.write_bytes(wrap(Bomb(canary)))
    line = refused("pretrain", own / "data", "--out", own / "new", *SHORT, "--init-from", file)
    is_ours = ending == ".safetensors"
    assert ("is damaged or no safetensors file" if is_ours else "can run code when they are read") in line
    assert not (own / "new").exists()


# Pictures


@pytest.mark.parametrize(
    ("ending", "wrap"),
    bombs((".zip",), (".tar",), (".tar.gz",), (".tgz",), (".csv",), (".parquet",), (".txt",), (".lst",)),
)
def test_archives_and_lists(tmp_path, canary, ending, wrap):
    file = tmp_path / f"pictures{ending}"
    file.write_bytes(wrap(Bomb(canary)))
    assert file.name in refused("pretrain", file, "--out", tmp_path / "new", *SHORT)


@pytest.mark.parametrize("wrap", [bare, of_arrow])
def test_tables_of_the_hub(tmp_path, canary, wrap):
    pytest.importorskip("datasets")
    (tmp_path / "table.parquet").write_bytes(wrap(Bomb(canary)))
    refused("pretrain", f"hub:{tmp_path}/table.parquet", "--out", tmp_path / "new", *SHORT)


@pytest.mark.parametrize("place", ["cifar-10-binary.tar.gz", "cifar-10-batches-bin"])
def test_cifar10(tmp_path, canary, place):
    """The official Python version of it is made of pickles."""
    content = bare(Bomb(canary))
    if place.endswith(".gz"):
        (tmp_path / place).write_bytes(content)
    else:
        (tmp_path / place).mkdir()
        for name in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin", "batches.meta.txt"):
            (tmp_path / place / name).write_bytes(content)
    words = ("--data-dir", tmp_path, *FLAGS[2:], "--image-size", "32", "--epochs", "1")
    assert place in refused("pretrain", "cifar10", "--out", tmp_path / "new", *words)


def test_pictures(tmp_path, canary):
    data = flat(tmp_path / "pictures", 12)
    names = [f"bomb{ending}" for ending in (".jpg", ".png", ".webp", ".tif", ".bmp", ".gif")]
    for name in names:
        (data / name).write_bytes(bare(Bomb(canary)))
    said("pretrain", data, "--out", tmp_path / "new", *SHORT, "--max-bad", "0.5", code=0)
    listed = (tmp_path / "new" / "quarantine.jsonl").read_text()
    assert all(name in listed for name in names)
    said("audit", data, "--out", tmp_path / "audit", code=0)


def test_members_of_shards(tmp_path, canary):
    """webdataset unpickles ``.pyd``, ``.pickle`` and ``.pth`` beside a picture."""
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as archive:
        for number in range(8):
            content = io.BytesIO()
            Image.fromarray(picture(number)).save(content, "PNG")
            members = {ending: bare(Bomb(canary)) for ending in ("pyd", "pickle", "pkl", "pth", "cls", "json", "npy")}
            for ending, data in (members | {"png": content.getvalue()}).items():
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
    said("pretrain", tmp_path / "shards" / "*.tar", "--out", tmp_path / "new", *SHORT, code=0)
