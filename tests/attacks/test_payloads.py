"""Any bytes as a payload: a finite tensor of the spec's shape, or an error of the tree."""

import struct

import pytest
import torch
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kvwire.codec import Codec, Int8, Lossless, Raw
from kvwire.codec.base import DTYPES
from kvwire.errors import BadPayload, WireError
from kvwire.segment import SegmentKind, SegmentSpec
from tests.kvwire.samples import CODECS, spec_of, tensor_of, transform_of

EVERY: list[Codec] = [*(CODECS.get(name) for name in CODECS.names()), transform_of()]
specs = st.builds(
    spec_of,
    st.sampled_from(list(SegmentKind)),
    st.integers(0, 6),
    st.sampled_from(list(DTYPES)),
)


def decodes_or_raises(codec: Codec, payload: bytes, spec: SegmentSpec) -> None:
    try:
        tensor = codec.decode(payload, spec)
    except WireError:
        return
    assert (tuple(tensor.shape), tensor.dtype) == (spec.shape, DTYPES[spec.dtype])
    assert bool(torch.isfinite(tensor).all())


@settings(max_examples=300)
@given(codec=st.sampled_from(EVERY), spec=specs, payload=st.binary(max_size=300))
def test_any_bytes_decode_or_are_refused(codec: Codec, spec: SegmentSpec, payload: bytes) -> None:
    decodes_or_raises(codec, payload, spec)


@settings(max_examples=300)
@given(codec=st.sampled_from(EVERY), spec=specs, data=st.data())
def test_any_bytes_of_the_right_size_decode_or_are_refused(
    codec: Codec, spec: SegmentSpec, data: st.DataObject
) -> None:
    size = codec.max_bytes(spec) if codec.name != "lossless" else spec.raw_bytes
    payload = data.draw(st.binary(min_size=size, max_size=size))
    if codec.name == "lossless":
        payload = zstandard.ZstdCompressor(level=1).compress(payload)
    decodes_or_raises(codec, payload, spec)


@settings(max_examples=300)
@given(codec=st.sampled_from(EVERY), spec=specs, data=st.data())
def test_a_valid_payload_with_bytes_changed_decodes_or_is_refused(
    codec: Codec, spec: SegmentSpec, data: st.DataObject
) -> None:
    payload = bytearray(codec.encode(tensor_of(spec), spec))
    changes = st.tuples(st.integers(0, max(0, len(payload) - 1)), st.integers(0, 255))
    for place, value in data.draw(st.lists(changes, max_size=4)) if payload else ():
        payload[place] = value
    decodes_or_raises(codec, bytes(payload), spec)


@pytest.mark.parametrize("codec", EVERY, ids=lambda c: c.name)
@pytest.mark.parametrize("kind", list(SegmentKind))
@pytest.mark.parametrize("positions", [0, 3])
def test_trailing_bytes_and_cut_payloads_are_refused(codec: Codec, kind: SegmentKind, positions: int) -> None:
    spec = spec_of(kind, positions)
    payload = codec.encode(tensor_of(spec), spec)
    for wrong in (payload + b"\0", payload + payload + b"x", *(payload[:i] for i in range(len(payload)))):
        with pytest.raises(BadPayload):
            codec.decode(wrong, spec)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", list(DTYPES))
def test_numbers_that_are_not_finite_are_refused(bad: float, dtype: str) -> None:
    spec = spec_of(SegmentKind.VALUE, 3, dtype)
    tensor = tensor_of(spec)
    tensor[1, 2, 3] = bad
    data = tensor.flatten().view(torch.uint8)
    planes = data.view(-1, tensor.itemsize).t().flatten()
    with pytest.raises(BadPayload):
        Raw().decode(bytes(data.tolist()), spec)
    with pytest.raises(BadPayload):
        Lossless().decode(zstandard.ZstdCompressor(level=1).compress(bytes(planes.tolist())), spec)


@pytest.mark.parametrize("step", [0x7F80, 0x7FC0, 0xFF80, 0xBF80, 0x8000])
def test_a_step_that_is_infinite_not_a_number_or_negative_is_refused(step: int) -> None:
    spec = SegmentSpec(0, SegmentKind.CODE, -1, (1, 4), "float32")
    with pytest.raises(BadPayload):
        Int8().decode(struct.pack("<H4b", step, 1, 0, 0, 0), spec)
    assert Int8().decode(struct.pack("<H4b", 0x3F80, 1, 0, -127, 127), spec).tolist() == [[1, 0, -127, 127]]


def test_a_number_outside_the_codecs_range_is_refused() -> None:
    spec = SegmentSpec(0, SegmentKind.CODE, -1, (1, 4), "float32")
    with pytest.raises(BadPayload):
        Int8().decode(struct.pack("<H4b", 0x3F80, 1, 0, 0, -128), spec)


def test_steps_near_the_end_of_the_range_decode_to_finite_numbers() -> None:
    for dtype in DTYPES:
        spec = SegmentSpec(0, SegmentKind.CODE, -1, (1, 4), dtype)
        tensor = Int8().decode(struct.pack("<H4b", 0x7F7F, 127, -127, 1, 0), spec)
        assert bool(torch.isfinite(tensor).all())
