import pytest

from diptych.data.sources.layout import arrange, choose_parts, divide, is_picture
from diptych.data.sources.source import Entry, Listing


def test_flat_and_nested_have_no_labels():
    for names in (["1.jpg", "2.jpg"], ["a/b/1.jpg", "a/c/d/2.jpg"], ["1.jpg"], ["cat/1.jpg", "cat/2.jpg"]):
        layout = arrange(names)
        assert layout.train.labels is None and layout.test is None and layout.classes == ()
        assert layout.train.places == list(range(len(names)))


def test_class_folders():
    layout = arrange(["cat/1.jpg", "dog/1.jpg", "cat/2.jpg"])
    assert layout.classes == ("cat", "dog") and layout.train.labels == [0, 1, 0] and layout.unlabelled is None


@pytest.mark.parametrize("top", ["", "pets/", "a/b/"])
def test_train_and_test_below_folders_that_hold_everything(top):
    layout = arrange(
        [f"{top}{name}" for name in ("test/dog/1.jpg", "train/cat/1.jpg", "train/dog/2.jpg", "train/dog/3.jpg")]
    )
    assert layout.train.folder == f"{top}train" and layout.test.folder == f"{top}test"
    assert layout.train.places == [1, 2, 3] and layout.train.labels == [0, 1, 1]
    assert layout.test.places == [0] and layout.test.labels == [1]  # the same numbers in both parts


def test_unlabelled_parts():
    layout = arrange(["train/1.jpg", "train/2.jpg", "test/1.jpg"])
    assert (
        layout.train.places == [0, 1]
        and layout.test.places == [2]
        and layout.train.labels is layout.test.labels is None
    )


def test_one_part_may_have_labels_alone():
    layout = arrange(["train/cat/1.jpg", "train/dog/1.jpg", "test/1.jpg"])
    assert layout.train.labels == [0, 1] and layout.test.labels is None


def test_train_alone_is_passed_through():
    layout = arrange(["train/cat/1.jpg", "train/dog/2.jpg"])
    assert layout.test is None and layout.classes == ("cat", "dog")


def test_pictures_outside_train_and_test_are_counted():
    assert arrange(["train/1.jpg", "test/1.jpg", "extra/1.jpg", "2.jpg"]).outside == 2


def test_a_stray_picture_that_costs_the_labels_is_named():
    layout = arrange(["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "stray.jpg"])
    assert layout.classes == () and layout.unlabelled == "stray.jpg"


def test_names_of_pictures():
    assert all(map(is_picture, ["a.jpg", "A.JPEG", "x/y.tif", "b.webp"]))
    assert not any(map(is_picture, ["a.txt", ".a.jpg", ".hidden/a.jpg", "__MACOSX/a.jpg", "jpg", "a.jpg/readme"]))


@pytest.mark.parametrize("other", ["val", "valid", "validation"])
def test_parts_are_no_classes(other):
    assert arrange(["train/1.jpg", f"{other}/2.jpg"]).classes == ()


@pytest.mark.parametrize("other", ["val", "valid", "validation"])
def test_validation_pictures_are_the_test_where_there_is_none(other):
    layout = arrange(["train/cat/1.jpg", "train/dog/1.jpg", f"{other}/cat/2.jpg", f"{other}/dog/2.jpg"])
    assert layout.test.folder == other and layout.test.labels == [0, 1] and layout.outside == 0
    layout = arrange(["train/1.jpg", "test/1.jpg", f"{other}/2.jpg", f"{other}/3.jpg", "4.jpg"])
    assert layout.test.folder == "test" and layout.outside == 3 and layout.spare == (other,)


def test_parts_are_chosen_by_name():
    assert choose_parts({"train", "test", "val"}) == ("train", "test")
    assert choose_parts({"train", "validation", "valid"}) == ("train", "valid")
    assert choose_parts({"train"}) is choose_parts({"test", "val"}) is choose_parts({"train", "extra"}) is None


def listing(*names):
    return Listing(entries=[Entry(name, 1, 1) for name in names], load=lambda name: b"", left_out=["2 left out (x)"])


def test_notes_on_validation_pictures():
    note = divide("p/", listing("train/1.jpg", "val/1.jpg", "val/2.jpg")).note
    assert note == (
        "p holds train/ (1 picture) and val/ (2): pretraining uses only train/, and val/ is tested on, as there is no "
        "test/; 2 left out (x)"
    )
    note = divide("p", listing("train/1.jpg", "test/1.jpg", "val/2.jpg", "3.jpg")).note
    assert "only train/; 2 pictures outside both left out (those of val/ among them); 2 left" in note


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("training", "testing"), ("TRAINING", "test")])
def test_parts_by_whatever_name_people_give_them(train, test):
    layout = arrange([f"{train}/cat/1.jpg", f"{train}/dog/1.jpg", f"{test}/cat/2.jpg", f"{test}/dog/2.jpg"])
    assert (layout.train.folder, layout.test.folder) == (train, test) and layout.classes == ("cat", "dog")
    assert arrange([f"{train}/1.jpg", "other/2.jpg", f"{test}/1.jpg"]).outside == 1
