"""Read a public Cache-to-Cache checkpoint: `projector_<i>.pt` and `.json` files, `projector_config.json`.

The format is of commit d03cc7b of the authors' repository. Files come from a directory the user names, never
from a peer; pickles are read with `weights_only`, which admits tensors and nothing that runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from torch import Tensor

from fuser.bundle.tensors import BadBundle, check_finite, check_names
from fuser.heads.c2c import C2CConfig, C2CFuse, TokenAlignment
from fuser.kv.geometry import Geometry, LayerMap
from fuser.lab.c2c.describe import LAYERS_FILE, Projector, layers_of, projector_of


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
