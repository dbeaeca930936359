"""gRPC's interoperability cases, as far as they say anything of our methods, by a plain client over a real connection.

Others of the list are elsewhere: streams both ways and compression are not ours; TLS and identities stand in
test_gateway and test_door, drain in test_service.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from cloud_node import gateway
from kvwire import PROTOCOL_VERSION
from kvwire.errors import CATALOGUE, IncompatiblePeer, KvwireError, NotFound
from kvwire.segment import SliceKind
from kvwire.serde import share_request_to_proto
from kvwire.status import from_rpc_error
from kvwire.v1 import sharer_pb2 as pb
from tests.cloud_node.conftest import LocalCloud, Start

QUESTION = "Who keeps the spare key?"
SERVICE = "/kvwire.v1.SharerService"
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n"
DESCRIBE = pb.DescribeRequest(protocol_version=PROTOCOL_VERSION).SerializeToString()
Case = Callable[[LocalCloud, grpc.aio.Channel], Awaitable[Any]]


def message(cloud: LocalCloud, document: str = "note-1", **changes: Any) -> bytes:
    """A Share that this cloud serves."""
    return share_request_to_proto(cloud.request(document, QUESTION, **changes)).SerializeToString()


def share(cloud: LocalCloud, channel: grpc.aio.Channel, sent: bytes | None = None, **how: Any) -> Any:
    sent = message(cloud) if sent is None else sent
    return channel.unary_stream(f"{SERVICE}/Share")(sent, **{"timeout": 20} | how)


def describe(channel: grpc.aio.Channel, sent: bytes = DESCRIBE, **how: Any) -> Any:
    return channel.unary_unary(f"{SERVICE}/Describe")(sent, **{"timeout": 20} | how)


async def empty(cloud: LocalCloud, channel: grpc.aio.Channel) -> None:
    await describe(channel, b"")


async def empty_of_a_stream(cloud: LocalCloud, channel: grpc.aio.Channel) -> None:
    await share(cloud, channel, b"").read()


async def large(cloud: LocalCloud, channel: grpc.aio.Channel) -> None:
    """Over the service's own cap, and below that of the transport."""
    most = cloud.description.limits.max_request_bytes
    await share(
        cloud, channel, message(cloud) + pb.ShareRequest(request_id=bytes(most)).SerializeToString()
    ).read()


async def larger(cloud: LocalCloud, channel: grpc.aio.Channel) -> None:
    await share(cloud, channel, bytes(4 * cloud.description.limits.max_request_bytes + 1)).read()


async def large_metadata(cloud: LocalCloud, channel: grpc.aio.Channel) -> None:
    await describe(channel, metadata=(("x-large", "x" * 100_000),))


async def cancel_after_begin(cloud: LocalCloud, channel: grpc.aio.Channel) -> None:
    call = share(cloud, channel, message(cloud, "slow"))
    call.cancel()
    await call.code()
    raise from_call(call, await call.code())


async def cancel_after_first_response(cloud: LocalCloud, channel: grpc.aio.Channel) -> None:
    call = share(cloud, channel, message(cloud, "slow", kind=SliceKind.SHARED))
    assert pb.ShareResponse.FromString(await call.read()).WhichOneof("part") == "header"
    call.cancel()
    raise from_call(call, await call.code())


async def timeout_on_sleeping_server(cloud: LocalCloud, channel: grpc.aio.Channel) -> None:
    async def asleep(*_: Any) -> AsyncIterator[Any]:
        await asyncio.sleep(30)
        yield

    cloud.replicas.share = asleep  # type: ignore[method-assign]
    began = time.monotonic()
    try:
        await share(cloud, channel, timeout=0.5).read()
    finally:
        assert time.monotonic() - began < 3.0


async def unimplemented_method(cloud: LocalCloud, channel: grpc.aio.Channel) -> None:
    await channel.unary_unary(f"{SERVICE}/Whisper")(b"", timeout=20)


async def unimplemented_service(cloud: LocalCloud, channel: grpc.aio.Channel) -> None:
    await channel.unary_unary("/kvwire.v9.Unknown/Share")(b"", timeout=20)


async def no_path(cloud: LocalCloud, channel: grpc.aio.Channel) -> None:
    await channel.unary_unary("Share")(b"", timeout=20)


def from_call(call: Any, code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


ENDS: dict[Case, str] = {
    empty: "FAILED_PRECONDITION",
    empty_of_a_stream: "FAILED_PRECONDITION",
    large: "INVALID_ARGUMENT",
    larger: "RESOURCE_EXHAUSTED",
    large_metadata: "RESOURCE_EXHAUSTED",
    cancel_after_begin: "CANCELLED",
    cancel_after_first_response: "CANCELLED",
    timeout_on_sleeping_server: "DEADLINE_EXCEEDED",
    unimplemented_method: "UNIMPLEMENTED",
    unimplemented_service: "UNIMPLEMENTED",
    no_path: "UNIMPLEMENTED",
}


@pytest.mark.parametrize("case", ENDS, ids=lambda case: case.__name__)
async def test_each_case_ends_with_its_status_and_leaves_the_connection_as_it_was(
    start_local: Start, case: Case
) -> None:
    cloud = await start_local()
    async with cloud.channel() as channel:
        with pytest.raises(grpc.RpcError) as error:
            await case(cloud, channel)
        assert error.value.code().name == ENDS[case], error.value.details()
        assert isinstance(from_rpc_error(error.value), KvwireError)
        assert PROTOCOL_VERSION in pb.DescribeResponse.FromString(await describe(channel)).protocol_versions
    await nothing_is_held(cloud)


async def nothing_is_held(cloud: LocalCloud) -> None:
    async with asyncio.timeout(10):
        while cloud.service._in_flight or cloud.service._turns._under_way:
            await asyncio.sleep(0.02)


async def test_a_status_has_the_catalogues_code_and_message(start_local: Start) -> None:
    cloud = await start_local()
    async with cloud.channel() as channel:
        with pytest.raises(grpc.RpcError) as error:
            await share(cloud, channel, message(cloud, "no-such-note")).read()
    entry = CATALOGUE[NotFound]
    assert (error.value.code().name, error.value.details()) == (entry.status, entry.text)
    assert type(from_rpc_error(error.value)) is NotFound


async def test_special_characters_of_a_status_arrive_as_they_were(start_local: Start) -> None:
    cloud = await start_local()

    async def incompatible(*_: Any) -> AsyncIterator[Any]:
        raise IncompatiblePeer("bundle hash", SPECIAL, SPECIAL[::-1])
        yield

    cloud.replicas.share = incompatible  # type: ignore[method-assign]
    with pytest.raises(IncompatiblePeer) as error:
        await cloud.share(cloud.request("note-1", QUESTION))
    assert (error.value.cloud, error.value.edge) == (SPECIAL, SPECIAL[::-1])


async def test_metadata_of_a_callers_own_changes_nothing_and_is_not_given_back(start_local: Start) -> None:
    cloud = await start_local()
    own = (
        ("x-grpc-test-echo-initial", "test_initial_metadata_value"),
        ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"),
        ("traceparent", "00-nonsense"),
    )
    async with cloud.channel() as channel:
        call = share(cloud, channel, metadata=own)
        assert len([reply async for reply in call]) == 3
        given = {key for key, _ in (*await call.initial_metadata(), *await call.trailing_metadata())}
    assert not given & {key for key, _ in own}


async def test_calls_go_on_over_connections_that_the_cloud_closes_by_their_age(
    start_local: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "_AGE_MS", 200)
    cloud = await start_local()
    async with cloud.channel() as channel:
        end, calls = time.monotonic() + 1.5, 0
        while time.monotonic() < end:
            assert len([reply async for reply in share(cloud, channel)]) == 3
            calls += 1
    assert calls > 3
