import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvwire.codec.rice import LARGEST, Whole, count_bits, folded, pack, unfolded, unpack
from kvwire.errors import BadPayload

PAIRS = st.lists(
    st.tuples(st.integers(-LARGEST, LARGEST) | st.integers(-3, 3), st.integers(0, 15)), max_size=60
)


def arrays(pairs: list[tuple[int, int]]) -> tuple[Whole, Whole]:
    numbers, widths = (np.array([pair[i] for pair in pairs], np.int32).reshape(-1, 1) for i in range(2))
    return folded(numbers), widths


@given(PAIRS)
def test_what_was_packed_is_unpacked_and_its_bits_were_counted(pairs: list[tuple[int, int]]) -> None:
    numbers, widths = arrays(pairs)
    payload = pack(numbers, widths)
    assert len(payload) == -(-count_bits(numbers, widths) // 8)
    assert unpack(payload, widths, (len(pairs), 1)).tolist() == numbers.tolist()
    assert unfolded(numbers).tolist() == [[number] for number, _ in pairs]


@given(PAIRS.filter(len), st.binary(max_size=40))
def test_any_bytes_unpack_to_numbers_that_pack_to_them_or_are_refused(
    pairs: list[tuple[int, int]], payload: bytes
) -> None:
    _, widths = arrays(pairs)
    try:
        numbers = unpack(payload, widths, (len(pairs), 1))
    except BadPayload:
        return
    assert pack(numbers, widths) == payload


def test_the_bits_are_those_of_the_definition() -> None:
    payload = pack(np.array([[5, 0, 2]], np.int32).T, np.array([[1, 0, 2]], np.int32).T)
    # ends: 5 >> 1 = 2 zeros, no zero, no zero; then bit 0 of 5 and of 2, then bit 1 of 2
    assert payload == bytes([0b00111101])


def test_a_large_number_costs_at_most_four_bytes() -> None:
    assert count_bits(np.array([[2 * LARGEST]], np.int32), np.zeros((1, 1), np.int32)) == 32


def test_normal_numbers_cost_little_more_than_their_entropy() -> None:
    drawn = np.random.default_rng(1).normal(size=20_000) * 2.0
    numbers = np.round(drawn).astype(np.int32)
    entropy = np.log2(2.0 * np.sqrt(2 * np.pi * np.e))
    bits = count_bits(folded(numbers)[:, None], np.ones((1, 1), np.int32)) / len(numbers)
    assert entropy < bits < entropy + 0.2


@pytest.mark.parametrize("payload", [b"\xff\x00", b"\x00", b"", b"\x00\x00\x00\x00\x80", b"\xc1"])
def test_bytes_that_are_no_two_numbers_are_refused(payload: bytes) -> None:
    with pytest.raises(BadPayload):
        unpack(payload, np.zeros((1, 2), np.int32), (1, 2))
