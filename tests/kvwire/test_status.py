"""Errors across a real server and a real channel."""

from collections.abc import AsyncIterator, Callable

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from kvwire.errors import (
    CATALOGUE,
    AccessDenied,
    Busy,
    Draining,
    ExposureSpent,
    IncompatiblePeer,
    InternalError,
    KvwireError,
    NotFound,
    TooLarge,
    Unreachable,
)
from kvwire.status import from_rpc_error, to_grpc
from tests.kvwire.test_errors import every_error, sample

Call = Callable[[BaseException], "object"]


class Raises(grpc.GenericRpcHandler):
    """Every method aborts with one error."""

    def __init__(self) -> None:
        self.error: BaseException = KvwireError()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        async def abort(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            status = to_grpc(self.error)
            await context.abort(status.code, status.details, status.trailing_metadata)
            return b""

        return grpc.unary_unary_rpc_method_handler(abort)


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    handler = Raises()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async def fail(error: BaseException) -> tuple[KvwireError, grpc.aio.AioRpcError]:
        handler.error = error
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/kvwire.v1.SharerService/Any")(b"", timeout=10)
        return from_rpc_error(caught.value), caught.value

    yield fail
    await server.stop(0)


@pytest.mark.parametrize("error", every_error())
async def test_an_error_keeps_its_class_and_metadata_across_the_wire(
    call: Call, error: type[KvwireError]
) -> None:
    sent = sample(error)
    got, raw = await call(sent)
    assert type(got) is error
    assert got.metadata() == sent.metadata()
    assert raw.details() == sent.public_text
    assert raw.code().name == CATALOGUE[error].status


@pytest.mark.parametrize("error", [Busy, Draining, ExposureSpent])
async def test_when_to_try_again_is_told(call: Call, error: type[Busy | Draining | ExposureSpent]) -> None:
    got, raw = await call(error(2.5))
    assert got.retry_after_s == 2.5
    status = status_pb2.Status.FromString(dict(raw.trailing_metadata())["grpc-status-details-bin"])
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert retry.retry_delay.ToMilliseconds() == 2_500


async def test_details_stay_at_home(call: Call) -> None:
    _, raw = await call(AccessDenied("tenant acme may not read note-canary"))
    assert b"canary" not in dict(raw.trailing_metadata())["grpc-status-details-bin"]
    assert "canary" not in raw.details()


async def test_an_exception_outside_the_tree_is_internal_and_says_nothing(call: Call) -> None:
    got, raw = await call(RuntimeError("the canary sings"))
    assert type(got) is InternalError
    assert "canary" not in str(raw)


async def test_an_unknown_document_and_a_foreign_one_look_the_same(call: Call) -> None:
    _, unknown = await call(NotFound("no document note-9"))
    _, foreign = await call(NotFound("note-1 belongs to another tenant"))
    assert (unknown.code(), unknown.details()) == (foreign.code(), foreign.details())
    assert list(unknown.trailing_metadata()) == list(foreign.trailing_metadata())


async def test_no_server_is_unreachable() -> None:
    async with grpc.aio.insecure_channel("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/kvwire.v1.SharerService/Any")(b"", timeout=10)
    assert type(from_rpc_error(caught.value)) is Unreachable


async def test_a_message_that_grpc_finds_too_large_names_both_sizes(call: Call) -> None:
    handler = Raises()
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", 100)])
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/kvwire.v1.SharerService/Any")(bytes(1000), timeout=10)
    await server.stop(0)
    got = from_rpc_error(caught.value)
    assert isinstance(got, TooLarge)
    assert (got.size, got.limit) == (1000, 100)


class Failed:
    """A failed call as an attacker's server would make it."""

    def __init__(self, code: grpc.StatusCode, trailers: object) -> None:
        self._code, self._trailers = code, trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "details"

    def trailing_metadata(self) -> object:
        return self._trailers


@pytest.mark.parametrize("trailers", [None, [("grpc-status-details-bin", b"\xff\xff")], [("other", "x")]])
def test_trailers_that_cannot_be_read_leave_the_status_code(trailers: object) -> None:
    assert type(from_rpc_error(Failed(grpc.StatusCode.NOT_FOUND, trailers))) is NotFound


def test_a_reason_that_does_not_fit_the_status_code_is_not_believed() -> None:
    trailers = to_grpc(IncompatiblePeer("codec", "a", "b")).trailing_metadata
    assert type(from_rpc_error(Failed(grpc.StatusCode.NOT_FOUND, trailers))) is NotFound
    assert type(from_rpc_error(Failed(grpc.StatusCode.FAILED_PRECONDITION, trailers))) is IncompatiblePeer


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN])
def test_a_fault_that_no_cloud_of_ours_names_is_the_links(code: grpc.StatusCode) -> None:
    got = from_rpc_error(Failed(code, None))
    assert type(got) is Unreachable and got.detail == f"{code.name}: details"
    ours = to_grpc(IncompatiblePeer("codec", "a", "b")).trailing_metadata
    assert type(from_rpc_error(Failed(code, ours))) is InternalError


def test_every_status_code_becomes_an_error_of_the_tree() -> None:
    assert all(isinstance(from_rpc_error(Failed(code, None)), KvwireError) for code in grpc.StatusCode)
