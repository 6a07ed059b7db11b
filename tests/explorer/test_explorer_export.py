"""An exported folder holds what a server would have said; nothing is overwritten that was not exported before."""

import base64
import io
import json
import os

import numpy as np
import pytest
from PIL import Image
from scenes import BITING, colour, pictures, scene, vectors

from diptych.data.sources.source import BadPicture
from diptych.errors import ConfigError, RunFolderError
from diptych.explorer import export
from diptych.explorer.explore import export_static
from diptych.explorer.files import page_files


def given(folder, name):
    """What a script of the folder hands over."""
    text = (folder / "data" / f"{name}.js").read_text(encoding="ascii")
    assert text.startswith(f'diptychGive("{name}", ') and text.endswith(");\n")
    return json.loads(text[len(f'diptychGive("{name}", ') : -3])


def numbers(text, kind):
    return np.frombuffer(base64.b64decode(text), kind)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("exports") / "map"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "CHUNK", 25)
        patch.setattr(export, "NEIGHBOUR_CHUNK", 50)
        splits = ["train"] * 50 + ["test"] * 10
        page = export_static(vectors(), pictures(), out, splits=splits, side=16)
    assert page == out / "index.html"
    return out


def test_it_holds_all_that_a_server_would_say(folder):
    whole = scene()
    assert {path.name for path in folder.iterdir()} == {*page_files(), "data", export.MARKER}
    about = given(folder, "scene")
    assert (about["count"], about["pictures"], about["places"]) == (60, True, False)
    assert [one["name"] for one in about["schemes"]] == ["label", "split", "cluster", "outlier"]
    np.testing.assert_array_equal(
        numbers(given(folder, "positions"), "<f4").reshape(-1, 2), whole.layout.value().positions
    )
    assert given(folder, "names") == whole.vectors.names and BITING in given(folder, "names")
    for name in ("label", "cluster", "outlier"):
        assert given(folder, f"scheme-{name}") == whole.schemes[name].colouring().to_dict()


def test_neighbours_and_pictures_come_in_pieces(folder):
    similarities, rows = scene().neighbours(0, 60)
    pieces = [given(folder, f"neighbours-{chunk}") for chunk in range(2)]
    assert [len(numbers(piece["rows"], "<u4")) for piece in pieces] == [50 * 12, 10 * 12]
    np.testing.assert_array_equal(
        np.concatenate([numbers(piece["rows"], "<u4") for piece in pieces]).reshape(60, 12), rows
    )
    np.testing.assert_array_equal(
        np.concatenate([numbers(piece["similarities"], "<f4") for piece in pieces]).reshape(60, 12), similarities
    )
    encoded = [one for chunk in range(3) for one in given(folder, f"pictures-{chunk}")]
    assert len(encoded) == 60
    for row in (0, 24, 25, 59):
        with Image.open(io.BytesIO(base64.b64decode(encoded[row])), formats=["JPEG"]) as picture:
            assert picture.size == (16, 16)
            assert np.abs(np.array(picture.getpixel((8, 8)), int) - colour(row)).max() <= 4


def test_its_page_says_itself_what_may_run(folder):
    page = (folder / "index.html").read_text()
    assert f'<meta http-equiv="Content-Security-Policy" content="{export.POLICY}">' in page
    assert 'data-from="files"' in page and "unsafe" not in export.POLICY


def test_a_picture_that_cannot_be_read_is_a_gap(tmp_path):
    class Torn:
        name, classes, fingerprint = "torn", (), "0"

        def __len__(self):
            return 3

        def read(self, index, size=None):
            if index == 1:
                raise BadPicture("1.png", "is cut short")
            return np.zeros((3, 8, 8), np.uint8)

    export_static(vectors(3), Torn(), tmp_path / "map")
    assert [one is None for one in given(tmp_path / "map", "pictures-0")] == [False, True, False]


def test_one_picture_and_equal_pictures_can_be_exported(tmp_path):
    export_static(vectors(1), pictures(1), tmp_path / "one")
    assert given(tmp_path / "one", "neighbours-0") == {"count": 0, "rows": "", "similarities": ""}
    same = vectors(4)
    same.values[:] = 1
    export_static(same, None, tmp_path / "same")
    assert [one["name"] for one in given(tmp_path / "same", "scene")["schemes"]] == ["label", "cluster"]


def test_nothing_is_overwritten_unasked(tmp_path):
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "diary.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(RunFolderError, match="is no exported explorer: choose another"):
            export_static(vectors(3), None, mine, overwrite=overwrite)
    assert (mine / "diary.txt").read_text() == "dear"
    out = tmp_path / "map"
    export_static(vectors(3), None, out)
    with pytest.raises(RunFolderError, match="add --overwrite"):
        export_static(vectors(5), None, out)
    assert given(out, "scene")["count"] == 3
    export_static(vectors(5), None, out, overwrite=True)
    assert given(out, "scene")["count"] == 5
    with pytest.raises(ConfigError, match="--thumbnail must be 16 pixels or more, not 3"):
        export_static(vectors(3), None, tmp_path / "small", side=3)


def test_where_one_is_or_what_holds_that_is_not_replaced(tmp_path, monkeypatch):
    export_static(vectors(3), None, tmp_path / "map")
    monkeypatch.chdir(tmp_path / "map")
    for here in (".", "..", tmp_path / "map"):
        with pytest.raises(RunFolderError, match="is the folder that you are in, or holds it: choose another --static"):
            export_static(vectors(3), None, here, overwrite=True)
    assert given(tmp_path / "map", "scene")["count"] == 3


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path):
    export_static(vectors(3), None, tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert export_static(vectors(5), None, tmp_path / "link", overwrite=True) == tmp_path / "link" / "index.html"
    assert (tmp_path / "link").is_symlink() and given(tmp_path / "real", "scene")["count"] == 5
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(RunFolderError, match="choose another --static folder"):
        export_static(vectors(3), None, tmp_path / "loop")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "loop", "real"]


def test_what_came_there_in_the_meantime_is_not_replaced(tmp_path, monkeypatch):
    out, real = tmp_path / "map", export._neighbours

    def slow(*words):
        if not out.exists():  # another process is done first
            out.mkdir()
            (out / "diary.txt").write_text("dear")
        return real(*words)

    monkeypatch.setattr(export, "_neighbours", slow)
    with pytest.raises(RunFolderError, match="is no exported explorer"):
        export_static(vectors(3), None, out)
    assert (out / "diary.txt").read_text() == "dear"
    assert [path.name for path in tmp_path.iterdir()] == ["map"]


def test_the_earlier_map_is_there_until_the_new_one_is(tmp_path, monkeypatch):
    out = tmp_path / "map"
    export_static(vectors(3), None, out)
    replace = os.replace

    def fail(here, there):
        if str(here).endswith(".tmp"):
            raise OSError(28, "No space left on device")
        replace(here, there)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(RunFolderError, match="the disk is full"):
        export_static(vectors(5), None, out, overwrite=True)
    assert given(out, "scene")["count"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["map"]


def test_what_fails_on_its_way_leaves_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="choose another"):
        export_static(vectors(3), None, tmp_path / "file" / "map")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_neighbours", fail)
    with pytest.raises(KeyboardInterrupt):
        export_static(vectors(3), None, tmp_path / "map")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
