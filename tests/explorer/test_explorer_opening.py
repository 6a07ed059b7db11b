"""What a map finds again beside some vectors: pictures, parts, and the network that places pictures from outside."""

import io
import json
import shutil

import numpy as np
import pytest
import tiny
from in_process import run_command
from PIL import Image

from diptych.errors import DataError
from diptych.explorer import opening
from diptych.explorer.opening import surroundings
from diptych.explorer.scene import compose
from diptych.progress import Terminal
from diptych.vectors.table import read_vectors


def jpeg(seed):
    """A picture far larger than the network's: it is decoded in a reduced form."""
    buffer = io.BytesIO()
    Image.fromarray(tiny.picture(seed, 400)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("opening")
    for seed in range(8):
        path = folder / "pictures" / ("train" if seed < 6 else "test") / "cat" / f"{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(seed))
    words = ("pretrain", folder / "pictures", "--out", folder / "run", *tiny.FLAGS, "--epochs", "1")
    assert run_command(*words)[0] == 0
    assert run_command("embed", folder / "run", folder / "pictures", "--out", folder / "v.npy")[0] == 0
    return folder


def opened(file):
    vectors = read_vectors(file)
    beside = surroundings(vectors, "cpu", Terminal())
    return compose(vectors, beside.pictures, splits=beside.splits, embed=beside.embed)


def test_a_picture_of_the_set_that_comes_from_outside_finds_itself(place):
    scene = opened(place / "v.npy")
    for row, name in ((0, "train/cat/0.jpg"), (7, "test/cat/7.jpg")):
        path = place / "pictures" / name
        found = scene.place(path.read_bytes())
        where = scene.vectors.names.index(next(one for one in scene.vectors.names if one.endswith(path.name)))
        assert found["rows"][0] == where and found["similarities"][0] == 1, row
        assert (found["x"], found["y"]) == pytest.approx(tuple(scene.layout.value().positions[where]), abs=1e-5)
    assert [entry["count"] for entry in scene.schemes["split"].colouring().about["categories"]] == [2, 6]


def test_a_small_file_of_very_many_pixels_is_refused(place, monkeypatch):
    monkeypatch.setattr(opening, "MOST_PIXELS", 400 * 400)
    scene = opened(place / "v.npy")
    scene.place(jpeg(0))
    buffer = io.BytesIO()
    Image.new("L", (401, 400)).save(buffer, "PNG")
    with pytest.raises(
        DataError, match=r"no place on the map: 401 × 400 is more than .* million pixels; try another one"
    ):
        scene.place(buffer.getvalue())


def test_what_is_gone_is_said_and_the_map_is_shown_without_it(place, tmp_path, capsys):
    for name in ("v.npy", "v.json", "v.jsonl"):
        shutil.copy(place / name, tmp_path / name)
    card = json.loads((tmp_path / "v.json").read_text())
    gone = {**card, "data": str(tmp_path / "gone"), "run": str(tmp_path / "gone")}
    (tmp_path / "v.json").write_text(json.dumps(gone))
    scene = opened(tmp_path / "v.npy")
    assert (scene.pictures, scene.embed) == (None, None) and "split" not in scene.schemes
    said = capsys.readouterr().err
    assert "no pictures are shown: " in said and "pictures from outside have no place on this map: " in said
    np.save(tmp_path / "bare.npy", np.eye(4, dtype=np.float32))
    assert opened(tmp_path / "bare.npy").pictures is None
    assert "nothing says which pictures these vectors are of, so none is shown" in capsys.readouterr().err
