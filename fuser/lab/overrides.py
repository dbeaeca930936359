"""Plain tables, as TOML gives them, changed key by key: by other tables, and by `key=value` of a command line."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any, cast, get_origin, get_type_hints

from fuser.config import BadConfig


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`: tables are merged key by key, all else is replaced.

    `false` in place of a table of `base` leaves that table out.
    """
    found = dict(base)
    for key, value in over.items():
        table = found.get(key)
        if value is False and isinstance(table, Mapping):
            del found[key]
        elif isinstance(value, Mapping) and isinstance(table, Mapping):
            found[key] = merged(table, value)
        else:
            found[key] = value
    return found


def with_values(table: Mapping[str, Any], assignments: Iterable[str]) -> dict[str, Any]:
    """`table` with values that are given as `dotted.key=value`; the last assignment of a key holds.

    A value is read as TOML, or as text where it is none, so that names need no quotes. In a list of tables that have
    a `name`, that name is the key.

    Raises:
        BadConfig: an assignment without `=`, or a key below something that is no table, or of a list without that name.
    """
    found = dict(table)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not all(parts := [part.strip() for part in key.split(".")]):
            raise BadConfig(f"{assignment!r}: give key=value, the key with dots")
        found = _with(found, parts, _value(text.strip()), key.strip())
    return found


def _with(table: Any, parts: list[str], value: Any, key: str) -> Any:
    name, *rest = parts
    if isinstance(table, list):
        named = [isinstance(part, Mapping) and part.get("name") == name for part in table]
        if not any(named) or not rest:
            raise BadConfig(f"{key}: there is no {name!r} in that list")
        return [
            _with(part, rest, value, key) if is_it else part for part, is_it in zip(table, named, strict=True)
        ]
    if not isinstance(table, Mapping):
        raise BadConfig(f"{key}: {name!r} would be a key of something that is no table")
    return {**table, name: _with(table.get(name, {}), rest, value, key) if rest else value}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def with_lists(kind: type, table: Mapping[str, Any]) -> dict[str, Any]:
    """`table`, whose keys are fields of the dataclass `kind`, with single values and `a,b` read as lists.

    Raises:
        BadConfig: text in place of a list that names nothing.
    """
    hints, found = get_type_hints(kind), dict(table)
    for key, value in table.items():
        hint = hints.get(key)
        if is_dataclass(hint) and isinstance(value, Mapping):
            found[key] = with_lists(cast(type, hint), value)
        elif get_origin(hint) is tuple and not isinstance(value, list):
            words = [word.strip() for word in value.split(",")] if isinstance(value, str) else [value]
            found[key] = [_value(word) if isinstance(word, str) else word for word in words if word != ""]
            if not found[key]:
                raise BadConfig(f"{key}: {value!r} names nothing; [] is an empty list")
    return found
