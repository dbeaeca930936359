"""Golden vectors: what version 8 puts on the wire, bit by bit. A change here is a change of the protocol."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kvwire import serde
from kvwire.codec import CodecRegistry, Raw
from kvwire.codec.base import DTYPES
from kvwire.limits import Limits
from kvwire.segment import Certainty, SegmentKind, SegmentSpec, SliceTrailer
from kvwire.slice_io import Frame, Padded, SliceDigest
from kvwire.v1 import sharer_pb2 as pb
from tests.kvwire.samples import CODECS, FULL_PLAN, header_of, request_of, spec_of, transform_of, with_length

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "golden.json").read_text())
LADDER = CodecRegistry([transform_of()])
STREAM = with_length(bytes(range(256)) * 2)
FRAMES = [Frame.of(header_of().request_digest, 5 + i, STREAM[200 * i : 200 * (i + 1)]) for i in range(3)]


def spec_in(vector: dict[str, Any]) -> SegmentSpec:
    kind = SegmentKind(vector["kind"])
    return SegmentSpec(7, kind, vector["layer"], tuple(vector["shape"]), vector["dtype"])


@pytest.mark.parametrize("vector", GOLDEN["payloads"], ids=lambda v: f"{v['codec']}-{v['kind']}-{v['dtype']}")
def test_a_payload_is_what_it_was(vector: dict[str, Any]) -> None:
    codec, spec = LADDER.get(vector["codec"]), spec_in(vector)
    decoded = codec.decode(bytes.fromhex(vector["payload"]), spec)
    assert Raw().encode(decoded, spec).hex() == vector["decoded"]
    tensor = torch.tensor(GOLDEN[vector.get("numbers", "numbers")]).reshape(spec.shape).to(DTYPES[spec.dtype])
    if codec.name == "lossless":  # another zstd may compress otherwise; what it decodes to is fixed
        assert vector["decoded"] == Raw().encode(tensor, spec).hex()
    elif codec.name in ("raw", "int8", "int4"):  # the others may choose another step; decoding is fixed
        assert codec.encode(tensor, spec).hex() == vector["payload"]


def test_the_parameter_hashes_are_what_they_were() -> None:
    assert {codec.name: codec.parameters_hash for codec in LADDER.refs()} == GOLDEN["parameters"]


def test_checksums_digest_and_fingerprint_are_what_they_were() -> None:
    digest = SliceDigest(header_of())
    for frame in FRAMES:
        digest.add(frame)
    assert [f"{frame.checksum:016x}" for frame in FRAMES] == GOLDEN["checksums"]
    assert digest.value().hex() == GOLDEN["digest"]
    assert header_of().fingerprint().hex() == GOLDEN["fingerprint"]


def test_messages_are_what_they_were() -> None:
    timings = {"queue": 0.0, "prefill": 1.5, "encode": 0.25}
    trailer = SliceTrailer(
        bytes.fromhex(GOLDEN["digest"]), 3, 512, 3, timings, Certainty(-1.0, 1.5), 2, 1, 5, 0, 4
    )
    for name, part in (("header", header_of()), ("frame", FRAMES[-1]), ("trailer", trailer)):
        message = serde.share_response_to_proto(part)  # type: ignore[arg-type]
        assert message.SerializeToString(deterministic=True).hex() == GOLDEN["messages"][name]
        read = pb.ShareResponse.FromString(bytes.fromhex(GOLDEN["messages"][name]))
        assert serde.share_response_from_proto(read, Limits()) == part
    planned = replace(request_of(), plan=FULL_PLAN, max_bytes=1024)
    for name, request in (("request", request_of()), ("planned request", planned)):
        message = serde.share_request_to_proto(request)
        assert message.SerializeToString(deterministic=True).hex() == GOLDEN["messages"][name]
        assert request.digest().hex() == GOLDEN["request digests"][name]


def test_a_padded_payload_is_what_it_was() -> None:
    spec, padded = spec_of(SegmentKind.CODE, 1), Padded(CODECS.get("raw"))
    payload = padded.encode(torch.tensor([GOLDEN["numbers"]]), spec)
    assert payload.hex() == GOLDEN["padded"] and len(payload) == 36
