"""Slices that say nothing of their question, which a transfer must beat: zeros, noise with the moments of true ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from fuser.lab.evaluate.shared_slices import Heard
from kvwire.segment import SegmentKind


@dataclass(frozen=True, slots=True)
class Noise:
    """Gaussian noise with the mean and the covariance of some samples.

    mean: (values,) float32. root: (rank, values) float32, which times itself is the covariance.
    """

    mean: Tensor
    root: Tensor

    @classmethod
    def like(cls, samples: Tensor) -> Self:
        """Of samples (samples, values), which may be fewer than the values."""
        mean: Tensor = samples.float().mean(0)
        centred = (samples.float() - mean) / math.sqrt(len(samples))
        return cls(mean, torch.linalg.qr(centred, mode="r").R)

    def draw(self, count: int, seed: int) -> Tensor:
        """(count, values) float32."""
        generator = torch.Generator().manual_seed(seed)
        weights = torch.randn(count, len(self.root), generator=generator, device="cpu")
        return self.mean + weights.to(self.root.device) @ self.root

    def in_place_of(self, codes: Tensor, seed: int) -> Tensor:
        """As many codes as these (questions, positions, values)."""
        count, positions, _ = codes.shape
        return self.draw(count * positions, seed).reshape(codes.shape).to(codes.dtype)


def zeroed(heard: Sequence[Heard]) -> list[Heard]:
    return [
        replace(one, segments={at: torch.zeros_like(part) for at, part in one.segments.items()})
        for one in heard
    ]


def random_slices(heard: Sequence[Heard], seed: int) -> list[Heard]:
    """Noise for shared slices: every segment with the moments of that segment over all positions of all of them."""
    counts = [len(one.spans) + one.tail for one in heard]
    made: list[dict[tuple[SegmentKind, int], Tensor]] = [{} for _ in heard]
    for number, at in enumerate(heard[0].segments if heard else ()):
        parts = [one.segments[at] for one in heard]
        heads, _, width = parts[0].shape
        flat = torch.cat([part.transpose(0, 1).flatten(1) for part in parts])
        noise = Noise.like(flat).draw(len(flat), seed * len(heard[0].segments) + number).to(flat.dtype)
        for own, some in zip(made, noise.split(counts), strict=True):
            own[at] = some.unflatten(1, (heads, width)).transpose(0, 1).contiguous()
    return [replace(one, segments=own) for one, own in zip(heard, made, strict=True)]
