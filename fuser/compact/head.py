"""The compact fuse head: low rank, single precision, all layers' weights stacked.

Per layer and half (K, V), with n(.) a fixed per-channel standardisation:

    x = W_s n(sharer) + W_t n(receiver) + b          W_s n(sharer) is the source half
    h = x + W_2 gelu(W_1 rmsnorm(x))                 the trunk
    out = receiver + gate * sigmoid(Q h + e) * (P h + c) * deviation(receiver)

The source half needs nothing of the Receiver, so it may be computed where the Sharer's KV is and travel in its place.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fuser.compact.config import CompactConfig
from fuser.compact.weights import CompactWeights, Stack
from fuser.fuse import FuseHead
from fuser.fuse_shapes import flatten_heads, split_heads
from fuser.gate import binary_concrete, temperature_at
from fuser.geometry import Geometry

__all__ = ["CompactConfig", "CompactFuse"]


class CompactFuse(FuseHead):
    """See the module. Untrained, gates are closed and projections zero: an exact identity on both counts."""

    def __init__(self, config: CompactConfig, sharer: Geometry, receiver: Geometry) -> None:
        super().__init__(config.layer_map, config.rotated_keys, sharer, receiver)
        self.config = config
        self.temperature = config.initial_temperature  # of the training gates
        source, target = sharer.layer_width, receiver.layer_width
        self.weights = CompactWeights(config, source, target, receiver.kv_heads)
        self.gate_logit = nn.Parameter(torch.zeros(len(self.fed), 2))
        self.source_mean: Tensor
        self.source_scale: Tensor
        self.target_mean: Tensor
        self.target_scale: Tensor
        for side, width in (("source", source), ("target", target)):
            self.register_buffer(f"{side}_mean", torch.zeros(2, len(self.fed), width))
            self.register_buffer(f"{side}_scale", torch.ones(2, len(self.fed), width))

    @torch.no_grad()
    def standardise(self, source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> None:
        """Set n(.) from (mean, standard deviation) per channel, each (receiver layers, 2, layer width).

        `source` is of the Sharer layer that feeds each Receiver layer; anything where nothing does.
        """
        for side, (mean, deviation) in (("source", source), ("target", target)):
            getattr(self, f"{side}_mean").copy_(mean[list(self.fed)].transpose(0, 1))
            getattr(self, f"{side}_scale").copy_(deviation[list(self.fed)].clamp(min=1e-4).transpose(0, 1))

    def gate_logits(self, layer: int) -> Tensor:
        return self.gate_logit.detach()[self.row[layer]]

    def gate_cost(self) -> Tensor:
        return torch.sigmoid(self.gate_logit).sum()

    def anneal(self, step: int) -> None:
        config = self.config
        ends = config.initial_temperature, config.final_temperature
        self.temperature = temperature_at(step, *ends, config.anneal_steps)

    def changes(self, layers: Sequence[int], halves: range, sharer: Tensor, receiver: Tensor) -> Tensor:
        rows = [self.row[layer] for layer in layers]
        stack = self.weights.stack(halves, rows)
        return self._changes(rows, halves, stack, self._source(rows, halves, stack, sharer), receiver)

    def source_half(self, layer: int, halves: range, sharer: Tensor) -> Tensor:
        """W_s n(sharer) of one layer, as the cloud may compute it.

        Args:
            layer: a fed Receiver layer.
            halves: as in `changes`.
            sharer: (halves, batch, sharer kv heads, positions, head_dim).

        Returns:
            (halves, batch, positions, rank) float32.
        """
        rows = [self.row[layer]]
        stack = self.weights.stack(halves, rows)
        return self._source(rows, halves, stack, sharer[:, None])[:, 0]

    def fuse_from_half(self, layer: int, halves: range, source_half: Tensor, receiver: Tensor) -> Tensor:
        """Fuse one layer from a source half computed elsewhere.

        `receiver` is (halves, batch, receiver kv heads, positions, head_dim), and so is what comes back; gates as in
        `fuse_layer`.
        """
        rows = [self.row[layer]]
        stack = self.weights.stack(halves, rows)
        change = self._changes(rows, halves, stack, source_half[:, None], receiver[:, None])
        return (receiver + change[:, 0]).to(receiver.dtype)

    def _source(self, rows: list[int], halves: range, stack: Stack, sharer: Tensor) -> Tensor:
        """(halves, layers, batch, heads, positions, head_dim) -> (halves, layers, batch, positions, rank)."""
        chosen = slice(halves.start, halves.stop), rows
        standard = (flatten_heads(sharer).float() - _wide(self.source_mean[chosen])) / _wide(
            self.source_scale[chosen]
        )
        return _times(standard, stack.source.mT)

    def _changes(
        self, rows: list[int], halves: range, stack: Stack, source: Tensor, receiver: Tensor
    ) -> Tensor:
        chosen = slice(halves.start, halves.stop), rows
        scale = _wide(self.target_scale[chosen])
        standard = (flatten_heads(receiver).float() - _wide(self.target_mean[chosen])) / scale
        x = source + _times(standard, stack.target.mT) + stack.bias[:, :, None]
        mean_square = x.square().sum(-1, keepdim=True) / self.config.rank
        inner = _times(x * torch.rsqrt(mean_square + 1e-6) * stack.norm[:, :, None], stack.up)
        h = x + _times(functional.gelu(inner), stack.down.mT)
        moved = (_times(h, stack.out) + stack.out_bias[:, :, None]) * scale
        weights = torch.sigmoid(_times(h, stack.head) + stack.head_bias[:, :, None])
        heads = self.receiver.kv_heads
        change = split_heads(weights, heads) * split_heads(moved, heads)
        logits = self.gate_logit[rows].T[halves.start : halves.stop, :, None, None, None, None]
        if not self.training:
            return change.where(logits > 0, 0.0)
        one_a_prompt = logits.expand(-1, -1, receiver.shape[2], 1, 1, 1)
        return binary_concrete(one_a_prompt, self.temperature) * change


def _wide(stacked: Tensor) -> Tensor:
    """(halves, layers, width) -> (halves, layers, 1, 1, width)."""
    return stacked[:, :, None, None]


def _times(x: Tensor, weight: Tensor) -> Tensor:
    """(halves, layers, batch, positions, in) by (halves, layers, in, out): one matmul for all."""
    out: Tensor = (x.flatten(2, 3) @ weight).unflatten(2, x.shape[2:4])
    return out
