"""Slices that say nothing of their question, which a transfer must beat: zeros, noise with the moments of true ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fuser.lab.evaluate.shared_slices import Heard
from kvwire.segment import SegmentKind


def moment_matched(samples: Tensor, seed: int) -> Tensor:
    """Gaussian noise with the mean and the covariance of samples (samples, values): as many, in float32.

    Random sums of the centred samples have their covariance, also where they are fewer than the values.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(len(samples), len(samples), generator=generator, device="cpu").to(samples.device)
    mean: Tensor = samples.float().mean(0)
    return mean + weights @ (samples.float() - mean) / math.sqrt(len(samples))


def random_codes(codes: Tensor, seed: int) -> Tensor:
    """Noise for codes (questions, positions, values), with the moments of all their positions."""
    return moment_matched(codes.flatten(0, 1), seed).reshape(codes.shape).to(codes.dtype)


def zeroed(heard: Sequence[Heard]) -> list[Heard]:
    """Shared slices of zeros."""
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
        noise = moment_matched(flat, seed * len(heard[0].segments) + number).to(flat.dtype)
        for own, some in zip(made, noise.split(counts), strict=True):
            own[at] = some.unflatten(1, (heads, width)).transpose(0, 1).contiguous()
    return [replace(one, segments=own) for one, own in zip(heard, made, strict=True)]
