"""How the numbers of some positions vary together, and the components that say most of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kvwire.codec import Basis
from kvwire.codec.transform import DROPPED

_LEAST_COST = 1e-4
"""A direction in which errors cost less than this part of the dearest counts as if they cost so much."""
_RICE_BITS = 2.15
"""What a Rice code of a normal number takes at a step of its spread; half the step, a bit more."""
_PARTS = 64
"""Bits a number are rounded to parts this fine, so that they are exact in any float."""


@dataclass
class Scatter:
    """Sums over positions, float64: of the numbers (width,), and of their outer products (width, width)."""

    total: Tensor
    outer: Tensor
    count: int = 0

    @classmethod
    def empty(cls, width: int) -> Scatter:
        total = torch.zeros(width, dtype=torch.float64, device="cpu")
        return cls(total, total.new_zeros(width, width))

    def add(self, rows: Tensor) -> None:
        """Take in (positions, width) float, on any device."""
        rows = rows.cpu().double()  # in this order: not every device has float64
        self.count += len(rows)
        self.total += rows.sum(0)
        self.outer.addmm_(rows.T, rows)

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    def basis(self, width: int, metric: Tensor | None = None) -> Basis:
        """Principal components of the leading numbers (KVTC, arXiv 2511.01815, section 3).

        Args:
            metric: (width, width), what an error costs; every direction the same if not given. Of a metric L L they are
                the components of L x: an error in any of them then costs the same.

        Raises:
            ValueError: fewer positions than twice the numbers.
        """
        if self.count < 2 * width:
            raise ValueError(f"{self.count} positions are too few for a basis of {width} numbers")
        mean = self.mean[:width]
        covariance = self.outer[:width, :width] / self.count - torch.outer(mean, mean)
        root = back = torch.eye(width, dtype=torch.float64, device=covariance.device)
        if metric is not None:
            costs, directions = torch.linalg.eigh(metric.double())
            costs = costs.clamp(min=_LEAST_COST * float(costs[-1]))
            root, back = (directions * costs**power @ directions.T for power in (0.5, -0.5))
        variances, components = torch.linalg.eigh(root @ covariance @ root)
        spread = variances.flip(0).clamp(min=0).sqrt()
        return Basis(mean.float(), (back @ components.flip(1)).half(), spread.float())


def allocate_bits(bases: Sequence[Basis], rate: float) -> list[float]:
    """Bits a number for each basis, `rate` on average over all their numbers, so that the relative error is the same.

    That is reverse water-filling over the components of all segments, each in units of its own segment's spread.
    """
    spreads = [basis.spread.double() for basis in bases]
    spreads = [spread / spread.square().mean().sqrt().clamp(min=1e-30) for spread in spreads]
    numbers = sum(map(len, spreads))
    fine, coarse = -40.0, 40.0  # log2 of the step
    for _ in range(60):
        middle = (fine + coarse) / 2
        if sum(_bits(spread, 2.0**middle) for spread in spreads) > rate * numbers:
            fine = middle
        else:
            coarse = middle
    each = [_bits(spread, 2.0**coarse) / len(spread) for spread in spreads]
    return [max(1, round(bits * _PARTS)) / _PARTS for bits in each]


def _bits(spread: Tensor, step: float) -> float:
    """Expected bits of a position whose components vary so much."""
    kept = spread[spread >= DROPPED * step]
    return float((torch.log2(kept / step) + _RICE_BITS).sum())
