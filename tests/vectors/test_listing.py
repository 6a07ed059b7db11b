import csv

from diptych.vectors.listing import aligned, unguarded, write_csv
from diptych.vectors.select_labels import read_labelled

FORMULAS = [
    "=cmd|' /C calc'!A0.jpg",
    "@SUM(A1).png",
    "-x.png",
    "+1+1",
    "-",
    "\t=1",
    "\r=1",
    "\n=1",
    "'=x",
    "''+y",
    "１=1",
]
PLAIN = ["cat/1.png", "'tis.png", "'", "-1", "+1", "-1.5e3", "a,b;c", 'q"uote', "a\rb", "a\nb", "a\r\nb", "a\u2028b"]


def cells(path):
    with open(path, newline="", encoding="utf-8") as file:
        return [row[0] for row in csv.reader(file)][1:]


def test_no_cell_is_a_formula_and_every_name_comes_back(tmp_path):
    names = FORMULAS + PLAIN
    write_csv(tmp_path / "a.csv", ("name", "label"), [(name, "cat") for name in names])
    written = cells(tmp_path / "a.csv")
    assert written[len(FORMULAS) :] == PLAIN  # what harms nobody is left as it is, and so are classes -1 and +1
    assert written[:10] == [f"'{name}" for name in FORMULAS[:10]]
    assert [unguarded(cell) for cell in written] == names
    assert read_labelled(tmp_path / "a.csv") == names


def test_numbers_and_empty_cells_are_no_texts(tmp_path):
    write_csv(tmp_path / "a.csv", ("score", "label", "group"), [(-0.5, None, "=g")])
    assert (tmp_path / "a.csv").read_bytes() == b"score,label,group\r\n-0.5,,'=g\r\n"


def test_a_list_of_somebody_else_names_pictures_as_it_is(tmp_path):
    (tmp_path / "a.CSV").write_text("name\n=x.png\n-y.png\n")
    assert read_labelled(tmp_path / "a.CSV") == ["=x.png", "-y.png"]


def test_columns_of_words_are_flush_left_and_numbers_flush_right():
    lines = aligned(("rank", "name"), [("1", "a\x1b[2J"), ("12", "bc")], words=1)
    assert lines == ["rank  name", "-----------", "   1  a\ufffd[2J", "  12  bc"]
