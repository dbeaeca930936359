"""The translate head: Sharer KV at a position the Receiver has never seen -> Receiver KV there.

One code per position; the cloud computes it (`encode`), the edge expands it to K and V of every Receiver layer
(`expand`). Keys are re-based on both sides. Two forms: a joint bottleneck over K and V of all chosen Sharer layers, or
a map of its own for each Receiver layer from the Sharer layers nearest to it in depth. Either may have a residual MLP
on the code, and either starts in closed form (`start`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from fuser.config import LATER
from fuser.expansion import Expansion, GroupedLinear
from fuser.geometry import Geometry
from fuser.layer_map import LayerMap
from fuser.ridge import Moments, reduced_rank


@dataclass(frozen=True, slots=True)
class TranslateConfig:
    """Shape of a translate head.

    code_dim: numbers in a code, which is what travels per position.
    hidden: width of the residual MLP that refines the code before it is expanded; 0 leaves it out.
    prefix_positions: learnt Receiver positions put before the excerpt.
    sharer_layers: Sharer layers that are read, ascending; empty means all.
    maps: "joint": one bottleneck from all layers read to all Receiver layers. "layer": each Receiver layer has its own
        part of the code, as large as any other's, read from the layers mapped to it.
    reach: with "layer", how many of the layers read feed each Receiver layer: the nearest in depth.
    receiver_positions: with "joint", Receiver positions that a code becomes. 2 stand for the Receiver's tokens at the
        first and at the last character of the Sharer's: one alone loses those between, where there are several.
    """

    code_dim: int
    hidden: int = 0
    prefix_positions: int = 0
    sharer_layers: tuple[int, ...] = ()
    maps: Literal["joint", "layer"] = field(default="joint", metadata=LATER)
    reach: int = field(default=1, metadata=LATER)
    receiver_positions: Literal[1, 2] = field(default=1, metadata=LATER)

    def __post_init__(self) -> None:
        if self.code_dim < 1 or self.hidden < 0 or self.prefix_positions < 0 or self.reach < 1:
            raise ValueError("translate needs code_dim and reach >= 1, hidden and prefix_positions >= 0")
        if list(self.sharer_layers) != sorted(set(self.sharer_layers)):
            raise ValueError("translate.sharer_layers must be ascending without repeats")
        if self.maps == "joint" and self.reach != 1:
            raise ValueError('translate.reach is for maps = "layer": a joint code reads every layer')
        if self.maps == "layer" and self.receiver_positions != 1:
            raise ValueError('translate.receiver_positions is for maps = "joint"')


class PerLayerSqueeze(GroupedLinear):
    """Each Receiver layer's part of the code, from the Sharer layers that feed it: `sources` (layers, reach) int64."""

    def __init__(self, sources: Tensor, layer_numbers: int, outputs: int) -> None:
        super().__init__(len(sources), sources.shape[1] * layer_numbers, outputs)
        self.layer_numbers = layer_numbers
        self.register_buffer("sources", sources, persistent=False)
        self.sources: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Standardised features (..., sharer numbers) -> codes (..., code_dim)."""
        return super().forward(features[..., self.columns()]).flatten(-2)

    def columns(self) -> Tensor:
        """Which numbers each Receiver layer reads, (layers, inputs) int64."""
        within = torch.arange(self.layer_numbers, device=self.sources.device)
        return (self.sources[:, :, None] * self.layer_numbers + within).flatten(1)


class TranslateHead(Expansion):
    """A linear map to the code, and what expands it. All parameters float32.

    Features of a position are laid out (layers, 2, kv_heads, head_dim), K before V; they are standardised with
    statistics of the regression stage (buffers).

    Attributes:
        layers: the Sharer layers whose K and V `encode` reads, ascending.

    Raises:
        ValueError: layers that the Sharer does not have, or a code that the Receiver's layers cannot share.
    """

    input_mean: Tensor
    input_scale: Tensor

    def __init__(self, config: TranslateConfig, sharer: Geometry, receiver: Geometry) -> None:
        super().__init__(
            config.code_dim,
            receiver,
            hidden=config.hidden,
            prefix_positions=config.prefix_positions,
            per_layer=config.maps == "layer",
            receiver_positions=config.receiver_positions,
        )
        self.config = config
        self.layers = layers_read(config.sharer_layers, sharer, "translate")
        numbers = 2 * sharer.layer_width
        self.register_buffer("input_mean", torch.zeros(len(self.layers) * numbers))
        self.register_buffer("input_scale", torch.ones(len(self.layers) * numbers))
        self.squeeze: nn.Module
        if config.maps == "layer":
            sources = _nearest(receiver.layers, len(self.layers), config.reach)
            self.squeeze = PerLayerSqueeze(sources, numbers, config.code_dim // receiver.layers)
        else:
            self.squeeze = nn.Linear(len(self.layers) * numbers, config.code_dim, bias=False)

    def standardise(self, features: Tensor) -> Tensor:
        """features (..., sharer numbers) float, as the Sharer gave them -> float32 in units of their spread."""
        standardised: Tensor = (features.float() - self.input_mean) * self.input_scale
        return standardised

    def encode(self, features: Tensor) -> Tensor:
        """features (..., positions, sharer numbers) float -> codes (..., positions, code_dim) float32."""
        codes: Tensor = self.squeeze(self.standardise(features))
        return codes

    def start(self, moments: Moments, receiver: Geometry, ridge: float) -> None:
        """Write the rank-limited ridge solution into the maps (the `hidden` path is left as it is), and centre.

        The numbers of a joint code come in the order of what they explain, so the first are worth most.

        Args:
            moments: sums over positions of standardised features (the layers of `layers`) and Receiver KV there.
            ridge: penalty per position, in units of a standardised feature's variance.
        """
        gram, cross, scale = moments.centred(receiver)
        if isinstance(self.squeeze, PerLayerSqueeze):
            at = self.squeeze.columns()
            gram = gram[at[:, :, None], at[:, None, :]]
            outputs = cross.unflatten(1, (receiver.layers, -1)).movedim(
                1, 0
            )  # layers, features, 2 * layer width
            cross = outputs.gather(1, at[:, :, None].expand(-1, -1, outputs.shape[2]))
            rank = self.config.code_dim // receiver.layers
        else:
            rank = self.config.code_dim
        squeeze, widen = reduced_rank(gram, cross, ridge * moments.count, rank)
        with torch.no_grad():
            self.get_parameter("squeeze.weight").copy_(squeeze.mT)
            self.get_parameter("widen.weight").copy_(widen)
            self.output_scale.copy_(scale)
            self.output_mean.copy_(moments.output_mean)
            # Codes are then 0 on average: a number that is not sent is best guessed as 0.
            self.input_mean += moments.feature_mean / self.input_scale


def layers_read(chosen: tuple[int, ...], sharer: Geometry, name: str) -> tuple[int, ...]:
    """The Sharer layers a head reads: the chosen ones, or all.

    Raises:
        ValueError: a layer that the Sharer does not have.
    """
    layers = chosen or tuple(range(sharer.layers))
    if layers[-1] >= sharer.layers:
        raise ValueError(f"{name}.sharer_layers names layer {layers[-1]} of {sharer.layers}")
    return layers


def _nearest(receiver_layers: int, read: int, reach: int) -> Tensor:
    """For each Receiver layer the places of the `reach` nearest among the layers read, (layers, reach) int64."""
    if reach > read:
        raise ValueError(f"translate.reach is {reach}, but only {read} Sharer layers are read")
    nearest = torch.tensor([source for _, source in LayerMap.nearest(receiver_layers, read).mapped])
    first = (nearest - reach // 2).clamp(0, read - reach)
    return first[:, None] + torch.arange(reach)


def split_kv(flat: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """KV (..., positions, width) -> K and V, each (layers, ..., kv_heads, positions, head_dim)."""
    parts = flat.unflatten(-1, (geometry.layers, 2, geometry.kv_heads, geometry.head_dim))
    keys, values = parts.movedim(-4, 0).unbind(-3)  # each layers, ..., positions, kv_heads, head_dim
    return keys.transpose(-3, -2), values.transpose(-3, -2)


def features_of(keys: Tensor, values: Tensor) -> Tensor:
    """K and V (layers, kv_heads, positions, head_dim), keys re-based -> (positions, layers * 2 * layer width)."""
    stacked = torch.stack((keys, values), dim=1)  # layers, 2, kv_heads, positions, head_dim
    return stacked.permute(3, 0, 1, 2, 4).flatten(1)
