"""Steps: how far apart two numbers are that a codec tells apart. On the wire they are bfloat16."""

import struct
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from kvwire.codec.rice import LARGEST, Whole
from kvwire.errors import BadPayload

_FINEST: Final = 0x0080
"""The smallest normal bfloat16, as an integer; steps of growing size are growing integers."""
_COARSEST: Final = 0x7F7F
_OCTAVE: Final = 128
"""A step with an integer larger by so much is twice the step."""
_CLOSE: Final = 64
"""A payload that leaves less than this part of its bits unused is not worth another try."""
_BY_SLOPE: Final = 8
_TRIES: Final = _BY_SLOPE + 15
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

    A step twice as large saves a bit a number, so each try goes by what is missing; three or four are enough.

    Args:
        bits_at: bits of the payload at a step. limit: the most it may have; the coarsest step must keep it.
        guess: where to begin. least: no finer step than this is tried. numbers: how many numbers the payload has.
    """
    low = min(max(_FINEST, _bits(least) + 1), _COARSEST) - 1
    high = _COARSEST
    trial = min(max(_bits(guess), low + 1), high)
    for attempt in range(_TRIES):
        excess = bits_at(_of(trial)) - limit
        if excess > 0:
            low = trial
        else:
            high = trial
        if high - low <= 1 or 0 <= -excess <= limit // _CLOSE:
            break
        ahead = trial + round(_OCTAVE * excess / numbers)
        trial = ahead if attempt < _BY_SLOPE and low < ahead < high else (low + high) // 2
    return _of(high)


def levels(numbers: Reals, step: float) -> Whole:
    """Numbers in steps, as whole numbers of at most `LARGEST`.

    Rounded towards zero a little more often than not: what that adds to the error, a finer step for the bits saved
    takes away twice (rate-distortion optimised rounding, as in video coders).
    """
    scaled = numbers / step
    whole = np.trunc(scaled + np.copysign(_ROUNDING, scaled))
    found: Whole = np.clip(whole, -LARGEST, LARGEST).astype(np.int32)
    return found


def _bits(step: float) -> int:
    return int.from_bytes(step_to_bytes(step), "little")


def _of(bits: int) -> float:
    step: float = struct.unpack("<f", struct.pack("<I", bits << 16))[0]
    return step
