import pytest
from picture_files import encoded

from diptych.data.labels import open_csv
from diptych.errors import DataError


@pytest.fixture
def write(make_folder):
    folder = make_folder("a.jpg", "b.jpg", "sub/c.jpg")

    def write(text, encoding="utf-8"):
        path = folder / "labels.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_pictures_and_labels_relative_to_the_file(write):
    source, repeated = open_csv(write("file,label\nb.jpg,dog\na.jpg,cat\nsub/c.jpg,cat\n"))
    assert [source.name_of(i) for i in range(3)] == ["a.jpg", "b.jpg", "sub/c.jpg"] and repeated == 0
    assert source.classes == ("cat", "dog") and [source.label(i) for i in range(3)] == [0, 1, 0]
    assert source.read(2).shape == (3, 24, 32)


def test_byte_order_mark_other_columns_quotes_and_spaces(write):
    source, _ = open_csv(write('label,who,file\r\n"cat, big",me, a.jpg\r\ndog,you,b.jpg\r\n', "utf-8-sig"))
    assert source.classes == ("cat, big", "dog")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty; its first line should be file,label"),
        ("file,label\n", "lists no pictures"),
        ("path,label\na.jpg,cat\n", "has no column 'file'.*is 'path,label'"),
        ("file;label\na.jpg;cat\n", "has no column 'file'"),
        ("file\na.jpg\n", "has no column 'label'"),
        ("file,label\na.jpg,cat\nb.jpg\n", "row 3: the label is empty"),
        ("file,label\n,cat\n", "row 2: the file is empty"),
        ("file,label\na.jpg,cat\nz.jpg,dog\n", r"row 3: cannot find z.jpg \(No such file"),
        ("file,label\nsub,cat\n", "row 2: sub is not a file"),
        ("file,label\na.jpg,cat\nb.jpg,dog\na.jpg,dog\n", "rows 2 and 4: a.jpg is labelled both 'cat' and 'dog'"),
        ('file,label\n"a.jpg,cat\n', "not a CSV file"),
    ],
)
def test_mistakes_name_the_row(write, text, message):
    with pytest.raises(DataError, match=message) as caught:
        open_csv(write(text))
    assert "\n" not in str(caught.value)


def test_not_utf8(write):
    with pytest.raises(DataError, match="UTF-8"):
        open_csv(write("file,label\nä.jpg,cat\n", "latin-1"))


def test_exact_repetitions_count_once(write):
    source, repeated = open_csv(write("file,label\na.jpg,cat\na.jpg,cat\nb.jpg,dog\n"))
    assert len(source) == 2 and repeated == 1


def test_fingerprint_follows_the_pictures(write):
    path = write("file,label\na.jpg,cat\nb.jpg,dog\n")
    before = open_csv(path)[0].fingerprint
    assert open_csv(path)[0].fingerprint == before
    (path.parent / "a.jpg").write_bytes(encoded("JPEG", 9) + b" ")
    assert open_csv(path)[0].fingerprint != before
