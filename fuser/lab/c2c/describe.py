"""The JSON files of a public Cache-to-Cache checkpoint, read strictly: which layers, which shapes, which alignment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

from fuser.bundle.tensors import BadBundle
from fuser.heads.c2c import TokenAlignment

LAYERS_FILE = "projector_config.json"
_CLASS = "c2cprojector"  # the public loader ignores case
_MAX_JSON_BYTES = 1 << 22
_INTEGERS = (
    "source_dim",
    "target_dim",
    "source_num_heads",
    "target_num_heads",
    "intermediate_dim",
    "hidden_dim",
    "num_layers",
    "anneal_steps",
)
_NUMBERS = ("dropout", "initial_temperature", "final_temperature")
_WITHOUT_EFFECT = ("dtype", "zero_init")  # of the run that trained it; the tensors tell their own dtype
_REQUIRED = ("source_dim", "target_dim")


def layers_of(path: Path) -> dict[int, tuple[int, int]]:
    """Receiver layer -> (Sharer layer, projector number), lowest first; of several pairs the first, as at run time.

    Raises:
        BadBundle: naming the file and the key that is wrong.
    """
    receivers = _json(path)
    sharers = _only(path, receivers, "one Receiver")
    layers = _only(path, sharers, "one Sharer")
    found: dict[int, tuple[int, int]] = {}
    for layer, pairs in layers.items():
        if not layer.isdecimal():
            raise BadBundle(f"{path}: {layer!r} is not a Receiver layer")
        if not isinstance(pairs, list) or not all(_is_pair(pair) for pair in pairs):
            raise BadBundle(f"{path}: layer {layer}: expected pairs of Sharer layer and projector number")
        if pairs:
            found[int(layer)] = (pairs[0][0], pairs[0][1])
    if not found:
        raise BadBundle(f"{path}: no Receiver layer is mapped")
    return dict(sorted(found.items()))


def arguments_of(path: Path) -> dict[str, Any]:
    """What the projector of one file was made with.

    Raises:
        BadBundle: naming the file and the key that is unknown, missing or of a wrong type.
    """
    described = _json(path)
    _refuse_unknown(path, described, ("class", "init_args"), "")
    if str(described.get("class")).lower() != _CLASS:
        raise BadBundle(f"{path}: class {described.get('class')!r} is not C2CProjector")
    arguments = described.get("init_args")
    if not isinstance(arguments, dict):
        raise BadBundle(f"{path}: init_args: a table is expected")
    _refuse_unknown(path, arguments, (*_INTEGERS, *_NUMBERS, *_WITHOUT_EFFECT), "init_args.")
    for key in _REQUIRED:
        if key not in arguments:
            raise BadBundle(f"{path}: missing key init_args.{key}")
    for key, value in arguments.items():
        if key in _INTEGERS and not (_is_integer(value) and value > 0):
            raise BadBundle(f"{path}: init_args.{key}: a positive whole number is expected, got {value!r}")
        if key in _NUMBERS and not (isinstance(value, float) or _is_integer(value)):
            raise BadBundle(f"{path}: init_args.{key}: a number is expected, got {value!r}")
    return arguments


def alignment_of(directory: Path) -> TokenAlignment:
    """The token alignment that the training config names, which the published layout keeps beside `final`.

    `same` where there is no config or it uses none.

    Raises:
        BadBundle: a strategy that nobody knows.
    """
    for path in (directory / "config.json", directory.parent / "config.json"):
        if not path.is_file():
            continue
        config = _json(path)
        model = config.get("model", config)
        if not isinstance(model, dict) or not model.get("is_do_alignment"):
            return "same"
        strategy = model.get("alignment_strategy", "first")
        for known in get_args(TokenAlignment):
            if strategy == known and known != "same":
                return known  # type: ignore[no-any-return]
        raise BadBundle(f"{path}: alignment_strategy {strategy!r} is not first or longest")
    return "same"


def _only(path: Path, table: dict[str, Any], wanted: str) -> dict[str, Any]:
    """The single table that a table holds."""
    values = list(table.values())
    if len(values) != 1 or not isinstance(values[0], dict):
        raise BadBundle(f"{path}: expected {wanted}, found {', '.join(map(repr, table)) or 'none'}")
    return values[0]


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(_is_integer(n) and n >= 0 for n in pair)


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse_unknown(path: Path, table: dict[str, Any], known: tuple[str, ...], prefix: str) -> None:
    unknown = sorted(table.keys() - set(known))
    if unknown:
        raise BadBundle(f"{path}: unknown key {prefix}{unknown[0]}; known are {', '.join(sorted(known))}")


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise BadBundle(f"{path}: larger than {_MAX_JSON_BYTES} bytes")
        raw = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except BadBundle:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise BadBundle(f"{path}: {error}") from error
    if not isinstance(raw, dict):
        raise BadBundle(f"{path}: a table is expected")
    return raw


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")
