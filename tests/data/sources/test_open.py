import zipfile

import pytest
from picture_files import encoded

from diptych.data.sources.open import open_data
from diptych.errors import DataError

DIVIDED = [
    f"{part}/{kind}/{number}.jpg" for part in ("train", "test") for kind in ("cat", "dog") for number in range(2)
]


def message(data, **options):
    with pytest.raises(DataError) as caught:
        open_data(str(data), **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_with_train_and_test(make_folder):
    folder = make_folder(*DIVIDED)
    splits = open_data(f"{folder}/")
    assert splits.train.name == f"{folder}/train" and splits.test.name == f"{folder}/test"
    assert len(splits.train) == len(splits.test) == 4 and splits.train.classes == splits.test.classes == ("cat", "dog")
    assert splits.note == f"{folder} holds train/ (4 pictures) and test/ (4): pretraining uses only train/"
    assert splits.train.fingerprint != splits.test.fingerprint
    assert splits.test.read(0).shape == (3, 24, 32) and splits.test.name_of(0) == "test/cat/0.jpg"


def test_a_zip_whose_only_folder_holds_train_and_test(tmp_path):
    path = tmp_path / "c.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in DIVIDED:
            archive.writestr(f"cifar10/{name}", encoded())
        archive.writestr("cifar10/../../evil.jpg", b"x")
    splits = open_data(str(path))
    assert splits.train.name == f"{path}/cifar10/train" and len(splits.test) == 4
    assert splits.test.label(3) == 1 and splits.test.read(3).shape == (3, 24, 32)
    assert "1 left out (absolute paths" in splits.note


def test_notes_say_what_was_found(make_folder):
    assert open_data(str(make_folder("1.jpg", "a/2.jpg"))).note.endswith("holds 2 pictures, without labels")
    assert open_data(str(make_folder("cat/1.jpg", "dog/2.jpg", root="p2"))).note.endswith(
        "2 pictures in folders of 2 classes"
    )
    note = open_data(str(make_folder("cat/1.jpg", "cat/2.jpg", "dog/2.jpg", "stray.jpg", root="p3"))).note
    assert "no labels because some pictures, such as stray.jpg, lie outside class folders" in note
    note = open_data(str(make_folder("train/1.jpg", "test/1.jpg", "more/1.jpg", root="p4"))).note
    assert note.endswith("1 picture outside both left out")


def test_a_csv(make_folder):
    folder = make_folder("a.jpg", "b.jpg")
    (folder / "labels.csv").write_text("file,label\na.jpg,x\nb.jpg,y\nb.jpg,y\n")
    splits = open_data(str(folder / "labels.csv"))
    assert splits.test is None and len(splits.train) == 2
    assert splits.note.endswith("lists 2 pictures of 2 classes; 1 repeated row left out")


def test_a_list_is_divided_as_a_folder_is(make_folder):
    folder = make_folder(*DIVIDED)
    (folder / "some.txt").write_text("\n".join(DIVIDED[1:]))
    splits = open_data(str(folder / "some.txt"))
    assert len(splits.train) == 3 and splits.train.classes == ("cat", "dog")
    assert splits.train.name == f"{folder}/some.txt/train" and splits.test.read(0).shape == (3, 24, 32)


def test_a_folder_with_train_and_val(make_folder):
    splits = open_data(str(make_folder(*(name.replace("test/", "val/") for name in DIVIDED))))
    assert len(splits.test) == 4 and "val/ is tested on, as there is no test/" in splits.note


def test_photos():
    splits = open_data("photos")
    assert splits.train.name == "photos/train" and splits.test and splits.train.classes == splits.test.classes
    assert splits.note.startswith("photos: ")


def test_a_folder_that_has_a_data_sets_name(make_folder, monkeypatch, tmp_path):
    make_folder("1.jpg", root="photos")
    monkeypatch.chdir(tmp_path)
    assert open_data("photos").note.endswith("(for the folder of that name type ./photos)")
    assert len(open_data("./photos").train) == 1


def test_what_is_not_there_gets_a_suggestion(make_folder, monkeypatch, tmp_path):
    folder = make_folder("1.jpg")
    assert "there is no" in message(folder.parent / "picturs") and "did you mean 'pictures'" in message(
        folder.parent / "picturs"
    )
    assert "nor a folder" in message("/no/such/place")
    assert "there is no" in message(folder / "1.jpg" / "below")
    monkeypatch.chdir(tmp_path)
    assert message("cifar-10") == "there is no cifar-10; did you mean 'cifar10'?"
    assert message("xyzzy").endswith(
        "give a folder, an archive, a manifest (.csv, .parquet), a list (.txt), hub:NAME, or one of cifar10, photos"
    )
    assert message("user/name").endswith("could lie in; for the Hugging Face dataset type hub:user/name")


def test_what_is_no_data(make_folder, tmp_path):
    folder = make_folder("1.jpg")
    assert "is a single picture; give the folder" in message(folder / "1.jpg")
    (tmp_path / "notes.pdf").write_text("x")
    assert "is not a folder, a .zip" in message(tmp_path / "notes.pdf")
    (tmp_path / "fake.zip").write_text("x")
    assert "not a zip file" in message(tmp_path / "fake.zip")
    assert "leave it out" in message(folder, data_dir="x")


def test_a_path_that_may_not_be_entered(make_folder, request):
    folder = make_folder("in/1.jpg")
    (folder / "in").chmod(0)
    for above in (folder, *list(folder.parents)[:3]):
        above.chmod(0o755)
    request.getfixturevalue("nobody")
    assert "Permission denied" in message(folder / "in")
    assert "Permission denied" in message(folder / "in" / "deeper")
