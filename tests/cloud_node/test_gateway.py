"""Bad input against a real cloud node: each its own clear error within a second, and the next request works."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kvwire import PROTOCOL_VERSION
from kvwire.errors import (
    AccessDenied,
    BadHeader,
    IncompatiblePeer,
    InvalidRequest,
    KvwireError,
    MissingDeadline,
    NotFound,
    TooLarge,
    Unreachable,
)
from kvwire.identity import ModelRef, TlsFiles
from kvwire.messages import ShareRequest
from kvwire.plan import Plan
from kvwire.serde import share_request_to_proto
from kvwire.status import from_rpc_error
from kvwire.v1 import sharer_pb2
from kvwire.v1.sharer_pb2_grpc import SharerServiceStub
from ops.certs import Certificates, make_certificates
from tests.cloud_fixture import CloudNode
from tests.tls import channel_credentials

QUESTION = "Who keeps the spare key?"


@contextmanager
def within_a_second_then_works(cloud: CloudNode) -> Iterator[None]:
    start = time.monotonic()
    yield
    assert time.monotonic() - start < 1.0
    assert len(cloud.share(cloud.request("note-1", QUESTION))) == 3


def other(text: str) -> str:
    return ("0" if text[0] != "0" else "1") + text[1:]


BAD: dict[str, tuple[Callable[[ShareRequest], dict[str, Any]], type[KvwireError], str]] = {
    "bundle": (lambda r: {"bundle_hash": other(r.bundle_hash)}, IncompatiblePeer, "bundle hash"),
    "version": (lambda r: {"protocol_version": 1}, IncompatiblePeer, "protocol version"),
    "sharer": (lambda r: {"sharer": ModelRef("x", r.sharer.revision)}, IncompatiblePeer, "Sharer"),
    "revision": (lambda r: {"sharer": ModelRef(r.sharer.name, "0")}, IncompatiblePeer, "Sharer"),
    "codec": (lambda r: {"plan": Plan(codec="morse")}, IncompatiblePeer, "codec"),
    "codec hash": (
        lambda r: {"codec_hash": other(r.codec_hash)},
        IncompatiblePeer,
        "parameters of codec raw",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_handshake_that_fails_names_both_values(cloud: CloudNode, name: str) -> None:
    change, expected, field = BAD[name]
    good = cloud.request("note-1", QUESTION)
    bad = dataclasses.replace(good, **change(good))
    with within_a_second_then_works(cloud), pytest.raises(expected) as error:
        cloud.share(bad)
    assert isinstance(error.value, IncompatiblePeer)
    assert error.value.field == field
    assert error.value.edge != error.value.cloud and error.value.edge and error.value.cloud


def test_unknown_and_foreign_documents_get_the_same_answer(cloud: CloudNode) -> None:
    answers = []
    for document_id in ("nobodys", "foreign", "no id at all", "x" * 256):
        with cloud.channel() as channel, within_a_second_then_works(cloud):
            stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
            with pytest.raises(grpc.RpcError) as error:
                list(stub.Share(share_request_to_proto(cloud.request(document_id, QUESTION)), timeout=5))
            answers.append((error.value.code(), error.value.details(), error.value.trailing_metadata()))
            assert isinstance(from_rpc_error(error.value), NotFound)
    assert len(set(map(str, answers))) == 1


def test_a_foreign_document_is_its_owners(cloud: CloudNode) -> None:
    assert len(cloud.share(cloud.request("foreign", QUESTION), tenant="other")) == 3


@pytest.mark.parametrize(
    ("document_id", "question", "what"),
    [("note-1", "x" * 8_193, "question characters"), ("too-long", QUESTION, "prompt tokens")],
)
def test_an_oversized_prompt_is_refused(cloud: CloudNode, document_id: str, question: str, what: str) -> None:
    with within_a_second_then_works(cloud), pytest.raises(TooLarge) as error:
        cloud.share(cloud.request(document_id, question))
    assert error.value.what == what


def test_a_call_without_a_deadline_is_refused(cloud: CloudNode) -> None:
    with cloud.channel() as channel, within_a_second_then_works(cloud):
        stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
        for call in (
            lambda: list(stub.Share(share_request_to_proto(cloud.request("note-1", QUESTION)))),
            lambda: stub.Describe(sharer_pb2.DescribeRequest(protocol_version=PROTOCOL_VERSION)),
        ):
            with pytest.raises(grpc.RpcError) as error:
                call()
            assert isinstance(from_rpc_error(error.value), MissingDeadline)


def test_an_unknown_version_is_refused_by_describe(cloud: CloudNode) -> None:
    with cloud.channel() as channel, within_a_second_then_works(cloud):
        stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
        with pytest.raises(grpc.RpcError) as error:
            stub.Describe(sharer_pb2.DescribeRequest(protocol_version=9), timeout=5)
    refused = from_rpc_error(error.value)
    assert isinstance(refused, IncompatiblePeer) and (refused.cloud, refused.edge) == (
        str(PROTOCOL_VERSION),
        "9",
    )


def test_bytes_that_are_no_request_are_refused(cloud: CloudNode) -> None:
    whole = share_request_to_proto(cloud.request("note-1", QUESTION)).SerializeToString()
    for raw in (b"", b"\xff" * 40, whole[:-9]):
        with cloud.channel() as channel, within_a_second_then_works(cloud):
            share = channel.unary_stream("/kvwire.v1.SharerService/Share")
            with pytest.raises(grpc.RpcError) as error:
                list(share(raw, timeout=5))
            assert isinstance(from_rpc_error(error.value), IncompatiblePeer | BadHeader)


def test_a_used_request_id_is_refused(cloud: CloudNode) -> None:
    request = cloud.request("note-1", QUESTION)
    cloud.share(request)
    with within_a_second_then_works(cloud), pytest.raises(InvalidRequest):
        cloud.share(request)


def test_no_certificate_gets_no_connection(cloud: CloudNode) -> None:
    with within_a_second_then_works(cloud), pytest.raises(Unreachable):
        describe(cloud.channel(tenant=None))


def test_a_foreign_certificate_gets_no_connection(cloud: CloudNode, tmp_path: Path) -> None:
    theirs = make_certificates(tmp_path / "tls", ["acme"])
    with within_a_second_then_works(cloud), pytest.raises(Unreachable):
        describe(channel_with(cloud, theirs.edges["acme"], cloud.certificates))


def test_plain_text_gets_no_connection(cloud: CloudNode) -> None:
    with within_a_second_then_works(cloud), pytest.raises(Unreachable):
        describe(grpc.insecure_channel(cloud.address))


def test_a_clouds_certificate_is_no_edges(cloud: CloudNode) -> None:
    channel = channel_with(cloud, cloud.certificates.cloud, cloud.certificates)
    with within_a_second_then_works(cloud), pytest.raises((AccessDenied, Unreachable)):
        describe(channel)


def test_health_is_told_to_check_and_watch(cloud: CloudNode) -> None:
    serving = health_pb2.HealthCheckResponse.SERVING
    with cloud.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "kvwire.v1.SharerService"):
            request = health_pb2.HealthCheckRequest(service=name)
            assert stub.Check(request, timeout=5).status == serving
            watch = stub.Watch(request, timeout=5)
            assert next(watch).status == serving
            watch.cancel()
        with pytest.raises(grpc.RpcError) as error:
            stub.Check(health_pb2.HealthCheckRequest(service="nobody"), timeout=5)
        assert error.value.code() is grpc.StatusCode.NOT_FOUND


def channel_with(cloud: CloudNode, pair: Any, authority: Certificates) -> grpc.Channel:
    files = TlsFiles(pair.certificate, pair.key, authority.ca.certificate)
    return grpc.secure_channel(cloud.address, channel_credentials(files))


def describe(channel: grpc.Channel) -> None:
    with channel:
        stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
        try:
            stub.Describe(sharer_pb2.DescribeRequest(protocol_version=PROTOCOL_VERSION), timeout=5)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from None
