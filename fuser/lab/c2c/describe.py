"""The JSON files of a public Cache-to-Cache checkpoint, read strictly: which layers, which shapes, which alignment."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from fuser.bundle.tensors import BadBundle
from fuser.config import BadConfig, from_dict
from fuser.heads.c2c import TokenAlignment

LAYERS_FILE = "projector_config.json"
_CLASS = "c2cprojector"  # the public loader ignores case
_MAX_JSON_BYTES = 1 << 22


@dataclass(frozen=True, slots=True)
class Projector:
    """What one projector was made with. Keys from `dtype` on are of its training and mean nothing here."""

    source_dim: int
    target_dim: int
    source_num_heads: int = 1
    target_num_heads: int = 1
    hidden_dim: int = 1024
    intermediate_dim: int = 1024
    num_layers: int = 3
    dtype: Any = None
    zero_init: Any = None
    dropout: Any = None
    initial_temperature: Any = None
    final_temperature: Any = None
    anneal_steps: Any = None


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


def projector_of(path: Path) -> Projector:
    """What the projector of one file was made with.

    Raises:
        BadBundle: naming the file and the key that is unknown, missing or of a wrong type.
    """
    described = _json(path)
    if unknown := sorted(described.keys() - {"class", "init_args"}):
        raise BadBundle(f"{path}: unknown key {unknown[0]}; known are class, init_args")
    if str(described.get("class")).lower() != _CLASS:
        raise BadBundle(f"{path}: class {described.get('class')!r} is not C2CProjector")
    try:
        return from_dict(Projector, described.get("init_args"), "init_args")
    except BadConfig as error:
        raise BadBundle(f"{path}: {error}") from error


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
    values = list(table.values())
    if len(values) != 1 or not isinstance(values[0], dict):
        raise BadBundle(f"{path}: expected {wanted}, found {', '.join(map(repr, table)) or 'none'}")
    return values[0]


def _is_pair(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and n >= 0 for n in pair)


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise BadBundle(f"{path}: larger than {_MAX_JSON_BYTES} bytes")
        raw = json.loads(path.read_text(encoding="utf-8"))
    except BadBundle:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise BadBundle(f"{path}: {error}") from error
    if not isinstance(raw, dict):
        raise BadBundle(f"{path}: a table is expected")
    return raw
