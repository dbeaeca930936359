"""The translate head: Sharer KV at a position the Receiver has never seen -> Receiver KV there.

One code per position, a joint bottleneck over K and V of all chosen Sharer layers; the cloud computes it (`encode`),
the edge expands it to K and V of every Receiver layer (`expand`). Keys are re-based on both sides. Its start
in closed form is `fuser.lab.train.regress`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from fuser.kv.geometry import Geometry


@dataclass(frozen=True, slots=True)
class TranslateConfig:
    """Shape of a translate head.

    code_dim: values in a code, which is what travels per position.
    prefix_positions: learnt Receiver positions put before the excerpt.
    sharer_layers: Sharer layers that are read, ascending; empty means all.
    receiver_positions: Receiver positions that a code becomes. 2 stand for the Receiver's tokens at the first and at
        the last character of the Sharer's: one alone loses those between, where there are several.
    """

    code_dim: int
    prefix_positions: int = 0
    sharer_layers: tuple[int, ...] = ()
    receiver_positions: Literal[1, 2] = 1

    def __post_init__(self) -> None:
        if self.code_dim < 1 or self.prefix_positions < 0:
            raise ValueError("translate needs code_dim >= 1 and prefix_positions >= 0")
        if list(self.sharer_layers) != sorted(set(self.sharer_layers)):
            raise ValueError("translate.sharer_layers must be ascending without repeats")


class TranslateHead(nn.Module):
    """A linear map to the code, another from it to K and V of every Receiver layer, and a learnt prefix. All float32.

    Features of a position are laid out (layers, 2, kv_heads, head_dim), K before V; they and the output are
    standardised with statistics of the regression stage (buffers), so that a unit of error means the same in every
    channel.

    Attributes:
        layers: the Sharer layers whose K and V `encode` reads, ascending.
        code_dim, prefix_positions, receiver_positions: as in the config.

    Raises:
        ValueError: layers that the Sharer does not have.
    """

    input_mean: Tensor
    input_scale: Tensor
    output_mean: Tensor
    output_scale: Tensor

    def __init__(self, config: TranslateConfig, sharer: Geometry, receiver: Geometry) -> None:
        super().__init__()
        self.config = config
        self.code_dim = config.code_dim
        self.prefix_positions = config.prefix_positions
        self.receiver_positions = config.receiver_positions
        self.layers = config.sharer_layers or tuple(range(sharer.layers))
        if self.layers[-1] >= sharer.layers:
            raise ValueError(f"translate.sharer_layers names layer {self.layers[-1]} of {sharer.layers}")
        self._width = receiver.width
        inputs, outputs = len(self.layers) * 2 * sharer.layer_width, self.receiver_positions * receiver.width
        self.register_buffer("output_mean", torch.zeros(outputs))
        self.register_buffer("output_scale", torch.ones(outputs))
        self.register_buffer("input_mean", torch.zeros(inputs))
        self.register_buffer("input_scale", torch.ones(inputs))
        self.widen = nn.Linear(config.code_dim, outputs, bias=False)
        if config.prefix_positions:
            self.prefix = nn.Parameter(torch.zeros(config.prefix_positions, receiver.width))
        self.squeeze = nn.Linear(inputs, config.code_dim, bias=False)

    def standardise(self, features: Tensor) -> Tensor:
        """features (..., sharer values) float, as the Sharer gave them -> float32 in units of their spread."""
        standardised: Tensor = (features.float() - self.input_mean) * self.input_scale
        return standardised

    def encode(self, features: Tensor) -> Tensor:
        """features (..., positions, sharer values) float -> codes (..., positions, code_dim) float32."""
        codes: Tensor = self.squeeze(self.standardise(features))
        return codes

    def expand(self, codes: Tensor) -> Tensor:
        """codes (..., positions, code_dim) -> Receiver KV (..., positions * receiver_positions, receiver width).

        Keys are re-based.
        """
        flat = self.widen(codes.float()) * self.output_scale + self.output_mean
        each: Tensor = flat.unflatten(-1, (self.receiver_positions, self._width))
        return each.flatten(-3, -2)

    def in_units(self, codes: Tensor) -> Tensor:
        """What codes (..., code_dim) are expanded to, in units of its spread: (..., receiver_positions * width)."""
        flat: Tensor = self.widen(codes.float()) + self.output_mean / self.output_scale
        return flat

    def start_prefix(self, flat: Tensor) -> None:
        """Write the learnt prefix, if there is one, from Receiver KV as `prefix_kv` gives it."""
        if self.prefix_positions:
            with torch.no_grad():
                self.prefix.copy_((flat - self.output_mean[: self._width]) / self.output_scale[: self._width])

    def prefix_kv(self) -> Tensor:
        """The learnt prefix as Receiver KV: (prefix_positions, receiver width), keys re-based."""
        if not self.prefix_positions:
            return self.output_mean.new_zeros(0, self._width)
        return self.prefix * self.output_scale[: self._width] + self.output_mean[: self._width]


def split_kv(flat: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """KV (..., positions, width) -> K and V, each (layers, ..., kv_heads, positions, head_dim)."""
    parts = flat.unflatten(-1, (geometry.layers, 2, geometry.kv_heads, geometry.head_dim))
    keys, values = parts.movedim(-4, 0).unbind(-3)  # each layers, ..., positions, kv_heads, head_dim
    return keys.transpose(-3, -2), values.transpose(-3, -2)


def features_of(keys: Tensor, values: Tensor) -> Tensor:
    """K and V (layers, kv_heads, positions, head_dim), keys re-based -> (positions, layers * 2 * layer width)."""
    stacked = torch.stack((keys, values), dim=1)  # layers, 2, kv_heads, positions, head_dim
    return stacked.permute(3, 0, 1, 2, 4).flatten(1)
