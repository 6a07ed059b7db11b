from dataclasses import dataclass, field
from typing import Literal

import pytest

from diptych.config import diff, flatten, from_dict, to_dict, with_settings
from diptych.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    scale: tuple[float, float] = (0.2, 1.0)


@dataclass(frozen=True, kw_only=True)
class First:
    name: Literal["first"] = "first"
    width: int = 1


@dataclass(frozen=True, kw_only=True)
class Second:
    name: Literal["second"] = "second"
    height: int = 2


@dataclass(frozen=True, kw_only=True)
class Outer:
    data: str
    limit: int | None = None
    mode: Literal["a", "b"] = "a"
    loud: bool = False
    inner: Inner = field(default_factory=Inner)
    either: First | Second = field(default_factory=First)


def test_round_trip():
    config = Outer(data="x", limit=3, inner=Inner(scale=(0.1, 0.9)), either=Second(height=5))
    assert from_dict(Outer, to_dict(config)) == config
    assert to_dict(config)["inner"]["scale"] == [0.1, 0.9]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"data": "x", "inner": {"rat": 1.0}}, "unknown setting 'inner.rat'; did you mean 'rate'"),
        ({}, "'data' is missing"),
        ({"data": 3}, "'data' must be str"),
        ({"data": "x", "limit": "many"}, "'limit' must be"),
        ({"data": "x", "limit": True}, "'limit' must be"),
        ({"data": "x", "mode": "aa"}, "'mode' is 'aa'; did you mean 'a'"),
        ({"data": "x", "inner": {"scale": [1.0]}}, "'inner.scale' must hold 2 values"),
        ({"data": "x", "inner": 3}, "'inner' must be an object"),
        ({"data": "x", "either": {"name": "frist"}}, "did you mean 'first'"),
        ({"data": "x", "loud": 1}, "'loud' must be bool"),
    ],
)
def test_wrong_values_name_the_setting(values, says):
    with pytest.raises(ConfigError, match=says):
        from_dict(Outer, values)


def test_whole_numbers_are_floats_too():
    assert from_dict(Inner, {"rate": 1}).rate == 1.0


def test_diff_and_flatten():
    old, new = Outer(data="x"), Outer(data="y", inner=Inner(rate=1.0))
    assert diff(old, new) == [("data", "x", "y"), ("inner.rate", 0.5, 1.0)]
    assert flatten({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}


def test_settings_are_changed_by_their_own_names():
    changed = with_settings(Outer(data="x"), {"rate": 0.25, "limit": 7, "width": 9})
    assert changed.inner.rate == 0.25 and changed.limit == 7 and changed.either.width == 9
    with pytest.raises(ConfigError, match="unknown setting 'rte'; did you mean 'rate'"):
        with_settings(Outer(data="x"), {"rte": 1.0})
