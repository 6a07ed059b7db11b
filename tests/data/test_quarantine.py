import pytest

from diptych.data.decoding.pixels import BadPicture
from diptych.data.quarantine import ENOUGH, Quarantine
from diptych.errors import DataError


def bad(number):
    return BadPicture(f"{number}.jpg", "the file is empty")


def test_each_picture_is_told_once_and_written_once_a_log_is_there():
    quarantine, records = Quarantine("data/", 1000, 0.01), []
    quarantine.add(bad(1))
    quarantine.log_to(records.append)
    quarantine.add(bad(1))
    quarantine.add(bad(2))
    assert len(quarantine) == 2
    assert records == [
        {"name": f"{number}.jpg", "reason": "the file is empty", "during": "pretrain"} for number in (1, 2)
    ]


def test_those_known_from_before_count_but_are_not_told_again():
    quarantine, records = Quarantine("data/", 4, 0.5, {"1.jpg", "2.jpg"}), []
    quarantine.log_to(records.append)
    quarantine.add(bad(1))
    quarantine.check()
    with pytest.raises(DataError, match="3 of 4 pictures cannot be read"):
        quarantine.add(bad(3))
    assert len(records) == 1


def test_as_many_as_allowed_pass_and_one_more_stops_with_names_and_advice():
    quarantine = Quarantine("my data", 200, 0.01)
    quarantine.add(bad(1))
    quarantine.add(bad(2))
    quarantine.check()
    quarantine.add(bad(3))
    with pytest.raises(DataError) as caught:
        quarantine.check()
    told = str(caught.value)
    assert "3 of 200 pictures cannot be read, more than --max-bad 0.01 allows: 1.jpg: the file is empty; 2.jpg" in told
    assert "`diptych audit 'my data'`" in told and told.endswith("--max-bad 0.015")


def test_the_share_that_it_advises_is_enough():
    for total, count in ((7, 3), (1000, 11), (999_999, 12_345)):
        quarantine = Quarantine("x", total, 1.0, {str(number) for number in range(count)})
        quarantine.max_bad = 0.0
        with pytest.raises(DataError) as caught:
            quarantine.check()
        quarantine.max_bad = float(str(caught.value).rpartition(" ")[2])
        quarantine.check()


def test_far_too_many_stop_before_all_are_read():
    quarantine = Quarantine("x", 1000, 0.01)
    with pytest.raises(DataError, match="; and 101 more"):
        for number in range(1000):
            quarantine.add(bad(number))
    assert len(quarantine) == 10 + ENOUGH + 1


def test_none_allowed():
    quarantine = Quarantine("x", 10, 0.0)
    quarantine.check()
    quarantine.add(bad(1))
    with pytest.raises(DataError):
        quarantine.check()
