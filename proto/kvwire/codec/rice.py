"""The entropy stage: whole numbers as bits, in Rice codes (Rice and Plaunt 1971) whose two halves stand apart.

A slice of codes is a few hundred bytes: zstd's frame and tables alone would be a tenth of it, and it would have to
learn from the payload what calibration knows already, how wide each component is. Here a number costs its bits and
nothing else. A number v >= 0 with parameter k is v >> k zeros and a one, then its k lowest bits. All the zeros and
ones come first, so that they are read at once: the places of the ones are the numbers.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvwire.errors import BadPayload

Whole = NDArray[np.int32]

LARGEST: Final = 2**15 - 1
"""Largest magnitude of a signed number."""
_ESCAPE: Final = 15
"""So many zeros stand for any number from there on; its 16 bits follow at the end."""
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
    escaped = zeros >= _ESCAPE
    bits = np.where(escaped, _ESCAPE + 1 + _ESCAPED_BITS, zeros + 1 + widths)
    return int(bits.sum(dtype=np.int64))


def pack(numbers: Whole, widths: Whole) -> bytes:
    """Numbers as bits; the last byte is filled with zeros.

    Args:
        numbers: (n,) of 0 to 2 * LARGEST + 1. widths: (n,), each one's parameter k, 0 to 15.
    """
    zeros = np.minimum(numbers >> widths, _ESCAPE)
    escaped = zeros == _ESCAPE
    ends = np.cumsum(zeros + 1, dtype=np.int64)
    runs = np.zeros(int(ends[-1]) if len(ends) else 0, np.uint8)
    runs[ends - 1] = 1
    widths = np.where(escaped, 0, widths)
    planes = [(numbers[widths > bit] >> bit) & 1 for bit in range(int(widths.max(initial=0)))]
    planes += [(numbers[escaped] >> bit) & 1 for bit in range(_ESCAPED_BITS)]
    return np.packbits(np.concatenate((runs, *planes)).astype(np.uint8, copy=False)).tobytes()


def check_room(payload: bytes | memoryview, numbers: int) -> None:
    """Before anything is allocated for them: each number takes a bit at least.

    Raises:
        BadPayload: there are fewer bits than numbers.
    """
    if numbers > 8 * len(payload):
        raise BadPayload(f"{len(payload)} bytes where {numbers} numbers were due")


def unpack(payload: bytes | memoryview, widths: Whole) -> Whole:
    """The inverse of `pack`: as many numbers as there are widths, out of exactly this payload.

    Raises:
        BadPayload: too few bytes or too many, or a number written otherwise than `pack` writes it.
    """
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    ends = np.flatnonzero(bits)[: len(widths)]
    if len(ends) < len(widths):
        raise BadPayload(f"{len(ends)} numbers where {len(widths)} were due")
    zeros = (np.diff(ends, prepend=-1) - 1).astype(np.int32)
    if int(zeros.max(initial=0)) > _ESCAPE:
        raise BadPayload("a number with too many zeros")
    escaped = zeros == _ESCAPE
    short = np.where(escaped, 0, widths)
    below = [short > bit for bit in range(int(short.max(initial=0)))]
    at = int(ends[-1]) + 1 if len(ends) else 0
    numbers = np.where(escaped, 0, zeros << short)
    for bit, where in [*enumerate(below), *((bit, escaped) for bit in range(_ESCAPED_BITS))]:
        plane = bits[at : at + int(np.count_nonzero(where))]
        at += int(np.count_nonzero(where))
        if at > len(bits):
            raise BadPayload("the bits end within a number")
        numbers[where] |= plane.astype(np.int32) << bit
    if len(bits) - at >= 8 or bits[at:].any():
        raise BadPayload("bits after the last number")
    if bool((numbers[escaped] >> widths[escaped] < _ESCAPE).any()):
        raise BadPayload("a number that had no need of an escape")
    if int(numbers.max(initial=0)) >= 1 << _ESCAPED_BITS:
        raise BadPayload(f"a number beyond {_ESCAPED_BITS} bits")
    return numbers
