"""The fuse head: merges the Sharer's KV into the Receiver's where both models have the position."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fuser.fuse_shapes import KEYS, VALUES, check_half, check_layer_stack, check_layers
from fuser.geometry import Geometry
from fuser.layer_map import LayerMap
from kvwire.segment import SegmentKind


class FuseHead(nn.Module, ABC):
    """What every fuse head offers, whatever its architecture; a member says what changes, this class applies it.

    Per Receiver layer and per half (K, V): `out = receiver + gate * weights * projection(sharer, receiver)`.
    In evaluation mode a gate is open or closed, and a closed one is an exact identity that computes nothing;
    in training mode it is sampled, so every mapped layer takes part.

    Keys are re-based (carry no position) on both sides unless `rotated_keys`.
    """

    def __init__(self, layer_map: LayerMap, rotated_keys: bool, sharer: Geometry, receiver: Geometry) -> None:
        super().__init__()
        check_layers(layer_map, sharer, receiver)
        self.layer_map, self.rotated_keys = layer_map, rotated_keys
        self.sharer, self.receiver = sharer, receiver
        self.fed = tuple(layer for layer, _ in layer_map.mapped)  # Receiver layers, lowest first
        self.row = {layer: row for row, layer in enumerate(self.fed)}

    @abstractmethod
    def gate_logits(self, layer: int) -> Tensor:
        """Logits of key gate and value gate of a fed Receiver layer, (2,) float32, detached; open above 0."""

    @abstractmethod
    def changes(self, layers: Sequence[int], halves: range, sharer: Tensor, receiver: Tensor) -> Tensor:
        """What the gates of some layers let through, all layers in one batched matmul a stage.

        Args:
            layers: fed Receiver layers.
            halves: range(0, 1) for K, range(1, 2) for V, range(2) for both.
            sharer: (halves, layers, batch, sharer kv heads, positions, sharer head_dim).
            receiver: (halves, layers, batch, receiver kv heads, positions, receiver head_dim).

        Returns:
            What is added to `receiver`, of its shape, in the dtype of the weights; exactly 0 where a gate is
            closed.
        """

    @abstractmethod
    def gate_cost(self) -> Tensor:
        """Expected number of open gates in training, over the fed layers: () float32, differentiable.

        Multiplied by a weight and added to the loss, it is a price per open gate.
        """

    @abstractmethod
    def anneal(self, step: int) -> None:
        """Set the temperature of the training gates as it is after `step` optimiser steps."""

    def open_halves(self, layer: int) -> tuple[bool, bool]:
        """Whether key gate and value gate of a fed Receiver layer are open, as evaluation mode sees it."""
        key, value = (self.gate_logits(layer) > 0).tolist()
        return key, value

    def open_layers(self) -> list[tuple[bool, bool]]:
        """Per Receiver layer, whether key gate and value gate are open; both False where nothing feeds it.

        As evaluation mode sees it, in training mode too.
        """
        layers = range(self.receiver.layers)
        return [self.open_halves(layer) if layer in self.row else (False, False) for layer in layers]

    def needed(self) -> list[tuple[SegmentKind, int]]:
        """Segments (K or V, Sharer layer) that open gates read: each once, lowest layer first, K before V."""
        wanted: set[tuple[int, bool]] = set()
        for reads, source in zip(self.open_layers(), self.layer_map.sources, strict=True):
            if source is not None:
                wanted |= {(source, bool(half)) for half in (KEYS, VALUES) if reads[half]}
        return [(SegmentKind.VALUE if value else SegmentKind.KEY, source) for source, value in sorted(wanted)]

    def fuse_layer(
        self,
        layer: int,
        sharer_keys: Tensor | None,
        sharer_values: Tensor | None,
        receiver_keys: Tensor,
        receiver_values: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """K and V of Receiver layer `layer` after fusing, each of the Receiver's shape and dtype.

        Args:
            layer: Receiver layer.
            sharer_keys: (batch, sharer kv heads, positions, sharer head_dim) of the layer that feeds this
                one, already gathered to the Receiver's positions. None where no segment came: that half stays
                the Receiver's own.
            sharer_values: the same for V.
            receiver_keys: (batch, receiver kv heads, positions, receiver head_dim).
            receiver_values: the same for V.

        Raises:
            ValueError: a shape that does not fit the pair.
        """
        fused = [receiver_keys, receiver_values]
        if layer not in self.row:
            return receiver_keys, receiver_values
        gates = (True, True) if self.training else self.open_halves(layer)
        for half, theirs in ((KEYS, sharer_keys), (VALUES, sharer_values)):
            if theirs is None or not gates[half]:
                continue
            ours = fused[half]
            check_half("receiver", ours, self.receiver.kv_heads, self.receiver.head_dim)
            check_half("sharer", theirs, self.sharer.kv_heads, self.sharer.head_dim, like=ours)
            change = self.changes([layer], range(half, half + 1), theirs[None, None], ours[None, None])[0, 0]
            fused[half] = (ours + change).to(ours.dtype)
        return fused[KEYS], fused[VALUES]

    def fuse_layers(
        self, sharer_keys: Tensor, sharer_values: Tensor, receiver_keys: Tensor, receiver_values: Tensor
    ) -> tuple[Tensor, Tensor]:
        """All layers at once: equal to `fuse_layer` of each up to rounding.

        Args:
            sharer_keys: (receiver layers, batch, sharer kv heads, positions, sharer head_dim): per Receiver
                layer the K of the Sharer layer that feeds it; anything where nothing does.
            sharer_values: the same for V.
            receiver_keys: (receiver layers, batch, receiver kv heads, positions, receiver head_dim).
            receiver_values: the same for V.

        Raises:
            ValueError: a shape that does not fit the pair.
        """
        for ours, theirs in ((receiver_keys, sharer_keys), (receiver_values, sharer_values)):
            check_layer_stack("receiver", ours, self.receiver)
            check_layer_stack("sharer", theirs, self.sharer, like=ours)
        layers = [layer for layer in self.fed if self.training or any(self.open_halves(layer))]
        if not layers:
            return receiver_keys, receiver_values
        every = len(layers) == self.receiver.layers
        at = torch.tensor(layers, device=receiver_keys.device)
        source = torch.stack([half if every else half[at] for half in (sharer_keys, sharer_values)])
        target = torch.stack([half if every else half[at] for half in (receiver_keys, receiver_values)])
        keys, values = (target + self.changes(layers, range(2), source, target)).to(target.dtype)
        if every:
            return keys, values
        return receiver_keys.index_copy(0, at, keys), receiver_values.index_copy(0, at, values)

    @property
    def parameter_count(self) -> int:
        """Trainable numbers, all layers together."""
        return sum(parameter.numel() for parameter in self.parameters())
