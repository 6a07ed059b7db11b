import errno
import json

import pytest

from diptych.errors import RunFolderError
from diptych.runs import MARKER, RunFolder, read_json, write_json, writing


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(KeyboardInterrupt), writing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_full_disk_is_one_line(tmp_path):
    with pytest.raises(RunFolderError, match="disk is full.*--resume"), writing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_really_full_disk():
    """/dev/full refuses every byte with ENOSPC, as a full disk does."""
    run = RunFolder("/tmp")
    with pytest.raises(RunFolderError, match="disk is full"):
        run.append(__import__("pathlib").Path("/dev/full"), {"a": 1})


def test_a_used_folder_is_refused_and_both_ways_on_are_printed(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"--resume .*--overwrite"):
        RunFolder.create(tmp_path)
    with pytest.raises(RunFolderError, match="not made by diptych"):
        RunFolder.create(tmp_path, overwrite=True)
    assert (tmp_path / "precious.txt").read_text() == "mine"


def test_overwrite_deletes_our_own_folder_only(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    write_json(run.config, {})
    RunFolder.create(run.path, overwrite=True)
    assert [p.name for p in run.path.iterdir()] == [MARKER]


def test_a_path_under_a_file_cannot_be_a_run(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunFolderError, match="cannot write|not empty"):
        RunFolder.create(tmp_path / "file" / "run")


def test_open_wants_a_run_of_ours(tmp_path):
    with pytest.raises(RunFolderError, match="there is no run folder"):
        RunFolder.open(tmp_path / "none")
    with pytest.raises(RunFolderError, match="not a run folder"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", ""])
def test_damaged_json_is_one_line(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RunFolderError, match="run.json"):
        read_json(tmp_path / "run.json")


def test_metrics_survive_a_line_cut_short_and_are_cut_back_for_a_resume(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    for step in range(4):
        run.append(run.metrics, {"step": step})
    with open(run.metrics, "a") as file:
        file.write('{"step": 4, "lo')
    assert [record["step"] for record in run.read_lines(run.metrics)] == [0, 1, 2, 3]
    run.keep_metrics_before(2)
    assert [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()] == [0, 1]
