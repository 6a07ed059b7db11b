import os
import tempfile
from pathlib import Path

import pytest
from picture_files import encoded

from diptych.data.decoding.pixels import BadPicture
from diptych.data.sources.folder import scan
from diptych.data.sources.source import Files
from diptych.errors import DataError


def names(folder):
    return [entry.name for entry in scan(folder).entries]


def test_recursive_sorted_and_without_what_is_hidden(make_folder):
    folder = make_folder("b.jpg", "a/2.png", "a/1.PNG", ".hidden.jpg", ".cache/x.jpg", "__MACOSX/a.jpg", "a/readme.txt")
    assert names(folder) == ["a/1.PNG", "a/2.png", "b.jpg"]


def test_what_is_listed_can_be_loaded(make_folder):
    folder = make_folder("a/1.png")
    listing = scan(folder)
    assert listing.load("a/1.png") == folder / "a/1.png"  # the path: large TIFFs must not be read whole
    assert listing.entries[0].size == len(encoded("PNG", 0))


def test_one_picture_will_do(make_folder):
    assert names(make_folder("1.jpg")) == ["1.jpg"]


def test_empty_and_without_pictures(tmp_path):
    with pytest.raises(DataError, match="is empty"):
        scan(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"holds no pictures \(it has notes.txt"):
        scan(tmp_path)


def test_a_loop_of_links_ends_and_no_folder_is_entered_twice(make_folder):
    folder = make_folder("a/1.jpg")
    (folder / "a" / "up").symlink_to(folder, target_is_directory=True)
    (folder / "again").symlink_to(folder / "a", target_is_directory=True)
    assert names(folder) == ["a/1.jpg"]


def opened(listing):
    return Files("x", listing.entries, listing.load)


def test_links_to_pictures_elsewhere_are_followed_and_dangling_ones_reported_when_read(make_folder, tmp_path):
    folder = make_folder("1.jpg")
    (tmp_path / "outside.jpg").write_bytes(encoded("JPEG", 5))
    (folder / "2.jpg").symlink_to(tmp_path / "outside.jpg")
    (folder / "3.jpg").symlink_to(tmp_path / "gone.jpg")
    (folder / "4.jpg").symlink_to("4.jpg")  # points to itself
    (folder / "5.jpg").symlink_to(folder / "6.jpg")  # gone, from a folder that is listed
    listing = scan(folder)
    assert [entry.name for entry in listing.entries] == [
        "1.jpg",
        "2.jpg",
        "3.jpg",
        "4.jpg",
        "5.jpg",
    ] and not listing.left_out
    assert listing.entries[1].size == len(encoded("JPEG", 5)) and opened(listing).read(1).shape == (3, 24, 32)
    for place in (2, 3, 4):
        with pytest.raises(BadPicture, match="No such file|symbolic links"):
            opened(listing).read(place)


def test_a_file_is_listed_once_however_many_names_it_has(make_folder, tmp_path):
    folder = make_folder("m/1.jpg", "m/2.jpg")
    outside = make_folder("x.jpg", root="outside")
    (folder / "a.jpg").symlink_to(folder / "m" / "1.jpg")  # sorts before the file itself
    (folder / "b.jpg").symlink_to(outside / "x.jpg")
    (folder / "c.jpg").symlink_to(outside / "x.jpg")
    (folder / "d").symlink_to(outside, target_is_directory=True)
    os.link(folder / "m" / "2.jpg", folder / "z.jpg")
    listing = scan(folder)
    # Of two hard links neither is the file's true name: the first that is met stands.
    assert [entry.name for entry in listing.entries] == ["d/x.jpg", "m/1.jpg", "z.jpg"]
    assert listing.left_out == ["4 more names of files that are listed already left out (links)"]


def test_a_link_out_of_what_is_left_out_is_followed(make_folder):
    folder = make_folder("1.jpg", ".originals/2.jpg")
    (folder / "2.jpg").symlink_to(folder / ".originals" / "2.jpg")
    assert names(folder) == ["1.jpg", "2.jpg"]


def test_a_file_that_vanishes_after_the_scan_is_a_bad_picture(make_folder):
    folder = make_folder("1.jpg", "2.jpg")
    source = opened(scan(folder))
    (folder / "1.jpg").unlink()
    with pytest.raises(BadPicture, match="1.jpg: cannot be opened .No such file"):
        source.read(0)
    assert source.read(1).shape == (3, 24, 32)


def test_a_pipe_named_like_a_picture_is_not_read(make_folder):
    folder = make_folder("1.jpg")
    os.mkfifo(folder / "pipe.jpg")
    assert names(folder) == ["1.jpg"]


def test_a_name_that_is_not_text(make_folder):
    folder = make_folder("1.jpg")
    with open(os.fsencode(folder) + b"/caf\xe9.jpg", "wb") as file:
        file.write(encoded())
    assert opened(scan(folder)).read(1).shape == (3, 24, 32)


def test_folders_without_permission(make_folder, request):
    folder = make_folder("1.jpg", "closed/2.jpg")
    (folder / "closed").chmod(0)
    for above in folder.parents:
        if above == Path(tempfile.gettempdir()):
            break
        above.chmod(0o755)
    folder.chmod(0o777)
    request.getfixturevalue("nobody")
    listing = scan(folder)
    assert [entry.name for entry in listing.entries] == ["1.jpg"]
    assert listing.left_out == ["the folder closed could not be read (Permission denied)"]
    (folder / "1.jpg").unlink()
    with pytest.raises(DataError, match="no pictures can be seen in .*: the folder closed could not be read"):
        scan(folder)
    with pytest.raises(DataError, match="cannot read the folder .*closed .*Permission denied"):
        scan(folder / "closed")


def test_a_link_does_not_rename_the_folder_it_points_to(make_folder):
    folder = make_folder("dog/1.jpg", "zebra/2.jpg")
    (folder / "alias").symlink_to(folder / "zebra", target_is_directory=True)
    assert names(folder) == ["dog/1.jpg", "zebra/2.jpg"]
