"""What counts as labelled, what is refused, and the file that is filled in and read again."""

import csv
import json

import numpy as np
import pytest

from diptych.errors import ConfigError, DataError
from diptych.vectors import select_labels as module
from diptych.vectors.choices import CHOICES
from diptych.vectors.listing import unguarded, write_csv
from diptych.vectors.outliers import COLUMNS as OUTLIER_COLUMNS
from diptych.vectors.outliers import outliers
from diptych.vectors.select_labels import COLUMNS, DEFAULT, TOLD, read_labelled, select_labels
from diptych.vectors.table import Vectors

NAMES = [f"{row}.png" for row in range(40)]


def vectors(labels=None, names=NAMES, groups=None):
    values = np.random.default_rng(0).standard_normal((len(names), 5)).astype(np.float32)
    return Vectors(values=values, names=names, labels=labels, groups=groups, card=None, path=None)


def test_labels_are_never_read_beyond_there_being_one():
    some = ["cat", None, "dog", *[None] * 37]
    one, other = (select_labels(vectors(labels), 9) for labels in (some, ["x" if label else None for label in some]))
    assert one == other
    assert one.labelled == 2
    assert not {0, 2} & {choice.row for choice in one.listed}


def test_a_list_of_labelled_names_says_the_same_as_a_column():
    column = select_labels(vectors([*["cat"] * 3, *[None] * 37]), 9)
    assert select_labels(vectors(), 9, labelled=NAMES[:3]) == column
    assert select_labels(vectors(["cat"] * 40), 9, labelled=NAMES[:3], ignore_labels=True) == column


def test_a_choice_says_which_pictures_and_of_what():
    chosen = select_labels(vectors(groups=[*"ab" * 20]), 4, method="random", seed=3)
    assert [one.rank for one in chosen.listed] == [1, 2, 3, 4]
    assert all(one.name == f"{one.row}.png" and one.group == "ab"[one.row % 2] for one in chosen.listed)
    told = json.loads(json.dumps(chosen.to_dict(), allow_nan=False))
    assert (told["method"], told["budget"], told["pictures"], told["compared"], told["seed"]) == (
        "random",
        4,
        40,
        40,
        3,
    )
    assert told["listed"][0]["name"] == chosen.listed[0].name


@pytest.mark.parametrize("method", ["typicality", "kcenter", "random"])
def test_of_many_pictures_some_are_drawn_and_compared(method, monkeypatch):
    monkeypatch.setattr(module, "LOOKED_AT", 10)
    chosen = select_labels(vectors([*["cat"] * 15, *[None] * 25]), 2, method=method)
    assert chosen.compared == 10
    assert all(one.row >= 15 for one in chosen.listed)
    assert "2 of 10 drawn of 25 pictures" in chosen.as_text(None)
    assert select_labels(vectors(), 10, method=method).compared == 40  # four for each to choose


def test_what_is_drawn_is_of_both_kinds_and_by_the_seed():
    has_label = np.arange(60) % 3 == 0
    drawn = [module._drawn(has_label, 10, seed).tolist() for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] == sorted(set(drawn[0])) != drawn[2]
    assert has_label[drawn[0]].sum() == 10
    assert len(drawn[0]) == 20


def test_every_method_is_told():
    assert TOLD.keys() == CHOICES.keys()
    assert DEFAULT in CHOICES


def test_one_picture_can_be_chosen():
    assert [one.name for one in select_labels(vectors(names=["a.png"]), 1).listed] == ["a.png"]


@pytest.mark.parametrize(
    "labels, asked, error, words",
    [
        (None, {"budget": 0}, ConfigError, "--budget must be 1 or more, not 0"),
        (None, {"budget": 41}, DataError, "40 pictures without a label; give --budget 40 or less"),
        (["a"] * 38 + [None] * 2, {"budget": 3}, DataError, "2 pictures without a label"),
        (["a"] * 40, {"budget": 3}, DataError, "--ignore-labels chooses as though none had one"),
        (None, {"budget": 1, "labelled": NAMES}, DataError, "every picture of the vectors has a label"),
        (None, {"budget": 3, "method": "kcentre"}, ConfigError, "did you mean 'kcenter'?"),
        (None, {"budget": 3, "seed": -1}, ConfigError, "--seed must be 0 or more, not -1"),
        (
            None,
            {"budget": 3, "labelled": ["x/0.png"]},
            DataError,
            "no picture is named 'x/0.png'; did you mean '0.png'",
        ),
    ],
)
def test_what_cannot_be_chosen_is_refused(labels, asked, error, words):
    with pytest.raises(error, match=words.replace("?", r"\?")) as refused:
        select_labels(vectors(labels), asked.pop("budget"), **asked)
    assert "\n" not in str(refused.value)


def test_the_list_is_filled_in_and_read_again(tmp_path):
    path = tmp_path / "deep" / "to_label.csv"
    chosen = select_labels(vectors(), 6)
    write_csv(path, COLUMNS, chosen.csv_rows())
    with pytest.raises(DataError, match="names no picture that has a label"):
        read_labelled(path)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [one.name for one in chosen.listed]
    for row in rows[:2]:
        row["label"] = "cat, black"
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    assert read_labelled(path) == [row["name"] for row in rows[:2]]


def test_labelled_names_come_a_line_each_or_in_a_column(tmp_path):
    lines, column = tmp_path / "names.txt", tmp_path / "names.csv"
    lines.write_text("a, b.png\n\nc d.png\n")
    column.write_text('\ufeffname\n"a, b.png"\nc d.png\n')
    assert read_labelled(lines) == read_labelled(column) == ["a, b.png", "c d.png"]
    lines.write_bytes("a\u2028b.png\r\n\x0c\x85.png\n".encode())
    assert read_labelled(lines) == ["a\u2028b.png", "\x0c\x85.png"]
    column.write_text("names\na.png\n")
    with pytest.raises(DataError, match="no column 'name'; did you mean 'names'"):
        read_labelled(column)
    with pytest.raises(DataError, match="cannot read --labelled .*No such file"):
        read_labelled(tmp_path / "none.txt")


def test_hostile_names_stay_in_their_cells(tmp_path):
    names = ['=1+1,"x"\n.png', "\x1b[31mred.png", "\udce9.png", *NAMES]
    found = outliers(vectors(names=names), top=len(names))
    path = tmp_path / "outliers.csv"
    write_csv(path, OUTLIER_COLUMNS, found.csv_rows())
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    assert {unguarded(row["name"]) for row in rows} == set(names)
    assert [float(row["score"]) for row in rows] == [one.score for one in found.listed]
    text = found.as_text() + select_labels(vectors(names=names), len(names)).as_text(None)
    assert "\x1b" not in text
    assert "\udce9" not in text


def test_a_long_choice_is_shown_in_part_where_a_file_holds_it():
    chosen = select_labels(vectors([*["cat"] * 3, *[None] * 37]), 30)
    text = chosen.as_text("to_label.csv")
    assert "… and 20 more" in text
    assert "30 of 37 pictures without a label, by typicality" in text
    assert "3 pictures have a label; what is like that was not chosen again" in text
    assert all(one.name in chosen.as_text(None) for one in chosen.listed)
