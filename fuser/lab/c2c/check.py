"""Compare a fuse head with what the public code computed: a golden file of inputs, fused K and V, and tokens.

The file is safetensors. For every Receiver layer i that is fed: `receiver.i.key|value` and `sharer.i.key|value`
(of the Sharer layer that feeds it), (batch, kv heads, positions, head_dim), and `fused.i.key|value`. A layer that the
file fuses and the head does not feed must have stayed the Receiver's own. For tokens also
`input_ids` (batch, positions) and `generated_fused` (batch, positions and new ones); `sharer_input_ids` where the
Sharer read others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.bundle.tensors import BadBundle
from fuser.heads.c2c import C2CConfig
from fuser.heads.fuse import FuseHead
from fuser.lab.c2c.generate import LATER, PINNED, Library, generate_public
from fuser.lab.c2c.reencode import Reencoder
from fuser.models.load import load_tokenizer, load_weights

_HALVES = ("key", "value")


@dataclass(frozen=True, slots=True)
class LayerError:
    """The largest absolute difference in one Receiver layer's fused K and V."""

    layer: int
    key: float
    value: float

    @property
    def max_abs_error(self) -> float:
        return max(self.key, self.value)


class GoldenFile:
    """A golden file, opened; see the module for its tensors."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._open() as file:
            self.names = frozenset(file.keys())

    def layer_errors(self, head: FuseHead) -> Iterator[LayerError]:
        """Fuse the inputs of each layer that the head feeds or the file fuses, and compare, lowest layer first.

        Raises:
            BadBundle: naming the tensor that is missing, of a wrong shape, or of a layer the Receiver does not have.
        """
        for layer in sorted({*head.fed, *self._fused_layers(head.receiver.layers)}):
            own = [self._tensor(f"receiver.{layer}.{half}") for half in _HALVES]
            given = [
                self._tensor(f"sharer.{layer}.{half}") if layer in head.row else None for half in _HALVES
            ]
            wanted = [self._tensor(f"fused.{layer}.{half}") for half in _HALVES]
            try:
                with torch.inference_mode():
                    fused = head.fuse_layer(layer, given[0], given[1], own[0], own[1])
            except ValueError as error:
                raise BadBundle(f"{self._path}: layer {layer}: {error}") from error
            errors = [
                self._error(f"fused.{layer}.{half}", *pair)
                for half, pair in zip(_HALVES, zip(fused, wanted, strict=True), strict=True)
            ]
            yield LayerError(layer, *errors)

    @property
    def has_tokens(self) -> bool:
        return "generated_fused" in self.names

    def tokens_like(self, bundle: Bundle, receiver: Path, sharer: Path) -> Library | None:
        """Generate, and say with which version of transformers the file's tokens agree; None with neither.

        What a row holds after its first stop token does not count.

        Args:
            receiver: directory of the Receiver; its weights are loaded, and so are the Sharer's.
        """
        head = bundle.require_fuse()
        ids, wanted = self._tensor("input_ids"), self._tensor("generated_fused")
        if ids.dim() != 2 or wanted.dim() != 2 or not torch.equal(wanted[:, : ids.shape[1]], ids):
            raise BadBundle(f"{self._path}: generated_fused does not begin with input_ids")
        theirs = self._sharer_ids(bundle, ids, receiver, sharer)
        models = load_weights(receiver), load_weights(sharer)
        new = wanted.shape[1] - ids.shape[1]
        for library in (PINNED, LATER):
            found = generate_public(*models, head, ids, theirs, new, library)
            if _same_tokens(found[:, -new:], wanted[:, -new:], models[0]) if new else True:
                return library
        return None

    def _sharer_ids(self, bundle: Bundle, ids: Tensor, receiver: Path, sharer: Path) -> Tensor:
        if "sharer_input_ids" in self.names:
            return self._tensor("sharer_input_ids")
        fuse = bundle.config.fuse
        if not isinstance(fuse, C2CConfig) or fuse.alignment == "same":
            return ids
        reencode = Reencoder(load_tokenizer(receiver), load_tokenizer(sharer), fuse.alignment)
        return torch.tensor([reencode(row) for row in ids.tolist()], device=ids.device)

    def _fused_layers(self, layers: int) -> set[int]:
        """The layers of which the file has a fused half."""
        found = {name: re.fullmatch(r"fused\.(\d+)\.(?:key|value)", name) for name in sorted(self.names)}
        numbers = {name: int(match[1]) for name, match in found.items() if match}
        beyond = [name for name, layer in numbers.items() if layer >= layers]
        if beyond:
            raise BadBundle(f"{self._path}: {beyond[0]}, but the Receiver has {layers} layers")
        return set(numbers.values())

    def _error(self, name: str, found: Tensor, wanted: Tensor) -> float:
        if found.shape != wanted.shape:
            raise BadBundle(f"{self._path}: {name} is {tuple(wanted.shape)}, expected {tuple(found.shape)}")
        if not bool(found.isfinite().all()):
            raise BadBundle(f"{self._path}: the head's {name} has numbers that are not finite")
        return float((found.double() - wanted.double()).abs().max()) if found.numel() else 0.0

    def _tensor(self, name: str) -> Tensor:
        if name not in self.names:
            raise BadBundle(f"{self._path}: missing tensor {name}")
        with self._open() as file:
            tensor: Tensor = file.get_tensor(name)
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise BadBundle(f"{self._path}: {name} has numbers that are not finite")
        return tensor

    @contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            with safe_open(self._path, framework="pt", device="cpu") as file:
                yield file
        except (OSError, SafetensorError) as error:
            raise BadBundle(f"{self._path}: {error}") from error


def _same_tokens(found: Tensor, wanted: Tensor, model: Any) -> bool:
    """Whether (batch, tokens) agree up to each row's first stop token, that one included."""
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [] if configured is None else [configured]
    stops = torch.isin(wanted, torch.tensor(listed, dtype=wanted.dtype, device=wanted.device))
    over = stops.cumsum(1) - stops.long() > 0
    return bool(((found == wanted) | over).all())
