"""Re-base keys: undo RoPE so that a key carries no absolute position, and rotate it to a new one.

The angles come from the model's own rotary module, so partial rotary, scaled and per-layer-type (Gemma 3)
variants need no code here. RoFormer (arXiv 2104.09864) gives the rotation, in the half-split pairing HF uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from fuser.models.load import load_config
from kvwire.errors import Unsupported


class Rope:
    """Rotations of one model's keys. Positions are absolute token indices, int64: (positions,) for all rows, or (batch,
    positions) where rows differ; keys are then (..., batch, kv_heads, positions, head_dim).

    Raises:
        Unsupported: the model's keys are not rotated by position, so there is none to take out; or by angles that
            depend on what else is in the pass.
    """

    def __init__(self, model: Any) -> None:
        decoder = model.get_decoder()
        config = decoder.config
        self._rotary: Any = getattr(decoder, "rotary_emb", None)
        if self._rotary is None:
            raise Unsupported(
                f"models of type {config.model_type} have no rotary positions: they can be neither Sharer nor Receiver"
            )
        self._layers = int(config.num_hidden_layers)
        # One angle table per layer type where the module has several, else a single shared one.
        kind = getattr(self._rotary, "rope_type", None)
        typed = isinstance(kind, dict)
        if unsteady := {"dynamic", "longrope"} & set(kind.values() if isinstance(kind, dict) else [kind]):
            raise Unsupported(
                f"rotary positions of type {', '.join(unsteady)} turn with the longest prompt that is read beside one"
            )
        self._types: list[str | None] = list(config.layer_types) if typed else [None] * self._layers

    @classmethod
    def of_model(cls, directory: Path) -> Rope:
        """The rotations of the model in a directory, from its config alone: no weights are read."""
        config = load_config(directory)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
        rope = cls(model)
        with torch.device("cpu"):
            rope._rotary = type(rope._rotary)(config=model.get_decoder().config)
        return rope

    def angles(self, positions: Tensor, layer: int) -> tuple[Tensor, Tensor]:
        """cos and sin, each (*positions.shape, rotary_dim) float32, with the module's attention scaling included."""
        kind = self._types[layer]
        probe = torch.empty(0, dtype=torch.float32, device=positions.device)
        extra = () if kind is None else (kind,)
        cos, sin = self._rotary(probe, positions.reshape(-1, positions.shape[-1]), *extra)
        return cos.reshape(*positions.shape, -1), sin.reshape(*positions.shape, -1)

    def rotate(self, keys: Tensor, positions: Tensor, layer: int) -> Tensor:
        """Keys (..., positions, head_dim) without position -> the same keys at `positions`."""
        cos, sin = self.angles(positions, layer)
        return _turn(keys, cos, sin)

    def unrotate(self, keys: Tensor, positions: Tensor, layer: int) -> Tensor:
        """Keys (..., positions, head_dim) rotated at `positions` -> keys without position."""
        cos, sin = self.angles(positions, layer)
        norm = cos * cos + sin * sin  # 1, or the square of the attention scaling
        return _turn(keys, cos / norm, -sin / norm)

    def rotate_all(self, keys: Tensor, positions: Tensor, layers: Sequence[int] | None = None) -> Tensor:
        """Keys (layers, ..., positions, head_dim) without position -> rotated, every layer with its own angles.

        layers: which these are; None where they are all.
        """
        return self._each_type(keys, positions, layers, inverse=False)

    def unrotate_all(self, keys: Tensor, positions: Tensor, layers: Sequence[int] | None = None) -> Tensor:
        """Inverse of `rotate_all`."""
        return self._each_type(keys, positions, layers, inverse=True)

    def _each_type(
        self, keys: Tensor, positions: Tensor, layers: Sequence[int] | None, inverse: bool
    ) -> Tensor:
        turn = self.unrotate if inverse else self.rotate
        layers = range(self._layers) if layers is None else layers
        places: dict[str | None, list[int]] = {}
        for place, layer in enumerate(layers):
            places.setdefault(self._types[layer], []).append(place)
        if len(places) == 1:
            return turn(keys, positions, layers[0])
        out = torch.empty_like(keys)
        for alike in places.values():
            at = torch.tensor(alike, device=keys.device)
            out[at] = turn(keys[at], positions, layers[alike[0]])
        return out


def _turn(keys: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the first `rotary_dim` channels (pairs are i and i + rotary_dim/2); the rest pass unchanged."""
    width = cos.shape[-1]
    if cos.dim() == 3:  # rows with positions of their own: the same for all heads of one
        cos, sin = cos[:, None], sin[:, None]
    turned, rest = keys[..., :width].float(), keys[..., width:]
    first, second = turned.chunk(2, dim=-1)
    out = (turned * cos + torch.cat((-second, first), dim=-1) * sin).to(keys.dtype)
    return torch.cat((out, rest), dim=-1) if rest.shape[-1] else out
