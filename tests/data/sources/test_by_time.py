import numpy as np
import pytest

from diptych.data.sources.by_time import time_split
from diptych.data.sources.manifest import open_manifest
from diptych.data.sources.source import Arrays, Entry, Files, Subset
from diptych.errors import DataError


def dated(times, groups=None):
    entries = [Entry(f"{place:04}.jpg", 1, 1) for place in range(len(times))]
    return Files("x", entries, lambda name: b"", None, (), groups, [str(time) for time in times])


def sides(source, test_fraction=0.2):
    split = time_split(source, test_fraction)
    return list(split.train.indices), list(split.test.indices), split


def test_the_newest_are_tested_on():
    train, test, split = sides(dated([5, 3, 9, 1, 7, 2, 8, 4, 6, 10]))
    assert test == [2, 9] and train == [0, 1, 3, 4, 5, 6, 7, 8]
    assert split.since == "9" and split.left_out == 0


@pytest.mark.parametrize("seed", range(6))
def test_pictures_of_one_time_stay_together_and_the_share_is_as_near_as_they_allow(seed):
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 9, 60)
    fraction = [0.1, 0.2, 0.5][seed % 3]
    train, test, _ = sides(dated(times), fraction)
    assert sorted(train + test) == list(range(60)) and times[train].max() < times[test].min()
    shares = [np.mean(times >= moment) for moment in np.unique(times)[1:]]
    assert abs(len(test) / 60 - fraction) == pytest.approx(min(abs(share - fraction) for share in shares))


def slowly(times, groups, fraction):
    """Every moment tried, with loops: the train and the test pictures of the one nearest to the share."""
    tried = []
    for moment in sorted(set(times)):
        train = [i for i, time in enumerate(times) if time < moment]
        known = {groups[i] for i in train}
        test = [i for i, time in enumerate(times) if time >= moment and groups[i] not in known]
        if train and test:
            tried.append((abs(len(test) / len(train + test) - fraction), train, test))
    return min(tried, key=lambda one: one[0])[1:]


@pytest.mark.parametrize("seed", range(8))
def test_no_group_is_on_both_sides_and_none_is_tested_on_in_part(seed):
    rng = np.random.default_rng(seed)
    starts = rng.integers(0, 40, 25)
    groups = rng.integers(0, 25, 200)
    times = (starts[groups] + rng.integers(0, 12, 200)).tolist()
    names = [f"p{group}" for group in groups]
    train, test, split = sides(dated(times, names))
    assert (train, test) == slowly(times, names, 0.2)
    learned, tested = ({names[index] for index in part} for part in (train, test))
    assert not learned & tested and max(times[index] for index in train) < min(times[index] for index in test)
    assert [index for index, name in enumerate(names) if name in tested] == test
    assert len(train) + len(test) + split.left_out == 200 and split.left_out > 0
    # What is left out are later pictures of groups that are learned from: no group is lost.
    assert learned | tested == set(names)
    assert float(split.since) == min(times[index] for index in test)


@pytest.mark.parametrize(
    "times",
    [
        ["2024-05-01", "2023-12-31T23:59", "2024-05-01T00:00:01", "2025-01-01"],
        ["2024-05-01T02:00:00+02:00", "2024-04-30T23:59:59Z", "2024-05-01T00:00:01Z", "2024-05-01T01:00:00.5Z"],
        ["-3.5", "-4", "2e3", "1e4"],
        ["20240501", "20231231", "20240502", "20240601"],
    ],
)
def test_dates_and_numbers_are_ordered_by_what_they_mean(times):
    train, test, split = sides(dated(times), 0.25)
    assert test == [3] and train == [0, 1, 2] and split.since == times[3]
    assert sides(dated(times), 0.75)[0] == [1]


def test_it_looks_through_a_choice_of_pictures():
    train, test, _ = sides(Subset(Subset(dated([9, 1, 2, 3, 4]), [4, 3, 2, 1]), [0, 1, 3]), 0.3)
    assert test == [0] and train == [1, 2]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["1", "monday", "2"], "x: 0001.jpg has the time 'monday'; write a number, or a date such as 2026-05-31 or"),
        (["1", "nan"], "x: 0001.jpg has the time 'nan'"),
        (["1", "2024-05-01"], "x: '1' is a number and '2024-05-01' a date without a time zone, which cannot be"),
        (["2024-05-01", "2024-05-01T10:00Z"], "'2024-05-01T10:00Z' a date with a time zone"),
        (["7", "7.0"], "x cannot be split by time: all its pictures have the time '7'; add newer pictures"),
    ],
)
def test_times_that_part_nothing_are_told(times, expected):
    with pytest.raises(DataError) as caught:
        time_split(dated(times))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_groups_that_all_begin_at_once_are_told():
    with pytest.raises(DataError, match="x cannot be split by time: no group begins after the first time; add newer"):
        time_split(dated([1, 1, 2, 3], ["a", "b", "a", "b"]))


@pytest.mark.parametrize(
    "source",
    [
        Arrays("x", np.zeros((2, 3, 2, 2), np.uint8), [0, 1], ("a", "b")),
        Files("x", [Entry("a.jpg", 1, 1)], lambda name: b""),
    ],
)
def test_pictures_without_times_are_told_what_to_write(source):
    with pytest.raises(DataError, match="x cannot be split by time: .* has none; .* header path,label,time"):
        time_split(source)


def test_the_times_of_a_manifest(make_folder):
    folder = make_folder("a.jpg", "b.jpg", "c.jpg", "d.jpg")
    path = folder / "labels.csv"
    path.write_text("path,label,time\nd.jpg,x,2024-01-02\na.jpg,y,2024-01-03\nc.jpg,x,2024-01-01\nb.jpg,y,2024-01-01\n")
    split = time_split(open_manifest(path).train, 0.25)
    assert [split.test.name_of(index) for index in range(len(split.test))] == ["a.jpg"]
    assert [split.train.name_of(index) for index in range(len(split.train))] == ["b.jpg", "c.jpg", "d.jpg"]
    assert split.since == "2024-01-03"
