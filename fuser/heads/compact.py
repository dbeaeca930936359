"""Our own fuse head: low rank, single precision, all layers' weights stacked and computed in one batched product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fuser.heads.fuse import FuseHead, flatten_heads, split_heads
from fuser.kv.geometry import Geometry, LayerMap


@dataclass(frozen=True, slots=True)
class CompactConfig:
    """How wide it is.

    rank: width of what the Sharer half computes and of the trunk. inner: width inside the trunk. The temperature of the
    training gates falls geometrically over `anneal_steps`.
    """

    layer_map: LayerMap
    rank: int = 64
    inner: int = 128
    initial_temperature: float = 1.0
    final_temperature: float = 0.1
    anneal_steps: int = 500
    rotated_keys: bool = False
    kind: Literal["compact"] = "compact"

    def __post_init__(self) -> None:
        if self.rank < 1 or self.inner < 1:
            raise ValueError(f"rank and inner must be positive, got {self.rank} and {self.inner}")
        if not all(0 < one < math.inf for one in (self.initial_temperature, self.final_temperature)):
            ends = f"{self.initial_temperature} and {self.final_temperature}"
            raise ValueError(f"gate temperatures must be positive, got {ends}")
        if self.anneal_steps < 1:
            raise ValueError(f"anneal_steps must be positive, got {self.anneal_steps}")


def binary_concrete(logit: Tensor, temperature: float) -> Tensor:
    """Sample a binary concrete gate in (0, 1), arXiv 1611.00712: P(gate > 1/2) = sigmoid(logit).

    The noise is the difference of two Gumbels (a logistic), so an undecided logit of 0 is open half of the
    time, and the most likely value is the one that evaluation takes. Noise is drawn in float32, one per
    element of `logit`.
    """
    uniform = torch.rand(logit.shape, device=logit.device).clamp(1e-7, 1 - 1e-7)
    return torch.sigmoid((logit + torch.logit(uniform)) / temperature)


@dataclass(frozen=True, slots=True)
class Stack:
    """Weights of some layers, ready for batched matmuls; axes (halves, layers, rank or inner, width)."""

    source: Tensor
    target: Tensor
    bias: Tensor
    norm: Tensor
    up: Tensor
    down: Tensor
    out: Tensor
    out_bias: Tensor
    head: Tensor
    head_bias: Tensor


class CompactWeights(nn.Module):
    """Parameters with a leading axis of halves, K and V; layers lie one after the other along the rank axis.

    Args:
        config: layers and widths.
        source: numbers of the Sharer that a half reads at a position.
        target: numbers of the Receiver that a half reads and writes.
        heads: head weights that a half gives.
    """

    def __init__(self, config: CompactConfig, source: int, target: int, heads: int) -> None:
        super().__init__()
        self._layers, self._rank = len(config.layer_map.mapped), config.rank
        layers, inner, rank = self._layers, config.inner, config.rank
        total = layers * rank
        self.source = _uniform(2, total, source, fan_in=source + target)
        self.target = _uniform(2, total, target, fan_in=source + target)
        self.bias = nn.Parameter(torch.zeros(2, total, 1))
        self.norm = nn.Parameter(torch.ones(2, total, 1))
        self.up = _uniform(2, total, inner, fan_in=rank)
        self.down = _uniform(2, total, inner, fan_in=inner)
        self.out = nn.Parameter(torch.zeros(2, total, target))
        self.out_bias = nn.Parameter(torch.zeros(2, layers, target))
        self.head = _uniform(2, total, heads, fan_in=rank)
        self.head_bias = nn.Parameter(torch.zeros(2, layers, heads))

    def stack(self, halves: range, rows: Sequence[int]) -> Stack:
        """The weights of some halves and of some layers, by their number among the fed ones."""

        def ranked(packed: Tensor) -> Tensor:
            stacked = packed[halves.start : halves.stop].unflatten(1, (self._layers, self._rank))
            return _pick(stacked, rows)

        def layered(stacked: Tensor) -> Tensor:
            return _pick(stacked[halves.start : halves.stop], rows)[:, :, None]

        return Stack(
            source=ranked(self.source),
            target=ranked(self.target),
            bias=ranked(self.bias).mT,
            norm=ranked(self.norm).mT,
            up=ranked(self.up),
            down=ranked(self.down),
            out=ranked(self.out),
            out_bias=layered(self.out_bias),
            head=ranked(self.head),
            head_bias=layered(self.head_bias),
        )


def _pick(stacked: Tensor, rows: Sequence[int]) -> Tensor:
    """(halves, layers, ...) -> the rows asked for; a view where they are all or one."""
    if list(rows) == list(range(stacked.shape[1])):
        return stacked
    if len(rows) == 1:
        return stacked[:, rows[0] : rows[0] + 1]
    return stacked[:, list(rows)]


def _uniform(*shape: int, fan_in: int) -> nn.Parameter:
    """As torch's Linear: uniform within +-1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


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

    def anneal(self, step: int) -> None:
        """Set the temperature of the training gates as it is after `step` optimiser steps."""
        config = self.config
        fall = config.final_temperature / config.initial_temperature
        self.temperature = config.initial_temperature * fall ** min(step / config.anneal_steps, 1.0)

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
