"""The page is made from real run folders at every stage, and read back with a real HTML parser."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from diptych.errors import RunFolderError
from diptych.markup import date, duration, percent, picture, signed, text, tick_labels, ticks
from diptych.reports.charts import Curve, Interval, interval_chart, line_chart
from diptych.reports.render import write_report

VOID = {"meta", "img", "br", "line", "rect", "circle", "path", "polyline", "polygon"}
SENTENCE = "Pretraining helped: kNN 66.1 % against 59.0 % for the same network untrained, +7.1 points."
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a'b&amp; $body ${run}",
    "\u202egnp.exe",
    "\x00\x1b[31m\ud800",
    "",
]


class Page(HTMLParser):
    """Collects tags, attributes and visible text; fails on a tag left open or closed twice."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.attributes, self.said = [], [], [], []
        self.feed(html)
        self.close()
        assert self.open == []
        self.words = re.sub(r"\s+", " ", "".join(self.said))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.said.append(data)


def card(**changes):
    return {
        "schema_version": 1,
        "diptych": "0.1.0",
        "recipe": "simsiam",
        "config": {
            "data": "pictures/",
            "limit": None,
            "backbone": "resnet20v2",
            "method": {"name": "simsiam"},
            "train": {"epochs": 3, "batch_size": 128},
        },
        "choices": [{"what": "batch size 128", "why": "9,500 pictures give 74 steps"}],
        "command": "diptych pretrain pictures/ --out runs/mine",
        "data": {
            "name": "pictures/train",
            "note": "only train/",
            "pictures": 9500,
            "skipped": 0,
            "fingerprint": "ab" * 32,
        },
        "versions": {"python": "3.11.7", "torch": "2.14.1"},
        "git_commit": None,
        "hardware": {"device": "cpu", "cpu_cores": 2},
        "started": "2026-11-24T16:30:17+00:00",
        "result": {
            "status": "finished",
            "steps": 222,
            "epochs": 3.0,
            "loss": -0.8712,
            "seconds": 151.2,
            "images_per_second": 628.3,
            "warnings": [],
        },
    } | changes


def score(top1, classes):
    count = len(classes)
    confusion = np.full((count, count), 3) + np.diag([40] * count)
    return {
        "top1": top1,
        "ci95": [top1 - 0.02, top1 + 0.02],
        "balanced_accuracy": top1,
        "per_class": {name: 0.5 for name in classes},
        "confusion": confusion.tolist(),
    }


def evaluation(
    classes=("cat", "dog"), created="2026-11-24T17:00:00+00:00", outcome="helped", probes=("knn", "linear"), **changes
):
    accuracies = {"pretrained": 0.661, "random": 0.59, "pixels": 0.4504}
    return {
        "schema_version": 1,
        "name": "labelled",
        "created": created,
        "diptych": "0.1.0",
        "command": "diptych evaluate runs/mine labelled/",
        "run": "runs/mine",
        "data": {
            "name": "labelled",
            "note": "a stratified split by seed 0",
            "train_pictures": 7600,
            "test_pictures": 1900,
            "classes": list(classes),
        },
        "protocol": "standard",
        "settings": {"knn": {"k": 20, "temperature": 0.07}, "pixels": "32 px"},
        "seed": 0,
        "contenders": {
            contender: {probe: score(top1, classes) for probe in probes} for contender, top1 in accuracies.items()
        },
        "differences": {probe: {"points": 7.1, "ci": [5.2, 9.0], "level": 0.975} for probe in probes},
        "verdict": {
            "outcome": outcome,
            "sentence": SENTENCE,
            "probe": probes[0],
            "points": 7.1,
            "interval": [5.2, 9.0],
        },
        "seconds": 41.0,
    } | changes


def records(count):
    return [
        {"step": i, "epoch": (i + 1) / 74, "loss": -i / 300, "lr": 0.03, "embedding_std": 0.9, "effective_rank": 60.0}
        for i in range(count)
    ]


@pytest.fixture
def make(tmp_path):
    """Writes a run folder; returns its report as text and parsed."""

    def made(run_card=None, steps=0, evaluations=None, pictures=False, quarantine=()):
        run = tmp_path / "run"
        (run / "evaluation").mkdir(parents=True, exist_ok=True)
        (run / ".diptych-run").touch()
        (run / "run.json").write_text(json.dumps(run_card or card()))
        for path, lines in ((run / "metrics.jsonl", records(steps)), (run / "quarantine.jsonl", quarantine)):
            if lines:
                path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        for name, result in (evaluations or {}).items():
            (run / "evaluation" / f"{name}.json").write_text(json.dumps(result))
            if pictures:
                for what in ("neighbors", "changed"):
                    Image.new("RGBA", (8, 8), "red").save(run / "evaluation" / f"{name}-{what}.png")
        if pictures:
            Image.new("RGBA", (8, 8), "blue").save(run / "views.png")
        path = write_report(run)
        assert path == run / "report.html" and not list(run.glob(".*.tmp"))
        html = path.read_text(encoding="utf-8")
        return html, Page(html)

    return made


def assert_loads_nothing(html, page):
    markup = re.sub(r'"data:image/[a-z]+;base64,[A-Za-z0-9+/=]*"', '"data:"', html)
    assert "default-src 'none'" in markup and "script-src" not in markup
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not any(name.startswith("on") or name in ("srcset", "xlink:href", "action") for name, _ in page.attributes)
    assert all(value.startswith("data:image/") for name, value in page.attributes if name == "src")
    assert all(value.startswith("#") for name, value in page.attributes if name == "href")
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style


@pytest.mark.parametrize("result", [None, card()["result"], card()["result"] | {"status": "interrupted"}])
@pytest.mark.parametrize("steps", [0, 1, 200])
def test_without_an_evaluation_it_says_what_to_type(make, tmp_path, result, steps):
    html, page = make(card(result=result), steps)
    assert_loads_nothing(html, page)
    assert f"diptych evaluate {tmp_path / 'run'} LABELLED/" in page.words
    finished = result is not None and result["status"] == "finished"
    assert ("--resume" in page.words) != finished
    assert ("No step has been recorded yet" in page.words) == (steps == 0)
    assert html.count('class="curve"') == (4 if steps else 0)


def test_a_finished_and_evaluated_run_shows_everything_in_order(make):
    warning = (
        "This run looks collapsed. Try, one at a time: (1) other distortions; (2) the learning rate; (3) the heads."
    )
    html, page = make(
        card(result=card()["result"] | {"warnings": [warning]}),
        200,
        {"labelled": evaluation()},
        True,
        [{"name": "bad.jpg"}],
    )
    assert_loads_nothing(html, page)
    places = [
        html.index(f'id="{name}"')
        for name in "verdict training warnings views neighbors changed confusion made".split()
    ]
    assert places == sorted(places)
    said = html.replace("\N{NO-BREAK SPACE}%", " %").count(SENTENCE)
    assert said == 2  # for search engines' sake none; for the eye and for the page's description
    for said in (
        "▲ helped",
        "66.1\u00a0%",
        "64.1 to 68.1",
        "45.0\u00a0%",
        "+7.1 points",
        "+5.2 to +9.0 (97.5\u00a0%)",
        "1,900 to test on, 7,600 to learn the probes from; 2 classes",
        "A stratified split by seed 0",
        "standard: weighted kNN",
        "the learning rate",
        "diptych pretrain pictures/ --out runs/mine",
        "batch size 128",
        "9,500 pictures give 74 steps",
        "train epochs3",
        "torch 2.14.1",
        "2\u00a0min 31\u00a0s",
        "24 November 2026, 16:30 UTC",
        "1 picture that could not be read bad.jpg",
    ):
        assert re.sub(r"\s", "", said) in re.sub(r"\s", "", page.words), said
    assert page.tags.count("img") == 3 and html.count("<li>the ") == 2


def warmed(result, source="runs/first"):
    """The same evaluation, of a run that began with the weights of ``source``."""
    classes, probes = result["data"]["classes"], result["differences"]
    initial = {probe: score(0.63, classes) | {"per_class": dict.fromkeys(classes, 0.44)} for probe in probes}
    return result | {"init_from": source, "contenders": result["contenders"] | {"initial": initial}}


def test_a_run_that_began_with_other_weights_shows_four_contenders(make):
    initial = {"from": "runs/first", "file": "runs/first/b.safetensors", "sha256": "cd" * 32, "notes": ["left out: x"]}
    _, cold = make(None, 3, {"labelled": evaluation()})
    html, page = make(card(initial=initial), 3, {"labelled": warmed(evaluation())})
    assert_loads_nothing(html, page)
    rows = re.findall(r'<tr class="(\w+)"><th scope="row">([^<]+)</th><td>', html)
    assert rows[:4] == [
        ("pretrained", "pretrained"),
        ("initial", "initial (runs/first)"),
        ("random", "same network, untrained"),
        ("pixels", "raw pixels"),
    ]
    assert html.count('<path class="initial"') == html.count('class="shade"') == 2
    for said in (
        "63.0\u00a0%",
        "pretrained − initial +7.1 points",
        "Shade: the initial network’s interval.",
        "Gain: recall − that of the initial network",
        "+6.0",
        "runs/first/b.safetensors " + "cd" * 32 + "left out: x",
    ):
        assert re.sub(r"\s", "", said) in re.sub(r"\s", "", page.words), said
        assert re.sub(r"\s", "", said) not in re.sub(r"\s", "", cold.words), said
    assert "Shade: the untrained network’s interval." in cold.words and "initial" not in cold.words


def test_the_shade_is_that_of_the_weights_training_began_with(make):
    svg, _ = make(None, 3, {"labelled": warmed(evaluation())})
    chart = svg[svg.index('<rect class="shade"') :]
    low, wide = map(float, re.search(r'x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', chart).groups())
    line = chart[chart.index('class="interval initial"') :]
    start, end = map(float, re.search(r'<line x1="([\d.]+)" x2="([\d.]+)"', line).groups())
    assert (low, low + wide) == (pytest.approx(start, abs=0.2), pytest.approx(end, abs=0.2))


def test_gains_of_many_classes_are_over_the_weights_training_began_with(make):
    _, page = make(None, 3, {"x": warmed(evaluation(classes=[f"kind {i}" for i in range(25)]))})
    assert "over initial" in page.words and "over untrained" not in page.words and "+6.0" in page.words


def test_before_an_evaluation_it_says_what_a_run_that_did_not_begin_at_random_is_compared_with(make):
    run = card()
    run["config"]["init_from"] = HOSTILE[1]
    html, page = make(run)
    assert_loads_nothing(html, page)
    assert f"the backbone with the same network as training began ({HOSTILE[1]}), with the same" in page.words


def test_evaluations_come_newest_first_each_with_its_own_section(make):
    def at(hour, outcome, **changes):
        return evaluation(created=f"2026-11-24T{hour}:00:00+00:00", outcome=outcome, **changes)

    keras = at("18", "hurt", probes=("linear",), protocol="keras")
    del keras["contenders"]["pixels"]
    html, page = make(None, 3, {"a": at("17", "helped"), "b": keras, "c": at("16", "no evidence")}, True)
    assert [page.words.index(said) for said in ("▼ hurt", "▲ helped", "≈ no evidence")] == sorted(
        page.words.index(said) for said in ("▼ hurt", "▲ helped", "≈ no evidence")
    )
    assert page.words.index("▼ hurt") < page.words.index("Earlier evaluations") < page.words.index("▲ helped")
    assert html.count('class="matrix"') == 3 and page.tags.count("img") == 7
    assert "Keras SimSiam example" in page.words


def test_hostile_names_stay_text(make, tmp_path):
    secret = tmp_path / "secret-neighbors.png"
    Image.new("RGB", (8, 8)).save(secret)
    result = evaluation(classes=HOSTILE, name="../../secret", command=HOSTILE[0], protocol=HOSTILE[0])
    result = warmed(result, HOSTILE[1])
    result["verdict"] |= {"sentence": f"{HOSTILE[0]} https://evil.example/x.js", "outcome": HOSTILE[1]}
    result["data"] |= {"name": HOSTILE[1], "note": HOSTILE[0]}
    run = card(command=HOSTILE[0], recipe=HOSTILE[1], choices=[{"what": HOSTILE[0], "why": "</style>"}])
    run["data"] |= {"name": HOSTILE[1], "note": "<!--"}
    run["config"] |= {"data": HOSTILE[0], HOSTILE[1]: HOSTILE[2]}
    run["result"] |= {"status": HOSTILE[0], "warnings": [HOSTILE[1]]}
    run["initial"] = {"from": HOSTILE[0], "file": HOSTILE[1], "sha256": HOSTILE[2], "notes": [HOSTILE[0], HOSTILE[3]]}
    bad = [{"name": name, "reason": HOSTILE[0], "during": HOSTILE[1]} for name in HOSTILE]
    html, page = make(run, 3, {"x": result}, False, bad)
    assert_loads_nothing(html, page)
    assert "img" not in page.tags
    assert all(name in page.words for name in HOSTILE[:3])
    assert not set("\u202e\x00\x1b\ud800") & set(html)


@pytest.mark.parametrize("count", [2, 20, 21, 60])
def test_confusions_of_few_and_of_many_classes(make, count):
    html, page = make(None, 3, {"x": evaluation(classes=[f"kind {i}" for i in range(count)])})
    if count <= 20:
        assert html.count('class="right"') == count and html.count('class="wrong"') == count * (count - 1)
        assert "Most often mistaken" not in page.words
    else:
        assert 'class="matrix"' not in html
        assert f"(20 of {count * (count - 1):,} pairs)" in page.words and f"(20 of {count} classes)" in page.words
    assert f"kind {count - 1}" in page.words or count > 20


def test_a_class_without_test_pictures_and_a_faultless_backbone(make):
    classes = [f"kind {i}" for i in range(25)]
    result = evaluation(classes=classes)
    for scores in result["contenders"]["pretrained"].values():
        scores["confusion"] = np.diag([0, *[5] * 24]).tolist()
        scores["per_class"] = {name: None if name == "kind 0" else 1.0 for name in classes}
    assert "No test picture was mistaken" in make(None, 3, {"x": result})[1].words


def test_only_the_first_twenty_bad_pictures_are_listed(make):
    _, page = make(
        None, 0, quarantine=[{"name": f"{i}.jpg", "reason": "cut short", "during": "pretrain"} for i in range(25)]
    )
    assert "25 pictures that could not be read" in page.words and "and 5 more in quarantine.jsonl" in page.words
    assert "19.jpg" in page.words and "20.jpg" not in page.words


def test_an_earlier_report_survives_a_failure(make, tmp_path):
    make(None, 3)
    report = tmp_path / "run" / "report.html"
    before = report.read_bytes()
    (tmp_path / "run" / "run.json").write_text('{"schema_version": 2}')
    with pytest.raises(RunFolderError, match="another version"):
        write_report(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"schema')
    with pytest.raises(RunFolderError, match="not valid JSON"):
        write_report(tmp_path / "run")
    assert report.read_bytes() == before


def test_what_is_no_run_folder_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="no run folder"):
        write_report(tmp_path / "nowhere")


def test_a_large_picture_becomes_webp(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (500, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    png = (tmp_path / "x.png").read_bytes()
    shown = picture(png, 'a "name"')
    assert shown.startswith('<img src="data:image/webp;base64,') and len(shown) < len(png)
    assert 'width="400" height="500" alt="a &quot;name&quot;"' in shown


def test_numbers_are_written_for_people():
    assert (percent(0.6607), percent(None), signed(-0.04)) == ("66.1\u00a0%", "–", "−0.0")
    assert [duration(s) for s in (5.4, 59.7, 151, 11520)] == [
        "5\u00a0s",
        "1\u00a0min 0\u00a0s",
        "2\u00a0min 31\u00a0s",
        "3\u00a0h 12\u00a0min",
    ]
    assert date("2026-01-02T03:04:05+00:00") == "2 January 2026, 03:04 UTC"
    assert text("<a href='x'>\u202e\n") == "&lt;a href=&#x27;x&#x27;&gt;��"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.99, -0.2), (3e-6, 0.06), (0, 812.5), (41.2, 41.9)])
def test_ticks_are_round_inside_and_a_few(low, high):
    marks = ticks(low, high, 4)
    assert 3 <= len(marks) <= 9 and low - 1e-9 <= marks[0] and marks[-1] <= high + 1e-9
    assert len(set(np.diff(marks).round(9))) == 1 and len(set(tick_labels(marks))) == len(marks)


def test_a_curve_goes_through_its_points():
    svg = line_chart(Curve(key="loss", title="Loss", note=""), [(1.0, 0.0), (2.0, -1.0), (4.0, -3.0)])
    (line,) = re.findall(r'class="curve" points="([^"]+)"', svg)
    (x0, y0), (x1, y1), (x2, y2) = (map(float, point.split(",")) for point in line.split())
    assert (x2 - x1) == pytest.approx(2 * (x1 - x0), abs=0.2)
    assert (y2 - y1) == pytest.approx(2 * (y1 - y0), abs=0.2) and y2 > y0  # SVG counts downwards
    assert "−3 at epoch 4" in svg and "−3 at the end" in svg


@pytest.mark.parametrize("count", [1, 2, 96, 97, 5000])
def test_a_long_run_is_drawn_in_few_bands(count):
    svg = line_chart(Curve(key="lr", title="x", note="", low=0.0), [(i + 1.0, 0.0) for i in range(count)])
    assert svg.count('class="band"') == min(96, count) and "nan" not in svg


def test_intervals_lie_on_one_axis():
    rows = [
        Interval(label=k, kind=k, value=v, low=v - 0.1, high=v + 0.1) for k, v in (("pretrained", 0.8), ("random", 0.4))
    ]
    svg = interval_chart([("kNN", rows), ("linear probe", rows)], {"kNN": "random", "linear probe": "random"})
    spans = re.findall(
        r'<line x1="([\d.]+)" x2="([\d.]+)" y1="[\d.]+" y2="[\d.]+"/><circle class="(\w+)" cx="([\d.]+)"', svg
    )
    assert len(spans) == 4 and spans[0][:2] == spans[2][:2]
    for low, high, _, dot in spans:
        assert float(dot) == pytest.approx((float(low) + float(high)) / 2, abs=0.1)
    assert float(spans[0][0]) > float(spans[1][1])
    assert svg.count('class="shade"') == 2 and "80.0\u00a0% (70.0 to 90.0)" in svg


# What the guard found


def judged(count, collapsed_from=None, **changes):
    """Records as a run leaves them, in dimensional collapse from some record on."""
    rows = []
    for i in range(count):
        ill = collapsed_from is not None and i >= collapsed_from
        wobble = 1 + 0.01 * (-1) ** i
        rows.append(
            {
                **{"step": i, "epoch": (i + 1) / 10, "loss": -0.5, "lr": 0.03, "embedding_std": 0.9 * wobble},
                **{"effective_rank": 2.0 if ill else 60.0 - i, "alignment": 0.5, "uniformity": -2.0},
                **{"dead_dimensions": 0.0, "gradient_norm": 0.2, "weight_norm": 70.0, "seconds": float(i)},
                **{"health": "dimensional collapse" if ill else "healthy"},
            }
            | changes
        )
    return rows


def judged_report(make, run_card, rows, tmp_path):
    make(run_card)
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    html = write_report(tmp_path / "run").read_text(encoding="utf-8")
    return html, Page(html)


def run_of_one_process(**changes):
    made = card(**changes)
    return made | {"hardware": made["hardware"] | {"processes": 1}}


def test_a_healthy_run_says_so_with_its_evidence_and_all_curves(make, tmp_path):
    html, page = judged_report(make, run_of_one_process(), judged(30), tmp_path)
    assert_loads_nothing(html, page)
    assert "✓ Healthy: std × √d 0.90 (1 is well spread, 0 is collapse); the embeddings fill 35.5 of 127" in page.words
    assert html.count('class="curve"') == 9 and "What the guard looks at besides" in page.words
    assert 'id="warnings"' not in html


@pytest.mark.parametrize("result", [None, card()["result"] | {"status": "collapsed", "warnings": ["told before"]}])
def test_a_collapsed_run_says_since_when_and_what_to_try(make, tmp_path, result):
    """One that still runs too: the guard is asked anew."""
    html, page = judged_report(make, run_of_one_process(result=result), judged(30, collapsed_from=15), tmp_path)
    assert (
        "⚠ Dimensional collapse since epoch 1.6: what was found, and what to try. Before that: healthy." in page.words
    )
    assert 'href="#warnings"' in html and "⚠ 1 warning" in page.words and "told before" not in page.words
    assert "the embeddings fill 2.0 of the 127 dimensions" in page.words
    assert html.count("<li>a lower learning rate: --lr 0.0125") == 1
    assert ("stopped by the guard after 3 epochs" in page.words) == (result is not None)


def test_settings_of_another_version_leave_the_curves(make, tmp_path):
    other = run_of_one_process()
    other["config"]["no_such_setting"] = 1
    html, page = judged_report(make, other, judged(30), tmp_path)
    assert html.count('class="curve"') == 9 and "Healthy" not in page.words


def test_numbers_that_are_there_at_the_end_of_an_epoch_alone_have_their_curve(make, tmp_path):
    rows = judged(30)
    for row in rows[9::10]:
        row |= {"neighbour_stability": 0.5, "knn_top1": 0.4}
    html, page = judged_report(make, run_of_one_process(), rows, tmp_path)
    assert html.count('class="curve"') == 11 and "Neighbour stability" in page.words and "kNN accuracy" in page.words
