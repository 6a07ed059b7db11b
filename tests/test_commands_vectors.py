"""The commands that use what was learned, as they are typed: what they print, write and refuse."""

import json
import re
import subprocess
import urllib.request

import numpy as np
import pytest
import tiny
from in_process import run_command
from PIL import Image

from diptych.vectors.table import read_vectors

NAMES = [f"{name}/{number}.png" for name in ("cat", "dog") for number in range(8)]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def pictures(place):
    return tiny.paint(place / "pictures", *NAMES)


@pytest.fixture(scope="module")
def run(place, pictures):
    assert run_command("pretrain", pictures, "--out", place / "run", *tiny.FLAGS, "--epochs", "1")[0] == 0
    return place / "run"


@pytest.fixture(scope="module")
def vectors(place, run, pictures):
    code, out, _ = run_command("embed", run, pictures, "--out", place / "v.parquet", "--json")
    found = json.loads(out)
    assert code == 0 and found["pictures"] == 16 and found["path"] == str(place / "v.parquet")
    assert found["quarantine"] is None and found["pictures_per_second"] > 0
    return place / "v.parquet"


def result_of(*words):
    code, out, err = run_command(*words, "--json")
    assert code == 0, err
    return json.loads(out)


def mistake(*words):
    code, out, err = run_command(*words)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"diptych: [^\n]+\n", err), err
    return err


def test_embed_refuses_to_replace_and_goes_by_overwrite(run, pictures, vectors):
    assert "is there already, with another --dtype: choose another --out, or add --overwrite" in mistake(
        "embed", run, pictures, "--out", vectors, "--dtype", "float16"
    )
    code, out, _ = run_command("embed", run, pictures, "--out", vectors)
    assert code == 0 and "16 vectors of 256 numbers, which had been made before" in out
    before = read_vectors(vectors).values.copy()
    code, out, _ = run_command("embed", run, pictures, "--out", vectors, "--overwrite")
    assert code == 0 and "16 vectors of 256 numbers" in out
    np.testing.assert_array_equal(read_vectors(vectors).values, before)


def test_search_by_name_by_file_and_as_a_page(tmp_path, pictures, vectors):
    found = result_of("search", vectors, "cat/3.png", "-k", "4", "--html", tmp_path / "found.html")
    assert len(found["hits"]) == 4 and "cat/3.png" not in [hit["name"] for hit in found["hits"]]
    page = (tmp_path / "found.html").read_text()
    assert page.count("<figure") == 5 and "<script" not in page
    code, out, _ = run_command("search", vectors, pictures / "dog/2.png", "-k", "1")
    assert code == 0 and "1.0000  dog/2.png" in out
    assert "found.html is there already" in mistake("search", vectors, "cat/3.png", "--html", tmp_path / "found.html")
    assert "say what to search for" in mistake("search", vectors)


def test_an_index_is_built_then_searched(tmp_path, vectors):
    index = tmp_path / "v.faiss"
    assert result_of("search", vectors, "--index", index)["rows"] == 16
    built = index.read_bytes()
    found = result_of("search", vectors, "cat/0.png", "--index", index, "-k", "3")
    assert index.read_bytes() == built and "by the index" in found["how"]
    assert [hit["row"] for hit in found["hits"]] == [
        hit["row"] for hit in result_of("search", vectors, "cat/0.png", "-k", "3")["hits"]
    ]


def test_duplicates_are_listed_and_the_rest_can_be_learned_from(tmp_path, run):
    pictures = tiny.paint(tmp_path / "pictures", *NAMES)
    Image.open(pictures / "cat/0.png").save(pictures / "dog/copy.png")
    vectors = tmp_path / "v.npy"
    assert run_command("embed", run, pictures, "--out", vectors)[0] == 0
    out, keep = tmp_path / "groups.csv", tmp_path / "keep.txt"
    found = result_of("duplicates", vectors, "--threshold", "0.999999", "--out", out, "--keep-list", keep)
    assert found["removed"] == 1 and len(out.read_text().splitlines()) == 3
    assert len(keep.read_text().splitlines()) >= 16
    assert result_of("audit", keep, "--out", tmp_path / "audit")["pictures"] == 16
    assert "--threshold must be auto or a cosine" in mistake("duplicates", vectors, "--threshold", "high")


def test_outliers_and_what_to_label(tmp_path, vectors):
    out = tmp_path / "odd.csv"
    assert len(result_of("outliers", vectors, "--top", "3", "--out", out)["listed"]) == 3
    assert out.read_text().splitlines()[0].startswith("rank,name")
    chosen = tmp_path / "label.csv"
    found = result_of("select-labels", vectors, "--budget", "4", "--ignore-labels", "--out", chosen)
    assert found["budget"] == 4 and len(chosen.read_text().splitlines()) == 5
    lines = chosen.read_text().splitlines()
    chosen.write_text("\n".join([lines[0], *(line.replace(",,", ",cat,", 1) for line in lines[1:])]))
    more = result_of("select-labels", vectors, "--budget", "4", "--ignore-labels", "--labelled", chosen)
    assert not {one["name"] for one in more["listed"]} & {one["name"] for one in found["listed"]}
    assert "every picture of" in mistake("select-labels", vectors, "--budget", "4")


def test_explore_serves_what_it_has_embedded_and_finds_it_again(run, pictures):
    words = [tiny.DIPTYCH, "explore", str(run), str(pictures), "--no-browser", "--port", "0"]
    with subprocess.Popen([*words], stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().split()[0]
            assert address.startswith("http://127.0.0.1:")
            assert b"<!doctype html>" in urllib.request.urlopen(address, timeout=60).read().lower()
        finally:
            process.terminate()
    (kept,) = (run / "vectors").glob("*.npy")
    written = kept.stat().st_mtime_ns
    code, out, _ = run_command("explore", run, pictures, "--static", run.parent / "map")
    assert code == 0 and out.strip() == str(run.parent / "map/index.html") and kept.stat().st_mtime_ns == written
    tiny.paint(pictures, "dog/new.png")
    try:
        assert run_command("explore", run, pictures, "--static", run.parent / "map", "--overwrite")[0] == 0
        assert len(read_vectors(kept)) == 17
    finally:
        (pictures / "dog/new.png").unlink()
    assert "say which pictures to show" in mistake("explore", run)


def test_export_and_what_a_push_would_send(tmp_path, run, pictures):
    found = result_of("export", run, "--to", "safetensors", "--out", tmp_path / "b.safetensors", "--data", pictures)
    assert found["difference"] == 0 and found["neighbours_equal"] and found["pictures"] == 16
    words = ("export", run, "--to", "safetensors", "--out", tmp_path / "b.safetensors")
    assert "is there already" in mistake(*words)
    sent = result_of("push", run, "me/mine", "--dry-run", tmp_path / "look", "--data", pictures)
    assert sorted(path.name for path in (tmp_path / "look").iterdir()) == sorted(name for name, _ in sent["files"])


def test_segmentation_is_a_task_of_evaluate_with_flags_of_its_own(tmp_path, run):
    code, out, _ = run_command("evaluate", "--task", "segmentation", "--help")
    assert code == 0 and "--maps" in out and "--probes" not in out
    assert "unknown option '--probes'" in mistake(
        "evaluate", run, tmp_path, "--task", "segmentation", "--probes", "knn"
    )
    code, out, _ = run_command("evaluate", "--help")
    assert code == 0 and "--task" in out and "--maps" not in out
