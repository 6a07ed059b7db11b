import pytest
from rich.console import Console

from diptych.reports.screen import braille, spark, view
from diptych.reports.state import State


def shown(*states, width=80):
    console = Console(width=width, color_system=None)
    with console.capture() as captured:
        console.print(view(states))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    return "\n".join(line.rstrip() for line in lines)


def state(**values):
    known = {
        "run": "runs/mine",
        "status": "running",
        "method": "simsiam",
        "backbone": "resnet20v2",
        "pictures": 12345,
        "data": "pictures",
        "epochs": 100,
        "epoch": 12.5,
        "seconds_left": 151.0,
        "images_per_second": 812.4,
        "wait_fraction": 0.034,
        "series": {
            "loss": [0.5, -0.75, -0.5],
            "embedding_std": [1.0, 0.5],
            "effective_rank": [40.0, 30.0],
            "lr": [0.5, 0.25],
            "knn_top1": [0.3, 0.4125],
            "gradient_norm": [2.0],
        },
    }
    return State(**known | values)


@pytest.mark.parametrize("width", [80, 120])
def test_a_run_says_what_it_is_how_far_it_is_and_how_it_does(width):
    text = shown(state(health="healthy", recoveries=2), width=width)
    for said in (
        "runs/mine  ● running  ♥ healthy  2 recoveries",
        "simsiam · resnet20v2 · 12,345 pictures of pictures",
        "epoch 12.5 of 100 · 2\u00a0min 31\u00a0s left · 812 pictures/s · waiting 3 %",
        "std × √d",
        "best -0.75",
        "first 0.5",
    ):
        assert said in text, said
    rows = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert rows["kNN top-1"][-6:] == ["30.0", "%", "41.2", "%", "41.2", "%"]
    assert rows["gradient norm"][-2:] == ["2", "2"]  # of which nobody knows a best
    assert text.rstrip().splitlines()[-1].startswith("learning rate")


def test_long_numbers_of_neighbouring_charts_do_not_run_into_each_other():
    series = {"loss": [-0.00122, -0.8514], "embedding_std": [0.1234, 0.987], "effective_rank": [123.4, 100.6]}
    foot = next(line for line in shown(state(series=series)).splitlines() if "first" in line)
    assert " ".join(foot.split()) == "first -0.0012 best -0.85 first 0.12 best 0.99 first 123 best 123"


def test_several_runs_have_one_line_a_metric():
    text = shown(state(), state(run="runs/other", series={"loss": [1.0]}))
    assert text.count("\nloss  ") == 2 and "runs/other" in text
    assert not any("\u2801" <= character <= "\u28ff" for character in text)


def test_before_a_run_begins_and_before_its_first_record():
    assert "○ not begun" in shown(State(run="runs/mine", status="not begun"))
    assert "No record yet." in shown(state(series={}))
    assert "without gradients" in shown(state(series={}, method="patches"))


def test_an_interrupted_run_says_how_to_go_on():
    assert "`diptych pretrain --resume runs/mine`" in shown(state(status="interrupted"))
    assert "--resume" not in shown(state())


def test_a_run_that_has_fallen_silent_is_suspected():
    assert "No record for 10\u00a0min 0\u00a0s" in shown(state(silent_seconds=600.0))
    assert "No record" not in shown(state(silent_seconds=5.0))


def test_a_warning_is_shown_without_its_advice():
    warning = "2026-11-25 08:10:00 Warning: This run looks collapsed. Try, one at a time: (1) other distortions"
    text = shown(state(warnings=[warning]))
    assert "⚠ 08:10:00 This run looks collapsed. (what to try: log.txt)" in text and "distortions" not in text


def test_blocks_go_from_the_lowest_to_the_highest():
    assert spark([0, 1, 2, 3, 4, 5, 6, 7], 20) == "▁▂▃▄▅▆▇█"
    assert spark([1, 3, 5, 7, 0, 0, 14, 14], 4) == "▂▄▁█"  # means of two
    assert spark([5.0, 5.0], 8) == "▅▅" and spark([-1.0], 8) == "▅"
    assert spark([0.1, 0.1], 8, reach=(0.0, 1.0)) == "▂▂"


def test_dots_rise_from_the_lower_left_to_the_upper_right():
    assert braille([0, 1, 2, 3], 2, 1) == ["⡠⠊"]
    assert braille([3, 2, 1, 0], 2, 1) == ["⠑⢄"]
    assert braille([1.0], 1, 1) == ["⠤"]  # all values equal: in the middle


def test_a_steep_line_is_closed():
    """Every row between two neighbouring dots has one."""
    lines = braille([0.0, 1.0], 1, 4)
    filled = [bool(ord(line) - 0x2800) for line in lines]
    assert filled == [True] * 4


@pytest.mark.parametrize("count", [1, 2, 7, 100, 5000])
def test_a_chart_has_the_width_it_was_given(count):
    values = [float(i % 13) for i in range(count)]
    assert [len(line) for line in braille(values, 30, 4)] == [30] * 4
    assert len(spark(values, 30)) == min(30, count)
