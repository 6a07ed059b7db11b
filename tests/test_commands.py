import json
import os
import pty
import re
import shutil
import subprocess

import pytest
import tiny
from in_process import run_command
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from diptych.config import flatten, to_dict
from diptych.recipes.book import RECIPES
from diptych.runs import RunFolder
from diptych.training.config import RunConfig

FLAGS = [*tiny.FLAGS, "--epochs", "1"]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return tiny.paint(
        tmp_path_factory.mktemp("data") / "pictures",
        *(f"{name}/{number}.png" for name in ("cat", "dog") for number in range(10)),
    )


@pytest.fixture(scope="module")
def started(tmp_path_factory, pictures):
    """A finished run, and what starting it over an earlier one gave: exit code, standard output, standard error."""
    run = RunFolder.create(tmp_path_factory.mktemp("runs") / "run").path
    (run / "old.txt").write_text("an earlier run's")
    return run, run_command("pretrain", pictures, "--out", run, "--overwrite", *FLAGS, "--json")


@pytest.fixture(scope="module")
def run(started):
    return started[0]


def result_of(*words):
    """The one JSON object that a command prints."""
    code, out, _ = run_command(*words, "--json")
    assert code == 0
    return json.loads(out)


def mistake(*words):
    """The one line that a mistake ends in."""
    code, out, err = run_command(*words)
    assert (code, out) == (2, "")
    assert re.fullmatch(r"diptych: [^\n]+\n", err), err
    return err.removeprefix("diptych: ").rstrip("\n")


def test_pretrain_prints_one_json_object(started):
    run, (code, out, err) = started
    result = json.loads(out)
    assert code == 0 and (result["run"], result["status"], result["steps"]) == (str(run), "finished", 5)
    assert "training 5/5" in err and "{" not in err
    card = json.loads((run / "run.json").read_text())
    assert card["result"] == {name: value for name, value in result.items() if name != "run"}


def test_resume_prints_one_json_object(started):
    run, (_, out, _) = started
    result, before = result_of("pretrain", "--resume", run), json.loads(out)
    assert [result[name] for name in ("run", "status", "steps", "loss")] == [
        before[name] for name in ("run", "status", "steps", "loss")
    ]


def test_evaluate_prints_one_json_object(run, pictures):
    result = result_of("evaluate", run, pictures, "--seed", 3, "--limit", 16, "--name", "mine")
    assert json.loads((run / "evaluation" / "mine.json").read_text()) == result
    assert result["seed"] == 3 and result["data"]["train_pictures"] + result["data"]["test_pictures"] == 16


def test_watch_prints_one_view_or_one_json_object(run):
    (state,) = result_of("watch", run)["runs"]
    assert (state["run"], state["status"], state["epoch"]) == (str(run), "finished", 1.0)
    assert state["metrics"]["loss"]["last"] == json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["loss"]
    for words in ((), ("--once",)):
        code, out, err = run_command("watch", run, *words)
        assert (code, err) == (0, "") and "✓ finished" in out and "\x1b" not in out


def test_compare_prints_one_json_object_and_draws_where_it_is_told(run, tmp_path):
    twin = tmp_path / "twin"
    shutil.copytree(run, twin, symlinks=True)
    found = result_of("compare", run, twin, "--out", tmp_path / "out")
    assert [entry["name"] for entry in found["runs"]] == ["run", "twin"] and found["differences"] == {}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"compare.png", "compare.html"}
    code, out, err = run_command("compare", run, twin)
    assert (code, err) == (0, "") and "The configurations do not differ." in out


def test_select_prints_one_json_object_or_its_sentence_first(run, pictures):
    found = result_of("select", run, "--metric", "rankme", "--pictures", 16, "--seed", 3, "--data", pictures)
    assert (found["run"], found["metric"], found["pictures"], found["seed"]) == (str(run), "rankme", 16, 3)
    assert [one["checkpoint"] for one in found["runs"][0]["checkpoints"]] == ["step-000005"]
    code, out, err = run_command("select", run, "--pictures", 16)
    assert code == 0 and out.startswith(f"alignment chooses step-000005 of {run}: alignment ")
    assert f"{run} offers step-000005 alone" in err and "step-000005: RankMe " in err


def test_watch_and_compare_say_what_to_type(run, tmp_path):
    assert mistake("watch") == "say which run to watch: type `diptych watch RUN`"
    assert mistake("watch", tmp_path / "none").startswith("there is no run folder")
    assert "--every must be 0.1 seconds or more" in mistake("watch", run, "--every", "0")
    assert mistake("compare", run) == "one run alone compares with nothing: type `diptych compare RUN RUN`"
    assert "is not a run folder" in mistake("compare", run, tmp_path)


def test_a_tracked_run_and_its_resume_leave_events(pictures, tmp_path):
    run = tmp_path / "run"
    run_command("pretrain", pictures, "--out", run, *FLAGS, "--track", "tensorboard")
    assert run_command("pretrain", "--resume", run, "--track", "tensorboard")[0] == 0
    reader = EventAccumulator(str(run / "tensorboard")).Reload()
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(e.step, e.value) for e in reader.Scalars("loss")] == [
        (record["step"], pytest.approx(record["loss"])) for record in records
    ]


def test_what_cannot_be_tracked_is_told_before_anything_is_read(tmp_path):
    words = ("pretrain", tmp_path / "nothing-here", "--out", tmp_path / "run", "--track")
    assert "unknown tracker 'wandbb'; did you mean 'wandb'?" in mistake(*words, "wandbb")
    patches = ("pretrain", "photos", "--method", "patches", "--out", tmp_path / "run", "--track")
    assert "nothing to track" in mistake(*patches, "tensorboard")
    assert not (tmp_path / "run").exists()


def test_preview_prints_one_json_object(pictures, tmp_path):
    assert result_of("preview", pictures, "--out", tmp_path / "v.png") == {"views": str(tmp_path / "v.png")}
    with Image.open(tmp_path / "v.png") as figure:
        assert figure.format == "PNG"


def test_report_prints_one_json_object(run):
    assert result_of("report", run) == {"report": str(run / "report.html")}


def test_recipes_prints_one_json_object():
    found = result_of("recipes")
    assert list(found) == ["recipes"] and [entry["name"] for entry in found["recipes"]] == list(RECIPES)
    assert all(set(entry) == {"name", "what_for", "measured"} for entry in found["recipes"])


def test_without_json_results_are_words_on_standard_output(run, pictures, tmp_path):
    code, out, _ = run_command("pretrain", "--resume", run)
    assert code == 0 and out.startswith(f"{run}: finished after 1 epoch (5 steps, ")
    assert out.splitlines()[1] == f"Next: `diptych evaluate {run} LABELLED/`   Report: {run}/report.html"
    assert run_command("report", run) == (0, f"{run}/report.html\n", "")
    assert run_command("preview", pictures, "--out", tmp_path / "v.png") == (0, f"{tmp_path}/v.png\n", "")
    assert run_command("recipes")[1].splitlines()[0::3] == list(RECIPES)


def test_without_json_an_evaluation_begins_with_its_verdict(run, pictures):
    code, out, _ = run_command("evaluate", run, pictures, "--limit", 16)
    verdict = json.loads((run / "evaluation" / "pictures.json").read_text())["verdict"]
    assert code == 0 and out.splitlines()[0] == verdict["sentence"]


def test_flags_reach_the_run(run):
    config = json.loads((run / "run.json").read_text())["config"]
    values = {f"--{name.rpartition('.')[2].replace('_', '-')}": str(value) for name, value in flatten(config).items()}
    flags = dict(zip(FLAGS[::2], FLAGS[1::2], strict=True))
    assert len(flags) > 5 and flags.items() <= values.items()


def test_overwrite_deletes_an_earlier_run(run):
    assert (run / "run.json").exists() and not (run / "old.txt").exists()


NEW = ("pretrain", "PICTURES", "--out", "NEW")
MISTAKES = [
    # what to learn from, and where to
    (("pretrain",), "say what to learn from: `diptych pretrain DATA --out RUN`"),
    (("pretrain", "--out", "NEW"), "say what to learn from"),
    (("pretrain", "PICTURES"), "say where the run goes: add `--out runs/NAME`"),
    (("pretrain", "NOTHING", "--out", "NEW"), "there is no NOTHING"),
    (("pretrain", "PICTURES", "--out"), "--out"),
    (("pretrain", "PICTURES", "--out", "PICTURES"), "PICTURES is not empty"),
    ((*NEW, "more"), "unexpected word 'more': type `diptych pretrain DATA --out RUN`"),
    ((*NEW, "--data-dir", "x"), "--data-dir says where the files of cifar10 lie"),
    # flags
    ((*NEW, "--epochz", 3), "unknown option '--epochz'; did you mean '--epochs'?"),
    ((*NEW, "--epochz=3"), "unknown option '--epochz'; did you mean '--epochs'?"),
    ((*NEW, "--no-lr-scalin"), "unknown option '--no-lr-scalin'; did you mean '--no-lr-scaling'?"),
    (("explore", "RUN", "PICTURES", "--port", 70000), "--port must be 0..65535, not 70000"),
    (
        ("explore", "RUN", "PICTURES", "--static", "map", "--thumbnail", 3),
        "--thumbnail must be 16 pixels or more, not 3",
    ),
    (("audit", "~nobody9"), "there is no ~nobody9"),
    ((*NEW, "--epochs", "many"), "--epochs cannot be 'many': type `diptych pretrain DATA --out RUN`, or `diptych p"),
    ((*NEW, "--epochs"), "--epochs"),
    ((*NEW, "--crop-scale", 0.3), "--crop-scale"),
    ((*NEW, "--precision", "fp8"), "'fp8'"),
    # values
    ((*NEW, "--epochs", 0), "--epochs must be 1 or more, not 0"),
    ((*NEW, "--epochs=0"), "--epochs must be 1 or more, not 0"),
    ((*NEW, "--seed", -1), "--seed must be 0 or more, not -1"),
    ((*NEW, "--limit", 0), "--limit must be 1 or more pictures, not 0"),
    ((*NEW, "--crop-scale", 0.9, 0.3), "--crop-scale must be two numbers, rising, above 0 and at most 1, not 0.9 0.3"),
    ((*NEW, "--recipe", "simsaim"), "unknown recipe 'simsaim'; did you mean 'simsiam'?"),
    ((*NEW, "--backbone", "resnet20"), "unknown backbone 'resnet20'; did you mean 'resnet20v2'?"),
    ((*NEW, "--device", "tpu"), "--device tpu cannot be used here"),
    # going on
    (("pretrain", "--resume", "RUN", "--out", "NEW"), "--resume goes on in its own folder: leave out --out"),
    (("pretrain", "--resume", "RUN", "--recipe", "simsiam"), "--resume goes on in its own folder"),
    (("pretrain", "--resume", "RUN", "--overwrite"), "--resume goes on in its own folder"),
    (("pretrain", "--resume", "RUN", "--epochs", 7), "begun with other settings (train.epochs is 1, not 7)"),
    (("pretrain", "NOTHING", "--resume", "RUN"), "begun with other settings (data is PICTURES, not NOTHING)"),
    (("pretrain", "--resume", "RUN", "--epochz", 7), "unknown option '--epochz'; did you mean '--epochs'?"),
    (("pretrain", "--resume", "NOTHING"), "there is no run folder NOTHING"),
    # the other commands
    (("evaluate",), "`diptych evaluate RUN DATA`"),
    (("evaluate", "RUN"), "`diptych evaluate RUN DATA`"),
    (("evaluate", "RUN", "PICTURES", "more"), "unexpected word 'more': type `diptych evaluate RUN DATA`"),
    (("evaluate", "NOTHING", "PICTURES"), "there is no run folder NOTHING"),
    (("evaluate", "PICTURES", "PICTURES"), "PICTURES is not a run folder of diptych"),
    (("evaluate", "RUN", "NOTHING"), "there is no NOTHING"),
    (("evaluate", "RUN", "PICTURES", "--protocol", "kears"), "'kears'"),
    (("evaluate", "RUN", "PICTURES", "--limit", "x"), "--limit cannot be 'x'"),
    (("evaluate", "RUN", "PICTURES", "--limit", 0), "--limit must be at least 1, not 0"),
    (("evaluate", "RUN", "PICTURES", "--nam", "x"), "unknown option '--nam'; did you mean '--name'?"),
    (("evaluate", "RUN", "PICTURES", "--name", "../x"), "--name may hold letters"),
    (("preview",), "say what to learn from: `diptych preview DATA --out FILE.png`"),
    (("preview", "PICTURES", "--epochs", "x"), "--epochs cannot be 'x': type `diptych preview DATA"),
    (("preview", "PICTURES", "--recipe", "simsaim"), "unknown recipe 'simsaim'; did you mean 'simsiam'?"),
    (
        ("preview", "PICTURES", "--out", "PICTURES"),
        "PICTURES is there already, and diptych did not draw it",
    ),
    (("select",), "say which run to choose from: type `diptych select RUN`"),
    (("select", "RUN", "--metrik", "x"), "unknown option '--metrik'; did you mean '--metric'?"),
    (("select", "RUN", "--metric", "rankmee"), "unknown metric 'rankmee'; did you mean 'rankme'?"),
    (("select", "RUN", "--pictures", "x"), "--pictures cannot be 'x': type `diptych select RUN`"),
    (("select", "NOTHING"), "there is no run folder NOTHING"),
    (("report",), "`diptych report RUN`"),
    (("report", "RUN", "more"), "unexpected word 'more': type `diptych report RUN`"),
    (("report", "NOTHING"), "there is no run folder NOTHING"),
    (("recipes", "more"), "unexpected word 'more': type `diptych recipes`"),
    (("recipes", "--jsno"), "unknown option '--jsno'; did you mean '--json'?"),
    (("recipes", "--seed", "x"), "--seed cannot be 'x'"),
    (("search", "v.parquet", "-k", "x"), "-k cannot be 'x': type `diptych search VECTORS QUERY`"),
]


@pytest.mark.parametrize(("words", "told"), MISTAKES, ids=[" ".join(map(str, words)) for words, _ in MISTAKES])
def test_a_mistake_is_one_line_and_code_2(run, pictures, tmp_path, words, told):
    places = {"RUN": run, "PICTURES": pictures, "NEW": tmp_path / "new", "NOTHING": tmp_path / "nothing"}

    def placed(text):
        return re.sub(r"\b(PICTURES|NEW|NOTHING)\b", lambda name: str(places[name[0]]), text)

    assert placed(told) in mistake(*(places.get(word, word) for word in words))
    assert not (tmp_path / "new").exists()


def test_a_mistake_found_late_ends_in_the_same_one_line(pictures, tmp_path):
    code, out, err = run_command("pretrain", pictures, "--out", tmp_path / "new", "--batch-size", 1000)
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last == "diptych: a batch of 1000 is larger than the 20 pictures there are; type --batch-size 20 or less"
    assert err.count("diptych: ") == 1 and not (tmp_path / "new").exists()


@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("name", ["pretrain", "evaluate", "preview", "report", "select", "recipes"])
def test_help(name, flag):
    code, out, err = run_command(name, flag)
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: diptych {name} ") and "--json" in out and "--seed" in out


@pytest.mark.parametrize("name", ["pretrain", "preview"])
def test_help_lists_the_whole_configuration(name):
    out = run_command(name, "DATA", "--help")[1]
    settings = flatten(to_dict(RunConfig(data=""))).keys() - {"data", "method.name"}
    flags = {"--" + setting.rpartition(".")[2].replace("_", "-") for setting in settings} | {"--out", "--recipe"}
    assert flags <= set(re.findall(r"--[a-z0-9-]+", out))


def test_a_real_process_tells_a_wrong_value_in_one_line(pictures, tmp_path):
    words = [tiny.DIPTYCH, "pretrain", str(pictures), "--out", str(tmp_path / "run"), "--epochs", "many"]
    found = subprocess.run(words, capture_output=True, text=True)
    told = "--epochs cannot be 'many': type `diptych pretrain DATA --out RUN`, or `diptych pretrain --help`"
    assert (found.returncode, found.stdout, found.stderr) == (2, "", f"diptych: {told}\n")


def test_a_mistake_on_a_terminal_is_one_line_without_colours_or_boxes():
    main, terminal = pty.openpty()
    words = [tiny.DIPTYCH, "pretrain", "pictures", "--out"]
    process = subprocess.run(words, stdout=terminal, stderr=terminal, stdin=terminal, timeout=120)
    said = os.read(main, 10_000).decode()
    assert process.returncode == 2 and said.startswith("diptych: ") and said.count("\n") == 1
    assert "\x1b" not in said and "──" not in said


def test_a_reader_that_has_left_is_no_error():
    process = subprocess.Popen([tiny.DIPTYCH, "recipes"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert (process.wait(timeout=120), process.stderr.read()) == (0, b"")
    process.stderr.close()


def test_suggestions_know_the_flags_of_both_parts(tmp_path):
    code, _, err = run_command("preview", tmp_path, "--recip", "x")
    assert code == 2 and "did you mean '--recipe'?" in err
