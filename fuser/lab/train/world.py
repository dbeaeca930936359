"""The workers that train together: every one has its part of each batch, and all have the same weights.

One process is a world of its own. Where torch.distributed is set up, by whatever started the workers, they are one
world: gradients are averaged after the backward pass, which with equal parts is the gradient of the whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True, slots=True)
class World:
    """rank: of this worker, from 0. size: workers."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> World:
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    def check(self, batch: int) -> None:
        """Refuse a batch that cannot be shared equally.

        Raises:
            ValueError: naming both numbers.
        """
        if batch % self.size:
            raise ValueError(f"answer.batch is {batch}: {self.size} workers cannot share it equally")

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their mean over the workers, in one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        distributed.all_reduce(flat)
        flat /= self.size
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def total(self, values: Sequence[float]) -> list[float]:
        if self.size == 1:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64)
        distributed.all_reduce(summed)
        return [float(value) for value in summed]

    def any(self, flag: bool) -> bool:
        """Whether it is so on any worker, so that all of them stop at the same step."""
        return self.total([float(flag)])[0] > 0

    def share(self, modules: Iterable[nn.Module]) -> None:
        if self.size == 1:
            return
        for module in modules:
            for tensor in module.state_dict().values():
                distributed.broadcast(tensor, 0)
