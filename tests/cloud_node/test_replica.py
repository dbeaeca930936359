import asyncio
import dataclasses
import pickle
import re
import threading
import time
from contextlib import aclosing
from typing import Any

import pytest
import torch
from sqlalchemy import create_engine

from cloud_node.call import RelayCall, ShareCall
from cloud_node.config import CloudConfig, ExportPolicy
from cloud_node.documents import Documents
from cloud_node.replica import Replica, _told
from cloud_node.scheduler import CancelToken
from fuser.bundle.bundle import BadBundle
from fuser.models.directory import NoSuchDevice
from fuser.sharer import Cut, Sharer
from kvwire.codec import CodecRegistry
from kvwire.codec.exact import Raw
from kvwire.errors import (
    Cancelled,
    DeadlineExceeded,
    DocumentsUnavailable,
    IncompatiblePeer,
    InternalError,
    InvalidRequest,
    KvwireError,
    NotFound,
    TooLarge,
)
from kvwire.limits import Limits
from kvwire.messages import RelayReply, RelayRequest
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from kvwire.slice_io import SliceAssembler, most_bytes, payload_codec
from tests.cloud_fixture import request_for

QUESTION = "Who keeps the spare key?"


async def share(replica: Replica, call: ShareCall, timeout_s: float = 30.0) -> list[Any]:
    return [part async for batch in replica.share(call, timeout_s) for part in batch]


def call_for(
    replica: Replica, document_id: str | None, question: str = QUESTION, **changes: Any
) -> ShareCall:
    return ShareCall("acme", request_for(replica.describe(), document_id, question, **changes), None)


@pytest.mark.parametrize("kind", SliceKind)
async def test_a_slice_holds_what_the_sharer_cuts_bit_for_bit(replica: Replica, kind: SliceKind) -> None:
    call = call_for(replica, "note-2", kind=kind)
    header, *frames, summary = await share(replica, call)
    assembler = SliceAssembler(header, CodecRegistry().get("raw"), Limits())
    arrived = [segment for frame in frames for segment in assembler.add(frame)]
    assembler.finish(summary)

    sections, _ = replica._resolve("acme", call.request.sections)
    sharer = replica._sharer(call.request.bundle_hash)
    local: list[tuple[Any, torch.Tensor]] = []
    cut = sharer.layout(sections, kind, 32, call.request.plan)
    announced: list[Cut] = []
    sharer.run(cut, lambda spec, tensor: local.append((spec, tensor.clone())), announce=announced.append)
    assert [segment.spec for segment in arrived] == [spec for spec, _ in local]
    assert all(torch.equal(got.tensor, own) for got, (_, own) in zip(arrived, local, strict=True))
    assert header.positions == summary.positions == announced[0].positions > 0
    assert set(summary.timings) == {"queue", "prefill", "encode"}


async def test_a_question_without_documents_is_drafted_upon_as_long_as_the_plan_asks(
    replica: Replica,
) -> None:
    header, *_ = await share(
        replica, call_for(replica, None, kind=SliceKind.DRAFT, plan=Plan(codec="raw", positions=3))
    )
    assert header.positions == 3


async def test_what_goes_between_processes_is_plain(replica: Replica) -> None:
    call = call_for(replica, "note-1")
    parts = await share(replica, pickle.loads(pickle.dumps(call)))  # noqa: S301
    for part in [*parts, replica.describe(), TooLarge("x", 2, 1), IncompatiblePeer("f", 1, 2), NotFound("d")]:
        raw = pickle.dumps(part)
        assert b"torch" not in raw
        assert str(pickle.loads(raw)) == str(part)  # noqa: S301


@pytest.mark.parametrize(("document_id", "asked", "granted"), [("capped", 12, 3), ("note-1", 5, 5)])
async def test_the_lowest_cap_counts(replica: Replica, document_id: str, asked: int, granted: int) -> None:
    header, *_ = await share(
        replica,
        call_for(replica, document_id, plan=Plan(codec="raw", positions=asked), kind=SliceKind.EXCERPT),
    )
    assert header.positions == granted


async def test_the_lowest_cap_of_several_documents_counts(replica: Replica) -> None:
    sections = (
        Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note-1"),
        Section(Role.DOCUMENT, Visibility.CLOUD, document_id="capped"),
        Section(Role.QUESTION, Visibility.SHARED, text=QUESTION),
    )
    header, *_ = await share(replica, call_for(replica, None, kind=SliceKind.EXCERPT, sections=sections))
    assert header.positions == 3


@pytest.mark.parametrize(
    ("document_id", "changes", "expected"),
    [
        ("foreign", {}, NotFound),
        ("nobodys", {}, NotFound),
        ("too-long", {}, TooLarge),
        ("note-1", {"bundle_hash": "0" * 64}, IncompatiblePeer),
        (None, {"kind": SliceKind.EXCERPT}, InvalidRequest),
    ],
)
async def test_an_error_is_the_last_part_and_the_next_call_works(
    replica: Replica, document_id: str | None, changes: dict[str, Any], expected: type[KvwireError]
) -> None:
    parts = await share(replica, call_for(replica, document_id, **changes))
    assert [type(part) for part in parts] == [expected]
    assert len(await share(replica, call_for(replica, "note-1"))) == 3


async def test_a_too_long_document_does_not_tell_its_length(replica: Replica) -> None:
    (error,) = await share(replica, call_for(replica, "too-long"))
    assert (error.size, error.limit) == (24_001, 24_000)


async def test_of_a_foreign_exception_type_and_place_are_told_and_not_what_it_says(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Sharer, *args: Any) -> None:
        raise RuntimeError("zebra-canary-7731")

    monkeypatch.setattr(Sharer, "steps", broken)
    *_, error = await share(replica, call_for(replica, "note-1"))
    assert isinstance(error, InternalError)
    assert "canary" not in str(error)
    assert "RuntimeError at" in str(error) and "test_replica.py:" in str(error)


async def test_a_caller_who_leaves_stops_the_prefill(replica: Replica) -> None:
    layers = count_layers(replica)
    async with aclosing(replica.share(call_for(replica, "slow", kind=SliceKind.SHARED), 30.0)) as batches:
        await anext(batches)  # the header; the prefill is under way
    idle = threading.Event()
    replica._schedule.enter(iter(()), 1 << 40, CancelToken(30), idle.set)  # after everybody else
    assert await asyncio.to_thread(idle.wait, 10)
    assert len(layers) < 4
    assert len(await share(replica, call_for(replica, "note-1"))) == 3


async def test_a_deadline_stops_the_prefill(replica: Replica) -> None:
    layers = count_layers(replica)
    *_, error = await share(replica, call_for(replica, "slow"), timeout_s=0.4)
    assert isinstance(error, DeadlineExceeded)
    assert len(layers) < 4


async def test_a_call_that_waits_for_the_model_gives_up_in_time(replica: Replica) -> None:
    free = threading.Event()
    replica._schedule.enter((None for _ in range(1) if free.wait(10)), 0, CancelToken(30), lambda: None)
    start = time.monotonic()
    (error,) = await share(replica, call_for(replica, "note-1"), timeout_s=0.2)
    assert isinstance(error, DeadlineExceeded)
    assert time.monotonic() - start < 1.0
    free.set()
    assert len(await share(replica, call_for(replica, "note-1"))) == 3


async def test_calls_side_by_side_get_their_own_slices(replica: Replica) -> None:
    calls = [call_for(replica, name) for name in ("note-1", "note-2", "capped", "note-1")]
    alone = [await share(replica, call) for call in calls]
    together = await asyncio.gather(*(share(replica, call) for call in calls))
    for one, other in zip(alone, together, strict=True):
        assert one[:-1] == other[:-1]
        assert one[-1].digest == other[-1].digest


async def test_a_short_question_is_answered_while_a_long_document_is_read(replica: Replica) -> None:
    ended: list[str] = []

    async def one(name: str, kind: SliceKind) -> None:
        assert not isinstance((await share(replica, call_for(replica, name, kind=kind)))[-1], KvwireError)
        ended.append(name)

    layers = count_layers(replica)
    long = asyncio.create_task(one("slow", SliceKind.SHARED))
    while not layers:
        await asyncio.sleep(0.001)
    await one("note-1", SliceKind.EXCERPT)
    await long
    assert ended == ["note-1", "slow"]


async def test_segments_are_encoded_while_the_next_layer_computes(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers, at_first_frame = count_layers(replica), threading.Event()
    encode, threads = Raw.encode, set()

    def noticed(*args: Any) -> bytes:
        threads.add(threading.current_thread().name)
        at_first_frame.set()
        return encode(*args)

    def wait_for_it(*_: Any) -> None:  # a model that encoded by itself would wait for ever
        if layers and layers[-1] == 2:
            assert at_first_frame.wait(10)

    sharer = next(iter(replica._sharers.values()))
    sharer.model.get_decoder().layers[2].register_forward_hook(wait_for_it)
    monkeypatch.setattr(Raw, "encode", noticed)
    *_, end = await share(replica, call_for(replica, "note-1", kind=SliceKind.SHARED))
    assert not isinstance(end, KvwireError)
    assert threads and not any(name == "sharer-model" for name in threads)


async def test_a_reader_who_is_slow_holds_nobody_up(replica: Replica) -> None:
    replica._limits = dataclasses.replace(
        replica._limits, max_frame_bytes=256
    )  # more frames than the pipe holds
    slow = replica.share(call_for(replica, "note-1", kind=SliceKind.SHARED, question=QUESTION * 20), 30.0)
    async with aclosing(slow) as batches:
        await anext(batches)
        assert len(await share(replica, call_for(replica, "note-2"))) >= 3
        parts = [part async for batch in batches for part in batch]
    assert not isinstance(parts[-1], KvwireError)


async def test_relay_answers_as_the_sharer_does(replica: Replica) -> None:
    replica._export = ExportPolicy(allow_relay=True)
    request = request_for(replica.describe(), "note-1", QUESTION)
    relay = RelayRequest(
        request_id=request.request_id, sharer=request.sharer, max_new_tokens=5, sections=request.sections
    )
    reply = await replica.relay(RelayCall("acme", relay, None), 30.0)
    assert isinstance(reply, RelayReply)
    sections, _ = replica._resolve("acme", request.sections)
    assert reply.text == replica._sharer(request.bundle_hash).answer(sections, 5)
    assert isinstance(await replica.relay(RelayCall("other", relay, None), 30.0), NotFound)
    whole = reply.text.encode()
    for most in range(1, len(whole) + 2):
        cut = await replica.relay(RelayCall("acme", dataclasses.replace(relay, max_bytes=most), None), 30.0)
        assert isinstance(cut, RelayReply)
        assert whole.startswith(cut.text.encode()) and len(cut.text.encode()) <= most
    assert cut.text == reply.text
    longest = request_for(replica.describe(), "too-long", QUESTION).sections
    refused = await replica.relay(RelayCall("acme", dataclasses.replace(relay, sections=longest), None), 30.0)
    assert isinstance(refused, TooLarge)


def test_a_bundle_for_another_sharer_is_refused(config: CloudConfig, tiny_receiver: Any) -> None:
    sharer = dataclasses.replace(config.sharer, model=str(tiny_receiver))
    with pytest.raises(BadBundle, match="is for the Sharer"):
        Replica.load(dataclasses.replace(config, sharer=sharer))


def test_a_replica_says_where_it_computes(replica: Replica) -> None:
    where = r"cpu \(\d+ threads\) in float32, with memory for [\d,]+ positions of prompts"
    assert re.fullmatch(where, replica.where())


@pytest.mark.parametrize("asked", [{"gpus": 1.0}, {"gpus": 1.0, "device": "cuda"}])
def test_a_gpu_that_is_reserved_and_not_there_is_refused_by_name(
    config: CloudConfig, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    sharer = dataclasses.replace(config.sharer, **asked)
    with pytest.raises(NoSuchDevice, match="device cuda is not there"):
        Replica.load(dataclasses.replace(config, sharer=sharer))


def test_a_stopped_call_is_cancelled_whatever_broke() -> None:
    stop = CancelToken(10)
    stop.set()
    assert isinstance(_told(RuntimeError("x"), stop), Cancelled)


def count_layers(replica: Replica) -> list[int]:
    """Which layers of the Sharer run from now on."""
    sharer = next(iter(replica._sharers.values()))
    seen: list[int] = []
    for number, layer in enumerate(sharer.model.get_decoder().layers):
        layer.register_forward_pre_hook(lambda *_, number=number: seen.append(number))
    return seen


@pytest.mark.parametrize(
    ("kind", "plan"),
    [
        (SliceKind.SHARED, Plan(codec="raw", layers=(0, 2), last=6)),
        (SliceKind.SHARED, Plan(codec="raw", bottleneck=True, padded=True)),
        (SliceKind.EXCERPT, Plan(codec="raw", positions=4, code_dim=6, padded=True)),
    ],
)
async def test_a_slice_is_what_its_plan_says_and_no_larger_than_its_cap(
    replica: Replica, kind: SliceKind, plan: Plan
) -> None:
    call = call_for(replica, "note-2", kind=kind, plan=plan)
    codec = payload_codec(plan, CodecRegistry().get("raw"))
    sharer = replica._sharer(call.request.bundle_hash)
    cut = sharer.layout(replica._resolve("acme", call.request.sections)[0], kind, 32, plan)
    cap = most_bytes(cut.specs, codec)
    header, *frames, summary = await share(
        replica, call_for(replica, "note-2", kind=kind, plan=plan, max_bytes=cap)
    )
    assembler = SliceAssembler(header, codec, Limits(), max_bytes=cap)
    arrived = [segment for frame in frames for segment in assembler.add(frame)]
    assembler.finish(summary)
    local: list[torch.Tensor] = []
    sharer.run(cut, lambda _, tensor: local.append(tensor.clone()))
    assert header.specs == cut.specs and summary.payload_bytes <= cap
    assert all(torch.equal(got.tensor, own) for got, own in zip(arrived, local, strict=True))


async def test_what_may_come_to_more_than_the_cap_is_refused_before_any_prefill(replica: Replica) -> None:
    layers = count_layers(replica)
    most = 12 * 24 * 4
    (error,) = await share(replica, call_for(replica, "note-1", max_bytes=most - 1))
    assert isinstance(error, TooLarge)
    assert (error.size, error.limit) == (most, most - 1)
    assert layers == []
    *_, summary = await share(replica, call_for(replica, "note-1", max_bytes=most))
    assert summary.payload_bytes == most


async def test_a_plan_that_the_bundle_cannot_do_is_refused_before_any_prefill(replica: Replica) -> None:
    layers = count_layers(replica)
    for kind, plan, error in (
        (SliceKind.SHARED, Plan(codec="raw", layers=(3,)), InvalidRequest),
        (SliceKind.EXCERPT, Plan(codec="raw", code_dim=99), InvalidRequest),
    ):
        (refused,) = await share(replica, call_for(replica, "note-1", kind=kind, plan=plan))
        assert isinstance(refused, error)
    assert layers == []


@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_what_was_read_of_a_document_is_let_go_of_when_it_is_gone(
    replica: Replica, config: CloudConfig, how: str
) -> None:
    (cache,) = {id(one._prefixes): one._prefixes for one in replica._sharers.values()}.values()
    await share(replica, call_for(replica, "note-1"))
    replica.prefixes.forget_changed()
    assert cache.bytes > 0
    documents = Documents(config.documents)
    reading = replica.share(call_for(replica, "note-1", kind=SliceKind.SHARED), 30.0)
    await anext(reading)  # under way while the document goes
    if how == "removed":
        documents.remove("acme", "note-1")
    else:
        documents.add("acme", "note-1", "Another text.", replace=True)
    documents.close()
    replica.prefixes.forget_changed()
    async for _ in reading:  # it may keep what it read after that
        pass
    for _ in range(500):
        replica.look_soon()  # as Serve has it done every second
        if not cache.bytes:
            break
        await asyncio.sleep(0.02)
    assert cache.bytes == 0


async def test_a_database_that_refuses_is_told_of_in_the_log_by_its_kind_alone(
    replica: Replica, config: CloudConfig, caplog: pytest.LogCaptureFixture
) -> None:
    call = call_for(replica, "note-1")
    engine = create_engine(config.documents)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE documents")
    engine.dispose()
    (failure,) = await share(replica, call)
    assert isinstance(failure, DocumentsUnavailable)
    assert caplog.messages == ["the documents' database: OperationalError"]
