"""Audits of real folders and archives: what is found, what is not opened again, and what a kill leaves."""

import contextlib
import dataclasses
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tifffile
from PIL import Image
from tiny import tree, wait_until

from auditing.made import encoded, found, indexed, photo, photos, write
from diptych.auditing import duplicates, findings
from diptych.auditing.index import Index
from diptych.auditing.run import audit
from diptych.auditing.summary import as_text
from diptych.data.decoding.pixels import BadPicture, PixelFormat, convert
from diptych.data.quarantine import Quarantine, enough
from diptych.data.sources.open import open_data
from diptych.errors import DataError, RunFolderError


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_clean_folder_has_nothing_to_mend(tmp_path):
    result = audit(str(photos(tmp_path / "data", 6)), tmp_path / "out")
    assert {finding["severity"] for finding in result["findings"]} == {"fine"}
    assert (result["pictures"], result["readable"]) == (6, 6)
    assert result["bytes"] == sum(path.stat().st_size for path in (tmp_path / "data").iterdir())
    assert result["formats"] == [{"format": "JPEG", "mode": "RGB", "pictures": 6}]
    assert json.loads((tmp_path / "out" / "audit.json").read_text()) == result
    assert "nothing to mend" in as_text(result)


def test_statistics_are_those_of_all_pixels(tmp_path):
    data = photos(tmp_path / "data", 5, suffix="png")
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(data.iterdir())]).astype(float)
    (kind,) = audit(str(data), tmp_path / "out")["kinds"]
    assert (kind["channels"], kind["depth"], kind["pictures"]) == (3, "uint8", 5)
    np.testing.assert_allclose(kind["mean"], pixels.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(kind["std"], pixels.std((0, 1, 2)), rtol=1e-5)
    assert kind["low"] == pixels.min((0, 1, 2)).tolist() and kind["high"] == pixels.max((0, 1, 2)).tolist()


def test_bad_files_are_told_and_listed(tmp_path):
    data = photos(tmp_path / "data", 3)
    write(data, empty_jpg=b"", page_jpg=b"<svg/>", cut_jpg=encoded(picture=photo(9, 640, 480))[:4000])
    os.symlink("nowhere.jpg", data / "dangling.jpg")
    result = audit(str(data), tmp_path / "out")
    bad = found(result, "bad")
    assert (bad["severity"], bad["count"], result["readable"]) == ("problem", 4, 3)
    assert "--max-bad 0.572" in bad["advice"] and "57.1\u00a0%" in bad["sentence"]
    assert {line["name"]: line["reason"].split(" (")[0] for line in lines(tmp_path / "out" / "bad.jsonl")} == {
        "cut.jpg": "cut short or damaged",
        "dangling.jpg": "cannot be opened",
        "empty.jpg": "the file is empty",
        "page.jpg": "not a picture, or in a format that is not read",
    }


def bands(path, count=13):
    values = np.random.default_rng(0).integers(0, 99, (9, 9, count)).astype(np.uint16)
    tifffile.imwrite(path, values, photometric="minisblack", planarconfig="contig")


def advised(finding):
    """The --max-bad that a finding advises; None where it advises none."""
    found = re.search(r"--max-bad ([\d.]*\d)", finding["advice"])
    return float(found[1]) if found else None


def test_the_advice_on_what_a_run_leaves_out_works(tmp_path):
    """Training pictures count alone, and those of another kind count as those that cannot be read."""
    data = tmp_path / "data"
    photos(data / "train", 6)
    photos(data / "test", 40, first=50)
    write(data, train__cut_jpg=b"", test__cut_jpg=b"")
    for number in range(3):
        bands(data / "train" / f"{number}.tif")
    bands(data / "test" / "odd.tif")
    result = audit(str(data), tmp_path / "out")
    bad, kinds = found(result, "bad"), found(result, "kinds")
    assert bad["count"] == 2 and "4 of 10 training pictures (1 unreadable, 3 of another kind)" in bad["advice"]
    assert advised(bad) == advised(kinds) == 0.4
    told = {line["name"]: line["reason"] for line in lines(tmp_path / "out" / "bad.jsonl")}
    assert len(told) == 6
    source = open_data(str(data)).train
    for share, stops in ((0.4, False), (0.399, True)):
        quarantine = Quarantine(str(data), len(source), share)
        for index in range(len(source)):
            try:
                convert(source.read(index), PixelFormat(), source.name_of(index))
            except BadPicture as reason:
                quarantine.add(reason)
                assert told[reason.name] == reason.reason
        with pytest.raises(DataError) if stops else contextlib.nullcontext():
            quarantine.check()


@pytest.mark.parametrize(("bad", "total"), [(57, 100), (29, 100), (1, 3), (7, 7), (2, 1000), (9, 999)])
def test_the_share_that_is_advised_is_enough_and_no_less_would_be(bad, total):
    assert bad <= enough(bad, total) * total
    assert bad > (enough(bad, total) - 0.0011) * total


def test_few_bad_pictures_stop_no_run(tmp_path):
    data = photos(tmp_path / "data", 3)
    content = (data / "0000.jpg").read_bytes()
    write(data, **{f"copy{number}_jpg": content for number in range(196)}, cut_jpg=b"")
    bad = found(audit(str(data), tmp_path / "out"), "bad")
    assert "leaves out 1 of 200 training pictures and goes on" in bad["advice"] and advised(bad) is None


def test_bad_test_pictures_stop_no_run(tmp_path):
    photos(tmp_path / "data" / "train", 3)
    photos(tmp_path / "data" / "test", 1, first=9)
    write(tmp_path / "data", test__cut_jpg=b"")
    bad = found(audit(str(tmp_path / "data"), tmp_path / "out"), "bad")
    assert "All training pictures can be read" in bad["advice"] and advised(bad) is None


def test_where_nothing_can_be_read_nothing_is_fine(tmp_path):
    data = write(tmp_path / "data", a_jpg=b"", b_jpg=b"x")
    result = audit(str(data), tmp_path / "out")
    bad = found(result, "bad")
    assert bad["sentence"].startswith("None of 2 pictures can be read") and "nothing to learn from" in bad["advice"]
    assert advised(bad) is None
    assert {finding["key"] for finding in result["findings"]} == {"bad", "classes"}
    assert "100.0" not in bad["sentence"] and "e+" not in as_text(result)


def test_test_pictures_of_another_kind_are_told(tmp_path):
    data = tmp_path / "data"
    photos(data / "train", 3)
    photos(data / "test", 2, first=9)
    result = audit(str(data), tmp_path / "out")
    assert found(result, "kinds")["sentence"].startswith("All training pictures have 3 channels of uint8")
    assert found(result, "test-kinds") is None
    write(data, test__gray_png=encoded("PNG", photo(5).convert("L")))
    told = found(audit(str(data), tmp_path / "out"), "test-kinds")
    assert (told["severity"], told["count"]) == ("look", 1) and "1 with 1 channel of uint8" in told["sentence"]
    bands(data / "test" / "odd.tif")
    told = found(audit(str(data), tmp_path / "out"), "test-kinds")
    assert (told["severity"], told["count"]) == ("problem", 2) and "leaves out 1:" in told["advice"]


def test_the_largest_group_is_the_one_of_most_pictures(tmp_path):
    """One group of three contents, and one of two whose first is there five times."""
    one, other = photo(0, 320, 240), photo(1, 320, 240)
    data = write(
        tmp_path / "data",
        a1_jpg=encoded(picture=one, quality=95),
        a2_jpg=encoded(picture=one, quality=80),
        a3_jpg=encoded(picture=one, quality=70),
        b_jpg=encoded(picture=other, quality=60),
        **{f"b{number}_jpg": encoded(picture=other, quality=95) for number in range(5)},
    )
    near = found(audit(str(data), tmp_path / "out"), "near")
    assert near["sentence"].endswith("2 groups of up to 6.") and "label and `group`" in near["advice"]


def test_pictures_that_look_alike_are_judged_pair_by_pair_with_all_labels(tmp_path):
    """More copies of one label than are shown must not hide the other; a group joined by a third is no conflict."""
    one, other = photo(0, 320, 240), photo(1, 320, 240)
    original = encoded(picture=one, quality=95)
    data = write(
        tmp_path / "data",
        **{f"a__{number}_jpg": original for number in range(6)},
        z__1_jpg=original,
        a__small_jpg=encoded(picture=one, quality=60),
        b__1_jpg=encoded(picture=other, quality=95),
        b__2_jpg=encoded(picture=other, quality=60),
    )
    told = found(audit(str(data), tmp_path / "out"), "near-conflicts")
    assert told["count"] == 8 and told["sentence"].startswith("8 pictures look like one of another class")
    (example,) = told["examples"]
    assert {picture["label"] for picture in example} == {"a", "z"}


def test_a_conflict_needs_two_that_look_alike_themselves(tmp_path):
    data = write(
        tmp_path / "data", a__1_png=encoded("PNG", photo(0)), a__2_png=encoded("PNG", photo(1)),
        b__3_png=encoded("PNG", photo(2)),
    )  # fmt: skip
    indexed(data, tmp_path / "index.sqlite").__exit__(None, None, None)
    with Index(tmp_path / "index.sqlite", str(data)) as index:
        copies = duplicates.find(index)
        where = {duplicates.members(index, duplicates.digest_of(index, copies, p))[0]["label"]: p for p in range(3)}
        b, (a1, a2) = where["b"], [place for place in range(3) if place != where["b"]]
        chained = dataclasses.replace(copies, pairs=np.array([[a1, a2]]), groups=[sorted([a1, a2, b])])
        assert findings._near_conflicts(index, chained) is None
        paired = dataclasses.replace(chained, pairs=np.array([[a1, a2], sorted([a2, b])]))
        assert findings._near_conflicts(index, paired)["count"] == 2


def test_one_picture_keeps_its_colours(tmp_path):
    data = photos(tmp_path / "data", 2)
    write(data, ink_jpg=encoded(picture=photo(13).convert("CMYK")))
    result = audit(str(data), tmp_path / "out")
    assert found(result, "converted")["sentence"].startswith("1 picture keeps its colours")


def test_an_unreadable_file_is_tried_again(tmp_path):
    data = photos(tmp_path / "data", 2)
    os.symlink("later.jpg", data / "link.jpg")
    assert found(audit(str(data), tmp_path / "out"), "bad")["count"] == 1
    (tmp_path / "elsewhere").mkdir()
    (data / "link.jpg").unlink()
    (data / "link.jpg").write_bytes(encoded(picture=photo(7)))
    assert found(audit(str(data), tmp_path / "out"), "bad")["severity"] == "fine"


def copies(root):
    """A folder whose test part holds a copy of every kind, and one picture of its own."""
    original = photo(0, 320, 240)
    content = encoded(picture=original, quality=90)
    flipped = bytearray(content)
    flipped[-3] ^= 1  # the last byte of the pixels: another file, and nearly the same picture
    write(
        root,
        train__a__original_jpg=content,
        train__b__other_jpg=encoded(picture=photo(1)),
        train__a__third_jpg=encoded(picture=photo(2)),
        test__a__same_jpg=content,
        test__a__small_png=encoded("PNG", original.resize((160, 120))),
        test__a__again_jpg=encoded(picture=original, quality=40),
        test__b__flipped_jpg=bytes(flipped),
        test__b__own_jpg=encoded(picture=photo(3)),
    )
    return root


def test_copies_of_every_kind_are_found(tmp_path):
    result = audit(str(copies(tmp_path / "data")), tmp_path / "out")
    overlap, near = found(result, "overlap"), found(result, "near-overlap")
    assert (overlap["severity"], overlap["count"]) == ("problem", 1)
    assert [picture["name"] for picture in overlap["examples"][0]] == ["train/a/original.jpg", "test/a/same.jpg"]
    assert (near["severity"], near["count"]) == ("problem", 3)
    assert {pair[1]["name"] for pair in near["examples"]} == {
        "test/a/again.jpg",
        "test/a/small.png",
        "test/b/flipped.jpg",
    }
    assert {pair[0]["name"] for pair in near["examples"]} == {"train/a/original.jpg"}
    assert found(result, "copies")["count"] == 1 and found(result, "near")["count"] == 5
    assert found(result, "near-conflicts")["count"] and found(result, "conflicts") is None
    same, alike = lines(tmp_path / "out" / "duplicates.jsonl")
    assert same["kind"] == "same" and len(same["pictures"]) == 2
    assert alike["kind"] == "alike" and {p["name"] for p in alike["pictures"]} >= {"test/b/flipped.jpg"}
    assert not any("own" in picture["name"] for picture in alike["pictures"])


def test_one_picture_under_two_labels_is_a_problem(tmp_path):
    content = encoded()
    data = write(tmp_path / "data", cat__1_jpg=content, dog__1_jpg=content, dog__2_jpg=encoded(picture=photo(1)))
    conflicts = found(audit(str(data), tmp_path / "out"), "conflicts")
    assert (conflicts["severity"], conflicts["count"]) == ("problem", 2)
    assert [picture["label"] for picture in conflicts["examples"][0]] == ["cat", "dog"]


def test_classes_that_are_small_or_lack_a_part_are_told(tmp_path):
    for name, count, first in (("train/a", 12, 0), ("train/b", 2, 20), ("test/a", 2, 30), ("test/c", 1, 40)):
        photos(tmp_path / "data" / name, count, first)
    result = audit(str(tmp_path / "data"), tmp_path / "out")
    assert "c" in found(result, "few")["sentence"]
    assert found(result, "only-train")["sentence"].endswith("b.") and found(result, "only-test")["sentence"].endswith(
        "c."
    )
    assert "14 times as many" in found(result, "classes")["sentence"]
    assert result["classes"][0] == {"name": "a", "pictures": 14, "train": 12, "test": 2}


def test_kinds_are_told_with_what_a_run_makes_of_them(tmp_path):
    data = photos(tmp_path / "data", 5)
    write(data, gray_png=encoded("PNG", photo(8).convert("L")))
    tifffile.imwrite(data / "bands.tif", np.random.default_rng(0).integers(0, 99, (9, 9, 13)).astype(np.uint16),
                     photometric="minisblack", planarconfig="contig")  # fmt: skip
    tifffile.imwrite(data / "float.tif", np.random.default_rng(0).random((40, 40, 3)).astype(np.float32),
                     photometric="rgb")  # fmt: skip
    kinds = found(audit(str(data), tmp_path / "out"), "kinds")
    assert (kinds["severity"], kinds["count"]) == ("problem", 3)
    assert "--channels 3 --depth uint8 learns from 5 of them and leaves out 2." in kinds["advice"]
    assert "converts 1 with 1 channel of uint8." in kinds["advice"]
    assert "13 channels of uint16" in kinds["advice"] and "3 channels of float32" in kinds["advice"]


def test_what_stands_out_is_told(tmp_path):
    data = photos(tmp_path / "data", 4)
    exif = Image.Exif()
    exif[0x0112] = 3
    write(
        data,
        black_png=encoded("PNG", Image.new("RGB", (30, 30))),
        icon_png=encoded("PNG", photo(10, 8, 8)),
        wide_png=encoded("PNG", photo(11, 200, 30)),
        wrong_jpg=encoded("PNG", photo(12)),
        ink_jpg=encoded(picture=photo(13).convert("CMYK")),
        turned_jpg=encoded(picture=photo(14), exif=exif),
    )
    result = audit(str(data), tmp_path / "out")
    for key in ("constant", "tiny", "aspect", "misnamed", "converted", "rotated"):
        assert found(result, key)["count"] == 1, key
    assert found(result, "constant")["examples"][0][0]["name"] == "black.png"


def test_two_audits_are_equal_to_the_byte_however_the_work_is_divided(tmp_path):
    data = copies(tmp_path / "data")
    photos(data / "train" / "c", 300, first=100)  # enough for several processes
    first = audit(str(data), tmp_path / "out")
    kept = tree(tmp_path / "out")
    (tmp_path / "out" / "index.sqlite").unlink()
    assert audit(str(data), tmp_path / "out") == first
    again = tree(tmp_path / "out")
    assert again["audit.json"] == kept["audit.json"] and again["duplicates.jsonl"] == kept["duplicates.jsonl"]


def test_a_second_audit_opens_nothing(tmp_path):
    data = copies(tmp_path / "data")
    first = audit(str(data), tmp_path / "out")
    page = (tmp_path / "out" / "audit.html").read_text()
    for path in data.rglob("*.*"):
        status = path.stat()
        path.write_bytes(b"x" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert audit(str(data), tmp_path / "out") == first
    images = [part for part in page.split('"') if part.startswith("data:")]
    assert images and images == [
        part for part in (tmp_path / "out" / "audit.html").read_text().split('"') if part.startswith("data:")
    ]


def test_what_is_new_changed_or_gone_is_noticed(tmp_path):
    data = photos(tmp_path / "data", 4)
    audit(str(data), tmp_path / "out")
    (data / "0000.jpg").write_bytes(b"")
    (data / "0001.jpg").unlink()
    write(data, new_png=encoded("PNG", photo(9)))
    result = audit(str(data), tmp_path / "out")
    assert (result["pictures"], result["readable"]) == (4, 3)
    assert {one["format"]: one["pictures"] for one in result["formats"]} == {"JPEG": 2, "PNG": 1}


def test_labels_follow_the_folders_without_opening_a_picture(tmp_path):
    listed = tmp_path / "list.csv"
    photos(tmp_path, 4)
    listed.write_text("path,label\n" + "".join(f"{k:04}.jpg,{'ab'[k % 2]}\n" for k in range(4)))
    audit(str(listed), tmp_path / "out")
    listed.write_text("path,label\n" + "".join(f"{k:04}.jpg,{'abc'[k % 3]}\n" for k in range(4)))
    names = [one["name"] for one in audit(str(listed), tmp_path / "out")["classes"]]
    assert sorted(names) == ["a", "b", "c"]


def test_an_archive_is_audited_in_place(tmp_path):
    data = copies(tmp_path / "data")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in data.rglob("*.*"):
            archive.write(path, path.relative_to(data))
    folder, packed = (audit(str(tmp_path / name), tmp_path / f"out-{name}") for name in ("data", "data.zip"))
    same = ("pictures", "readable", "bytes", "formats", "kinds", "sizes", "classes", "parts", "findings")
    assert {key: folder[key] for key in same} == {key: packed[key] for key in same}


def test_a_named_data_set_is_audited_by_its_pixels(tmp_path):
    result = audit("photos", tmp_path / "out")
    assert result["formats"][0]["format"] == "pixels" and result["readable"] == result["pictures"] > 0
    assert audit("photos", tmp_path / "out") == result


SCRIPT = "import sys; from diptych.auditing.run import audit; audit(sys.argv[1], sys.argv[2])"


def rows(out):
    """Records that are safely in the index."""
    with contextlib.closing(sqlite3.connect(out / "index.sqlite")) as database:
        return database.execute("SELECT count(*) FROM records").fetchone()[0]


def test_a_kill_loses_little_and_the_next_audit_goes_on(tmp_path):
    data, out = photos(tmp_path / "data", 400), tmp_path / "out"
    script = f"from diptych.auditing import run; run.BATCH = 16; run.BATCH_SECONDS = 0.0\n{SCRIPT}"
    process = subprocess.Popen([sys.executable, "-c", script, str(data), str(out)], stderr=subprocess.DEVNULL)
    journal = out / "index.sqlite"
    wait_until(lambda: journal.exists() and journal.stat().st_size > 120_000, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = rows(out)
    assert 0 < kept < 400
    for path in sorted(data.iterdir()):  # what was inspected is not opened again: now every file is empty inside
        status = path.stat()
        path.write_bytes(b"x" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    result = audit(str(data), out)
    assert result["readable"] == kept and result["pictures"] == 400


@pytest.mark.parametrize("content", [b"not a database" * 100, b""])
def test_a_damaged_index_is_made_anew(tmp_path, content):
    data = photos(tmp_path / "data", 3)
    first = audit(str(data), tmp_path / "out")
    (tmp_path / "out" / "index.sqlite").write_bytes(content)
    assert audit(str(data), tmp_path / "out") == first


def test_an_index_damaged_anywhere_is_made_anew(tmp_path):
    data = photos(tmp_path / "data" / "a", 20)
    first = audit(str(tmp_path / "data"), tmp_path / "out")
    path = tmp_path / "out" / "index.sqlite"
    sound = path.read_bytes()
    for start in range(0, len(sound), 4096):
        path.write_bytes(sound[:start] + b"\xa5" * 4096 + sound[start + 4096 :])
        assert audit(str(tmp_path / "data"), tmp_path / "out") == first
    path.write_bytes(sound.replace(b'[["', b"[[[").replace(b"[[", b"{{"))  # a cell, which SQLite does not check
    assert audit(str(tmp_path / "data"), tmp_path / "out") == first
    assert data.exists()


def test_a_stray_journal_does_not_come_back_into_a_new_index(tmp_path):
    data = photos(tmp_path / "data", 3)
    first = audit(str(data), tmp_path / "out")
    (tmp_path / "out" / "index.sqlite").write_bytes(b"not a database" * 100)
    (tmp_path / "out" / "index.sqlite-journal").write_bytes(b"from before")
    assert audit(str(data), tmp_path / "out") == first
    assert not (tmp_path / "out" / "index.sqlite-journal").exists()


def test_a_full_disk_is_one_line(tmp_path):
    data = photos(tmp_path / "data", 30)
    with Index(tmp_path / "index.sqlite", str(data)) as index:
        pass
    with pytest.raises(RunFolderError, match="cannot write .* full") as error:
        with index:
            index.number("PRAGMA max_page_count = 1")  # SQLite's own limit: the error is that of a full disk
            index.update([open_data(str(data)).train])
            for number in range(200):
                index.keep_thumbnails({str(k): bytes(1000) for k in range(number)})
    assert "\n" not in str(error.value)


def test_names_in_the_index_are_never_run(tmp_path):
    data = photos(tmp_path / "data", 2)
    audit(str(data), tmp_path / "out")
    with sqlite3.connect(tmp_path / "out" / "index.sqlite") as database:
        database.execute('CREATE TABLE "x"" ; --" (a)')
        database.execute("UPDATE about SET value = 'index 0' WHERE key = 'version'")
    database.close()
    assert audit(str(data), tmp_path / "out")["readable"] == 2


def test_an_index_of_another_version_or_of_other_data_is_made_anew(tmp_path):
    data = photos(tmp_path / "data", 3)
    audit(str(data), tmp_path / "out")
    for change in ("UPDATE about SET value = 'index 0' WHERE key = 'version'", "DROP TABLE thumbnails"):
        with sqlite3.connect(tmp_path / "out" / "index.sqlite") as database:
            database.execute("UPDATE records SET format = 'FROM BEFORE'")
            database.execute("UPDATE about SET value = 'index 0' WHERE key = 'version'")
            database.execute(change)
        database.close()
        assert audit(str(data), tmp_path / "out")["formats"][0]["format"] == "JPEG"
    other = photos(tmp_path / "other", 2, first=5)
    assert audit(str(other), tmp_path / "out")["pictures"] == 2


def test_what_is_not_ours_is_left_alone(tmp_path):
    data = photos(tmp_path / "data", 2)
    mine = write(tmp_path / "mine", notes_txt=b"mine")
    run = write(tmp_path / "run", run_json=b"{}")
    (run / ".diptych-run").touch()
    for folder in (mine, run, data, mine / "notes.txt"):
        before = tree(tmp_path)
        with pytest.raises(RunFolderError, match="choose another folder with --out"):
            audit(str(data), folder)
        assert tree(tmp_path) == before


def test_an_audit_among_the_pictures_is_not_among_them(tmp_path):
    data = photos(tmp_path / "data", 2)
    audit(str(data), data / "audit")
    write(data / "audit", drawn_png=encoded("PNG"))
    assert audit(str(data), data / "audit")["pictures"] == 2


def test_two_audits_at_once_do_not_mix(tmp_path):
    data = photos(tmp_path / "data", 2)
    audit(str(data), tmp_path / "out")
    with sqlite3.connect(tmp_path / "out" / "index.sqlite") as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(RunFolderError, match="another audit is writing"):
            audit(str(data), tmp_path / "out")
    other.close()


def test_the_index_is_all_that_grows(tmp_path):
    """10,000 files: the process that audits them holds a few MB more than one that audits 200."""
    content = encoded("PNG", Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)))

    def peak(count):
        folder = tmp_path / str(count)
        folder.mkdir()
        for number in range(count):
            (folder / f"{number}.png").write_bytes(content)
        code = f"{SCRIPT}; import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
        words = [sys.executable, "-c", code, str(folder), str(tmp_path / f"out-{count}")]
        return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout)

    assert peak(10_000) - peak(200) < 20_000  # kB, of which the names and entries of the source are a third
