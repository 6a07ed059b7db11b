import pytest
import tiny

from diptych.errors import DataError
from diptych.evaluation.pictures import open_labelled


def opened(data):
    return open_labelled(str(data), None, None, 0)


def test_an_empty_test_folder_is_refused_and_one_that_is_a_class_is_not(tmp_path):
    data = tiny.paint(tmp_path / "data", *(f"train/{name}/{number}.png" for name in "ab" for number in range(5)))
    assert opened(data).test.name == opened(data).train.name
    (data / "test").mkdir()
    with pytest.raises(DataError, match="data/test holds no pictures: put those to test on there, or remove"):
        opened(data)
    classes = tiny.paint(
        tmp_path / "classes", *(f"{name}/{number}.png" for name in ("test", "b") for number in range(5))
    )
    assert set(opened(classes).train.classes) == {"test", "b"}
