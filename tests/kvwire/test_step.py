import math
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvwire.codec.rice import levels, rounded_up, smallest_step_within, step_from_bytes, step_to_bytes
from kvwire.errors import BadPayload


@given(st.floats(min_value=0, max_value=2**126, width=32))
def test_a_step_is_rounded_up_by_less_than_a_hundredth(number: float) -> None:
    step = float(rounded_up(torch.tensor(number)))
    assert number <= step <= max(number * (1 + 2**-7), 1e-38)


@given(st.integers(0x0080, 0x7F7F))
def test_a_step_survives_the_wire(bits: int) -> None:
    step = struct.unpack("<f", struct.pack("<I", bits << 16))[0]
    assert step_from_bytes(step_to_bytes(step)) == step


@pytest.mark.parametrize("bits", [0, 0x7F, 0x7F80, 0x7FC0, 0x8000, 0xBF80, 0xFFFF])
def test_a_step_that_is_zero_tiny_negative_infinite_or_no_number_is_refused(bits: int) -> None:
    with pytest.raises(BadPayload):
        step_from_bytes(bits.to_bytes(2, "little"))
    with pytest.raises(BadPayload):
        step_from_bytes(b"\x80\x3f\x00")


@given(
    spread=st.floats(1e-20, 1e20),
    guess=st.floats(1e-30, 1e30),
    rate=st.floats(0.5, 12),
    count=st.integers(1, 10_000),
)
def test_the_finest_step_keeps_to_the_limit_and_nearly_uses_it(
    spread: float, guess: float, rate: float, count: int
) -> None:
    def bits_at(step: float) -> int:
        return math.ceil(count * max(0.0, math.log2(spread / step) + 2))

    limit = int(rate * count)
    step = smallest_step_within(bits_at, limit, guess, 0.0, count)
    assert bits_at(step) <= limit
    assert bits_at(step * (1 - 2**-5)) > limit * (1 - 1 / 32) - 2


def test_a_step_a_little_too_fine_is_followed_by_the_next_coarser_ones() -> None:
    """A rounded stride of nothing once sent the search half the way to the coarsest step there is."""
    tried: list[float] = []

    def bits_at(step: float) -> int:
        tried.append(step)
        return math.ceil(10_000 * (2 - math.log2(step)))

    step = smallest_step_within(bits_at, bits_at(1.0) - 30, 1.0, 0.0, 10_000)
    assert tried[1:] == [1.0, 1 + 2**-7] and step == 1 + 2**-7


def test_no_step_is_finer_than_the_least() -> None:
    step = smallest_step_within(lambda step: 0, 8, 1.0, 0.3, 1)
    assert 0.3 <= step < 0.31 or step == 1.0


def test_levels_are_whole_steps_a_little_nearer_to_zero() -> None:
    numbers = np.array([0.0, 0.55, 0.65, -0.55, -0.65, 9.0, 1e9])
    assert levels(numbers, 1.0).tolist() == [0, 0, 1, 0, -1, 9, 32767]
