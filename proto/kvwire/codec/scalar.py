"""Codecs that need no calibration: scaled per channel or group, or rotated, at a fixed number of bits a value."""

import hashlib
import math
from functools import cache, lru_cache
from typing import Final

import numpy as np
import torch

from kvwire.codec.base import DTYPES, check_tensor, from_bytes, hash_parameters, narrowed, to_bytes
from kvwire.codec.rice import (
    LARGEST,
    Reals,
    Whole,
    check_room,
    checked,
    count_bits,
    folded,
    levels,
    pack,
    rounded_up,
    smallest_step_within,
    step_from_bytes,
    step_to_bytes,
    unfolded,
    unpack,
)
from kvwire.errors import BadPayload
from kvwire.segment import SegmentKind, SegmentSpec


class Int8:
    """Eight bits a value: keys scaled per channel, values and codes per token (KIVI, arXiv 2402.02750).

    Keys have a few channels that are large at every position, so each channel has its own step; values and codes
    differ from token to token. Steps are bfloat16, rounded up, so that no element needs more than 127 of them.

    The payload is all steps, then all elements, both row-major. A key (kv_heads, positions, head_dim) has steps
    (kv_heads, 1, head_dim), a value (kv_heads, positions, 1), a code (positions, code_dim) has (positions, 1). Nothing
    at all for no elements. Decoding is one product in float32 and one rounding to the spec's dtype, so every device
    gives the same bits.
    """

    name: Final = "int8"
    parameters_hash: Final = hash_parameters("int8", {"version": 1, "step": "bfloat16-up", "range": 127})

    def max_bytes(self, spec: SegmentSpec) -> int:
        if not spec.elements:
            return 0
        return 2 * spec.elements // spec.shape[step_axis(spec)] + spec.elements

    def encode(self, tensor: torch.Tensor, spec: SegmentSpec) -> bytes:
        check_tensor(tensor, spec)
        if not spec.elements:
            return b""
        numbers = tensor.detach().float()
        steps = rounded_up(numbers.abs().amax(step_axis(spec), keepdim=True) / 127)
        wide = steps.float()
        rounded = torch.where(wide > 0, numbers / wide, 0.0).round().clamp(-127, 127).to(torch.int8)
        return to_bytes(steps) + to_bytes(rounded)

    def decode(self, payload: bytes, spec: SegmentSpec, device: torch.device | str = "cpu") -> torch.Tensor:
        if len(payload) != self.max_bytes(spec):
            raise BadPayload(f"{len(payload)} bytes where {self.max_bytes(spec)} were due")
        if not spec.elements:
            return torch.empty(spec.shape, dtype=DTYPES[spec.dtype], device=device)
        axis = step_axis(spec)
        shape = [1 if i == axis else size for i, size in enumerate(spec.shape)]
        cut = len(payload) - spec.elements
        view = memoryview(payload)
        steps = checked(from_bytes(view[:cut], torch.bfloat16, shape, device))
        rounded = from_bytes(view[cut:], torch.int8, spec.shape, device)
        if bool((rounded < -127).any()):
            raise BadPayload("a number outside -127..127")
        return narrowed(rounded.float() * steps, spec)


def step_axis(spec: SegmentSpec) -> int:
    """The axis along which one step serves all values: a key's positions, else the channels."""
    return spec.position_axis if spec.kind is SegmentKind.KEY else len(spec.shape) - 1


_GROUP: Final = 32
_HIGHEST: Final = 15


class Int4:
    """Four bits a value, between the lowest and the highest of a small group (KIVI, arXiv 2402.02750).

    Groups run along a key's positions, each channel apart, and along the channels of a value or code, each token
    apart. Sixteen steps are few, so they span what a group holds and not the way from zero: many key channels are far
    from it.

    The payload is the lowest values, then the steps, both bfloat16, (rows, groups); then the levels (rows, n), two to a
    byte. Rows are what is left of the segment when the axis of the groups is moved to the end; the last group of a row
    may be short, and the last byte half full. Nothing at all for no elements. Decoding is a product and a sum in
    float32 and one rounding to the spec's dtype, so every device gives the same bits.
    """

    name: Final = "int4"
    parameters_hash: Final = hash_parameters(
        "int4", {"version": 1, "step": "bfloat16-up", "lowest": "bfloat16-down", "group": _GROUP}
    )

    def max_bytes(self, spec: SegmentSpec) -> int:
        rows, groups = _rows_and_groups(spec)
        return 4 * rows * groups + (spec.elements + 1) // 2

    def encode(self, tensor: torch.Tensor, spec: SegmentSpec) -> bytes:
        check_tensor(tensor, spec)
        if not spec.elements:
            return b""
        rows, groups = _rows_and_groups(spec)
        numbers = tensor.detach().to("cpu", torch.float32).movedim(step_axis(spec), -1).reshape(rows, -1)
        filled = torch.arange(groups * _GROUP, device=numbers.device).clamp(max=numbers.shape[1] - 1)
        grouped = numbers[:, filled].unflatten(1, (groups, _GROUP)).double()
        lowest = _rounded_down(grouped.amin(-1).float())
        spread = grouped.amax(-1) - lowest.double()
        steps = rounded_up((spread / _HIGHEST).float())
        wide, above = steps.double()[..., None], grouped - lowest.double()[..., None]
        levels = torch.where(wide > 0, above / wide, 0.0).round().clamp(0, _HIGHEST)
        flat = levels.to(torch.uint8).flatten(1)[:, : numbers.shape[1]].flatten().numpy()
        flat = np.append(flat, np.zeros(len(flat) % 2, np.uint8))
        return to_bytes(lowest) + to_bytes(steps) + bytes(flat[::2] | flat[1::2] << 4)

    def decode(self, payload: bytes, spec: SegmentSpec, device: torch.device | str = "cpu") -> torch.Tensor:
        if len(payload) != self.max_bytes(spec):
            raise BadPayload(f"{len(payload)} bytes where {self.max_bytes(spec)} were due")
        if not spec.elements:
            return torch.empty(spec.shape, dtype=DTYPES[spec.dtype], device=device)
        rows, groups = _rows_and_groups(spec)
        cut, view = 2 * rows * groups, memoryview(payload)
        lowest = from_bytes(view[:cut], torch.bfloat16, (rows, groups), device).float()
        if not bool(lowest.isfinite().all()):
            raise BadPayload("a lowest number that is infinite or not a number")
        steps = checked(from_bytes(view[cut : 2 * cut], torch.bfloat16, (rows, groups), device))
        pairs = from_bytes(view[2 * cut :], torch.uint8, ((spec.elements + 1) // 2,), device)
        levels = torch.stack((pairs & _HIGHEST, pairs >> 4), dim=1).flatten()
        if bool(levels[spec.elements :].any()):
            raise BadPayload("bits after the last number")
        axis = step_axis(spec)
        moved = [*spec.shape[:axis], *spec.shape[axis + 1 :], spec.shape[axis]]
        group = torch.arange(spec.shape[axis], device=device) // _GROUP
        product = levels[: spec.elements].reshape(rows, -1).float() * steps[:, group]
        return narrowed((product + lowest[:, group]).reshape(moved).movedim(-1, axis).contiguous(), spec)


def _rounded_down(numbers: torch.Tensor) -> torch.Tensor:
    """float32 -> bfloat16 that are no larger, and finite."""
    cut = (numbers.view(torch.int32) >> 16).to(torch.int16).view(torch.bfloat16)  # towards zero
    return torch.where(numbers < 0, rounded_up(numbers), cut).clamp(min=torch.finfo(torch.bfloat16).min)


def _rows_and_groups(spec: SegmentSpec) -> tuple[int, int]:
    length = spec.shape[step_axis(spec)]
    return (spec.elements // length, -(-length // _GROUP)) if length else (0, 0)


_LARGEST_BLOCK: Final = 256


class Hadamard:
    """A rotation, one step for the whole segment, Rice codes: no channel stands out.

    Channels are multiplied by fixed signs and turned by a Walsh-Hadamard matrix, so that every rotated value has a
    share of every channel, and about a normal distribution (QuaRot, arXiv 2404.00456). One step is then as good as
    many. Keys have a mean that is large beside their spread: it is sent once, as one more position.

    The payload is the step (bfloat16), each row's Rice parameter (half a byte), then the levels (rows, channels) in
    Rice codes. A row is one position of one head, or of a code; a key has one more row at the beginning of each head,
    its mean in steps, and the others are what is added to it. Encoded and decoded on the CPU. Integers are rotated
    exactly, so decoding is one product in float64 and one rounding to the spec's dtype.

    Args:
        rate: bits a value, at least 1; the step is about the smallest that keeps to it.
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

        mean = turned.mean(1, keepdims=True) if spec.kind is SegmentKind.KEY else None
        wide = turned if mean is None else turned.astype(np.float64)

        @lru_cache(2)
        def tried(step: float) -> tuple[Whole, Whole]:
            found = folded(_levels(wide, mean, step / unit).reshape(rows, channels))
            _, exponents = np.frexp(found.sum(1, dtype=np.int64) / channels / 2.4)
            return found, exponents.clip(0, 15)[:, None]

        def bits_at(step: float) -> int:
            return count_bits(*tried(step))

        spread = turned if mean is None else turned - mean
        guess = 4.4 * unit * float(spread.std()) * 2.0**-self.rate
        least = 2 * unit * float(np.abs(turned).max()) / LARGEST
        step = smallest_step_within(bits_at, bits, guess, least, rows * channels)
        found, widths = tried(step)
        halves = np.append(widths, np.zeros(rows % 2, widths.dtype)).astype(np.uint8)
        return step_to_bytes(step) + (halves[::2] | halves[1::2] << 4).tobytes() + pack(found, widths)

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
        found = unfolded(unpack(view[cut:], halves[:rows, None], (rows, channels)))
        if spec.kind is SegmentKind.KEY:
            heads, _, _ = spec.shape
            found = found.reshape(heads, -1, channels)
            found = found[:, :1] + found[:, 1:]
        turned = _turned(found.reshape(spec.shape).astype(np.float64))
        numbers = turned * (step / math.sqrt(_block(channels))) * _signs(channels)
        return narrowed(torch.from_numpy(numbers), spec).to(device)


def _levels(turned: Reals, mean: Reals | None, step: float) -> Whole:
    """(heads, 1 + positions, channels) of a key, which has a mean and is in float64, else the spec's shape."""
    if mean is None:
        return levels(turned, step)
    first = levels(mean, step)
    return np.concatenate((first, levels(turned - first * step, step)), axis=1)


def _rows(spec: SegmentSpec) -> tuple[int, int]:
    """Rows as they are coded, and values in each."""
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
