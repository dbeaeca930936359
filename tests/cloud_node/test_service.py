import asyncio
import dataclasses
import json
from typing import Any

import grpc
import pytest

from cloud_node.audit_chain import verify
from cloud_node.call import STATUSES
from cloud_node.config import CloudConfig, ExportPolicy, GatewayConfig
from fuser.sharer import Sharer
from kvwire.errors import (
    Busy,
    Draining,
    IncompatiblePeer,
    InternalError,
    KvwireError,
    NotFound,
    RelayDisabled,
    TooLarge,
)
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from kvwire.serde import share_request_to_proto
from kvwire.status import from_rpc_error
from kvwire.v1.sharer_pb2_grpc import SharerServiceStub
from tests.cloud_node.conftest import Start

CANARY = "zebra-canary-7731"
QUESTION = "Who keeps the spare key?"


async def test_relay_is_refused_unless_text_is_allowed(start_local: Start) -> None:
    cloud = await start_local()
    assert not cloud.description.relay_allowed
    with pytest.raises(RelayDisabled):
        await cloud.relay("note-1", QUESTION, 4)


async def test_relay_answers_where_text_is_allowed(start_local: Start) -> None:
    cloud = await start_local(export=ExportPolicy(allow_relay=True))
    reply = await cloud.relay("note-1", QUESTION, 4)
    assert reply.text and reply.tokens >= 1
    assert cloud.description.relay_allowed


async def test_a_kind_that_may_not_leave_is_neither_offered_nor_served(start_local: Start) -> None:
    cloud = await start_local(
        export=ExportPolicy(profile="custom", kinds=(SliceKind.SHARED,), shared_over_documents=64)
    )
    assert cloud.description.bundles[0].kinds == (SliceKind.SHARED,)
    with pytest.raises(IncompatiblePeer) as error:
        await cloud.share(cloud.request("note-1", QUESTION))
    assert (error.value.field, error.value.cloud, error.value.edge) == ("slice kind", "shared", "excerpt")
    await cloud.share(cloud.request("note-1", QUESTION, kind=SliceKind.SHARED))


@pytest.mark.parametrize(("policy", "asked", "granted"), [(2, 12, 2), (9, 4, 4)])
async def test_the_export_policy_caps_positions(
    start_local: Start, policy: int, asked: int, granted: int
) -> None:
    cloud = await start_local(export=ExportPolicy(max_positions=policy))
    header, *_ = await cloud.share(cloud.request("note-1", QUESTION, plan=Plan(codec="raw", positions=asked)))
    assert header.positions == granted


async def test_what_broke_stands_in_the_gateways_log_and_not_in_what_the_peer_is_told(
    start_local: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Sharer, *args: Any) -> None:
        raise RuntimeError(CANARY)

    cloud = await start_local()
    monkeypatch.setattr(Sharer, "steps", broken)
    with pytest.raises(InternalError) as error:
        await cloud.share(cloud.request("note-1", QUESTION))
    assert "RuntimeError at" in caplog.text and "test_service.py:" in caplog.text
    assert "test_service" not in str(error.value)
    assert CANARY not in caplog.text + str(error.value)


async def test_a_request_that_failed_before_its_header_may_come_again(
    start_local: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = await start_local()
    request = cloud.request("note-1", QUESTION)
    with monkeypatch.context() as patch:
        patch.setattr(Sharer, "layout", lambda *_: 1 / 0)
        with pytest.raises(InternalError):
            await cloud.share(request)
    assert len(await cloud.share(request)) == 3


async def test_an_unforeseen_error_says_nothing(
    start_local: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Sharer, *args: Any) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr(Sharer, "steps", broken)
    cloud = await start_local()
    async with cloud.channel() as channel:
        stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
        call = stub.Share(share_request_to_proto(cloud.request("note-1", QUESTION)), timeout=20)
        with pytest.raises(grpc.RpcError) as error:
            async for _ in call:
                pass
    assert error.value.code() is grpc.StatusCode.INTERNAL
    said = f"{error.value.details()} {error.value.trailing_metadata()} {caplog.text}"
    assert CANARY not in said and "RuntimeError" not in str(error.value.details())


async def test_the_deadline_is_capped_and_reaches_the_replica(
    start_local: Start, config: CloudConfig
) -> None:
    cloud = await start_local(gateway=dataclasses.replace(config.gateway, max_deadline_s=7.0))
    await cloud.share(cloud.request("note-1", QUESTION), timeout_s=300)
    await cloud.share(cloud.request("note-1", QUESTION), timeout_s=3)
    capped_s, own_s = cloud.replicas.timeouts_s
    assert capped_s == 7.0
    assert 2.0 < own_s <= 3.0


async def test_calls_beyond_the_limit_are_told_when_to_come_again(start_local: Start) -> None:
    cloud = await start_local(gateway=GatewayConfig(max_concurrent_calls=1))
    slow = asyncio.create_task(cloud.share(cloud.request("slow", QUESTION)))
    while not (cloud.replicas.timeouts_s or slow.done()):  # until it has its place
        await asyncio.sleep(0.01)
    with pytest.raises(Busy) as error:
        await cloud.share(cloud.request("note-1", QUESTION))
    assert error.value.retry_after_s == 0.5
    assert len(await slow) == 3


async def test_while_draining_new_calls_are_refused_and_old_ones_finish(start_local: Start) -> None:
    cloud = await start_local()
    async with cloud.channel() as channel:
        stub = SharerServiceStub(channel)  # type: ignore[no-untyped-call]
        request = cloud.request("slow", QUESTION, kind=SliceKind.SHARED)
        parts = aiter(stub.Share(share_request_to_proto(request), timeout=60))
        await anext(parts)  # the header, before anything is read
        drained = asyncio.create_task(cloud.gateway.drain())
        await asyncio.sleep(0.1)
        with pytest.raises(grpc.RpcError) as error:
            await stub.Share(share_request_to_proto(cloud.request("note-1", QUESTION)), timeout=5).read()
        refused = from_rpc_error(error.value)
        assert isinstance(refused, Draining) and refused.retryable and refused.retry_after_s == 0.5
        assert [part.WhichOneof("part") async for part in parts][-1] == "trailer"
        await drained


def questions(count: int, characters: int) -> tuple[Section, ...]:
    return (Section(Role.QUESTION, Visibility.SHARED, text="x" * characters),) * count


@pytest.mark.parametrize(
    ("sections", "what"),
    [
        (questions(1, 8_193), "question characters"),
        (questions(33, 1), "sections"),
        ((Section(Role.SYSTEM, Visibility.SHARED, text="x" * 65_537),), "section characters"),
        ((Section(Role.SYSTEM, Visibility.SHARED, text="图" * 65_000),) * 2, "request bytes"),
        (questions(140, 8_000), "message bytes"),
    ],
)
async def test_every_size_has_its_limit(start_local: Start, sections: tuple[Section, ...], what: str) -> None:
    cloud = await start_local()
    with pytest.raises(TooLarge) as error:
        await cloud.share(cloud.request(None, QUESTION, sections=sections))
    assert error.value.what == what
    assert error.value.size > error.value.limit


async def test_the_audit_log_tells_every_call_and_no_text(start_local: Start) -> None:
    cloud = await start_local()
    wanted: list[tuple[str, type[KvwireError] | None]] = [
        ("note-1", None),
        ("foreign", NotFound),
        (f"is this {CANARY}?", NotFound),
    ]
    for document_id, expected in wanted:
        request = cloud.request(document_id, f"{QUESTION} {CANARY}")
        if expected is None:
            await cloud.share(request)
        else:
            with pytest.raises(expected):
                await cloud.share(request)
    text = cloud.audit.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["decision"], line["documents"]) for line in lines] == [
        ("SENDING", ["note-1"]),
        ("SERVED", ["note-1"]),
        ("NOT_FOUND", ["foreign"]),
        ("NOT_FOUND", ["?"]),
    ]
    sending, served = lines[:2]
    assert (sending["tenant"], sending["positions"], sending["segments"]) == ("acme", 12, 0)
    assert (served["tenant"], served["positions"], served["segments"]) == ("acme", 12, 1)
    assert sending["bytes"] == 0
    assert served["bytes"] == 12 * 24 * 4 + 2  # two bytes tell the length
    assert {line["decision"] for line in lines} <= STATUSES.keys() | {"SERVED", "SENDING"}
    assert CANARY not in text and "Ilse" not in text
    assert verify(cloud.audit).records == 4
