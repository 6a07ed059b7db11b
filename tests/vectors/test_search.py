import base64
import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from test_frozen import make_run
from tiny import paint, picture

from diptych.errors import ConfigError, DataError, RunFolderError, UserError
from diptych.frozen import load, open_finished, save_backbone
from diptych.vectors.embed import EmbedConfig, embed
from diptych.vectors.index import build_index, open_index
from diptych.vectors.neighbours import nearest
from diptych.vectors.search import search
from diptych.vectors.search_page import write_page
from diptych.vectors.table import Vectors, read_vectors

HOSTILE = "<img src=x onerror=alert(1)>.png"
NAMES = [*(f"cat/{number}.png" for number in range(6)), "dog/1.png", f"dog/{HOSTILE}"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("search") / "run", "resnet11v2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return paint(tmp_path_factory.mktemp("pictures"), *NAMES)


@pytest.fixture(scope="module")
def vectors(run, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("vectors") / "emb.npy"
    embed(run, str(data), out, EmbedConfig(), device="cpu")
    return read_vectors(out)


def others(values, names=None):
    """Vectors of somebody else."""
    names = names or [str(row) for row in range(len(values))]
    return Vectors(values=values, names=names, labels=None, groups=None, card=None, path=None)


def test_a_picture_of_the_set_by_name(vectors):
    found = search(vectors, "cat/2.png", 3)
    row = vectors.row_of("cat/2.png")
    similar, rows = nearest(vectors.values[[row]], vectors.values, 3, leave_out=np.array([row]))
    assert [hit.row for hit in found.hits] == rows[0].tolist() and found.row == row and found.how == "exact"
    assert [hit.similarity for hit in found.hits] == similar[0].tolist()
    assert [hit.label for hit in found.hits] == [hit.name.partition("/")[0] for hit in found.hits]
    assert json.loads(json.dumps(found.to_dict()))["hits"][0]["rank"] == 1
    lines = found.as_text().splitlines()
    assert lines[0] == "most like cat/2.png of the set, of 8 (exact)"
    assert lines[2].split() == ["rank", "similarity", "name", "label"]
    assert lines[4].split()[:3] == ["1", f"{found.hits[0].similarity:.4f}", found.hits[0].name]


def test_of_very_many_an_index_is_advised(vectors, monkeypatch):
    monkeypatch.setattr("diptych.vectors.search.MANY", 8)
    assert search(vectors, "cat/2.png", 3).how == "exact; of so many, an index is quicker: add --index NAME.faiss"


def test_a_file_finds_itself(vectors, data, tmp_path):
    shutil.copy(data / "dog/1.png", tmp_path / "query.png")
    for query in (str(tmp_path / "query.png"), tmp_path / "query.png", Image.open(data / "dog/1.png"), picture(6)):
        found = search(vectors, query, 2, device="cpu")
        assert found.row is None and found.hits[0].name == "dog/1.png"
        assert found.hits[0].similarity == pytest.approx(1, abs=1e-5)


def test_all_by_default_where_there_are_few(vectors, data):
    assert len(search(vectors, "cat/0.png").hits) == 7
    assert len(search(vectors, data / "cat/0.png", device="cpu").hits) == 8


def test_a_vector_and_vectors_of_somebody_else():
    values = np.eye(5, dtype=np.float32)
    assert search(others(values), np.array([0, 0, 1, 0.5, 0]), 2).hits[1].name == "3"
    with pytest.raises(DataError, match="the query has 4 numbers and the set has vectors of 5"):
        search(others(values), np.ones(4))
    with pytest.raises(DataError, match="NaN"):
        search(others(values), np.full(5, np.nan))
    with pytest.raises(DataError, match="nothing says which run made the set"):
        search(others(values), picture())


@pytest.mark.parametrize(
    ("query", "k", "said"),
    [
        ("cat/7.png", 3, "there is no file 'cat/7.png', and in .*emb.npy: no picture is named .*did you mean 'cat/"),
        ("cat/1.png", 8, r"-k must be 1..7, as there are 7 other pictures, not 8"),
        ("cat/1.png", 0, r"-k must be 1..7"),
        ("x" * 5000, 3, "there is no file"),
        ("a\0b", 3, "there is no file 'a\ufffdb'"),
    ],
)
def test_what_cannot_be_found(vectors, query, k, said):
    with pytest.raises(UserError, match=said) as caught:
        search(vectors, query, k)
    assert "\n" not in str(caught.value)


def test_a_query_that_is_no_picture(vectors, tmp_path):
    (tmp_path / "q.jpg").write_text("hello")
    with pytest.raises(DataError, match=r"the query .*q.jpg is not a picture that can be read \("):
        search(vectors, str(tmp_path / "q.jpg"), device="cpu")


def test_a_set_of_one():
    with pytest.raises(DataError, match="a single picture, 0: there is no other"):
        search(others(np.ones((1, 3), np.float32)), "0")


def changed(run, vectors, folder):
    """A run whose weights are others now, and the vectors that it made before."""
    shutil.copytree(run, folder)
    opened, card = open_finished(folder)
    module = load(folder, "cpu").module
    with torch.no_grad():
        next(module.parameters()).add_(1e-3)
    save_backbone(opened, module, card)
    return replace(vectors, card=replace(vectors.card, run=str(folder)))


def test_a_run_with_other_weights_is_refused(run, vectors, data, tmp_path):
    stale = changed(run, vectors, tmp_path / "run")
    again = f"diptych embed {tmp_path / 'run'} {data} --out {vectors.path} --overwrite"
    with pytest.raises(RunFolderError, match=f"is stale: .* embed the pictures again with `{re.escape(again)}`"):
        search(stale, str(data / "cat/1.png"), device="cpu")
    assert search(stale, "cat/1.png", 2).hits  # what is in the set needs no network
    gone = replace(vectors, card=replace(vectors.card, run=str(tmp_path / "none")))
    with pytest.raises(RunFolderError, match="was embedded by the run .*none, and now: there is no run folder"):
        search(gone, str(data / "cat/1.png"), device="cpu")


def test_the_page(vectors, data, tmp_path):
    write_page(tmp_path / "a.html", search(vectors, "cat/2.png", 7), vectors, "cat/2.png")
    page = (tmp_path / "a.html").read_text()
    images = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(images) == 8 and all(base64.b64decode(image).startswith(b"\xff\xd8") for image in images)
    assert "<img src=x" not in page and "&lt;img src=x onerror=alert(1)&gt;.png" in page
    assert "<script" not in page and "default-src 'none'" in page and not re.search(r'(src|href)="http', page)
    write_page(tmp_path / "b.html", search(vectors, data / "cat/3.png", 2, device="cpu"), vectors, data / "cat/3.png")
    assert (tmp_path / "b.html").read_text().count("data:image/jpeg") == 3
    plain = others(np.eye(5, dtype=np.float32))
    write_page(tmp_path / "c.html", search(plain, "0", 2), plain, "0")
    assert "data:image" not in (tmp_path / "c.html").read_text()


def test_pictures_that_are_gone_leave_a_gap(run, tmp_path):
    data = paint(tmp_path / "data", "a.png", "b.png", "c.png")
    embed(run, str(data), tmp_path / "e.npy", EmbedConfig(), device="cpu")
    vectors = read_vectors(tmp_path / "e.npy")
    status, size = (data / "b.png").stat(), (data / "b.png").stat().st_size
    (data / "b.png").write_bytes(b"\0" * size)
    os.utime(data / "b.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    write_page(tmp_path / "a.html", search(vectors, "a.png", 2), vectors, "a.png")
    page = (tmp_path / "a.html").read_text()
    assert page.count("data:image/jpeg") == 2 and page.count('class="none"') == 1
    (data / "b.png").unlink()
    with pytest.raises(DataError, match="have changed since they were embedded"):
        write_page(tmp_path / "b.html", search(vectors, "a.png", 2), vectors, "a.png")
    assert not (tmp_path / "b.html").exists()


def spread(count=4000, width=24, seed=0):
    """Vectors in some clouds, as a network has them."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((30, width))
    return (centres[random.integers(0, 30, count)] + random.standard_normal((count, width))).astype(np.float32)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory):
    pytest.importorskip("faiss", reason="the extra faiss is not installed")
    vectors, path = others(spread()), tmp_path_factory.mktemp("index") / "emb.faiss"
    build_index(path, vectors)
    return vectors, path


def test_an_index_finds_what_it_says(indexed):
    vectors, path = indexed
    index = open_index(path, vectors)
    card = index.card
    assert card.cells > 1 and card.recall >= 0.99 and (card.rows, card.dim, card.queries) == (4000, 24, 1000)
    rows = np.arange(0, 4000, 9)  # others than it was measured on, for the most part
    similar, found = index.nearest(vectors.values[rows], vectors.values, 10, leave_out=rows)
    exact, truth = nearest(vectors.values[rows], vectors.values, 10, leave_out=rows)
    hits = sum(len(np.intersect1d(*both)) for both in zip(found, truth, strict=True)) / truth.size
    assert abs(hits - card.recall) <= 0.02
    same = (found == truth).all(axis=1)
    np.testing.assert_array_equal(similar[same], exact[same])  # its 8 bits decide no similarity
    said = search(vectors, "17", 5, index=index)
    assert len(said.hits) == 5 and f"finds {100 * card.recall:.1f} % of the 10 nearest" in said.how
    assert (np.diff([hit.similarity for hit in said.hits]) <= 0).all() and 17 not in [hit.row for hit in said.hits]


def test_more_than_the_cells_hold_is_searched_exactly(indexed):
    vectors, path = indexed
    _, rows = open_index(path, vectors).nearest(vectors.values[:2], vectors.values, 3999, leave_out=np.arange(2))
    np.testing.assert_array_equal(rows, nearest(vectors.values[:2], vectors.values, 3999, leave_out=np.arange(2))[1])


def test_an_index_of_other_vectors_is_refused(indexed, vectors, run, data, tmp_path):
    mine, path = indexed
    again = re.escape(f"diptych search VECTORS --index {path} --overwrite")
    with pytest.raises(
        DataError, match=f"is of vectors of 24 numbers and these have 23; build it again with `{again}`"
    ):
        open_index(path, others(spread(width=23)))
    values = spread()
    values[1234, 5] += 1e-3
    for other in (values, values[:-1], spread().astype(np.float16)):
        with pytest.raises(DataError, match=f"is stale: .*`{again}`"):
            open_index(path, others(other))
    build_index(tmp_path / "small.faiss", vectors)
    again = re.escape(f"diptych search {vectors.path} --index {tmp_path / 'small.faiss'} --overwrite")
    other = replace(vectors, card=replace(vectors.card, weights="0" * 64))
    with pytest.raises(DataError, match=f"is stale: .*of other weights.*`{again}`"):
        open_index(tmp_path / "small.faiss", other)
    assert open_index(tmp_path / "small.faiss", vectors).card.cells == 1


def test_the_numbers_of_a_file_that_has_not_changed_are_not_read_to_know_it(indexed, tmp_path, monkeypatch):
    file, path = tmp_path / "v.npy", tmp_path / "v.faiss"
    values = spread()
    np.save(file, values)
    build_index(path, read_vectors(file))
    with monkeypatch.context() as patch:
        patch.setattr("diptych.vectors.index.digest", lambda values: 1 / 0)
        assert open_index(path, read_vectors(file)).card.rows == 4000
    os.utime(file)
    open_index(path, read_vectors(file))  # the same numbers
    values[1234, 5] += 1e-3
    np.save(file, values)
    with pytest.raises(DataError, match="is stale"):
        open_index(path, read_vectors(file))


def test_a_damaged_index_is_refused(indexed, tmp_path):
    vectors, path = indexed
    for file in (path, path.with_name(path.name + ".json")):
        shutil.copy(file, tmp_path)
    copy = tmp_path / path.name
    content = copy.read_bytes()
    copy.write_bytes(content[:-100])
    with pytest.raises(DataError, match="is cut short or damaged .* bytes"):
        open_index(copy, vectors)
    copy.write_bytes(b"\0" * len(content))
    with pytest.raises(DataError, match="is damaged; build it again"):
        open_index(copy, vectors)
    (tmp_path / (path.name + ".json")).write_text("{")
    with pytest.raises(DataError, match="is no whole index: emb.faiss.json beside it is missing or damaged"):
        open_index(copy, vectors)


def test_an_index_is_not_replaced_unasked(indexed, tmp_path):
    vectors, path = indexed
    with pytest.raises(DataError, match="is there already: choose another --index, or add --overwrite"):
        build_index(path, vectors)
    with pytest.raises(ConfigError, match=r"an index is a file NAME.faiss; type .*emb.faiss"):
        build_index(tmp_path / "emb.idx", vectors)
    (tmp_path / "folder.faiss").mkdir()
    with pytest.raises(DataError, match="folder.faiss is there already"):
        build_index(tmp_path / "folder.faiss", vectors, overwrite=True)
    with pytest.raises(RunFolderError, match="File name too long.*choose another --index"):
        build_index(tmp_path / f"{'x' * 300}.faiss", vectors)
    with pytest.raises(DataError, match="single vector, which needs no index"):
        build_index(tmp_path / "one.faiss", others(spread(1)))
    small = others(spread(50))
    build_index(tmp_path / "small.faiss", vectors)
    assert build_index(tmp_path / "small.faiss", small, overwrite=True).card.rows == 50
