"""The weights of a compact fuse head: all fed layers in one tensor a stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fuser.compact.config import CompactConfig


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
