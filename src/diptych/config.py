"""Load, save and compare the frozen dataclasses that configure a run.

Each component owns its dataclass; this file only knows how to turn any of them into JSON and back. Unknown keys and
values of a wrong type are refused with the key's full name.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from diptych.errors import ConfigError, suggest

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """Return a dataclass as plain JSON values (tuples become lists)."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass ``cls`` from JSON values.

    Args:
        cls: a dataclass type.
        values: its fields; a field with a default may be absent.
        where: the dotted path of this dataclass inside the whole configuration, for error texts.

    Raises:
        ConfigError: a key is unknown (with a suggestion), missing, or holds a value of a wrong type.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ConfigError(f"unknown setting '{where}{key}'{suggest(key, fields)}")
    hints = get_type_hints(cls)
    built = {}
    for name, field in fields.items():
        if name in values:
            built[name] = _build(hints[name], values[name], f"{where}{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"setting '{where}{name}' is missing")
    return cls(**built)


def _build(hint: Any, value: Any, where: str) -> Any:
    """Check ``value`` against the type ``hint`` and return it as that type."""
    origin = get_origin(hint)
    if origin is Union or origin is types.UnionType:
        return _build_union(get_args(hint), value, where)
    if origin is Literal:
        if value not in get_args(hint):
            raise ConfigError(f"setting '{where}' is {value!r}{suggest(str(value), map(str, get_args(hint)))}")
        return value
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise ConfigError(f"setting '{where}' must be an object, not {value!r}")
        return from_dict(hint, value, where + ".")
    if origin is tuple:
        return _build_tuple(get_args(hint), value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is type(None) and value is None:
        return None
    if not isinstance(hint, type) or not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise ConfigError(f"setting '{where}' must be {getattr(hint, '__name__', hint)}, not {value!r}")
    return value


def _build_tuple(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"setting '{where}' must be a list, not {value!r}")
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(value)
    if len(args) != len(value):
        raise ConfigError(f"setting '{where}' must hold {len(args)} values, not {len(value)}")
    return tuple(_build(arg, item, where) for arg, item in zip(args, value, strict=True))


def _build_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    """A union of dataclasses is told apart by their ``name: Literal[...]`` field; any other by trying in turn."""
    tagged = {get_args(get_type_hints(option)["name"])[0]: option for option in options if _has_tag(option)}
    if tagged and isinstance(value, Mapping):
        name = value.get("name")
        if name not in tagged:
            raise ConfigError(f"setting '{where}.name' is {name!r}{suggest(str(name), tagged)}")
        return from_dict(tagged[name], value, where + ".")
    for option in options:
        try:
            return _build(option, value, where)
        except ConfigError as error:
            last = error
    raise last


def _has_tag(option: Any) -> bool:
    return dataclasses.is_dataclass(option) and get_origin(get_type_hints(option).get("name")) is Literal


def diff(old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """List the settings in which two configurations differ, as ``(dotted name, old value, new value)``."""
    before, after = flatten(to_dict(old)), flatten(to_dict(new))
    names = [*before, *(name for name in after if name not in before)]
    return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def flatten(values: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Turn nested objects into one level with dotted names: ``{"optim": {"lr": 1}}`` → ``{"optim.lr": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{where}{key}.")
        else:
            flat[f"{where}{key}"] = value
    return flat


def with_settings(config: T, settings: Mapping[str, Any]) -> T:
    """Return ``config`` with some of its settings changed, each named by its last part: ``{"epochs": 5}``.

    Raises:
        ConfigError: no setting has that name (with a suggestion), or the value has a wrong type or range.
    """
    values = to_dict(config)
    owners = _owners(values)
    for name, value in settings.items():
        if name not in owners:
            raise ConfigError(f"unknown setting '{name}'{suggest(name, owners)}")
        owners[name][name] = value
    return from_dict(type(config), values)


def _owners(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Map each setting's own name to the object that holds it; names are unique across a configuration."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _owners(value)
        else:
            found[key] = values
    return found
