"""Values to bits at a promised rate: a quantisation step, then Rice codes (Rice and Plaunt 1971).

The step is bfloat16 on the wire. A slice of codes is a few hundred bytes: zstd's frame and tables alone would be a
tenth of it, and it would have to learn from the payload what calibration knows already, how wide each component is.
Here an integer costs its bits and nothing else. An integer v >= 0 with parameter k is v >> k zeros and a one, then its
k lowest bits. All the zeros and ones come first, so that they are read at once: the places of the ones give all v >> k.
"""

import math
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from kvwire.errors import BadPayload

Whole = NDArray[np.int32]

LARGEST: Final = 2**15 - 1
"""Largest magnitude of a signed number."""
_ESCAPE: Final = 15
"""Number of zeros that stands for any larger v >> k too; the 16 bits of such a v follow at the end."""
_ESCAPED_BITS: Final = 16


def folded(signed: Whole) -> Whole:
    """0, -1, 1, -2, 2 ... -> 0, 1, 2, 3, 4 ...: signed numbers, most of them small, as numbers >= 0."""
    return (signed << 1) ^ (signed >> 31)


def unfolded(numbers: Whole) -> Whole:
    """The inverse of `folded`."""
    return (numbers >> 1) ^ -(numbers & 1)


def count_bits(numbers: Whole, widths: Whole) -> int:
    """How many bits `pack` needs; arguments as there."""
    zeros = numbers >> widths
    if int(zeros.max(initial=0)) >= _ESCAPE:
        np.copyto(zeros, _ESCAPE + _ESCAPED_BITS - widths, where=zeros >= _ESCAPE)
    return int(zeros.sum(dtype=np.int64)) + zeros.size + _bits_below(widths, zeros.size)


def pack(numbers: Whole, widths: Whole) -> bytes:
    """Numbers as bits; the last byte is filled with zeros.

    Args:
        numbers: (rows, columns) of 0 to 2 * LARGEST + 1.
        widths: parameter k, 0 to 15, of each row, (rows, 1), or of each column, (1, columns), and then descending.
    """
    zeros = numbers >> widths
    escaped = zeros >= _ESCAPE if int(zeros.max(initial=0)) >= _ESCAPE else None
    if escaped is not None:
        np.minimum(zeros, _ESCAPE, out=zeros)
    zeros += 1
    ends = zeros.cumsum(dtype=np.int64)
    runs = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    ends -= 1
    runs[ends] = 1
    octets = numbers.astype(np.uint8), (numbers >> 8).astype(np.uint8)
    planes = [octets[bit >> 3][where] & np.uint8(1 << (bit & 7)) for bit, where in _planes(widths, escaped)]
    return np.packbits(np.concatenate([runs, *(plane.ravel() for plane in planes)])).tobytes()


def _planes(widths: Whole, escaped: NDArray[np.bool_] | None) -> Iterator[tuple[int, Any]]:
    """In the order of the wire: a bit below the zeros, and the index of those numbers that have it there."""
    for bit in range(int(widths.max(initial=0))):
        chosen = widths > bit
        if escaped is not None:
            yield bit, chosen & ~escaped
        elif widths.size == 1:
            yield bit, ...
        elif len(widths) == 1:
            yield bit, (slice(None), slice(np.count_nonzero(chosen)))
        else:
            yield bit, chosen[:, 0]
    if escaped is not None:
        yield from ((bit, escaped) for bit in range(_ESCAPED_BITS))


def _bits_below(widths: Whole, count: int) -> int:
    """Bits below the zeros of `count` numbers, if none is escaped."""
    return int(widths.sum(dtype=np.int64)) * (count // widths.size) if widths.size else 0


def check_room(payload: bytes | memoryview, numbers: int) -> None:
    """Before anything is allocated for them: each number takes a bit at least.

    Raises:
        BadPayload: there are fewer bits than numbers.
    """
    if numbers > 8 * len(payload):
        raise BadPayload(f"{len(payload)} bytes where {numbers} numbers were due")


def unpack(payload: bytes | memoryview, widths: Whole, shape: tuple[int, int]) -> Whole:
    """The inverse of `pack`: numbers of this shape out of exactly this payload.

    Raises:
        BadPayload: too few bytes or too many, or a number written otherwise than `pack` writes it.
    """
    count = math.prod(shape)
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    runs = max(0, len(bits) - _bits_below(widths, count))  # at most: an escape has more bits than its width
    ends = np.flatnonzero(bits[:runs].view(np.bool_))[:count]
    if len(ends) < count:
        raise BadPayload(f"{len(ends)} numbers where {count} were due")
    zeros = ends.copy()
    zeros[1:] -= ends[:-1] + 1
    at = int(ends[-1]) + 1 if count else 0
    most = int(zeros.max(initial=0))
    if most > _ESCAPE:
        raise BadPayload("a number with too many zeros")
    numbers: Whole = zeros.astype(np.int32).reshape(shape)
    escaped = numbers == _ESCAPE if most == _ESCAPE else None
    numbers <<= widths
    if escaped is not None:
        numbers[escaped] = 0
    for bit, where in _planes(widths, escaped):
        part = numbers[where]
        plane = bits[at : (at := at + part.size)]
        if at > len(bits):
            raise BadPayload("the bits end within a number")
        numbers[where] = part | plane.astype(np.int32).reshape(part.shape) << bit
    if len(bits) - at >= 8 or bits[at:].any():
        raise BadPayload("bits after the last number")
    if escaped is not None and bool(((numbers >> widths < _ESCAPE) & escaped).any()):
        raise BadPayload("a number that had no need of an escape")
    if int(numbers.max(initial=0)) >= 1 << _ESCAPED_BITS:
        raise BadPayload(f"a number beyond {_ESCAPED_BITS} bits")
    return numbers


_FINEST: Final = 0x0080
"""The smallest normal bfloat16, as an integer; steps of growing size are growing integers."""
_COARSEST: Final = 0x7F7F
_OCTAVE: Final = 128
"""A step with an integer larger by so much is twice the step."""
_CLOSE: Final = 64
"""A payload that leaves less than this part of its bits unused is not worth another try."""
_BY_SLOPE: Final = 8
_TRIES: Final = _BY_SLOPE + 30
_ROUNDING: Final = 0.4
Reals = NDArray[np.floating[Any]]


def rounded_up(steps: torch.Tensor) -> torch.Tensor:
    """float32 steps as bfloat16 of no smaller magnitude: no number then needs more steps than planned."""
    return ((steps.view(torch.int32) + 0xFFFF) >> 16).to(torch.int16).view(torch.bfloat16)


def checked(steps: torch.Tensor) -> torch.Tensor:
    """A peer's bfloat16 steps in float32.

    Raises:
        BadPayload: a step is negative, infinite or not a number.
    """
    bits = steps.view(torch.int16)
    if bool((bits < 0).any()) or bool((bits > _COARSEST).any()):
        raise BadPayload("a step that is negative, infinite or not a number")
    return steps.float()


def step_to_bytes(step: float) -> bytes:
    """Two bytes of a step that is a bfloat16."""
    return struct.pack("<f", step)[2:]


def step_from_bytes(payload: bytes | memoryview) -> float:
    """The inverse.

    Raises:
        BadPayload: not two bytes, or no step that `smallest_step_within` gives.
    """
    if len(payload) != 2 or not _FINEST <= (bits := int.from_bytes(payload, "little")) <= _COARSEST:
        raise BadPayload("a step that is no normal positive number")
    return _of(bits)


def smallest_step_within(
    bits_at: Callable[[float], int], limit: int, guess: float, least: float, numbers: int
) -> float:
    """About the finest step at which a payload keeps within its bits: the rate is then a promise, not a mean.

    A step twice as large saves a bit a number, so each try goes by what is missing; three or four are enough. Where
    few of the numbers vary it saves less: the steps then go on ever further until one is within the bits, or beyond.

    Args:
        bits_at: bits of the payload at a step. limit: the most it may have; the coarsest step must keep it.
        guess: where to begin. least: no finer step than this is tried. numbers: how many numbers the payload has.
    """
    low = first = min(max(_FINEST, _bits(least) + 1), _COARSEST) - 1
    high, stride, within = _COARSEST, 0, False
    trial = min(max(_bits(guess), low + 1), high)
    for attempt in range(_TRIES):
        excess = bits_at(_of(trial)) - limit
        if excess > 0:
            low = trial
        else:
            high, within = trial, True
        if high - low <= 1 or 0 <= -excess <= limit // _CLOSE:
            break
        ahead = trial + round(_OCTAVE * excess / numbers)
        if attempt >= _BY_SLOPE or not low < ahead < high:
            if low > first and within:
                ahead = (low + high) // 2
            else:
                ahead = min(low + 2 * stride + 1, high) if excess > 0 else max(high - 2 * stride - 1, low + 1)
        stride, trial = abs(ahead - trial), ahead
    return _of(high)


def levels(numbers: Reals, step: float) -> Whole:
    """Numbers in steps, as whole numbers of at most `LARGEST`.

    Rounded towards zero a little more often than not: what that adds to the error, a finer step for the bits saved
    takes away twice (rate-distortion optimised rounding, as in video coders).
    """
    scaled = numbers / step
    scaled.clip(-LARGEST, LARGEST, out=scaled)
    scaled += _signed(_ROUNDING, scaled)
    found: Whole = scaled.astype(np.int32)
    return found


def _signed(size: float, like: Reals) -> Reals:
    """The size with each number's sign: `np.copysign`, a third of its time."""
    whole = np.dtype(f"u{like.itemsize}")
    sign, bits = np.array([-0.0, size], like.dtype).view(whole)
    signed: Reals = ((like.view(whole) & sign) | bits).view(like.dtype)
    return signed


def _bits(step: float) -> int:
    return int.from_bytes(step_to_bytes(step), "little")


def _of(bits: int) -> float:
    step: float = struct.unpack("<f", struct.pack("<I", bits << 16))[0]
    return step
