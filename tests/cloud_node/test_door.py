"""The door of the gateway: what callers that never say anything, or say too much, cost the others."""

import asyncio
import contextlib
import dataclasses
import json
import socket
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud_node import access, gateway
from cloud_node.audit_chain import verify
from cloud_node.config import CloudConfig, ExportPolicy, GatewayConfig
from cloud_node.documents import Documents
from cloud_node.service import SharerService
from kvwire.errors import (
    AccessDenied,
    AuditUnavailable,
    Busy,
    DeadlineExceeded,
    ExportDenied,
    InvalidRequest,
    NotFound,
    TooLarge,
)
from kvwire.identity import TlsFiles
from kvwire.section import Role, Section, Visibility
from kvwire.serde import share_request_to_proto
from kvwire.status import from_rpc_error
from ops.certs import Certificates, KeyPair, _Authority
from tests.cloud_node.conftest import Start
from tests.cloud_node.test_audit import full_disk
from tests.tls import channel_credentials

QUESTION = "Who keeps the spare key?"
MARK = "zebra-canary-7731"
SHARE = "/kvwire.v1.SharerService/Share"


def channel_of(certificates: Certificates, address: str, tenant: str, **options: Any) -> grpc.aio.Channel:
    pair, ca = certificates.edges[tenant], certificates.ca
    credentials = channel_credentials(TlsFiles(pair.certificate, pair.key, ca.certificate))
    # A connection of its own for each channel, as separate hosts have.
    return grpc.aio.secure_channel(address, credentials, options=[("grpc.use_local_subchannel_pool", 1)])


@contextlib.asynccontextmanager
async def silent_streams(channel: grpc.aio.Channel, count: int, **call: Any) -> AsyncIterator[list[Any]]:
    """Streams of Share that are opened and never say what they want."""
    streams = [channel.stream_stream(SHARE)(**call) for _ in range(count)]
    await asyncio.sleep(0.5)
    try:
        yield streams
    finally:
        for stream in streams:
            stream.cancel()


async def told(stream: Any) -> Any:
    with pytest.raises(grpc.RpcError) as error:
        while (await stream.read()) is not grpc.aio.EOF:
            pass
    return from_rpc_error(error.value)


async def test_streams_whose_message_never_comes_keep_no_other_tenant_out(
    start_local: Start, certificates: Certificates, config: CloudConfig
) -> None:
    Documents(config.documents).add("other", "theirs", "The meeting moved to Thursday.")
    cloud = await start_local()
    async with (
        channel_of(certificates, cloud.address, "acme") as acme,
        channel_of(certificates, cloud.address, "other") as other,
        silent_streams(acme, 60, timeout=30) as streams,
    ):
        call = other.unary_stream(SHARE)(
            share_request_to_proto(cloud.request("theirs", QUESTION)).SerializeToString(), timeout=10
        )
        assert len([reply async for reply in call]) == 3
        refused = [stream for stream in streams if stream.done()]
        assert len(refused) == 60 - GatewayConfig().max_calls_per_tenant
        assert isinstance(await told(refused[0]), Busy)


async def test_a_stream_ends_when_its_message_does_not_come_in_time(
    start_local: Start, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_MESSAGE_S", 0.3)
    cloud = await start_local()
    async with (
        channel_of(certificates, cloud.address, "acme") as acme,
        silent_streams(acme, 1, timeout=30) as (stream,),
    ):
        assert isinstance(await told(stream), DeadlineExceeded)
    lines = [json.loads(line) for line in cloud.audit.read_text().splitlines()]
    assert [(line["tenant"], line["decision"]) for line in lines] == [("acme", "DEADLINE_EXCEEDED")]


async def test_a_stream_without_a_deadline_is_refused_before_its_message(
    start_local: Start, certificates: Certificates
) -> None:
    cloud = await start_local()
    async with (
        channel_of(certificates, cloud.address, "acme") as acme,
        silent_streams(acme, 1) as (stream,),
    ):
        assert stream.done()
        assert "MISSING_DEADLINE" in str(await told_raw(stream))


async def test_a_call_whose_refusal_takes_long_is_refused_once(
    start_local: Start,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = asyncio.Event()

    async def slow(service: Any, request: Any, context: Any) -> None:
        try:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "first")
        finally:
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()

    monkeypatch.setattr(access, "_AFTER_S", 0.0)
    monkeypatch.setattr(SharerService, "Describe", slow)
    cloud = await start_local()
    async with channel_of(certificates, cloud.address, "acme") as acme:
        with pytest.raises(grpc.RpcError):
            await acme.unary_unary("/kvwire.v1.SharerService/Describe")(b"", timeout=0.3)
        await asyncio.wait_for(ended.wait(), 10)
    await cloud.gateway.drain()
    assert "UsageError" not in caplog.text


async def told_raw(stream: Any) -> Any:
    with pytest.raises(grpc.RpcError) as error:
        await stream.read()
    return error.value.trailing_metadata()


async def test_a_certificate_without_an_identity_gets_no_further_than_the_first_look(
    start_local: Start, certificates: Certificates, tmp_path: Path
) -> None:
    cloud = await start_local()
    pair = KeyPair(tmp_path / "nobody.pem", tmp_path / "nobody.key")
    usage = ExtendedKeyUsageOID.CLIENT_AUTH
    _Authority.make(certificates.ca, 1, False).issue(pair, "spiffe://elsewhere/x", (), usage, 1, False)
    credentials = channel_credentials(TlsFiles(pair.certificate, pair.key, certificates.ca.certificate))
    async with (
        grpc.aio.secure_channel(cloud.address, credentials) as nobody,
        silent_streams(nobody, 90, timeout=30) as streams,
    ):
        async with asyncio.timeout(10):  # long before their own deadline
            await asyncio.gather(*(stream.code() for stream in streams))
        assert isinstance(await told(streams[0]), AccessDenied)
        assert len(await cloud.share(cloud.request("note-1", QUESTION))) == 3


async def test_what_nobody_foresaw_at_the_door_is_told_as_internal_without_a_word_of_it(
    start_local: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(pem: bytes) -> None:
        raise RuntimeError(MARK)

    cloud = await start_local()
    monkeypatch.setattr(access, "_identity_of", broken)
    async with cloud.channel() as channel:
        for method in (SHARE, "/not/listed"):
            with pytest.raises(grpc.RpcError) as error:
                await channel.unary_unary(method)(b"", timeout=10)
            assert error.value.code() is grpc.StatusCode.INTERNAL
            assert MARK not in error.value.details() + caplog.text
    assert caplog.text.count("RuntimeError in a call") == 2


async def test_watchers_of_health_take_no_call_its_place(
    start_local: Start, certificates: Certificates
) -> None:
    cloud = await start_local()
    async with channel_of(certificates, cloud.address, "acme") as channel:
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        watches = [health.Watch(health_pb2.HealthCheckRequest()) for _ in range(90)]
        first = await asyncio.gather(*(watch.read() for watch in watches), return_exceptions=True)
        served = [one for one in first if not isinstance(one, BaseException)]
        assert len(served) == gateway._WATCHES_EACH["tenant"]
        assert len(await cloud.share(cloud.request("note-1", QUESTION))) == 3
        async with channel_of(certificates, cloud.address, "other") as other:
            for asker in (channel, other):
                stub = health_pb2_grpc.HealthStub(asker)  # type: ignore[no-untyped-call]
                checked = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
                assert checked.status == health_pb2.HealthCheckResponse.SERVING
            watch = stub.Watch(health_pb2.HealthCheckRequest())
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            watch.cancel()
        for watch in watches:
            watch.cancel()


async def test_a_watch_without_a_deadline_ends_by_itself(
    start_local: Start, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "_WATCH_S", 0.3)
    cloud = await start_local()
    async with channel_of(certificates, cloud.address, "acme") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())  # type: ignore[no-untyped-call]
        await watch.read()
        assert isinstance(await told(watch), DeadlineExceeded)


async def test_a_place_comes_back_however_a_call_ends(
    start_local: Start, config: CloudConfig, certificates: Certificates
) -> None:
    cloud = await start_local(gateway=dataclasses.replace(config.gateway, max_calls_per_tenant=1))
    for _ in range(3):
        message = share_request_to_proto(cloud.request("slow", QUESTION)).SerializeToString()
        async with channel_of(certificates, cloud.address, "acme") as channel:
            call = channel.unary_stream(SHARE)(message, timeout=20)
            await call.read()
            call.cancel()
        async with channel_of(certificates, cloud.address, "acme") as channel:
            with pytest.raises(grpc.RpcError):
                await channel.unary_stream(SHARE)(b"\xff", timeout=20).read()
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(Busy):
                assert len(await cloud.share(cloud.request("note-1", QUESTION))) == 3
                return
            await asyncio.sleep(0.05)


async def test_connections_that_never_shake_hands_are_closed_in_seconds_and_keep_nobody_out(
    start_local: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "_HANDSHAKE_MS", 2_000)
    cloud = await start_local()
    host, port = cloud.address.split(":")
    mute = [socket.create_connection((host, int(port))) for _ in range(300)]
    try:
        async with asyncio.timeout(4):
            assert len(await cloud.share(cloud.request("note-1", QUESTION))) == 3

        def closed(connection: socket.socket) -> bool:
            connection.settimeout(3 * gateway._HANDSHAKE_MS / 1000)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(4096):
                    pass
            return True

        assert await asyncio.to_thread(lambda: all(map(closed, mute)))
    finally:
        for connection in mute:
            connection.close()


async def test_a_document_stands_in_a_request_once(start_local: Start) -> None:
    cloud = await start_local()
    document = Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note-1")
    question = Section(Role.QUESTION, Visibility.SHARED, text=QUESTION)
    message = share_request_to_proto(cloud.request("note-1", QUESTION))
    message.sections.insert(0, message.sections[0])
    async with cloud.channel() as channel:
        with pytest.raises(grpc.RpcError) as error:
            await channel.unary_stream(SHARE)(message.SerializeToString(), timeout=5).read()
    assert isinstance(from_rpc_error(error.value), InvalidRequest)
    with pytest.raises(InvalidRequest, match="once"):
        cloud.request("note-1", QUESTION, sections=(document, document, question))


@pytest.mark.parametrize("inline", [True, False])
async def test_the_characters_of_a_prompt_are_summed_before_anything_is_read(
    start_local: Start, config: CloudConfig, monkeypatch: pytest.MonkeyPatch, inline: bool
) -> None:
    cloud = await start_local()
    documents = Documents(config.documents)
    most = cloud.description.limits.max_prompt_chars
    for i in range(8):
        documents.add("acme", f"part-{i}", "x" * (most // 8))

    def read(*_: Any) -> None:
        raise AssertionError("read before it was refused")

    monkeypatch.setattr(Documents, "get", read)
    if inline:
        texts = [Section(Role.SYSTEM, Visibility.SHARED, text="x" * 62_000) for _ in range(4)]
        rest = [Section(Role.DOCUMENT, Visibility.CLOUD, document_id="part-0")]
    else:
        texts, rest = (
            [],
            [Section(Role.DOCUMENT, Visibility.CLOUD, document_id=f"part-{i}") for i in range(8)],
        )
    question = Section(Role.QUESTION, Visibility.SHARED, text=QUESTION)
    with pytest.raises(TooLarge) as error:
        await cloud.share(cloud.request("note-1", QUESTION, sections=(*texts, *rest, question)))
    assert (error.value.what, error.value.size) == ("prompt characters", most + 1)
    assert not cloud.replicas.timeouts_s


async def test_a_replica_sums_them_again_of_the_documents_as_it_reads_them(
    start_local: Start, config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = await start_local()
    Documents(config.documents).add("acme", "grown", "x" * 250_000)
    monkeypatch.setattr("kvwire.limits.Limits.check_prompt", checked_in_replica_only())
    padding = Section(Role.SYSTEM, Visibility.SHARED, text="x" * 16_000)
    sections = (padding, *cloud.request("grown", QUESTION).sections)
    with pytest.raises(TooLarge) as error:
        await cloud.share(cloud.request("grown", QUESTION, sections=sections))
    assert error.value.what == "prompt characters"


def checked_in_replica_only() -> Any:
    from kvwire.limits import Limits

    genuine, calls = Limits.check_prompt, []

    def check(self: Limits, characters: int) -> None:
        calls.append(characters)
        if len(calls) > 1:
            genuine(self, characters)

    return check


async def test_nothing_leaves_unrecorded_on_a_full_disk_and_the_service_comes_back_with_it(
    start_local: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "_HEALTH_PERIOD_S", 0.1)
    cloud = await start_local()
    watch = asyncio.create_task(cloud.gateway._watch_replicas())
    async with cloud.channel() as channel:
        health = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]

        async def state() -> int:
            return int((await health.Check(health_pb2.HealthCheckRequest(), timeout=5)).status)

        async def becomes(wanted: int) -> None:
            async with asyncio.timeout(5):
                while await state() != wanted:
                    await asyncio.sleep(0.05)

        await cloud.share(cloud.request("note-1", QUESTION))
        before = cloud.audit.read_text()
        with full_disk(cloud.audit):
            for _ in range(3 * GatewayConfig().max_calls_per_tenant):
                message = share_request_to_proto(cloud.request("note-1", QUESTION)).SerializeToString()
                call = channel.unary_stream(SHARE)(message, timeout=5)
                with pytest.raises(grpc.RpcError) as error:
                    assert await call.read() is None, "a byte left"
                assert isinstance(from_rpc_error(error.value), AuditUnavailable)
            await becomes(health_pb2.HealthCheckResponse.NOT_SERVING)
            assert cloud.audit.read_text() == before
        await becomes(health_pb2.HealthCheckResponse.SERVING)
        assert len(await cloud.share(cloud.request("note-1", QUESTION))) == 3
    watch.cancel()
    assert verify(cloud.audit).records >= 5


async def test_a_disk_that_fills_while_a_slice_leaves_loses_no_line(
    start_local: Start, certificates: Certificates
) -> None:
    cloud = await start_local()
    request = cloud.request("note-1", QUESTION)
    genuine = cloud.service._audit.append
    stack = contextlib.ExitStack()

    def fill(record: Any) -> None:
        genuine(record)
        stack.enter_context(full_disk(cloud.audit))  # after the line that goes before the slice

    cloud.service._audit.append = fill  # type: ignore[method-assign]
    with stack:
        assert len(await cloud.share(request)) == 3, "what was recorded may leave"
        cloud.service._audit.append = genuine  # type: ignore[method-assign]
        assert not cloud.service.recording()
    assert cloud.service.recording()
    lines = [json.loads(line) for line in cloud.audit.read_text().splitlines()]
    assert [line["decision"] for line in lines] == ["SENDING", "SERVED"]
    assert verify(cloud.audit).records == 2


class Counting:
    """The Sharer's tokenizer, and how many characters it was given."""

    def __init__(self, genuine: Any) -> None:
        self._genuine, self.characters = genuine, 0

    def __call__(self, text: str, **options: Any) -> Any:
        self.characters += len(text)
        return self._genuine(text, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._genuine, name)


@pytest.mark.parametrize("letter", ["7", " ", "图", "a\n"])
async def test_a_prompt_far_too_long_is_not_tokenised_whole(
    start_local: Start, config: CloudConfig, letter: str
) -> None:
    cloud = await start_local()
    replica = cloud.replicas.replica
    replica._max_prompt_tokens = 2_000
    (sharer,) = replica._sharers.values()
    sharer.tokenizer = counting = Counting(sharer.tokenizer)
    Documents(config.documents).add("acme", "endless", letter * (200_000 // len(letter)) + ".")
    with pytest.raises(TooLarge) as error:
        await cloud.share(cloud.request("endless", QUESTION))
    assert (error.value.what, error.value.size) == ("prompt tokens", 2_001)
    assert counting.characters < 100_000


async def test_tokenising_stops_at_the_deadline(start_local: Start, config: CloudConfig) -> None:
    cloud = await start_local()
    (sharer,) = cloud.replicas.replica._sharers.values()
    cloud.replicas.replica._max_prompt_tokens = 1_000_000

    class Slow(Counting):
        def __call__(self, text: str, **options: Any) -> Any:
            time.sleep(0.1)
            return super().__call__(text, **options)

    sharer.tokenizer = slow = Slow(sharer.tokenizer)
    Documents(config.documents).add("acme", "lengthy", "7" * 200_000)
    with pytest.raises(DeadlineExceeded):
        await cloud.share(cloud.request("lengthy", QUESTION), timeout_s=0.5)
    await asyncio.sleep(0.3)
    given = slow.characters
    assert given < 100_000
    await asyncio.sleep(0.5)
    assert slow.characters == given, "it went on"


async def test_a_call_ends_at_the_clouds_own_deadline_whatever_hangs(
    start_local: Start, config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = await start_local(gateway=dataclasses.replace(config.gateway, max_deadline_s=0.5))
    free = threading.Event()
    monkeypatch.setattr(Documents, "find", lambda *_: free.wait(20))
    began = time.monotonic()
    try:
        with pytest.raises(DeadlineExceeded):
            await cloud.share(cloud.request("note-1", QUESTION), timeout_s=10)
        assert time.monotonic() - began < 5
        lines = [json.loads(line) for line in cloud.audit.read_text().splitlines()]
        assert [line["decision"] for line in lines] == ["DEADLINE_EXCEEDED"]
    finally:
        free.set()


async def test_calls_that_get_nothing_do_not_fill_the_disk(
    start_local: Start, certificates: Certificates
) -> None:
    cloud = await start_local()
    async with channel_of(certificates, cloud.address, "acme") as channel:

        async def refused() -> None:
            with pytest.raises(grpc.RpcError):
                await channel.unary_stream(SHARE)(b"\xff", timeout=5).read()

        for _ in range(10):
            await asyncio.gather(*(refused() for _ in range(30)))
    await asyncio.sleep(1.1)
    assert cloud.service.recording()
    lines = [json.loads(line) for line in cloud.audit.read_text().splitlines()]
    assert len(lines) < 100
    assert sum(line["calls"] for line in lines) == 300


@pytest.mark.parametrize("how", ["sealed", "removed"])
async def test_a_document_sealed_or_removed_while_a_call_waits_does_not_leave(
    start_local: Start, config: CloudConfig, how: str
) -> None:
    sharer = dataclasses.replace(config.sharer, max_ongoing=1)
    cloud = await start_local(sharer=sharer)
    slow = asyncio.create_task(cloud.share(cloud.request("slow", QUESTION)))
    while not cloud.replicas.timeouts_s:
        await asyncio.sleep(0.01)
    waiting = asyncio.create_task(cloud.share(cloud.request("note-1", QUESTION)))
    while not cloud.service._turns._queues:
        await asyncio.sleep(0.01)
    documents = Documents(config.documents)
    if how == "sealed":
        documents.add("acme", "note-1", "It moved.", max_positions=0, replace=True)
    else:
        documents.remove("acme", "note-1")
    assert len(await slow) == 3
    with pytest.raises(ExportDenied if how == "sealed" else NotFound):
        await waiting


async def test_an_edge_is_told_of_its_wait_for_a_turn_as_of_any_other(
    start_local: Start, config: CloudConfig
) -> None:
    cloud = await start_local(sharer=dataclasses.replace(config.sharer, max_ongoing=1))
    slow = asyncio.create_task(cloud.share(cloud.request("slow", QUESTION)))
    while not cloud.replicas.timeouts_s:
        await asyncio.sleep(0.01)
    began = time.monotonic()
    *_, waited = await cloud.share(cloud.request("note-1", QUESTION))
    whole_s = time.monotonic() - began
    *_, first = await slow
    assert first.timings["queue"] < 0.5 * whole_s < waited.timings["queue"] < whole_s


async def test_a_relayed_text_of_a_document_that_was_replaced_meanwhile_does_not_leave(
    start_local: Start, config: CloudConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = await start_local(export=ExportPolicy(profile="custom", allow_relay=True))
    assert (await cloud.relay("note-1", QUESTION, 4)).tokens
    relay = cloud.replicas.relay

    async def replaced(*call: Any) -> Any:
        reply = await relay(*call)
        Documents(config.documents).add("acme", "note-1", "It moved.", replace=True)
        return reply

    monkeypatch.setattr(cloud.replicas, "relay", replaced)
    with pytest.raises(Busy):
        await cloud.relay("note-1", QUESTION, 4)


async def test_the_long_prompts_of_one_tenant_leave_a_turn_to_another(
    start_local: Start, config: CloudConfig, certificates: Certificates
) -> None:
    Documents(config.documents).add("other", "theirs", "The meeting moved to Thursday.")
    cloud = await start_local(sharer=dataclasses.replace(config.sharer, max_ongoing=2))
    ended: list[str] = []

    async def ask(channel: grpc.aio.Channel, document: str) -> None:
        message = share_request_to_proto(cloud.request(document, QUESTION)).SerializeToString()
        call = channel.unary_stream(SHARE)(message, timeout=60)
        assert len([reply async for reply in call]) == 3
        ended.append(document)

    async with (
        channel_of(certificates, cloud.address, "acme") as acme,
        channel_of(certificates, cloud.address, "other") as other,
    ):
        long = [asyncio.create_task(ask(acme, "slow")) for _ in range(5)]
        while not cloud.service._turns._queues:
            await asyncio.sleep(0.01)
        await ask(other, "theirs")
        assert ended.count("slow") <= 1
        await asyncio.gather(*long)
