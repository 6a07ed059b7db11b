import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.data.sources.chosen import tiled
from diptych.data.sources.open import open_data
from diptych.errors import ConfigError, DataError
from diptych.evaluation.pictures import open_labelled
from diptych.evaluation.targets import Columns, Targets, parse_columns, read_targets

NUMBERS = parse_columns("regression", "age,weight")
LISTED = parse_columns("multilabel", "findings")


def write(root: Path, lines: Sequence[str], name: str = "list.csv") -> Path:
    """A list, and an empty file for each picture that it names: nothing here opens one."""
    for line in lines[1:]:
        picture = root / line.split(",")[0]
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.touch()
    (root / name).write_text("\n".join(lines) + "\n")
    return root / name


def read(path: Path, columns: Columns) -> tuple[Targets, Any]:
    source = open_data(str(path)).train
    return read_targets(str(path), columns, [source]), source


def test_numbers_are_joined_by_the_paths(tmp_path: Path) -> None:
    lines = ["weight,path,age", "70.5,./b.png,34", "1e3,sub//a.png,-2"]
    for line in ("b.png", "sub/a.png"):
        (tmp_path / line).parent.mkdir(exist_ok=True)
        (tmp_path / line).touch()
    (tmp_path / "list.csv").write_text("\n".join(lines))
    found, source = read(tmp_path / "list.csv", NUMBERS)
    assert [source.name_of(0), source.name_of(1)] == ["b.png", "sub/a.png"]
    assert found.of(source).dtype == torch.float64 and found.names == ("age", "weight")
    assert found.of(source).tolist() == [[34, 70.5], [-2, 1000]]
    assert found.of(source, [1, 0]).tolist() == [[-2, 1000], [34, 70.5]]


def test_large_numbers_are_kept_whole(tmp_path: Path) -> None:
    lines = ["path,age,weight", "a.png,1732838401,1e39", "b.png,1732838402,2e39"]
    found, source = read(write(tmp_path, lines), NUMBERS)
    assert found.of(source).tolist() == [[1732838401, 1e39], [1732838402, 2e39]]


def test_labels_are_listed_in_one_column(tmp_path: Path) -> None:
    lines = ["path,findings", "a.png,nodule; edema", "b.png,", "c.png,edema;;edema"]
    found, source = read(write(tmp_path, lines), LISTED)
    assert found.names == ("edema", "nodule")
    assert found.of(source).tolist() == [[True, True], [False, False], [True, False]]


def test_labels_have_columns_of_their_own(tmp_path: Path) -> None:
    lines = ["path,edema,nodule", "a.png,1,0", "b.png,False,TRUE", "c.png,1.0,0.0"]
    found, source = read(write(tmp_path, lines), parse_columns("multilabel", "nodule,edema"))
    assert found.names == ("nodule", "edema")
    assert found.of(source).tolist() == [[False, True], [True, False], [False, True]]


def test_parquet_is_read_alike(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    write(tmp_path, ["path", "a.png", "b.png"])
    columns = {"path": ["a.png", "b.png"], "age": [3, 4], "weight": [0.5, None], "findings": ["x;y", None]}
    columns["lists"] = [["x"], ["y"]]
    parquet.write_table(arrow.table(columns), tmp_path / "list.parquet")
    found, source = read(tmp_path / "list.parquet", parse_columns("regression", "age"))
    assert found.of(source).tolist() == [[3], [4]]
    found, _ = read(tmp_path / "list.parquet", LISTED)
    assert found.of(source).tolist() == [[True, True], [False, False]]
    with pytest.raises(DataError, match="list.parquet, row 2: weight is empty; fill it in or drop the row"):
        read(tmp_path / "list.parquet", NUMBERS)
    with pytest.raises(DataError, match="lists holds neither text nor numbers; write several labels as text"):
        read(tmp_path / "list.parquet", parse_columns("multilabel", "lists"))


def test_tiles_have_the_answers_of_their_picture(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (32, 16)).save(tmp_path / "a.png")
    (tmp_path / "list.csv").write_text("path,age\na.png,7\n")
    source = tiled(open_data(str(tmp_path / "list.csv")), 16).train
    found = read_targets(str(tmp_path / "list.csv"), parse_columns("regression", "age"), [source])
    assert len(source) == 2 and found.of(source).tolist() == [[7], [7]]


def test_rows_that_are_not_used_may_hold_anything(tmp_path: Path) -> None:
    rows = ["path,age,split", *(f"{n}.png,{n},{'test' if n > 3 else 'train'}" for n in range(8)), "9.png,?,val"]
    sources = open_labelled(str(write(tmp_path, rows)), None, None, 0, columns=parse_columns("regression", "age"))
    assert sources.targets is not None and sources.targets.of(sources.test).flatten().tolist() == [4, 5, 6, 7]


def test_labels_that_cannot_be_learned_are_left_out_and_told(tmp_path: Path) -> None:
    words = ["x;all", "y;all", "x;y;all", "x;all;new", "y;all", "x;all"]
    rows = [f"{n}.png,{word},{'test' if n > 2 else 'train'}" for n, word in enumerate(words)]
    path = write(tmp_path, ["path,findings,split", *rows])
    sources = open_labelled(str(path), None, None, 0, columns=LISTED)
    assert sources.targets is not None and sources.targets.names == ("x", "y")
    assert sources.targets.of(sources.test).tolist() == [[True, False], [False, True], [True, False]]
    assert "; 2 labels 'all', 'new' left out, which no training picture has, or all have" in sources.note


def test_other_numbers_are_other_data(tmp_path: Path) -> None:
    path = write(tmp_path, ["path,age,weight", *(f"{n}.png,{n},{-n}" for n in range(20))])
    columns = [parse_columns("regression", name) for name in ("age", "weight", "age")]
    prints = [open_labelled(str(path), None, None, 0, columns=column).fingerprint for column in columns]
    assert prints[0] == prints[2] != prints[1]


@pytest.mark.parametrize(
    ("columns", "lines", "message"),
    [
        (NUMBERS, ["path,age,weight", "a.png,3,1", "b.png,,1"], "row 3: age is empty; fill it in or drop the row"),
        (NUMBERS, ["path,age,weight", "a.png,nan,1"], "row 2: age is 'nan', which is no number to learn; write one"),
        (NUMBERS, ["path,age,weight", "a.png,3,-1e200"], "row 2: weight is '-1e200', which is no number to learn"),
        (NUMBERS, ["path,age,weight", "a.png,3,1", "b.png,4,heavy"], "row 3: weight is 'heavy', which is no number"),
        (NUMBERS, ["path,age,wieght", "a.png,3,1"], "no column 'weight' for --targets; did you mean 'wieght'?"),
        (NUMBERS, ["path,age,weight", "a.png,3,1", "./a.png,4,1"], "rows 2 and 3: ./a.png has '3,1' and '4,1'"),
        (LISTED, ["path,findings", "a.png,x", "b.png,"], "there is one label only, 'x', which makes two classes"),
        (LISTED, ["path,findings", "a.png,0", "b.png,1"], "there is one label only, 'findings', which makes two"),
        (LISTED, ["path,findings", "a.png,", "b.png,"], "there is one label only, 'findings'"),
        (LISTED, ["path,findings", *(f"{n}.png,{n};x" for n in range(30))], "30 of the 31 labels of .*have a single"),
        (
            parse_columns("multilabel", "edema,nodule"),
            ["path,edema,nodule", "a.png,1,maybe"],
            "row 2: nodule is 'maybe'; columns of labels hold 0 or 1",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(
    tmp_path: Path, columns: Columns, lines: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        read(write(tmp_path, lines), columns)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "lines", "message"),
    [
        (
            NUMBERS,
            ["path,age,weight", *(f"{n}.png,{n},7" for n in range(9))],
            "'weight' is 7 for all 7 pictures to learn",
        ),
        (NUMBERS, ["path,age,weight", "a.png,3,1", "b.png,4,2"], "0 pictures to test on, and two are needed at least"),
        (
            LISTED,
            ["path,findings,split", "a.png,x,train", "b.png,,train", "c.png,y;x,test"],
            "fewer than two labels can be learned, because no training picture has 'y', or all have",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused_in_one_line(
    tmp_path: Path, columns: Columns, lines: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        open_labelled(str(write(tmp_path, lines)), None, None, 0, columns=columns)
    assert "\n" not in str(error.value)


def test_a_folder_has_no_columns(tmp_path: Path) -> None:
    write(tmp_path, ["path", "x/a.png", "y/b.png"])
    with pytest.raises(DataError, match="--targets reads columns of a CSV or Parquet file, which .* is not"):
        open_labelled(str(tmp_path / "x"), None, None, 0, columns=NUMBERS)


def test_a_file_name_as_class_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, ["path,label", *(f"{n}.png,{n}.png" for n in range(30))])
    with pytest.raises(DataError, match="30 of the 30 classes of .* have a single picture .*--targets COLUMN"):
        open_labelled(str(path), None, None, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("age,,weight", "--targets cannot be 'age,,weight': give the names of columns"),
        ("", "--targets cannot be '': give the names of columns"),
        ("age, age", "--targets names age twice: once is enough"),
    ],
)
def test_columns_are_named_once_and_not_empty(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_columns("regression", words)
