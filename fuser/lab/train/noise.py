"""Quantisation in training: what a codec will do to a slice, as noise of the same size."""

from __future__ import annotations

import torch
from torch import Tensor


def quantisation_noise(tensor: Tensor, bits: int, axis: int) -> Tensor:
    """Add noise uniform within half a step of a symmetric codec, a step serving all numbers along `axis`.

    The steps are those of the codec `int8` (KIVI, arXiv 2402.02750) at `bits` = 8: the largest number is
    2^(bits - 1) - 1 of them. The steps pass no gradient; the tensor does. Drawn from torch's global generator.

    Args:
        tensor: of any shape, float. Keys (..., kv_heads, positions, head_dim) share a step along positions
            (axis -2); values and codes along channels (axis -1). Padding must be zero.
        bits: of the codec, 2 to 16; 0 returns the tensor as it is.

    Raises:
        ValueError: another number of bits.
    """
    if bits == 0:
        return tensor
    if not 2 <= bits <= 16:
        raise ValueError(f"noise.bits must be 0 (off) or between 2 and 16, got {bits}")
    steps = tensor.detach().abs().amax(axis, keepdim=True) / (2 ** (bits - 1) - 1)
    noisy: Tensor = tensor + (torch.rand_like(tensor) - 0.5) * steps
    return noisy
