import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from diptych.backbones.feature_choice import FeatureChoice
from diptych.errors import ConfigError, DataError
from diptych.frozen import Preprocessing
from diptych.vectors import files
from diptych.vectors.table import Vectors, VectorsCard, card_of, read_card, read_vectors, write_card

CARD = VectorsCard(
    schema_version=1,
    weights="0f" * 32,
    backbone="resnet20v2",
    preprocessing=Preprocessing(image_size=16, mean=(0.5,), std=(0.25,), channels=1, depth="float32", low=(-1.0,)),
    features=FeatureChoice(kind="grid", layer=-2),
    run="runs/mine",
    data="pictures",
    data_dir=None,
    part="all",
    fingerprint="ab",
    diptych="1.0",
    shape=(4, 2, 2),
)
VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)


def table(values=VALUES, kind=None, **columns):
    flat = pa.array(values.reshape(-1))
    vectors = (
        pa.FixedSizeListArray.from_arrays(flat, values.shape[1]) if kind is None else pa.array(values.tolist(), kind)
    )
    return pa.table({**columns, "vector": vectors})


def refusal(path):
    with pytest.raises(DataError) as caught:
        read_vectors(path)
    text = str(caught.value)
    assert "\n" not in text and str(path) in text
    return text


def test_a_card_survives_its_json():
    assert read_card(write_card(CARD), "x") == CARD


@pytest.mark.parametrize("text", ["{}", "[1]", '{"kind": "cat"}'])
def test_json_of_somebody_else_is_no_card(text):
    assert read_card(text, "x") is None


@pytest.mark.parametrize(
    ("change", "said"),
    [({"schema_version": 99}, "another version"), ({"weights": 3}, "damaged"), ({"colour": 1}, "damaged")],
)
def test_a_card_that_cannot_be_used_is_refused(change, said):
    with pytest.raises(DataError, match=f"^f.npy.*{said}"):
        read_card(json.dumps(json.loads(write_card(CARD)) | change), "f.npy")


@pytest.mark.parametrize("kind", [None, pa.list_(pa.float32()), pa.large_list(pa.float32())])
def test_a_parquet_file_of_somebody_else(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 6)  # two rows at a time
    pq.write_table(table(kind=kind, label=[1, None, 2, 2]), tmp_path / "v.parquet")
    found = read_vectors(tmp_path / "v.parquet")
    assert np.array_equal(found.values, VALUES) and (found.values.dtype, len(found), found.dim) == (np.float32, 4, 3)
    assert (found.names, found.labels, found.groups, found.card) == (
        ["0", "1", "2", "3"],
        ["1", None, "2", "2"],
        None,
        None,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_of_somebody_else(tmp_path, dtype, order):
    np.save(tmp_path / "v.npy", np.asarray(VALUES, dtype, order=order))
    (tmp_path / "v.json").write_text('{"mine": 1}')
    found = read_vectors(tmp_path / "v.npy")
    assert np.array_equal(found.values, VALUES) and found.values.dtype == dtype and found.values.flags.c_contiguous
    assert found.names == ["0", "1", "2", "3"] and found.card is None and found.path == tmp_path / "v.npy"


def test_rows_are_found_by_name():
    names = ["cat/1.png", "cat/2.png", "dog/1.png", "cat/1.png"]
    vectors = Vectors(values=VALUES, names=names, labels=None, groups=None, card=None, path=None)
    assert [vectors.row_of(name) for name in names] == [0, 1, 2, 0]
    for wrong, hint in [("2.png", "cat/2.png"), ("x/y/2.png", "cat/2.png"), ("dig/1.pnk", "dog/1.png")]:
        with pytest.raises(DataError, match=f"no picture is named '{wrong}'; did you mean '{hint}'"):
            vectors.row_of(wrong)
    with pytest.raises(DataError, match="the first one is 'cat/1.png'"):
        vectors.row_of("zzzzzzzz")


def test_files_that_are_cut_short_or_damaged(tmp_path):
    parquet, npy = tmp_path / "v.parquet", tmp_path / "v.npy"
    big = np.random.default_rng(0).random((500, 64), np.float32)
    pq.write_table(table(big), parquet, compression="none", use_dictionary=False, write_page_checksum=True)
    np.save(npy, big)
    for path in (parquet, npy):
        whole = path.read_bytes()
        for length in (0, 3, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            assert "cut short" in refusal(path)
    damaged = bytearray(
        parquet.read_bytes()
        and (
            pq.write_table(table(big), parquet, compression="none", use_dictionary=False, write_page_checksum=True)
            or parquet.read_bytes()
        )
    )
    damaged[len(damaged) // 2] ^= 1
    parquet.write_bytes(damaged)
    assert "damaged" in refusal(parquet)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_not_finite_are_refused_with_their_row(tmp_path, value, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 6)
    values = VALUES.copy()
    values[3, 1] = value
    np.save(tmp_path / "v.npy", values)
    pq.write_table(table(values), tmp_path / "v.parquet")
    for name in ("v.npy", "v.parquet"):
        assert "row 3" in refusal(tmp_path / name)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (np.array([{"a": 1}, None]), "object"),
        (VALUES.astype(np.float64), "holds float64 (4, 3)"),
        (VALUES[0], "holds float32 (3,)"),
        (VALUES.astype(">f4"), "holds >f4"),
        (VALUES[:0], "holds no vectors"),
        (VALUES[:, :0], "holds no vectors"),
    ],
)
def test_arrays_that_are_no_vectors(tmp_path, made, said):
    np.save(tmp_path / "v.npy", made, allow_pickle=True)
    assert said.lower() in refusal(tmp_path / "v.npy").lower()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (pa.table({"vektor": [1.0]}), "no column 'vector'; did you mean 'vektor'"),
        (pa.table({"vector": [1.0]}), "holds double"),
        (pa.table({"vector": pa.array([[1.0]], pa.list_(pa.float64()))}), "holds list<"),
        (pa.table({"vector": pa.array([[1.0], None], pa.list_(pa.float32()))}), "row 1: there is no vector"),
        (pa.table({"vector": pa.array([[1.0], [None]], pa.list_(pa.float32(), 1))}), "row 1: there is no vector"),
        (pa.table({"vector": pa.array([[1.0], [2.0], [1.0, 2.0]], pa.list_(pa.float32()))}), "row 2: a vector of 2"),
        (pa.table({"vector": pa.array([], pa.list_(pa.float32(), 3))}), "holds no vectors"),
        (pa.table({"vector": pa.array([[], []], pa.list_(pa.float32(), 0))}), "cannot be read"),
        (pa.Table.from_arrays([pa.array([[1.0]], pa.list_(pa.float32()))] * 2, ["vector"] * 2), "cannot be read"),
    ],
)
def test_parquet_files_without_vectors(tmp_path, made, said):
    pq.write_table(made, tmp_path / "v.parquet")
    assert said in refusal(tmp_path / "v.parquet")


def headed(header):
    """The bytes of an array under a header of one's own."""
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + VALUES.tobytes()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-4, 3)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3), 1: 2}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 3)",
        "{[]: 1}",
        "-" * 5000 + "1",
    ],
)
def test_arrays_whose_header_is_hostile(tmp_path, header):
    (tmp_path / "v.npy").write_bytes(headed(header))
    assert "cannot be read (" in refusal(tmp_path / "v.npy")


@pytest.mark.parametrize(
    ("line", "said"), [("[" * 100_000, "recursion"), ("[1]", "list indices"), ('"a"', "string indices"), ("1", "int")]
)
def test_names_beside_an_array_that_are_hostile(tmp_path, line, said):
    np.save(tmp_path / "v.npy", VALUES)
    (tmp_path / "v.json").write_text(write_card(CARD))
    (tmp_path / "v.jsonl").write_text(f"{line}\n" * 4)
    with pytest.raises(DataError, match=rf"^[^\n]*v\.jsonl cannot be read \([^\n]*{said}"):
        read_vectors(tmp_path / "v.npy")


NAMED = [("a", "x"), (None, "x"), (7, "x"), ("\ud800", "y")]


def test_what_is_no_text_is_made_one_and_what_has_no_name_gets_its_row(tmp_path):
    np.save(tmp_path / "v.npy", VALUES)
    (tmp_path / "v.json").write_text(write_card(CARD))
    rows = [{"name": name, "label": label, "group": None} for name, label in NAMED]
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_vectors(tmp_path / "v.npy")
    assert (found.names, found.labels, found.groups) == (["a", "1", "7", "?"], ["x", "x", "x", "y"], None)


def test_a_card_of_parquet_that_is_hostile(tmp_path):
    for text, said in ((b"[" * 100_000, "recursion"), (b"\xff{", "damaged")):
        pq.write_table(table().replace_schema_metadata({b"diptych": text}), tmp_path / "v.parquet")
        assert said in refusal(tmp_path / "v.parquet")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_card_is_read_without_the_numbers(tmp_path, dtype):
    values = np.full((4, 3), np.nan, dtype)  # which would be refused
    np.save(tmp_path / "v.npy", values)
    assert card_of(tmp_path / "v.npy") == (None, np.dtype(dtype).name, 4)
    (tmp_path / "v.json").write_text(write_card(CARD))
    pq.write_table(table(values).replace_schema_metadata({b"diptych": write_card(CARD)}), tmp_path / "v.parquet")
    for name in ("v.npy", "v.parquet"):
        assert card_of(tmp_path / name) == (CARD, np.dtype(dtype).name, 4)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "v.parquet")
    with pytest.raises(DataError, match="cannot be read"):
        card_of(tmp_path / "v.parquet")


def test_what_does_not_fit_into_memory_is_a_line(tmp_path, monkeypatch):
    def empty(*words):
        raise MemoryError

    pq.write_table(table(), tmp_path / "v.parquet")
    monkeypatch.setattr(np, "empty", empty)
    assert "--out NAME.npy, which is left on disk" in refusal(tmp_path / "v.parquet")


def test_files_that_are_not_there_or_of_another_kind(tmp_path):
    assert "diptych embed RUN DATA --out" in refusal(tmp_path / "v.parquet")
    assert "NAME.parquet or NAME.npy" in refusal(tmp_path / "v.csv")
    assert "there is no file" in refusal(tmp_path / f"{'x' * 300}.npy")


def test_parquet_without_pyarrow_is_one_line(tmp_path, monkeypatch):
    pq.write_table(table(), tmp_path / "v.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'diptych\[parquet\]'"):
        read_vectors(tmp_path / "v.parquet")
