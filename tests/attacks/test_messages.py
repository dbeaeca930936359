"""Any bytes as a message: a checked object, or an error; never a crash, never memory spent first."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message
from hypothesis import given, settings
from hypothesis import strategies as st

from kvwire import serde
from kvwire.errors import InvalidRequest, KvwireError, TooLarge, WireError
from kvwire.limits import Limits
from kvwire.messages import check_header
from kvwire.segment import SliceHeader, SliceKind
from kvwire.v1 import sharer_pb2 as pb
from tests.kvwire.samples import FULL_PLAN, description_of, excerpt_header, header_of, request_of, written

LIMITS = Limits()
Reader = Callable[[Any], object]
READERS: list[tuple[type[Message], Reader]] = [
    (pb.ShareRequest, lambda m: serde.share_request_from_proto(m, LIMITS)),
    (pb.ShareResponse, lambda m: serde.share_response_from_proto(m, LIMITS)),
    (pb.RelayRequest, lambda m: serde.relay_request_from_proto(m, LIMITS)),
    (pb.RelayResponse, lambda m: serde.relay_reply_from_proto(m, LIMITS)),
    (pb.DescribeResponse, serde.description_from_proto),
]


def valid_messages() -> list[tuple[type[Message], Reader, bytes]]:
    frames, summary = written(header_of())
    parts = [header_of(), excerpt_header(), frames[0], summary]
    requests = [request_of(kind) for kind in SliceKind] + [replace(request_of(), plan=FULL_PLAN)]
    messages: list[Message] = [serde.share_response_to_proto(part) for part in parts]
    messages += [serde.share_request_to_proto(request) for request in requests]
    messages += [serde.description_to_proto(description_of())]
    readers = dict(READERS)
    return [(type(m), readers[type(m)], m.SerializeToString()) for m in messages]


def reads_or_raises(message: type[Message], read: Reader, data: bytes) -> None:
    try:
        parsed = message.FromString(data)
    except DecodeError:
        return
    try:
        result = read(parsed)
        if isinstance(result, SliceHeader):
            assert result.raw_bytes <= LIMITS.max_slice_bytes
            check_header(result, request_of())
    except KvwireError:
        return


@settings(max_examples=300)
@given(reader=st.sampled_from(READERS), data=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(reader: tuple[type[Message], Reader], data: bytes) -> None:
    reads_or_raises(*reader, data)


@pytest.mark.parametrize("number", range(8))
def test_a_valid_message_with_bytes_changed_is_read_or_refused(number: int) -> None:
    message, read, data = valid_messages()[number]
    chance = random.Random(number)
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
        reads_or_raises(message, read, bytes(changed))
        reads_or_raises(message, read, data[: chance.randrange(len(data))])


def test_a_valid_message_is_read() -> None:
    for message, read, data in valid_messages():
        read(message.FromString(data))


def test_segments_that_add_up_to_too_much_memory_are_refused() -> None:
    message = serde.slice_header_to_proto(header_of(layers=500))
    serde.slice_header_from_proto(message, LIMITS)
    assert not any(segment.shape for segment in message.segments[1:])  # they have the first one's
    message.segments[0].shape[0] = 1 << 18
    with pytest.raises(TooLarge, match="slice bytes"):
        serde.slice_header_from_proto(message, LIMITS)


def test_too_many_segments_and_spans_are_refused() -> None:
    message = serde.slice_header_to_proto(header_of(layers=600))
    with pytest.raises(TooLarge, match="segments"):
        serde.slice_header_from_proto(message, LIMITS)
    with pytest.raises(TooLarge, match="positions"):
        serde.slice_header_from_proto(pb.SliceHeader(tail=2**32 - 1), LIMITS)
    spans = [pb.Span(section=0, start=0, end=1)] * 9_000
    with pytest.raises(TooLarge, match="positions"):
        serde.slice_header_from_proto(pb.SliceHeader(spans=spans), LIMITS)


def test_fields_that_the_wire_does_not_know_change_nothing() -> None:
    secret = b"\xfa\x07\x10" + b"The secret is 42"
    data = serde.share_request_to_proto(request_of()).SerializeToString() + secret
    assert serde.share_request_from_proto(pb.ShareRequest.FromString(data), LIMITS) == request_of()


def test_text_in_a_section_for_the_edge_cannot_be_smuggled_up() -> None:
    message = serde.share_request_to_proto(request_of())
    for number in (0, 3, 99):
        message.sections[0].ClearField("visibility")
        message.sections[0].MergeFromString(b"\x10" + bytes([number]))
        with pytest.raises((WireError, InvalidRequest)):
            serde.share_request_from_proto(message, LIMITS)
