"""Frozen dataclasses to plain JSON values and back, strictly: every key known, present and of its type."""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Protocol, Self, TypeVar, Union, cast

T = TypeVar("T")

_SCALARS: tuple[type, ...] = (bool, int, float, str)


class BadConfig(ValueError):
    """A config does not say what its dataclass asks for; the message names the key."""


def to_dict(value: Any) -> Any:
    """Turn a frozen dataclass (or a part of one) into dicts, lists, strings, numbers, booleans and None."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = getattr(value, "to_dict", None)
        if own is not None:
            return own()
        return {field.name: to_dict(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return {str(to_dict(key)): to_dict(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_dict(item) for item in value]
    if value is None or isinstance(value, _SCALARS):
        return value
    raise BadConfig(f"cannot write a value of type {type(value).__name__}")


def from_dict(cls: type[T], raw: Any, path: str = "") -> T:
    """Build the frozen dataclass `cls` from plain JSON or TOML values.

    Unions of dataclasses are told apart by their keys' `Literal` tags, for instance `kind`.

    Raises:
        BadConfig: an unknown or missing key, a wrong type or a refused value; `path` and the key are named.
    """
    if not isinstance(raw, Mapping):
        raise BadConfig(f"{path or cls.__name__}: a table is expected, got {type(raw).__name__}")
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls)) if field.init}
    unknown = sorted(str(key) for key in raw if key not in fields)
    if unknown:
        raise BadConfig(f"unknown key {_join(path, unknown[0])}; known are {', '.join(sorted(fields))}")
    missing = [name for name, field in fields.items() if name not in raw and not _has_default(field)]
    if missing:
        raise BadConfig(f"missing key {_join(path, missing[0])}")
    hints = typing.get_type_hints(cls, include_extras=False)
    values = {name: _read(hints[name], raw[name], _join(path, name)) for name in fields if name in raw}
    own = getattr(cls, "from_dict", None)
    try:
        return cast(T, own(raw)) if own is not None else cls(**values)
    except BadConfig:
        raise
    except (TypeError, ValueError, KeyError) as error:
        raise BadConfig(f"{path or cls.__name__}: {error}") from error


class _OfFile(Protocol):
    def relative_to(self, directory: Path) -> Self: ...


F = TypeVar("F", bound=_OfFile)


def read_toml(cls: type[F], path: Path) -> F:
    """The frozen dataclass `cls` of a TOML file; relative paths in it count from the file's own directory.

    Raises:
        BadConfig: no valid TOML, as `from_dict`, or a path that this machine cannot have; names the file.
        OSError: it cannot be read.
    """
    try:
        config = from_dict(cls, tomllib.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise BadConfig(f"{path}: {error}") from error
    except RecursionError:
        raise BadConfig(f"{path}: tables or lists are nested too deeply") from None
    try:
        return config.relative_to(path.resolve().parent)
    except (OSError, RuntimeError) as error:  # too long, or in the home of nobody
        raise BadConfig(f"{path}: a path in it cannot be: {str(error)[:200]}") from error


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _read(hint: Any, raw: Any, path: str) -> Any:
    """One value of type `hint`; lists become tuples."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return raw
    if origin in (Union, types.UnionType):
        return _read_union(arguments, raw, path)
    if origin is Literal:
        if not any(type(raw) is type(option) and raw == option for option in arguments):
            raise BadConfig(f"{path}: expected one of {list(arguments)}, got {raw!r}")
        return raw
    if hint is type(None) or hint is None:
        return _exact(raw is None, raw, "null", path)
    if dataclasses.is_dataclass(hint):
        return from_dict(cast(Any, hint), raw, path)
    if isinstance(hint, type) and issubclass(hint, Enum):
        try:
            return hint(raw)
        except ValueError as error:
            raise BadConfig(f"{path}: expected one of {[e.value for e in hint]}, got {raw!r}") from error
    if isinstance(origin, type) and issubclass(origin, Mapping):
        _exact(isinstance(raw, Mapping), raw, "a table", path)
        return {
            _read(arguments[0], k, path): _read(arguments[1], v, _join(path, str(k))) for k, v in raw.items()
        }
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _read_sequence(origin, arguments, raw, path)
    if hint is float:
        _exact(isinstance(raw, (int, float)) and not isinstance(raw, bool), raw, "a number", path)
        try:
            number = float(raw)
        except OverflowError as error:
            raise BadConfig(f"{path}: {error}") from error
        # No comparison is true of nan: whatever checks a range behind this would let it through.
        if not math.isfinite(number):
            raise BadConfig(f"{path}: expected a finite number, got {number}")
        return number
    if hint in _SCALARS:
        if isinstance(raw, str) and "\0" in raw:
            raise BadConfig(f"{path}: a text with a NUL")
        return _exact(type(raw) is hint, raw, hint.__name__, path)
    raise BadConfig(f"{path}: {hint} cannot be read from a config")


def _read_sequence(origin: type, arguments: tuple[Any, ...], raw: Any, path: str) -> Any:
    _exact(isinstance(raw, (list, tuple)), raw, "a list", path)
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        if len(raw) != len(arguments):
            raise BadConfig(f"{path}: expected {len(arguments)} values, got {len(raw)}")
        hints: Sequence[Any] = arguments
    else:
        hints = [arguments[0]] * len(raw)
    items = [_read(hint, item, f"{path}[{i}]") for i, (hint, item) in enumerate(zip(hints, raw, strict=True))]
    return items if origin is list else tuple(items)


def _read_union(options: tuple[Any, ...], raw: Any, path: str) -> Any:
    if raw is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    tagged = [option for option in options if _tags_fit(option, raw)]
    if len(options) > 1 and isinstance(raw, Mapping) and not tagged:
        names = ", ".join(getattr(option, "__name__", str(option)) for option in options)
        raise BadConfig(f"{path}: fits none of {names}; check its tag")
    problem: BadConfig | None = None
    for option in tagged or options:
        try:
            return _read(option, raw, path)
        except BadConfig as error:
            problem = problem or error
    raise problem or BadConfig(f"{path}: null is not allowed")


def _tags_fit(option: Any, raw: Any) -> bool:
    """Whether every `Literal` field of one value in the dataclass `option` has that value in `raw`."""
    if not (dataclasses.is_dataclass(option) and isinstance(raw, Mapping)):
        return False
    hints = typing.get_type_hints(cast(Any, option))
    tags = {name: typing.get_args(hint) for name, hint in hints.items() if typing.get_origin(hint) is Literal}
    return all(raw.get(name) in values for name, values in tags.items() if len(values) == 1)


def _exact(fits: bool, raw: Any, wanted: str, path: str) -> Any:
    if not fits:
        raise BadConfig(f"{path}: expected {wanted}, got {type(raw).__name__}")
    return raw
