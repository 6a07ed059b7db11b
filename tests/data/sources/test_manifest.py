import subprocess
import sys

import pyarrow
import pytest
from picture_files import encoded
from pyarrow import parquet

from diptych.data.sources.manifest import open_list, open_manifest
from diptych.errors import DataError


@pytest.fixture
def write(make_folder):
    folder = make_folder("a.jpg", "b.jpg", "sub/c.jpg", "d.jpg")

    def write(text, encoding="utf-8", name="labels.csv"):
        path = folder / name
        path.write_bytes(text.encode(encoding))
        return path

    return write


@pytest.fixture(params=["csv", "parquet"])
def table(request, write):
    """Writes a table given as text, in both forms."""

    def table(text):
        path = write(text)
        if request.param == "csv":
            return path
        header, *rows = [line.split(",") for line in text.splitlines()]
        columns = {
            name: pyarrow.array([row[place] or None for row in rows], pyarrow.string())
            for place, name in enumerate(header)
        }
        parquet.write_table(pyarrow.table(columns), path.with_suffix(".parquet"))
        return path.with_suffix(".parquet")

    return table


def names(source):
    return [source.name_of(index) for index in range(len(source))]


def labels(source):
    return [source.label(index) for index in range(len(source))]


def message(path, opener=open_manifest):
    with pytest.raises(DataError) as caught:
        opener(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


def test_pictures_and_labels_relative_to_the_file(table):
    splits = open_manifest(path := table("path,label\nb.jpg,dog\na.jpg,cat\nsub/c.jpg,cat\n"))
    source = splits.train
    assert names(source) == ["a.jpg", "b.jpg", "sub/c.jpg"] and splits.test is None
    assert source.classes == ("cat", "dog") and labels(source) == [0, 1, 0]
    assert source.read(2).shape == (3, 24, 32) and source.group(0) is None
    assert splits.note == f"{path} lists 3 pictures of 2 classes"


def test_the_column_may_be_called_file(table):
    assert names(open_manifest(table("label,file\ndog,b.jpg\ncat,a.jpg\n")).train) == ["a.jpg", "b.jpg"]


def test_paths_may_be_absolute(table, tmp_path):
    (tmp_path / "far.jpg").write_bytes(encoded())
    source = open_manifest(table(f"path\n{tmp_path}/far.jpg\n./a.jpg\n")).train
    assert names(source) == [f"{tmp_path}/far.jpg", "a.jpg"] and source.read(0).shape == source.read(1).shape


@pytest.mark.parametrize("text", ["path\na.jpg\nb.jpg\n", "path,label,group,split\na.jpg,,,\nb.jpg,,,\n"])
def test_without_labels(table, text):
    splits = open_manifest(table(text))
    assert splits.train.classes == () and labels(splits.train) == [None, None] and splits.test is None
    assert splits.note.endswith("lists 2 pictures, without labels")


def test_a_split_and_groups(table):
    splits = open_manifest(
        path := table("path,label,group,split\na.jpg,x,p,train\nb.jpg,y,p,Test\nsub/c.jpg,y,q,train\nd.jpg,x,r,val\n")
    )
    assert names(splits.train) == ["a.jpg", "sub/c.jpg"] and names(splits.test) == ["b.jpg"]
    assert splits.train.classes == splits.test.classes == ("x", "y") and labels(splits.test) == [1]
    assert [splits.train.group(0), splits.train.group(1), splits.test.group(0)] == ["p", "q", "p"]
    assert splits.train.name == f"{path}/train" and splits.train.fingerprint != splits.test.fingerprint
    assert splits.note == (
        f"{path} lists 2 pictures to learn from and 1 to test on of 2 classes in 2 groups; 1 picture of the split val "
        "left out; 1 group in both parts, so that the test is no test of new ones"
    )


def test_times_are_kept_as_they_are_written(table):
    splits = open_manifest(table("path,split,time\nb.jpg,train,2024-05-01\na.jpg,train,monday\nd.jpg,test,7\n"))
    assert [splits.train.time(0), splits.train.time(1), splits.test.time(0)] == ["monday", "2024-05-01", "7"]
    assert open_manifest(table("path\na.jpg\n")).train.time(0) is None


def test_times_of_a_parquet_file_are_written_as_iso_8601(write):
    path = write("").with_suffix(".parquet")
    moments = pyarrow.array([1714564800_000_001, 1714608000_000_000], pyarrow.timestamp("us"))
    parquet.write_table(pyarrow.table({"path": ["a.jpg", "b.jpg"], "time": moments}), path)
    source = open_manifest(path).train
    assert [source.time(0), source.time(1)] == ["2024-05-01 12:00:00.000001", "2024-05-02 00:00:00.000000"]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_rows_are_the_test_where_there_is_none(table, name):
    splits = open_manifest(table(f"path,split\na.jpg,train\nb.jpg,{name}\n"))
    assert names(splits.test) == ["b.jpg"] and f"(its split {name}, as there is no test)" in splits.note


def test_what_is_left_out_is_not_looked_for(table):
    assert len(open_manifest(table("path,split\na.jpg,train\nb.jpg,test\ngone.jpg,val\n")).train) == 1


def test_byte_order_mark_other_columns_quotes_and_spaces(write):
    source = open_manifest(
        write('label,who,file\r\n"cat, big",me, a.jpg\r\n\r\ndog,you,b.jpg,,\r\n', "utf-8-sig")
    ).train
    assert source.classes == ("cat, big", "dog")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,label\na.jpg,cat\nb.jpg,\n", "row 3: the label is empty"),
        ("path,label\na.jpg,\nb.jpg,cat\n", "row 2: the label is empty"),
        ("path,group\na.jpg,p\nb.jpg,\n", "row 3: the group is empty"),
        ("path,split\na.jpg,train\nb.jpg,\n", "row 3: the split is empty"),
        ("path,time\na.jpg,7\nb.jpg,\n", "row 3: the time is empty"),
        ("path,split\na.jpg,trian\n", "row 2: there is no split 'trian'; did you mean 'train'?"),
        ("path,split\na.jpg,test\nb.jpg,val\n", "no row whose split is 'train' (it has test, val)"),
        ("file,label\n,cat\n", "row 2: the file is empty"),
        ("path,label\na.jpg,cat\nz.jpg,dog\n", "row 3: cannot find z.jpg (No such file"),
        ("path\nsub\n", "row 2: sub is not a file"),
        ("path,label\na.jpg,cat\nb.jpg,dog\n./a.jpg,dog\n", "rows 2 and 4: ./a.jpg is labelled both 'cat' and 'dog'"),
        ("path,split\na.jpg,train\na.jpg,test\n", "rows 2 and 3: a.jpg has the splits 'train' and 'test'; keep one"),
        ("path,group\na.jpg,p\na.jpg,q\n", "rows 2 and 3: a.jpg has the groups 'p' and 'q'; keep one"),
        ("path,time\na.jpg,1\na.jpg,2\n", "rows 2 and 3: a.jpg has the times '1' and '2'; keep one"),
        ("path,label\n", "lists no pictures"),
        ("name,label\na.jpg,cat\n", "has no column 'path' (or 'file'): it"),
    ],
)
def test_mistakes_name_the_row(table, text, expected):
    path = table(text)
    if path.suffix == ".parquet":  # has no header line: its first row is row 1
        for number in range(2, 5):
            expected = expected.replace(f"row {number}", f"row {number - 1}").replace(
                f"rows 2 and {number}", f"rows 1 and {number - 1}"
            )
    assert expected in message(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty; its first line should be path,label"),
        ("file;label\na.jpg;cat\n", "has no column 'path' (or 'file'): its first line should be path,label and is"),
        ("file,label\na.jpg,cat\nb.jpg\n", "row 3: the label is empty"),
        ("path,label\na.jpg,cat\nb.jpg,cat, big\n", "row 3: it has 3 cells and the header 2"),
        ('file,label\n"a.jpg,cat\n', "not a CSV file"),
        ("path\na\0.jpg\n", "row 2: cannot find a"),
    ],
)
def test_mistakes_in_csv(write, text, expected):
    assert expected in message(write(text))


def test_not_utf8(write):
    assert "UTF-8" in message(write("file,label\nä.jpg,cat\n", "latin-1"))


def test_a_parquet_file_of_other_things(write):
    path = write("").with_suffix(".parquet")
    parquet.write_table(pyarrow.table({"image": [{"bytes": b"x"}], "label": [1]}), path)
    assert f"(or 'file'): it has image, label; for pictures that lie inside it type hub:{path}" in message(path)
    parquet.write_table(pyarrow.table({"path": [{"bytes": b"x"}]}), path)
    assert "not a Parquet file of text, or damaged" in message(path)


def test_numbers_in_parquet_are_names_of_classes(write):
    path = write("").with_suffix(".parquet")
    parquet.write_table(pyarrow.table({"path": ["a.jpg", "b.jpg"], "label": [7, 3], "group": [1, 2]}), path)
    source = open_manifest(path).train
    assert source.classes == ("3", "7") and labels(source) == [1, 0] and source.group(1) == "2"


@pytest.mark.parametrize("share", [0.0, 0.4, 0.95])
def test_a_broken_parquet_file(write, share):
    path = write("").with_suffix(".parquet")
    parquet.write_table(pyarrow.table({"path": [f"{number}.jpg" for number in range(500)]}), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert message(path).startswith(f"cannot read {path} (not a Parquet file")


def test_a_flipped_byte_in_parquet(write):
    path = write("").with_suffix(".parquet")
    parquet.write_table(pyarrow.table({"path": [f"{number}.jpg" for number in range(500)]}), path, compression="zstd")
    content = bytearray(path.read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(content)
    message(path)


def test_parquet_without_its_package(write):
    path = write("").with_suffix(".parquet")
    path.write_bytes(b"PAR1")
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pathlib import Path\nfrom diptych.data.sources.manifest import open_manifest\n"
        "try: open_manifest(Path(sys.argv[1]))\nexcept Exception as error: print(type(error).__name__, error)"
    )
    said = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True).stdout
    assert said == f"DataError reading {path} needs `pip install 'diptych[hub]'`\n"


def test_exact_repetitions_count_once(table):
    splits = open_manifest(table("file,label\na.jpg,cat\n./a.jpg,cat\nb.jpg,dog\n"))
    assert len(splits.train) == 2 and splits.note.endswith("; 1 repeated row left out")


def test_fingerprint_follows_the_pictures(write):
    path = write("file,label\na.jpg,cat\nb.jpg,dog\n")
    before = open_manifest(path).train.fingerprint
    assert open_manifest(path).train.fingerprint == before
    (path.parent / "a.jpg").write_bytes(encoded("JPEG", 9) + b" ")
    assert open_manifest(path).train.fingerprint != before


def test_a_list_of_paths(write, tmp_path):
    (tmp_path / "far.jpg").write_bytes(encoded())
    text = f"\ufeff# mine\n\nb.jpg\n  a.jpg \n./a.jpg\nsub/c.jpg\r\n{tmp_path}/far.jpg\n"
    listing = open_list(path := write(text, name="mine.txt"))
    assert [entry.name for entry in listing.entries] == [f"{tmp_path}/far.jpg", "a.jpg", "b.jpg", "sub/c.jpg"]
    assert listing.left_out == ["1 repeated line left out"]
    assert listing.load("sub/c.jpg") == path.parent / "sub" / "c.jpg" and listing.entries[1].size > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "lists no pictures"),
        ("# only this\n\n", "lists no pictures"),
        ("a.jpg\n\nz.jpg\n", "line 3: cannot find z.jpg (No such file"),
        ("sub\n", "line 1: sub is not a file"),
        ("a.jpg\nb.tar\n", "line 2: b.tar is not a picture on this disk"),
        ("https://example.org/a.jpg\n", "line 1: https://example.org/a.jpg is not a picture on this disk"),
    ],
)
def test_mistakes_in_a_list_name_the_line(write, text, expected):
    assert expected in message(write(text, name="mine.lst"), open_list)


def test_a_list_that_is_no_text(write):
    assert "not text in UTF-8" in message(write("ä.jpg\n", "latin-1", "mine.txt"), open_list)
