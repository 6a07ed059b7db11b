"""`diptych evaluate --task segmentation` as it is typed: what it prints, writes and refuses."""

import json

import pytest
import tiny
from in_process import run_command
from shapes import shapes

NAMED = ("--task", "segmentation", "--pixels", 200)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return shapes(tmp_path_factory.mktemp("data") / "squares", 15)


@pytest.fixture(scope="module")
def run(tmp_path_factory, data):
    out = tmp_path_factory.mktemp("runs") / "mine"
    assert run_command("pretrain", data / "images", "--out", out, *tiny.FLAGS, "--epochs", "1")[0] == 0
    return out


def test_the_result_is_printed_written_and_shown(run, data):
    code, out, err = run_command("evaluate", run, data, *NAMED, "--json")
    result = json.loads(out)
    assert code == 0 and "12 pictures to learn from, 3 to test on, 16 px a side" in err
    assert "the backbone saw 3 of the test pictures, without masks, during pretraining" in result["data"]["note"]
    assert json.loads((run / "evaluation" / "squares-segmentation.json").read_text()) == result
    page = (run / "report.html").read_text()
    assert result["verdict"]["sentence"].split(":")[0] in page and 'id="masks"' in page
    code, out, _ = run_command("evaluate", run, data, *NAMED)
    assert code == 0 and out.startswith(result["verdict"]["sentence"])


@pytest.mark.parametrize("words", [(), ("--probes", "knn")])
def test_pictures_and_masks_are_no_two_classes(run, data, words):
    code, out, err = run_command("evaluate", run, data, *words)
    assert (code, out) == (
        2,
        "",
    ) and err == f"diptych: {data} holds images/ and masks/: add --task segmentation (in Python: diptych.segment)\n"


def test_a_name_that_is_none_is_refused_before_anything_is_computed(run, data):
    code, out, err = run_command("evaluate", run, data, *NAMED, "--name", "../../x")
    assert (code, out) == (2, "")
    assert err == "diptych: --name may hold letters, digits, - and _ alone, not '../../x'\n"
