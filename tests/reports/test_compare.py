import json
import re
from html.parser import HTMLParser

import pytest
from PIL import Image
from run_folders import add, card, make_run, record, result

from diptych.errors import ConfigError, DataError, RunFolderError
from diptych.reports.compare import compare, draw
from diptych.reports.compare_page import write_page
from diptych.reports.compare_text import as_text

HOSTILE = "<script>alert(1)</script>\x1b[2J"


def config(**changes):
    """The configuration of ``run_folders.card`` with some values changed: ``optim={"lr": 1}``."""
    found = card()["config"]
    for owner, values in changes.items():
        found[owner] = found[owner] | values if isinstance(values, dict) else values
    return found


def evaluate(run, name, *, top1=0.6, initial=False, **changes):
    """Leave an evaluation in a run folder."""
    scores = {
        contender: {"knn": {"top1": value, "ci95": [value - 0.05, value + 0.05], "balanced_accuracy": value}}
        for contender, value in {"pretrained": top1, "random": 0.5, "pixels": 0.25, "initial": 0.55}.items()
        if initial or contender != "initial"
    }
    data = {
        "name": "labelled",
        "note": "",
        "train_pictures": 400,
        "test_pictures": 100,
        "classes": ["a", "b"],
        "fingerprint": "cd",
    }
    found = {
        "schema_version": 1,
        "created": "2026-11-24T17:00:00+00:00",
        "data": data | changes.pop("data", {}),
        "protocol": "standard",
        "settings": {"knn": {"k": 20}, "pixels": "32 px"},
        "seed": 0,
        "contenders": scores,
        "differences": {"knn": {"points": 10.0, "ci": [4.0, 16.0], "level": 0.975}},
        "verdict": {"sentence": "", "outcome": "helped", "probe": "knn"},
    } | changes
    if initial:
        found["init_from"] = "runs/first"
    (run / "evaluation").mkdir(exist_ok=True)
    (run / "evaluation" / f"{name}.json").write_text(json.dumps(found))


@pytest.fixture
def runs(tmp_path):
    """Two finished runs of one method."""
    return (
        make_run(tmp_path / "slow", 100, result=result()),
        make_run(tmp_path / "fast", 50, result=result("stopped early", 50), config=config(optim={"lr": 2.0})),
    )


def rows(text):
    return {name: values.split() for name, _, values in (line.partition("  ") for line in text.splitlines())}


def test_what_runs_are_and_in_what_they_differ(runs):
    found = compare(runs)
    assert [entry.name for entry in found.runs] == ["slow", "fast"]
    assert found.differences == {"optim.lr": [0.5, 2.0]}
    assert [(entry.status, entry.epochs, entry.seconds) for entry in found.runs] == [
        ("finished", 10.0, 90.0),
        ("stopped early", 5.0, 90.0),
    ]
    # the mean over the last epoch's ten records
    assert [entry.loss for entry in found.runs] == [pytest.approx(-0.945), pytest.approx(-0.445)]
    text = as_text(found)
    assert rows(text)["optim.lr"] == ["0.5", "2"] and rows(text)["effective rank"] == ["30", "30"]
    assert "losses of different methods" not in text and "none of the runs has been evaluated" in text


def test_runs_that_do_not_differ_say_so(tmp_path):
    found = compare([make_run(tmp_path / name, 1) for name in "ab"])
    assert "The configurations do not differ." in as_text(found)


def test_a_run_that_goes_on_or_has_no_loss_is_compared_too(tmp_path, runs):
    going = make_run(tmp_path / "going", 5)
    add(going, record(5, health="not learning", knn_top1=0.25))
    counted = make_run(tmp_path / "counted", result=result(steps=0) | {"loss": None})
    text = as_text(compare([going, counted, make_run(tmp_path / "new")]))
    assert rows(text)["status"] == ["unfinished", "finished", "unfinished"]
    assert rows(text)["final loss"] == ["-0.025", "–", "–"] and rows(text)["online kNN"][:2] == ["25.0", "%"]
    assert "not learning" in text


def test_settings_of_another_method_are_no_difference(tmp_path):
    one = make_run(tmp_path / "a", 5, config=config(method={"name": "simsiam", "width": 1, "layers": 2}))
    two = make_run(tmp_path / "b", 5, config=config(method={"name": "simclr", "temperature": 0.5, "layers": 3}))
    found = compare([one, two])
    assert found.differences == {"method.name": ["simsiam", "simclr"], "method.layers": [2, 3]}
    assert [curve.title for curve, _ in found.curves][:2] == ["Loss of simsiam", "Loss of simclr"]
    assert "losses of different methods do not compare" in as_text(found)


def test_evaluations_of_the_same_pictures_stand_side_by_side(runs):
    slow, fast = runs
    evaluate(slow, "x", top1=0.6)
    evaluate(fast, "other-name", top1=0.7, settings={"knn": {"k": 20}, "pixels": "224 px"})
    (group,) = compare(runs).evaluations
    assert list(group.results) == ["slow", "fast"]
    text = as_text(compare(runs))
    assert "Evaluated on labelled: 100 test pictures, 400 to learn the probes from (standard protocol, seed 0)" in text
    lines = [re.split(r"\s{2,}", line) for line in text.splitlines() if line.startswith("kNN")]
    assert lines == [
        ["kNN", "slow", "60.0 (55.0 to 65.0)", "+10.0 (+4.0 to +16.0)", "untrained 50.0", "25.0"],
        ["kNN", "fast", "70.0 (65.0 to 75.0)", "+10.0 (+4.0 to +16.0)", "untrained 50.0", "25.0"],
    ]
    assert "gain, points (97.5 %)" in text and "Note" not in text


@pytest.mark.parametrize(
    "other",
    [
        {"data": {"fingerprint": "ef"}},
        {"data": {"test_pictures": 99}},
        {"data": {"train_pictures": 99}},
        {"data": {"classes": ["a", "c"]}},
        {"protocol": "keras"},
        {"seed": 1},
        {"settings": {"knn": {"k": 5}}},
    ],
)
def test_evaluations_of_other_pictures_or_probes_do_not(runs, other):
    slow, fast = runs
    evaluate(slow, "x")
    evaluate(fast, "x", **other)
    assert [list(group.results) for group in compare(runs).evaluations] == [["slow"], ["fast"]]
    assert "side by side only where pictures, split, probes and seed are the same" in as_text(compare(runs))


def test_the_newest_of_two_equal_evaluations_counts(runs):
    evaluate(runs[0], "a", top1=0.3)
    evaluate(runs[0], "b", top1=0.4, created="2026-11-24T18:00:00+00:00")
    (group,) = compare(runs).evaluations
    assert group.results["slow"]["knn"]["pretrained"]["top1"] == 0.4


def test_a_run_that_began_with_weights_is_compared_with_them(runs):
    evaluate(runs[0], "a", initial=True)
    evaluate(runs[1], "a")
    text = as_text(compare(runs))
    assert "initial 55.0" in text and "untrained 50.0" in text


def test_folders_of_one_name_are_told_apart(tmp_path):
    made = [make_run(tmp_path / place / "run", 1) for place in ("a", "b")]
    assert [entry.name for entry in compare(made).runs] == [str(run) for run in made]


def test_more_runs_than_a_line_has_room_for_go_below(tmp_path):
    found = compare([make_run(tmp_path / f"a-run-with-a-name-{i}", 5) for i in range(6)])
    text = as_text(found, 80)
    table, _, _ = text.partition("The configurations")
    assert max(map(len, table.splitlines())) <= 80 and table.count("\nmethod ") == 2
    assert as_text(found).count("\nmethod ") == 1


def test_what_cannot_be_compared_is_refused(tmp_path, runs):
    with pytest.raises(ConfigError, match="one run alone"):
        compare(runs[:1])
    (tmp_path / "link").symlink_to(runs[0])
    for again in (runs[0], tmp_path / "link", tmp_path / "fast" / ".." / "slow"):
        with pytest.raises(RunFolderError, match="same folder"):
            compare([runs[0], again])
    with pytest.raises(RunFolderError, match="not a run folder"):
        compare([runs[0], tmp_path])


def test_the_picture_is_drawn_over_its_own_kind_only(tmp_path, runs):
    out = tmp_path / "out"
    for _ in range(2):
        (path,) = draw(compare(runs), out)
    with Image.open(path) as picture:
        assert picture.size[0] == 1280
    Image.new("RGB", (2, 2)).save(path)
    with pytest.raises(DataError, match="did not draw it"):
        draw(compare(runs), out)


def test_runs_without_records_are_not_drawn(tmp_path):
    assert draw(compare([make_run(tmp_path / name) for name in "ab"]), tmp_path / "out") == []


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.said = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.said += data


def test_the_page_shows_all_and_loads_nothing(tmp_path, runs):
    evaluate(runs[0], "a")
    for _ in range(2):
        path = write_page(compare(runs), tmp_path)
    html = path.read_text()
    page = Page(html)
    assert "default-src 'none'" in html and "url(" not in html
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not any(name.startswith("on") or name in ("src", "href") for name, _ in page.attributes)
    for said in ("slow", "fast", "optim.lr", "60.0 (55.0 to 65.0)", "untrained 50.0", "Effective rank"):
        assert said in page.said, said
    assert html.count('<polyline class="curve"') == 2 * 4  # loss, learning rate, spread, rank
    path.write_text("<html>mine</html>")
    with pytest.raises(DataError, match="did not make it"):
        write_page(compare(runs), tmp_path)


def test_what_is_measured_at_the_end_of_epochs_is_drawn_once(tmp_path, runs):
    for run in runs:
        add(run, record(100) | {"neighbour_stability": 0.5, "knn_top1": 0.4, "linear_top1": 0.6})
    page = Page(write_page(compare(runs), tmp_path).read_text())
    for title in ("Neighbour stability", "kNN accuracy", "Linear probe"):
        assert page.said.count(title) == 1, title


def test_hostile_words_stay_words(tmp_path):
    data = card()["data"] | {"name": HOSTILE}
    names = ["a", "$x^"]
    made = [make_run(tmp_path / name, 3, data=data, config=config(backbone=HOSTILE + name)) for name in names]
    for run in made:
        evaluate(run, "a", data={"name": HOSTILE})
    found = compare(made)
    page = Page(write_page(found, tmp_path / "out").read_text())
    assert "script" not in page.tags and "<script>alert(1)</script>\ufffd[2J" in page.said
    assert "\x1b" not in as_text(found)
    draw(found, tmp_path / "out")  # a name is no mathematics
