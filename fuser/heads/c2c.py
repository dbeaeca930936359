"""The public fuse head of Cache-to-Cache (arXiv 2510.03215), with the arithmetic of the authors' code.

The parameter names inside a layer are those of the public checkpoints, so their tensors load under
`layers.<Receiver layer>.`. It is not trained here. Differences from the public code are of speed only: a closed
gate computes nothing, all layers are computed in one batched matmul a stage, no statistics are read back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fuser.heads.fuse import FuseHead, flatten_heads, split_heads
from fuser.kv.geometry import Geometry, LayerMap

TokenAlignment = Literal["same", "first", "longest"]
_HALVES = ("key", "value")


@dataclass(frozen=True, slots=True)
class C2CConfig:
    """Shape of a public fuse head; the defaults are those of the published recipes.

    alignment: which tokens the Sharer read in training: the `same` ids as the Receiver (a shared vocabulary), or for
    each Receiver token one of its own, the `first` or the `longest` (`fuser.lab.c2c.reencode`).
    `fuser.lab.c2c.generate` is run so; the service aligns by characters whatever it is (docs/public_checkpoints.md).
    """

    layer_map: LayerMap
    hidden_dim: int = 1024
    intermediate_dim: int = 1024
    num_layers: int = 3
    alignment: TokenAlignment = "same"
    rotated_keys: bool = True
    kind: Literal["c2c"] = "c2c"

    def __post_init__(self) -> None:
        if self.num_layers < 3:
            raise ValueError(f"num_layers counts at least 3, got {self.num_layers}")
        if self.hidden_dim < 1 or self.intermediate_dim < 1:
            raise ValueError(f"widths must be positive, got {self.hidden_dim} and {self.intermediate_dim}")


class _Mlp(nn.Module):
    """Names of blocks x + W2 gelu(W1 rmsnorm(x)), no biases."""

    def __init__(self, width: int, inner: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.RMSNorm(width),
                    "w1": nn.Linear(width, inner, bias=False),
                    "w2": nn.Linear(inner, width, bias=False),
                }
            )
            for _ in range(blocks)
        )


class _Layer(nn.Module):
    """The weights of one Receiver layer, which `C2CFuse` computes with; K and V have weights of their own."""

    def __init__(self, config: C2CConfig, sharer: Geometry, receiver: Geometry) -> None:
        super().__init__()
        width, out = config.hidden_dim, receiver.layer_width
        for half in _HALVES:
            self.add_module(f"{half}_in", nn.Linear(sharer.layer_width + out, width))
            self.add_module(f"{half}_mlp1", _Mlp(width, config.intermediate_dim, 1))
            self.add_module(f"{half}_proj_mlp2", _Mlp(width, config.intermediate_dim, config.num_layers - 2))
            self.add_module(f"{half}_proj_out", nn.Linear(width, out))
            self.add_module(f"{half}_scalar_mlp2", _Mlp(width, width, 1))
            self.add_module(f"{half}_scalar_head", nn.Linear(width, receiver.kv_heads))
            self.register_parameter(f"{half}_gate_logit", nn.Parameter(torch.zeros(())))


class C2CFuse(FuseHead):
    """The public architecture behind the fuse interface; its checkpoints know keys with RoPE applied."""

    def __init__(self, config: C2CConfig, sharer: Geometry, receiver: Geometry) -> None:
        super().__init__(config.layer_map, config.rotated_keys, sharer, receiver)
        self.config = config
        self.layers = nn.ModuleDict({str(layer): _Layer(config, sharer, receiver) for layer in self.fed})

    def layer(self, layer: int) -> _Layer:
        """The weights that serve one fed Receiver layer."""
        found = self.layers[str(layer)]
        assert isinstance(found, _Layer)
        return found

    def gate_logits(self, layer: int) -> Tensor:
        return self._gate_logits([layer], range(2))[:, 0].detach()

    def changes(self, layers: Sequence[int], halves: range, sharer: Tensor, receiver: Tensor) -> Tensor:
        shape, heads = receiver.shape[:2], self.receiver.kv_heads
        weights = self._weights(layers, halves)
        joined = torch.cat([flatten_heads(sharer), flatten_heads(receiver)], dim=-1)
        joined = joined.to(weights["in.weight"].dtype).flatten(0, 1)
        x = joined.flatten(1, 2)
        h = self._mlp(weights, "mlp1", 1, _linear(weights, "in", x))
        moved = _linear(weights, "proj_out", self._mlp(weights, "proj_mlp2", self.config.num_layers - 2, h))
        scores = _linear(weights, "scalar_head", self._mlp(weights, "scalar_mlp2", 1, h))

        def by_head(flat: Tensor) -> Tensor:
            parted: Tensor = flat.unflatten(1, joined.shape[1:3]).unflatten(0, shape)
            return split_heads(parted, heads)

        change = torch.sigmoid(by_head(scores)) * by_head(moved)
        return change.where(self._gate_logits(layers, halves)[..., None, None, None, None] > 0, 0.0)

    def _gate_logits(self, layers: Sequence[int], halves: range) -> Tensor:
        names = [f"{half}_gate_logit" for half in _HALVES[halves.start : halves.stop]]
        flat: list[Tensor] = [self.layer(layer).get_parameter(name) for name in names for layer in layers]
        return torch.stack(flat).reshape(len(names), len(layers))

    def _weights(self, layers: Sequence[int], halves: range) -> dict[str, Tensor]:
        """Each weight of the layers, (halves * layers, ...), named without its half; views where there is one."""
        found: dict[str, list[Tensor]] = {}
        for half in _HALVES[halves.start : halves.stop]:
            for layer in layers:
                for name, parameter in self.layer(layer).named_parameters():
                    if name.startswith(f"{half}_") and not name.endswith("gate_logit"):
                        found.setdefault(name.removeprefix(f"{half}_"), []).append(parameter)
        return {name: all_[0][None] if len(all_) == 1 else torch.stack(all_) for name, all_ in found.items()}

    def _mlp(self, weights: Mapping[str, Tensor], name: str, blocks: int, x: Tensor) -> Tensor:
        for block in range(blocks):
            part = f"{name}.blocks.{block}"
            normed = (
                functional.rms_norm(x, x.shape[-1:], None, 1e-6) * weights[f"{part}.norm.weight"][:, None]
            )
            inner = functional.gelu(_linear(weights, f"{part}.w1", normed))
            x = x + _linear(weights, f"{part}.w2", inner)
        return x


def _linear(weights: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """(n, positions, in) by the n maps (n, out, in) called `name`, with their biases if they have any."""
    out = x @ weights[f"{name}.weight"].mT
    bias = weights.get(f"{name}.bias")
    return out if bias is None else out + bias[:, None]
