"""A rotation, one step for the whole segment, Rice codes: needs no calibration, and no channel stands out.

Channels are multiplied by fixed signs and turned by a Walsh-Hadamard matrix, so that every turned number has a share
of every channel, and about a normal distribution (QuaRot, arXiv 2404.00456). One step is then as good as many. Keys
have a mean that is large beside their spread: it is sent once, as one more position.
"""

import hashlib
import math
from functools import cache
from typing import Final

import numpy as np
import torch

from kvwire.codec.base import hash_parameters
from kvwire.codec.layout import DTYPES, check_tensor, narrowed
from kvwire.codec.rice import LARGEST, Whole, check_room, count_bits, folded, pack, unfolded, unpack
from kvwire.codec.step import Reals, levels, smallest_step_within, step_from_bytes, step_to_bytes
from kvwire.errors import BadPayload
from kvwire.segment import SegmentKind, SegmentSpec

_LARGEST_BLOCK: Final = 256


class Hadamard:
    """The step (bfloat16), each row's Rice parameter (half a byte), then the numbers (rows, channels) in Rice codes.

    A row is one position of one head, or of a code; a key has one more row at the beginning of each head, its mean in
    steps, and the others are what is added to it. Encoded and decoded on the CPU. Whole numbers are turned exactly, so
    decoding is one product in float64 and one rounding to the spec's dtype.

    Args:
        rate: bits a number, at least 1; the step is the finest that keeps to it.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.name = f"hadamard-{rate}"
        self.parameters_hash = hash_parameters(
            self.name, {"version": 1, "signs": _signs(16).tolist(), "block": _LARGEST_BLOCK}
        )

    def max_bytes(self, spec: SegmentSpec) -> int:
        if not spec.elements:
            return 0
        rows, channels = _rows(spec)
        return 2 + -(-rows // 2) + -(-self.rate * rows * channels // 8)

    def encode(self, tensor: torch.Tensor, spec: SegmentSpec) -> bytes:
        check_tensor(tensor, spec)
        if not spec.elements:
            return b""
        rows, channels = _rows(spec)
        numbers = tensor.detach().to("cpu", torch.float32)
        unit = float(numbers.abs().max()) or 1.0  # turned in units of it, so that float32 holds every sum
        turned = _turned((numbers / unit).numpy() * _signs(channels)) / math.sqrt(_block(channels))
        bits = 8 * (self.max_bytes(spec) - 2) - 4 * (rows + rows % 2)

        def tried(step: float) -> tuple[Whole, Whole]:
            found = folded(_levels(turned, spec, step / unit).reshape(rows, channels))
            _, exponents = np.frexp(found.mean(1) / 2.4)
            return found, np.clip(exponents, 0, 15)

        def bits_at(step: float) -> int:
            found, widths = tried(step)
            return count_bits(found, widths[:, None])

        spread = turned - turned.mean(1, keepdims=True) if spec.kind is SegmentKind.KEY else turned
        guess = 4.4 * unit * float(spread.std()) * 2.0**-self.rate
        least = 2 * unit * float(np.abs(turned).max()) / LARGEST
        step = smallest_step_within(bits_at, bits, guess, least, rows * channels)
        found, widths = tried(step)
        halves = np.append(widths, np.zeros(rows % 2, widths.dtype)).astype(np.uint8)
        packed = pack(found.ravel(), np.repeat(widths, channels))
        return step_to_bytes(step) + (halves[::2] | halves[1::2] << 4).tobytes() + packed

    def decode(self, payload: bytes, spec: SegmentSpec, device: torch.device | str = "cpu") -> torch.Tensor:
        if len(payload) > self.max_bytes(spec):
            raise BadPayload(f"{len(payload)} bytes where at most {self.max_bytes(spec)} were due")
        if not spec.elements:
            return torch.empty(spec.shape, dtype=DTYPES[spec.dtype], device=device)
        rows, channels = _rows(spec)
        view, cut = memoryview(payload), 2 + -(-rows // 2)
        if len(payload) < cut:
            raise BadPayload(f"{len(payload)} bytes where at least {cut} were due")
        check_room(view[cut:], rows * channels)
        step = step_from_bytes(view[:2])
        pairs = np.frombuffer(view[2:cut], np.uint8)
        halves = np.stack((pairs & 15, pairs >> 4), axis=1).ravel().astype(np.int32)
        if halves[rows:].any():
            raise BadPayload("bits after the last parameter")
        found = unfolded(unpack(view[cut:], np.repeat(halves[:rows], channels)))
        if spec.kind is SegmentKind.KEY:
            heads, _, _ = spec.shape
            found = found.reshape(heads, -1, channels)
            found = found[:, :1] + found[:, 1:]
        turned = _turned(found.reshape(spec.shape).astype(np.float64))
        numbers = turned * (step / math.sqrt(_block(channels))) * _signs(channels)
        return narrowed(torch.from_numpy(numbers), spec).to(device)


def _levels(turned: Reals, spec: SegmentSpec, step: float) -> Whole:
    """(heads, 1 + positions, channels) of a key, else the spec's shape."""
    if spec.kind is not SegmentKind.KEY:
        return levels(turned, step)
    mean = levels(turned.mean(1, keepdims=True), step)
    return np.concatenate((mean, levels(turned - mean * step, step)), axis=1)


def _rows(spec: SegmentSpec) -> tuple[int, int]:
    """Rows as they are coded, and numbers in each."""
    heads = spec.shape[0] if spec.kind is SegmentKind.KEY else 0
    return spec.elements // spec.shape[-1] + heads, spec.shape[-1]


def _block(channels: int) -> int:
    """Channels that are turned together: the largest power of two that divides them all."""
    return min(channels & -channels, _LARGEST_BLOCK)


def _turned(numbers: Reals) -> Reals:
    """Blocks of the last axis times the Walsh-Hadamard matrix; of whole numbers in float64 exact, in any order."""
    matrix = _matrix(_block(numbers.shape[-1])).astype(numbers.dtype)
    turned: Reals = (numbers.reshape(-1, len(matrix)) @ matrix).reshape(numbers.shape)
    return turned


@cache
def _matrix(block: int) -> Reals:
    """(block, block) float64 of 1 and -1, in natural order."""
    matrix = np.ones((1, 1))
    while len(matrix) < block:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


@cache
def _signs(channels: int) -> Reals:
    """A fixed sign for each channel, float32."""
    drawn = hashlib.shake_256(b"kvwire hadamard").digest(-(-channels // 8))
    bits = np.unpackbits(np.frombuffer(drawn, np.uint8))[:channels]
    return (1 - 2 * bits.astype(np.int8)).astype(np.float32)
