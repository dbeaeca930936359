"""Read a public Cache-to-Cache checkpoint: `projector_<i>.pt` and `.json` files, `projector_config.json`.

The format is of commit d03cc7b of the authors' repository. Files come from a directory the user names, never
from a peer; the JSON files are read strictly, and pickles with `weights_only`, which admits tensors and nothing that
runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from fuser.bundle.tensors import BadBundle, check_finite, check_names
from fuser.config import BadConfig, from_dict
from fuser.heads.c2c import C2CConfig, C2CFuse, TokenAlignment
from fuser.kv.geometry import Geometry, LayerMap

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


def import_public(
    directory: Path | str, sharer: Geometry, receiver: Geometry, alignment: TokenAlignment = "same"
) -> C2CFuse:
    """Build the fuse head of a public checkpoint with one Sharer, in evaluation mode and float32.

    Args:
        directory: the checkpoint's `final` (or `checkpoint-<step>`) directory, or the one that holds `final`.
        sharer: geometry of the Sharer it was trained with; its files do not name the models.
        receiver: geometry of the Receiver.
        alignment: of tokens, which these files do not name either.

    Raises:
        BadBundle: naming the file and the key or tensor that is missing, unknown, malformed or of a wrong shape; or
        the checkpoint is for other geometries or several Sharers.
    """
    directory = Path(directory)
    if not (directory / LAYERS_FILE).exists() and (directory / "final" / LAYERS_FILE).exists():
        directory = directory / "final"
    layers = layers_of(directory / LAYERS_FILE)
    described = {index: projector_of(directory / f"projector_{index}.json") for _, index in layers.values()}
    (at, first), *others = described.items()
    for index, other in others:
        if differing := [f.name for f in fields(first) if getattr(first, f.name) != getattr(other, f.name)]:
            raise BadBundle(f"{directory}: projector_{index}.json differs from the others in {differing[0]}")
    _check_geometry(directory / f"projector_{at}.json", first, sharer, receiver)
    try:
        pairs = {layer: source for layer, (source, _) in layers.items()}
        layer_map = LayerMap.custom(pairs, receiver.layers, sharer.layers)
        shape = first.hidden_dim, first.intermediate_dim, first.num_layers
        with torch.device("meta"):
            head = C2CFuse(C2CConfig(layer_map, *shape, alignment=alignment), sharer, receiver)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadBundle(f"{directory}: {error}") from error
    for layer, (_, index) in layers.items():
        path = directory / f"projector_{index}.pt"
        state = _state(path, head.layer(layer).state_dict())
        head.layer(layer).load_state_dict(state, strict=True, assign=True)
    return head.eval()


def _check_geometry(path: Path, first: Projector, sharer: Geometry, receiver: Geometry) -> None:
    wanted = {
        "source_dim": sharer.head_dim,
        "source_num_heads": sharer.kv_heads,
        "target_dim": receiver.head_dim,
        "target_num_heads": receiver.kv_heads,
    }
    for name, value in wanted.items():
        if (found := getattr(first, name)) != value:
            raise BadBundle(f"{path}: {name} is {found}, the models given have {value}")


def _state(path: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a pickle, which must be those expected; in float32 and each with memory of its own."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise BadBundle(f"{path}: {error}") from error
    except Exception as error:  # damage may stop the reader anywhere, with whatever error
        raise BadBundle(f"{path}: damaged, or not a table of tensors ({type(error).__name__})") from error
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise BadBundle(f"{path}: not a table of tensors")
    state = {name: tensor for name, tensor in state.items() if name != "gate_temperature"}  # of training
    _check_tensors(path, state, expected)
    return {str(name): tensor.detach().to(torch.float32, copy=True) for name, tensor in state.items()}


def _check_tensors(path: Path, state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    check_names(path, {str(name) for name in state}, set(expected))
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            raise BadBundle(
                f"{path}: {name} is {tuple(tensor.shape)}, expected {tuple(expected[name].shape)}"
            )
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise BadBundle(f"{path}: {name} is {tensor.dtype}, {tensor.layout}, not plain numbers")
        check_finite(name, tensor, f"{path}: ")
