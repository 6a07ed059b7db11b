import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_frozen import PREPROCESSING, make_run
from tiny import flat, paint, picture

from diptych.backbones.feature_choice import FeatureChoice
from diptych.data.sources.source import Arrays
from diptych.errors import ConfigError, DataError, RunFolderError, UserError
from diptych.frozen import load, open_finished, save_backbone, weights_digest
from diptych.vectors import computing, parts, writer
from diptych.vectors.embed import EmbedConfig, embed
from diptych.vectors.pictures import Joined, is_fresh, open_pictures, pictures_of, places
from diptych.vectors.search import search
from diptych.vectors.table import read_vectors

NAMES = [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(4)]
PARTS = ["train/cat/1.png", "train/dog/1.png", "train/dog/2.png", "test/cat/9.png", "test/dog/9.png"]
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("embed") / "run", "resnet11v2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("data"), *NAMES)


@pytest.fixture(scope="module")
def divided(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("divided"), *PARTS)


def made(run, data, out, **settings):
    return embed(run, str(data), out, EmbedConfig(**settings), device="cpu")


def refusal(*words, **settings):
    with pytest.raises(UserError) as caught:
        made(*words, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed_run(run, path, change=lambda module: None, **preprocessing):
    """A copy of a run with other weights or another preprocessing."""
    shutil.copytree(run, path)
    folder, card = open_finished(path)
    module = load(path, "cpu").module
    change(module)
    save_backbone(folder, module, replace(card, preprocessing=replace(card.preprocessing, **preprocessing)))
    return path


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
@pytest.mark.parametrize(("dtype", "batch_size"), [("float32", 1), ("float32", 3), ("float16", None)])
def test_numbers_are_those_of_the_backbone(run, data, tmp_path, suffix, dtype, batch_size):
    out = tmp_path / f"v.{suffix}"
    done = made(run, data, out, dtype=dtype, batch_size=batch_size)
    backbone = load(run, "cpu")
    wanted = backbone.embed([data / name for name in NAMES])
    found = read_vectors(out)
    assert found.values.dtype == dtype and found.values.shape == (8, backbone.num_features)
    rounded = {"rtol": 2**-11 + 1e-5, "atol": 2**-24 + 1e-5}  # float16 keeps eleven bits
    np.testing.assert_allclose(found.values, wanted.numpy(), **(CLOSE if dtype == "float32" else rounded))
    assert found.names == NAMES and found.labels == ["cat"] * 4 + ["dog"] * 4 and found.groups is None
    assert (done.path, done.pictures, done.dim, done.left_out, done.quarantine, done.resumed) == (
        *(out, 8, backbone.num_features, 0, None, 0),
    )
    assert done.pictures_per_second == 8 / done.seconds
    card = found.card
    assert (card.weights, card.backbone, card.preprocessing) == (
        *(weights_digest(backbone.module), "resnet11v2", PREPROCESSING),
    )
    assert (card.run, card.data, card.part, card.limit, card.shape) == (str(run), str(data), "all", None, ())
    assert card.fingerprint == pictures_of(card).fingerprint
    beside = {"parquet": ["v.parquet"], "npy": ["v.json", "v.jsonl", "v.npy"]}[suffix]
    assert sorted(path.name for path in tmp_path.iterdir()) == beside


@pytest.mark.parametrize(
    "choice", [FeatureChoice(kind="grid"), FeatureChoice(layer=1), FeatureChoice(kind="multicrop")]
)
def test_other_features(run, data, tmp_path, choice):
    made(run, data, tmp_path / "v.npy", features=choice.kind, layer=None if choice.layer is None else str(choice.layer))
    found = read_vectors(tmp_path / "v.npy")
    wanted = load(run, "cpu").embed([data / name for name in NAMES], features=choice)
    np.testing.assert_allclose(found.values, wanted.numpy(), **CLOSE)
    assert found.card.features == choice


def test_what_others_see_in_the_parquet_file(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "BLOCK", 3 * 256)
    monkeypatch.setattr(computing, "PART_SECONDS", 0.0)
    made(run, data, tmp_path / "v.parquet", batch_size=2, dtype="float16")
    file = pq.ParquetFile(tmp_path / "v.parquet")
    assert file.schema_arrow.field("vector").type == pa.list_(pa.float16(), 256)
    assert file.schema_arrow.names == ["name", "label", "group", "vector"]
    assert [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)] == [3, 3, 2]
    assert json.loads(file.schema_arrow.metadata[b"diptych"])["preprocessing"]["image_size"] == 16
    assert read_vectors(tmp_path / "v.parquet").names == NAMES


@pytest.mark.parametrize("part", ["all", "train", "test"])
def test_parts_of_a_divided_set(run, divided, tmp_path, part):
    made(run, divided, tmp_path / "v.npy", part=part)
    found = read_vectors(tmp_path / "v.npy")
    assert found.names == [name for name in PARTS if part in ("all", name.split("/")[0])]
    assert found.labels == [name.split("/")[1] for name in found.names]
    source = pictures_of(found.card)
    assert [source.name_of(place) for place in places(source, found.names)] == found.names


def test_joined_parts_tell_their_pictures_apart():
    pictures = np.stack([picture(seed).transpose(2, 0, 1) for seed in range(5)])
    train, test = Arrays("x", pictures[:3], [0, 1, 1], ("a", "b")), Arrays("x", pictures[3:], [1, 0], ("a", "c"))
    joined = Joined("x", {"train": train, "test": test})
    assert len(joined) == 5 and joined.classes == ("a", "b", "c")
    assert [joined.classes[joined.label(index)] for index in range(5)] == ["a", "b", "b", "c", "a"]
    assert [joined.name_of(index) for index in range(5)] == ["a/00000", "b/00001", "b/00002", "c/00000", "a/00001"]
    for index in range(5):
        assert np.array_equal(joined.read(index), pictures[index]) and joined.header(index).width == 16
        assert np.array_equal(joined.region(index, 2, 3, 4, 5), pictures[index, :, 2:6, 3:8])
        assert joined.group(index) is None
    twice = Joined("x", {"train": train, "test": train})  # both hold a picture a/00000
    assert [twice.name_of(index) for index in (0, 3)] == ["train/a/00000", "test/a/00000"]
    assert len({joined.fingerprint, twice.fingerprint, train.fingerprint}) == 3


def test_groups_come_from_a_manifest(run, data, tmp_path):
    lines = [f"{data / name},{name[:3]},{number // 2}" for number, name in enumerate(NAMES)]
    (tmp_path / "list.csv").write_text("\n".join(["path,label,group", *lines]))
    for out in (tmp_path / "v.parquet", tmp_path / "v.npy"):
        made(run, tmp_path / "list.csv", out)
        assert read_vectors(out).groups == [str(number // 2) for number in range(8)]


def test_a_limit_draws(run, data, tmp_path):
    made(run, data, tmp_path / "v.npy", limit=3)
    found = read_vectors(tmp_path / "v.npy")
    source, _ = open_pictures(str(data), limit=3)
    assert found.names == [source.name_of(index) for index in range(3)] and found.card.limit == 3
    assert pictures_of(found.card).fingerprint == found.card.fingerprint


def test_tiles(run, tmp_path):
    tiled = changed_run(run, tmp_path / "tiled", tile=8)
    made(tiled, flat(tmp_path / "pictures", 2), tmp_path / "v.npy")
    found = read_vectors(tmp_path / "v.npy")
    assert len(found) == 8 and len(set(found.names)) == 8
    assert all(name.startswith(("00.png", "01.png")) for name in found.names)


def test_one_picture(run, tmp_path):
    assert made(run, flat(tmp_path / "one", 1), tmp_path / "v.parquet").pictures == 1
    assert len(read_vectors(tmp_path / "v.parquet")) == 1


def test_names_that_are_no_text(run, data, tmp_path):
    odd = tmp_path / "odd"
    for kind in (b"\xff", b"b"):
        folder = bytes(odd) + b"/" + kind
        shutil.copytree(data / "cat", folder.decode("utf-8", "surrogateescape"))
    for out in (tmp_path / "v.parquet", tmp_path / "v.npy"):
        made(run, odd, out)
        assert set(read_vectors(out).labels) == {"b", "\ufffd"}


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_paths_that_are_no_text(run, data, tmp_path, suffix):
    odd = os.fsdecode(bytes(tmp_path) + b"/\xff")
    shutil.copytree(data, odd)
    out = Path(f"{odd}.{suffix}")
    made(run, odd, out)
    vectors = read_vectors(out)
    assert len(pictures_of(vectors.card)) == 8
    assert search(vectors, data / NAMES[3], 1, device="cpu").hits[0].name == NAMES[3]


def test_pictures_that_cannot_be_read(run, data, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    for name in NAMES[:3]:
        (broken / name).write_bytes(b"no picture")
    out = tmp_path / "v.npy"
    said = refusal(run, broken, out, batch_size=2)
    assert "3 of 8 pictures cannot be read" in said and "--max-bad 0.375" in said and not out.exists()
    done = made(run, broken, out, batch_size=2, max_bad=0.375)  # what was done is not done again
    assert (done.pictures, done.left_out, done.resumed) == (5, 3, 8)
    noted = [json.loads(line) for line in done.quarantine.read_text().splitlines()]
    assert [line["name"] for line in noted] == NAMES[:3] and all(line["reason"] for line in noted)
    assert read_vectors(out).names == NAMES[3:]
    source = pictures_of(read_vectors(out).card)
    assert places(source, read_vectors(out).names) == [3, 4, 5, 6, 7]
    for name in NAMES:
        (broken / name).write_bytes(b"no picture")
    assert "none of the 8 pictures" in refusal(run, broken, out, max_bad=1.0, overwrite=True)
    assert read_vectors(out).names == NAMES[3:]  # what was to be replaced is still there
    made(run, data, out, overwrite=True)
    assert read_vectors(out).names == NAMES and not done.quarantine.exists()


def test_a_damaged_part_is_computed_again_whatever_the_batches(run, data, tmp_path, monkeypatch):
    monkeypatch.setattr(computing, "PART_SECONDS", 0.0)
    made(run, data, tmp_path / "whole.npy", batch_size=2)
    monkeypatch.setattr(parts.Parts, "publish", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made(run, data, tmp_path / "v.npy", batch_size=2)
    monkeypatch.undo()
    second = sorted((tmp_path / "v.npy.parts").glob("part-*"))[1]
    second.write_bytes(second.read_bytes()[:-1])
    done = made(run, data, tmp_path / "v.npy", batch_size=3)
    assert done.resumed == 2
    found, whole = read_vectors(tmp_path / "v.npy"), read_vectors(tmp_path / "whole.npy")
    np.testing.assert_allclose(found.values, whole.values, **CLOSE)
    assert found.names == whole.names == NAMES


@pytest.fixture
def begun(run, data, tmp_path, monkeypatch):
    """An output whose command was interrupted."""
    monkeypatch.setattr(parts.Parts, "publish", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made(run, data, tmp_path / "v.npy")
    monkeypatch.undo()
    return tmp_path / "v.npy"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"features": "grid"}, "--features"),
        ({"layer": "1"}, "--layer"),
        ({"dtype": "float16"}, "--dtype"),
        ({"part": "train"}, "--part"),
        ({"limit": 5}, "DATA"),
    ],
)
def test_another_order_at_the_same_place_is_refused(run, data, begun, settings, named):
    said = refusal(run, data, begun, **settings)
    assert f"with another {named}:" in said and "--overwrite" in said and not begun.exists()
    made(run, data, begun, overwrite=True, **settings)
    assert read_vectors(begun).names and not (begun.parent / "v.npy.parts").exists()


def test_another_run_or_other_pictures_at_the_same_place_are_refused(run, data, divided, begun, tmp_path):
    other = changed_run(run, tmp_path / "other", lambda module: module.stem[0].weight.data.mul_(1.5))
    assert "with another RUN:" in refusal(other, data, begun)
    assert "with another DATA:" in refusal(run, divided, begun)
    moved = tmp_path / "moved"
    shutil.copytree(run, moved)
    assert made(moved, data, begun).resumed == 8  # the same run, by another name


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_the_same_command_again_finds_its_work_done(run, data, tmp_path, suffix):
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    (broken / NAMES[0]).write_bytes(b"no picture")
    out = tmp_path / f"v.{suffix}"
    first = made(run, broken, out, max_bad=0.5)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("v.*")}
    (tmp_path / f"v.{suffix}.parts").mkdir()  # as a kill at the very end leaves it
    again = made(run, broken, out, max_bad=0.5, batch_size=3)
    assert replace(again, resumed=0, seconds=first.seconds) == first and again.resumed == 8
    assert again.sentence.startswith("7 vectors of 256 numbers, which had been made before; 1 left out")
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.glob("v.*")} == before
    for settings, named in (({"dtype": "float16"}, "--dtype"), ({"features": "grid"}, "--features")):
        said = refusal(run, broken, out, **settings)
        assert f"is there already, with another {named}: choose another --out, or add --overwrite" in said
    assert "with another DATA:" in refusal(run, data, out)
    out.write_bytes(out.read_bytes()[:-9])
    if suffix == "parquet":
        assert "v.parquet is there already: choose" in refusal(run, broken, out)
    made(run, broken, out, max_bad=0.5, overwrite=True)
    assert out.read_bytes() == before[out][0] and not list(tmp_path.glob(".v*"))


HOLD = """
import sys, time
from pathlib import Path
from diptych.vectors.parts import claimed
with claimed(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_two_commands_at_once_do_not_write_to_the_same_output(run, data, tmp_path):
    out = tmp_path / "deep" / "v.npy"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout.readline() == "held\n"
            for settings in ({}, {"overwrite": True}):
                said = refusal(run, data, out, **settings)
                assert said.startswith(f"another command is writing {out} at this moment")
            assert [path.name for path in out.parent.iterdir()] == [".v.npy.lock"]
        finally:
            other.kill()
    assert made(run, data, out).pictures == 8  # what was killed holds nothing
    assert not (out.parent / ".v.npy.lock").exists()


def test_a_lock_that_was_deleted_after_it_was_opened_is_none(tmp_path, monkeypatch):
    lock, locked, opened = tmp_path / ".v.npy.lock", fcntl.flock, []

    def late(descriptor, how):
        opened.append(descriptor)
        if len(opened) == 1:
            lock.unlink()  # as whoever had it does at the end
        locked(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with parts.claimed(tmp_path / "v.npy"):
        assert len(opened) == 2 and lock.exists()
        with pytest.raises(RunFolderError, match="another command"), parts.claimed(tmp_path / "v.npy"):
            pass
    assert not lock.exists()


def test_a_file_system_without_locks(run, data, tmp_path, monkeypatch):
    def none(descriptor, how):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    assert made(run, data, tmp_path / "v.npy").pictures == 8


@pytest.mark.parametrize("there", ["v.npy", "v.json", "v.jsonl"])
def test_what_is_there_is_not_overwritten(run, data, tmp_path, there):
    (tmp_path / there).write_text("mine")
    said = refusal(run, data, tmp_path / "v.npy")
    assert str(tmp_path / there) in said and "--overwrite" in said and (tmp_path / there).read_text() == "mine"
    assert not (tmp_path / "v.npy.parts").exists()
    made(run, data, tmp_path / "v.npy", overwrite=True)
    assert read_vectors(tmp_path / "v.npy").names == NAMES


def test_a_folder_that_is_in_the_way(run, data, tmp_path):
    mine = tmp_path / "v.npy.parts" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert "in the way" in refusal(run, data, tmp_path / "v.npy", overwrite=True) and mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"part": "val"}, "unknown --part 'val'"),
        ({"dtype": "float64"}, "unknown --dtype 'float64'; did you mean 'float"),
        ({"features": "pooled!"}, "unknown --features 'pooled!'; did you mean 'pooled'"),
        ({"limit": 0}, "--limit must be at least 1"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"max_bad": 1.1}, "--max-bad must be a share"),
    ],
)
def test_settings_out_of_range(settings, error):
    with pytest.raises(ConfigError, match=error):
        EmbedConfig(**settings)


def test_what_cannot_be_embedded(run, data, divided, tmp_path):
    out = tmp_path / "v.npy"
    assert "NAME.parquet or NAME.npy" in refusal(run, data, tmp_path / "v.csv")
    (tmp_path / "folder.npy").mkdir()
    assert "folder.npy is a folder: give a file" in refusal(run, data, tmp_path / "folder.npy", overwrite=True)
    for length in (230, 300):  # of the first, only files beside it have too long a name
        said = refusal(run, data, tmp_path / f"{'x' * length}.npy")
        assert "File name too long" in said and said.endswith("choose another --out")
    assert "no run folder" in refusal(tmp_path / "nothing", data, out)
    assert "there is no" in refusal(run, tmp_path / "nothing", out)
    assert "no part to test on" in refusal(run, data, out, part="test")
    assert "no patch tokens" in refusal(run, data, out, features="tokens")
    (tmp_path / "empty").mkdir()
    assert str(tmp_path / "empty") in refusal(run, tmp_path / "empty", out)
    unfinished = tmp_path / "unfinished"
    shutil.copytree(run, unfinished)
    (unfinished / "backbone.json").unlink()
    assert "has not finished" in refusal(unfinished, data, out)
    assert not list(tmp_path.glob("v.*"))


def test_pictures_of_another_kind(run, tmp_path):
    mixed = paint(tmp_path / "mixed", "1.png")
    Image.fromarray(picture()[:, :, 0].astype(np.float32)).save(mixed / "2.tif")
    said = refusal(run, mixed, tmp_path / "v.npy")
    assert said.startswith("1 of 2 pictures cannot be read") and "2.tif: floating-point pixels" in said


def test_features_that_are_not_finite(run, data, tmp_path):
    def spoil(module):
        module.stem[0].weight.data.fill_(float("nan"))

    assert "cat/0.png is not finite" in refusal(changed_run(run, tmp_path / "nan", spoil), data, tmp_path / "v.npy")


def test_features_too_large_for_float16(run, data, tmp_path):
    def grow(module):
        module.final[0].weight.data.mul_(1e9)

    large = changed_run(run, tmp_path / "large", grow)
    said = refusal(large, data, tmp_path / "v.npy", dtype="float16")
    assert said.startswith("the vector of cat/0.png holds numbers too large for float16")
    nan = changed_run(run, tmp_path / "nan", lambda module: module.stem[0].weight.data.fill_(float("nan")))
    assert "cat/0.png is not finite" in refusal(nan, data, tmp_path / "v.npy", dtype="float16", overwrite=True)


def test_pictures_that_have_changed(run, data, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    made(run, copy, tmp_path / "v.npy")
    card = read_vectors(tmp_path / "v.npy").card
    (copy / "dog" / "0.png").unlink()
    with pytest.raises(DataError, match="have changed since"):
        pictures_of(card)
    source, _ = open_pictures(str(copy))
    with pytest.raises(DataError, match="holds no 'dog/0.png' at its place"):
        places(source, NAMES)


class Counted:
    """A source that counts how often a name was asked for."""

    name = "counted"

    def __init__(self, names):
        self.names, self.asked = names, 0

    def __len__(self):
        return len(self.names)

    def name_of(self, index):
        self.asked += 1
        return self.names[index]


def test_some_pictures_are_found_without_a_look_at_all():
    names = [f"{number}.png" for number in range(1000)]
    source = Counted(names)
    assert places(source, names, [3, 500, 999]) == [3, 500, 999] and source.asked == 3
    kept = [name for number, name in enumerate(names) if number not in (0, 7, 500)]
    source = Counted(names)
    rows = [0, 5, 6, 496, 497, 996]
    assert places(source, kept, rows) == [names.index(kept[row]) for row in rows] and source.asked <= len(rows) + 3
    assert places(source, kept) == [names.index(name) for name in kept]
    twice = Counted(["\ufffd.png", "\ufffd.png", "b.png"])  # what is no text may have made two names the same
    assert places(twice, twice.names) == [0, 1, 2] and places(twice, twice.names[1:]) == [0, 2]
    with pytest.raises(DataError, match=r"holds no '1\.png' at its place"):
        places(Counted(names), ["0.png", "2.png", "1.png"], [1, 2])
    with pytest.raises(DataError, match=r"holds no '2\.png' at its place"):
        places(Counted(names[:2]), ["0.png", "2.png"])


def test_vectors_are_fresh_while_their_run_and_their_pictures_are_the_same(run, data, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    made(run, copy, tmp_path / "v.npy")
    assert is_fresh(tmp_path / "v.npy", str(run), str(copy))
    assert not is_fresh(tmp_path / "v.npy", str(run), str(data))
    weights = changed_run(run, tmp_path / "weights", lambda module: module.stem[0].weight.data.mul_(1.5))
    assert not is_fresh(tmp_path / "v.npy", str(weights), str(copy))
    assert not is_fresh(tmp_path / "v.npy", str(changed_run(run, tmp_path / "mean", mean=(0.4,) * 3)), str(copy))
    (copy / NAMES[0]).unlink()
    assert not is_fresh(tmp_path / "v.npy", str(run), str(copy))
    made(run, data, tmp_path / "limited.npy", limit=3)
    assert not is_fresh(tmp_path / "limited.npy", str(run), str(data))
    np.save(tmp_path / "mine.npy", np.ones((2, 3), np.float32))
    assert not is_fresh(tmp_path / "mine.npy", str(run), str(data))


def test_a_file_beside_an_array_that_is_missing_or_too_short(run, data, tmp_path):
    made(run, data, tmp_path / "v.npy")
    rows = tmp_path / "v.jsonl"
    text = rows.read_text()
    for wrong, said in (
        (text[: text.rindex("{")], "7 lines"),
        (text[:-9], "cannot be read"),
        ("{}\n", "cannot be read"),
    ):
        rows.write_text(wrong)
        with pytest.raises(DataError, match=said):
            read_vectors(tmp_path / "v.npy")
    rows.unlink()
    with pytest.raises(DataError, match=r"v\.jsonl cannot be read"):
        read_vectors(tmp_path / "v.npy")


def test_a_folder_that_cannot_be_written(run, data, tmp_path):
    (tmp_path / "file").write_text("a file")
    with pytest.raises(RunFolderError, match="cannot write"):
        made(run, data, tmp_path / "file" / "v.npy")
