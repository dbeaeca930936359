"""The client against a real server: what arrives, what is refused, what is tried again, what never hangs."""

import asyncio
import contextlib
import dataclasses
import shutil
import socket
import ssl
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from edge_node import AsyncClient, Client, EdgeConfig, intake
from edge_node.channel import Direction, read_capture
from edge_node.config import CloudPeer, TlsConfig
from edge_node.intake import check_specs
from edge_node.link import Link
from fuser.bundle.bundle import Bundle
from fuser.slice_specs import most_positions, slice_specs
from kvwire.errors import (
    AccessDenied,
    BadChecksum,
    BadHeader,
    BadPayload,
    Busy,
    DeadlineExceeded,
    IncompatiblePeer,
    InternalError,
    InvalidRequest,
    KvwireError,
    NotFound,
    RelayDisabled,
    TooLarge,
    Unreachable,
    Unsupported,
)
from kvwire.identity import TlsFiles
from kvwire.plan import WHOLE, Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import Segment, SegmentKind, SliceHeader, SliceKind, SliceTrailer
from kvwire.slice_io import Frame
from ops.certs import Certificates, make_certificates
from tests.edge_node.sharer_server import (
    DOCUMENTS,
    Part,
    RunningServer,
    SliceService,
    serving,
    wait_until,
)

QUESTION = Section(Role.QUESTION, Visibility.SHARED, text="Who keeps the key? 谁有钥匙 ✅")
DOCUMENT = Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note-1")
SECRET = Section(Role.DOCUMENT, Visibility.EDGE, text="my notes stay here: zanzibar-4711")


async def _parts(client: AsyncClient, bundle: Bundle, *sections: Section, **options: object) -> list[object]:
    kind = SliceKind.EXCERPT if DOCUMENT in sections else SliceKind.SHARED
    chosen = {"kind": kind} | options
    return [part async for part in client.share(sections, bundle, **chosen)]  # type: ignore[arg-type]


async def _failure(config: EdgeConfig, bundle: Bundle, **options: object) -> KvwireError:
    async with AsyncClient(config) as client:
        with pytest.raises(KvwireError) as caught:
            await _parts(client, bundle, DOCUMENT, QUESTION, **options)
    return caught.value


async def test_an_excerpt_arrives_as_header_segment_summary(config: EdgeConfig, bundle: Bundle) -> None:
    async with AsyncClient(config) as client:
        header, segment, summary = await _parts(client, bundle, DOCUMENT, QUESTION)
    assert isinstance(header, SliceHeader) and header.kind is SliceKind.EXCERPT and header.positions == 8
    assert isinstance(segment, Segment) and segment.spec.kind is SegmentKind.CODE
    assert isinstance(summary, SliceTrailer) and summary.timings["prefill"] == 0.25


async def test_a_kind_may_be_given_by_its_name_and_an_unknown_one_is_refused(
    config: EdgeConfig, bundle: Bundle
) -> None:
    async with AsyncClient(config) as client:
        header, *_ = await _parts(client, bundle, QUESTION, kind="shared")
        assert isinstance(header, SliceHeader) and header.kind is SliceKind.SHARED
        with pytest.raises(InvalidRequest, match="unknown kind 'quote'"):
            await _parts(client, bundle, QUESTION, kind="quote")


@pytest.mark.parametrize("kind", list(SliceKind))
async def test_the_clouds_work_is_counted_once_whether_the_header_comes_before_it_or_after(
    config: EdgeConfig, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, kind: SliceKind
) -> None:
    came: list[tuple[float, float]] = []
    monkeypatch.setattr(
        Link, "slice_came", lambda self, size, header_s, rest_s, *_: came.append((header_s, rest_s))
    )
    started = time.monotonic()
    async with AsyncClient(config) as client:
        asked = (QUESTION,) if kind is SliceKind.SHARED else (DOCUMENT, QUESTION)
        *_, summary = await _parts(client, bundle, *asked, kind=kind)
    whole_s = time.monotonic() - started
    ((header_s, rest_s),) = came
    assert isinstance(summary, SliceTrailer) and header_s + rest_s <= whole_s
    # The cloud says 0.25 s, which here it did not take: a header behind it then seems to have come before it was sent.
    assert (rest_s >= 0.25) == (kind is not SliceKind.SHARED)


@pytest.mark.parametrize("most", [65_536, 8])
async def test_what_decodes_to_much_is_taken_in_off_the_loop_however_small_its_messages(
    config: EdgeConfig, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    threads = list[threading.Thread]()
    take = intake.ReplyIntake.take

    def taken(own: intake.ReplyIntake, message: bytes) -> Any:
        threads.append(threading.current_thread())
        return take(own, message)

    monkeypatch.setattr(intake.ReplyIntake, "take", taken)
    monkeypatch.setattr(intake, "_SMALL_SLICE_BYTES", most)
    async with AsyncClient(config) as client:
        await _parts(client, bundle, DOCUMENT, QUESTION)
    header, *rest = threads
    assert header is threading.current_thread() and rest
    assert all((one is header) == (most > 8) for one in rest)


async def test_every_open_segment_of_a_shared_slice_arrives_in_order(
    config: EdgeConfig, bundle: Bundle
) -> None:
    async with AsyncClient(config) as client:
        header, *segments, summary = await _parts(client, bundle, QUESTION)
    assert isinstance(header, SliceHeader) and isinstance(summary, SliceTrailer)
    found = [(s.spec.kind, s.spec.layer) for s in segments if isinstance(s, Segment)]
    assert found == bundle.require_fuse().needed()


@pytest.mark.parametrize("codec", ["raw", "lossless"])
async def test_segments_are_the_bits_the_sharer_cut(
    config: EdgeConfig, bundle: Bundle, slice_service: SliceService, codec: str
) -> None:
    cut = slice_service.sharer.layout([QUESTION], SliceKind.SHARED, 8)
    local: list[torch.Tensor] = []
    slice_service.sharer.run(cut, lambda spec, tensor: local.append(tensor.clone()))
    async with AsyncClient(config) as client:
        _, *segments, _ = await _parts(client, bundle, QUESTION, plan=Plan(codec=codec))
    arrived = [s.tensor for s in segments if isinstance(s, Segment)]
    assert len(arrived) == len(local) > 0
    assert all(torch.equal(a, b) for a, b in zip(arrived, local, strict=True))


async def test_sections_for_the_edge_stay_and_spans_still_name_the_callers_sections(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    async with AsyncClient(config) as client:
        header, *_ = await _parts(client, bundle, SECRET, QUESTION)
    assert server.service.requests[0].sections == (QUESTION,)
    assert isinstance(header, SliceHeader)
    assert {section for section, _, _ in header.spans} == {1}


async def test_a_question_that_spells_a_control_token_is_aligned_all_the_same(
    config: EdgeConfig, bundle: Bundle
) -> None:
    question = Section(Role.QUESTION, Visibility.SHARED, text="<|im_end|><|im_end|> <<| x")
    async with AsyncClient(config) as client:
        header, *_ = await _parts(client, bundle, question)
    assert isinstance(header, SliceHeader) and header.spans


async def test_traffic_and_capture_count_every_serialised_message(
    config: EdgeConfig, bundle: Bundle, tmp_path: Path
) -> None:
    capture = tmp_path / "capture.bin"
    async with AsyncClient(dataclasses.replace(config, capture=str(capture))) as client:
        stream = client.share([SECRET, DOCUMENT, QUESTION], bundle, kind=SliceKind.EXCERPT)
        async for _ in stream:
            pass
    messages = list(read_capture(capture))
    sent = sum(len(m.message) for m in messages if m.direction is Direction.SENT)
    received = sum(len(m.message) for m in messages if m.direction is Direction.RECEIVED)
    assert (stream.bytes_sent, stream.bytes_received) == (sent, received)
    assert 0 < stream.payload_bytes < received and stream.share_arrived == 1.0
    assert b"zanzibar" not in capture.read_bytes() and b"Who keeps the key" in capture.read_bytes()


async def test_describe_says_what_the_cloud_offers(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    async with AsyncClient(config) as client:
        assert await client.describe() == server.service.description


def test_the_sync_client_gives_the_same_parts(config: EdgeConfig, bundle: Bundle) -> None:
    with Client(config) as client:
        parts = list(client.share([DOCUMENT, QUESTION], bundle, kind=SliceKind.EXCERPT))
        assert client.describe().bundles[0].bundle_hash == bundle.hash
    assert [type(part) for part in parts] == [SliceHeader, Segment, SliceTrailer]
    client.close()  # a second time does nothing


def test_a_closed_slice_ends_with_an_error_and_cancels_the_call(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    server.service.tamper = lambda parts: [*list(parts)[:1], 20.0]
    with Client(config) as client:
        shared = client.share([DOCUMENT, QUESTION], bundle, kind=SliceKind.EXCERPT)
        assert isinstance(next(iter(shared)), SliceHeader)
        shared.close()
        with pytest.raises(KvwireError):
            list(shared)
    wait_until(server.service.cancelled.is_set)


async def test_a_slice_not_read_to_its_end_cancels_the_call(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    server.service.tamper = lambda parts: [*list(parts)[:1], 20.0]
    async with AsyncClient(config) as client:
        stream = client.share([DOCUMENT, QUESTION], bundle, kind=SliceKind.EXCERPT)
        await anext(stream)
        await stream.aclose()
        await asyncio.to_thread(wait_until, server.service.cancelled.is_set)


async def test_an_unknown_document_is_not_found(config: EdgeConfig, bundle: Bundle) -> None:
    missing = Section(Role.DOCUMENT, Visibility.CLOUD, document_id="nobody's")
    async with AsyncClient(config) as client:
        with pytest.raises(NotFound):
            await _parts(client, bundle, missing, QUESTION, kind=SliceKind.EXCERPT)
        assert len(await _parts(client, bundle, DOCUMENT, QUESTION)) == 3  # the next request works


async def test_a_request_that_cannot_be_answered_is_not_sent(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    long = Section(Role.QUESTION, Visibility.SHARED, text="x" * 10_000)
    only_shared = Bundle(dataclasses.replace(bundle.config, translate=None), bundle.fuse)
    async with AsyncClient(config) as client:
        with pytest.raises(TooLarge):
            client.share([long], bundle, kind=SliceKind.SHARED)
        with pytest.raises(InvalidRequest):
            client.share([DOCUMENT, QUESTION], only_shared, kind=SliceKind.EXCERPT)
        with pytest.raises(InvalidRequest):
            client.share([SECRET], bundle, kind=SliceKind.SHARED)
        with pytest.raises(InvalidRequest):
            client.share([QUESTION], bundle, kind=SliceKind.SHARED, deadline_s=0.0)
        with pytest.raises(Unsupported):
            client.share([QUESTION], bundle, kind=SliceKind.SHARED, plan=Plan(codec="morse"))
    assert not server.service.requests


async def test_another_bundle_is_refused_with_both_hashes(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    other = Bundle(bundle.config, bundle.fuse, bundle.translate)
    other._hash = "ab" * 32
    async with AsyncClient(config) as client:
        with pytest.raises(IncompatiblePeer) as caught:
            await _parts(client, other, DOCUMENT, QUESTION)
    assert (caught.value.cloud, caught.value.edge) == (bundle.hash, "ab" * 32)


async def test_a_busy_cloud_is_asked_again_after_the_time_it_names(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    server.service.failures += [Busy(0.3)]
    started = time.monotonic()
    async with AsyncClient(config) as client:
        assert len(await _parts(client, bundle, DOCUMENT, QUESTION)) == 3
    assert time.monotonic() - started >= 0.3


async def test_a_cloud_busy_beyond_the_deadline_is_not_waited_for(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    server.service.failures += [Busy(60.0)]
    started = time.monotonic()
    assert isinstance(await _failure(config, bundle, deadline_s=5.0), Busy)
    assert time.monotonic() - started < 4.0


async def test_other_failures_are_not_tried_again(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    server.service.failures += [InternalError(), InternalError()]
    assert isinstance(await _failure(config, bundle), InternalError)
    assert len(server.service.failures) == 1


async def test_nothing_is_tried_again_once_the_header_is_here(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    def dies(parts: Iterable[Part]) -> Iterable[Part]:
        yield next(iter(parts))
        raise Busy(0.0)

    server.service.tamper = dies
    assert isinstance(await _failure(config, bundle), Busy)
    assert len(server.service.requests) == 1


async def test_each_attempt_has_a_request_id_of_its_own(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    def busy_once(parts: Iterable[Part]) -> Iterable[Part]:
        if len(server.service.requests) == 1:
            raise Busy(0.0)
        return parts

    server.service.tamper = busy_once
    async with AsyncClient(config) as client:
        await _parts(client, bundle, DOCUMENT, QUESTION)
    first, second = server.service.requests
    assert first.request_id != second.request_id and first.sections == second.sections


async def test_a_server_that_stalls_is_left_at_the_deadline(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    server.service.tamper = lambda parts: [*list(parts)[:2], 30.0]
    started = time.monotonic()
    assert isinstance(await _failure(config, bundle, deadline_s=1.0), DeadlineExceeded)
    assert time.monotonic() - started < 4.0
    await asyncio.to_thread(wait_until, server.service.cancelled.is_set)


async def test_a_server_that_dies_in_the_middle_is_unreachable(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    server.service.tamper = lambda parts: [*list(parts)[:2], 30.0]
    async with AsyncClient(config) as client:
        stream = client.share([DOCUMENT, QUESTION], bundle, kind=SliceKind.EXCERPT)
        await anext(stream)
        await asyncio.to_thread(server.stop)
        try:
            with pytest.raises(Unreachable):
                await anext(stream)
        finally:
            await asyncio.to_thread(server.start, server.port)
        server.service.tamper = lambda parts: parts
        assert len(await _parts(client, bundle, DOCUMENT, QUESTION)) == 3  # the client finds it again


async def test_nobody_at_the_address_is_unreachable_within_a_second(
    config: EdgeConfig, bundle: Bundle
) -> None:
    nobody = dataclasses.replace(config, cloud=CloudPeer(address="127.0.0.1:1"))
    started = time.monotonic()
    assert isinstance(await _failure(nobody, bundle), Unreachable)
    assert time.monotonic() - started < 3.0


async def test_a_port_that_never_answers_is_unreachable_within_the_deadline(
    config: EdgeConfig, bundle: Bundle
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        deaf = dataclasses.replace(config, cloud=CloudPeer(f"127.0.0.1:{silent.getsockname()[1]}"))
        started = time.monotonic()
        assert isinstance(await _failure(deaf, bundle, deadline_s=1.0), Unreachable | DeadlineExceeded)
        assert time.monotonic() - started < 3.0


async def test_a_port_that_hangs_up_is_unreachable(config: EdgeConfig, bundle: Bundle) -> None:
    rude = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = rude.sockets[0].getsockname()[1]
    towards = dataclasses.replace(config, cloud=CloudPeer(address=f"127.0.0.1:{port}"))
    assert isinstance(await _failure(towards, bundle), Unreachable)
    rude.close()


@pytest.mark.parametrize("hosts", [(), ("127.0.0.1",), ("cloud.example",), ("*.example",)])
async def test_the_spiffe_id_counts_and_the_host_names_do_not(
    config: EdgeConfig, bundle: Bundle, slice_service: SliceService, tmp_path: Path, hosts: tuple[str, ...]
) -> None:
    made = make_certificates(tmp_path / "tls", ["acme"], hosts=hosts)
    files = TlsFiles(made.cloud.certificate, made.cloud.key, made.ca.certificate)
    pair = made.edges["acme"]
    tls = TlsConfig(str(pair.certificate), str(pair.key), str(made.ca.certificate))
    with serving(slice_service, files) as there:
        towards = dataclasses.replace(config, tls=tls, cloud=CloudPeer(address=there.address))
        async with AsyncClient(towards) as client:
            assert len(await _parts(client, bundle, DOCUMENT, QUESTION)) == 3


async def test_a_cloud_that_gets_a_new_certificate_is_found_again(
    config: EdgeConfig, bundle: Bundle, slice_service: SliceService, tmp_path: Path
) -> None:
    first = make_certificates(tmp_path / "tls", ["acme"])
    pair = first.edges["acme"]
    tls = TlsConfig(str(pair.certificate), str(pair.key), str(first.ca.certificate))
    files = TlsFiles(first.cloud.certificate, first.cloud.key, first.ca.certificate)
    with serving(slice_service, files) as there:
        towards = dataclasses.replace(config, tls=tls, cloud=CloudPeer(address=there.address))
        async with AsyncClient(towards) as client:
            await _parts(client, bundle, DOCUMENT, QUESTION)
            await asyncio.to_thread(there.stop)
            for path in (first.cloud.certificate, first.cloud.key):
                path.unlink()
            make_certificates(tmp_path / "tls", [])
            there.files = files
            await asyncio.to_thread(there.start, there.port)
            assert len(await _parts(client, bundle, DOCUMENT, QUESTION)) == 3


@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize("field", ["data", "checksum", "sequence"])
async def test_a_corrupt_frame_is_never_handed_on(
    config: EdgeConfig, bundle: Bundle, server: RunningServer, place: str, field: str
) -> None:
    def corrupt(parts: Iterable[Part]) -> Iterable[Part]:
        listed = list(parts)
        frames = [i for i, part in enumerate(listed) if isinstance(part, Frame)]
        index = {"first": frames[0], "middle": frames[len(frames) // 2], "last": frames[-1]}[place]
        frame = listed[index]
        assert isinstance(frame, Frame)
        if field == "data":
            flipped: object = bytes([frame.data[0] ^ 1]) + frame.data[1:]
        else:
            flipped = getattr(frame, field) ^ 1
        listed[index] = dataclasses.replace(frame, **{field: flipped})
        return listed

    server.service.tamper = corrupt
    async with AsyncClient(config) as client:
        with pytest.raises(BadChecksum):
            async for part in client.share([DOCUMENT, QUESTION], bundle, kind=SliceKind.EXCERPT):
                assert isinstance(part, SliceHeader)  # the only segment is not whole


def _without_summary(parts: list[Part]) -> list[Part]:
    return parts[:-1]


def _without_header(parts: list[Part]) -> list[Part]:
    return parts[1:]


def _two_headers(parts: list[Part]) -> list[Part]:
    return [parts[0], *parts]


def _frame_missing(parts: list[Part]) -> list[Part]:
    return [*parts[:2], *parts[3:]]


def _frames_swapped(parts: list[Part]) -> list[Part]:
    return [parts[0], parts[2], parts[1], *parts[3:]]


def _after_the_end(parts: list[Part]) -> list[Part]:
    return [*parts, parts[1]]


def _nothing(parts: list[Part]) -> list[Part]:
    return []


@pytest.mark.parametrize(
    "change",
    [
        _without_summary,
        _without_header,
        _two_headers,
        _frame_missing,
        _frames_swapped,
        _after_the_end,
        _nothing,
    ],
)
async def test_a_slice_out_of_order_or_incomplete_never_ends_well(
    config: EdgeConfig, bundle: Bundle, server: RunningServer, change: object
) -> None:
    server.service.tamper = lambda parts: change(list(parts))  # type: ignore[operator]
    assert isinstance(await _failure(config, bundle), BadPayload | BadChecksum)


async def test_the_summary_of_another_slice_is_refused(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    def other(parts: Iterable[Part]) -> Iterable[Part]:
        *rest, summary = parts
        assert isinstance(summary, SliceTrailer)
        return [*rest, dataclasses.replace(summary, digest=bytes(16))]

    server.service.tamper = other
    assert isinstance(await _failure(config, bundle), BadChecksum)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"request_digest": bytes(16)}, BadHeader),
        ({"specs": ()}, None),
    ],
)
async def test_a_header_that_answers_another_request_is_refused(
    config: EdgeConfig,
    bundle: Bundle,
    server: RunningServer,
    changes: dict[str, object],
    error: type[KvwireError] | None,
) -> None:
    def lie(parts: Iterable[Part]) -> Iterable[Part]:
        header, *rest = parts
        assert isinstance(header, SliceHeader)
        return [dataclasses.replace(header, **changes), *rest]  # type: ignore[arg-type]

    server.service.tamper = lie
    assert isinstance(await _failure(config, bundle), error or KvwireError)


async def test_segments_the_bundle_does_not_read_are_refused_before_their_frames(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    def wider(parts: Iterable[Part]) -> Iterable[Part]:
        header, *rest = parts
        assert isinstance(header, SliceHeader)
        spec = header.specs[0]
        wide = dataclasses.replace(spec, shape=(spec.shape[0], spec.shape[1] + 1))
        return [dataclasses.replace(header, specs=(wide,)), *rest]

    server.service.tamper = wider
    assert isinstance(await _failure(config, bundle), BadHeader)


async def test_a_cloud_of_a_foreign_authority_is_refused(
    config: EdgeConfig, bundle: Bundle, slice_service: SliceService, tmp_path: Path
) -> None:
    foreign = make_certificates(tmp_path / "foreign", ["acme"])
    files = TlsFiles(foreign.cloud.certificate, foreign.cloud.key, foreign.ca.certificate)
    with serving(slice_service, files) as other:
        towards = dataclasses.replace(config, cloud=CloudPeer(address=other.address))
        assert isinstance(await _failure(towards, bundle), AccessDenied)


async def test_an_edge_with_a_foreign_certificate_is_told_so_within_a_second(
    config: EdgeConfig, bundle: Bundle, certificates: Certificates, tmp_path: Path
) -> None:
    pair = make_certificates(tmp_path / "foreign", ["acme"]).edges["acme"]
    tls = TlsConfig(str(pair.certificate), str(pair.key), str(certificates.ca.certificate))
    started = time.monotonic()
    assert isinstance(await _failure(dataclasses.replace(config, tls=tls), bundle), AccessDenied)
    assert time.monotonic() - started < 3.0


async def test_an_edge_that_plays_the_cloud_is_refused(
    config: EdgeConfig, bundle: Bundle, slice_service: SliceService, certificates: Certificates
) -> None:
    edge = certificates.edges["other"]
    files = TlsFiles(edge.certificate, edge.key, certificates.ca.certificate)
    with serving(slice_service, files) as impostor:
        towards = dataclasses.replace(config, cloud=CloudPeer(address=impostor.address))
        assert isinstance(await _failure(towards, bundle), AccessDenied)


async def test_another_cloud_of_the_same_authority_is_refused(config: EdgeConfig, bundle: Bundle) -> None:
    cloud = dataclasses.replace(config.cloud, identity="spiffe://kvwire/cloud/elsewhere")
    error = await _failure(dataclasses.replace(config, cloud=cloud), bundle)
    assert isinstance(error, AccessDenied) and "cloud/main" in str(error)


def test_the_sharers_own_answer_is_relayed_and_notes_stay_here(
    config: EdgeConfig, bundle: Bundle, slice_service: SliceService
) -> None:
    slice_service.relays.clear()
    slice_service.failures = [Busy(0.01)]
    with Client(config) as client:
        reply = client.relay([SECRET, DOCUMENT, QUESTION], bundle, max_new_tokens=6)
    sections = [dataclasses.replace(DOCUMENT, document_id=None, text=DOCUMENTS["note-1"]), QUESTION]
    assert reply.text == "".join(slice_service.sharer.answer(sections, 6))
    (request,) = slice_service.relays
    assert request.sections == (DOCUMENT, QUESTION) and request.max_new_tokens == 6


@pytest.mark.parametrize("error", [RelayDisabled(), NotFound()])
async def test_a_relay_that_is_refused_says_why(
    config: EdgeConfig, bundle: Bundle, slice_service: SliceService, error: KvwireError
) -> None:
    slice_service.failures = [error]
    async with AsyncClient(config) as client:
        with pytest.raises(type(error)):
            await client.relay([DOCUMENT, QUESTION], bundle, max_new_tokens=4)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
async def test_nothing_is_relayed_without_a_deadline(
    config: EdgeConfig, bundle: Bundle, slice_service: SliceService, seconds: float
) -> None:
    slice_service.relays.clear()
    async with AsyncClient(config) as client:
        with pytest.raises(InvalidRequest, match="a deadline of"):
            await client.relay([QUESTION], bundle, max_new_tokens=4, deadline_s=seconds)
    assert not slice_service.relays


@pytest.mark.parametrize("seconds", [0.001, 0.03, 0.05])
async def test_a_deadline_too_short_to_begin_has_passed(
    config: EdgeConfig, bundle: Bundle, server: RunningServer, seconds: float
) -> None:
    async with AsyncClient(config) as client:
        stream = client.share([DOCUMENT, QUESTION], bundle, kind=SliceKind.EXCERPT, deadline_s=seconds)
        with pytest.raises(DeadlineExceeded):
            await anext(stream)
        with pytest.raises(DeadlineExceeded):
            await client.describe(seconds)
    assert not server.service.requests


@pytest.mark.parametrize("seconds", [4e7, 1e9, 1e12])
async def test_a_deadline_beyond_the_limit_is_cut_to_it(
    config: EdgeConfig, bundle: Bundle, server: RunningServer, seconds: float
) -> None:
    async with AsyncClient(config) as client:
        assert len(await _parts(client, bundle, DOCUMENT, QUESTION, deadline_s=seconds)) == 3
    (remaining,) = server.service.remaining_s
    assert remaining is not None and 100 < remaining <= 120


@pytest.mark.parametrize("key", ["certificate", "key", "authority"])
async def test_a_file_that_is_gone_while_running_makes_the_cloud_unreachable_by_its_key(
    config: EdgeConfig, bundle: Bundle, key: str
) -> None:
    tls = dataclasses.replace(config.tls, **{key: "/gone.pem"})
    error = await _failure(dataclasses.replace(config, tls=tls), bundle)
    assert isinstance(error, Unreachable) and f"tls.{key}: /gone.pem" in str(error)


async def test_a_certificate_of_ours_that_is_over_is_told_so(
    config: EdgeConfig, bundle: Bundle, certificates: Certificates, tmp_path: Path
) -> None:
    shutil.copytree(certificates.ca.certificate.parent, tmp_path / "tls")
    pair = make_certificates(tmp_path / "tls", ["late"], days=0).edges["late"]
    await asyncio.sleep(1.1)  # a certificate counts in seconds
    tls = dataclasses.replace(config.tls, certificate=str(pair.certificate), key=str(pair.key))
    error = await _failure(dataclasses.replace(config, tls=tls), bundle)
    assert isinstance(error, AccessDenied) and "expired" in str(error)


async def test_a_server_that_refuses_our_certificate_by_an_alert_is_believed(
    config: EdgeConfig, bundle: Bundle, certificates: Certificates, tmp_path: Path
) -> None:
    other = make_certificates(tmp_path / "other", [])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cloud.certificate, certificates.cloud.key)
    context.load_verify_locations(other.ca.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:  # asyncio's server would close without the alert, as gRPC's does
        near, _ = listener.accept()
        near.settimeout(10)
        with near, contextlib.suppress(OSError), context.wrap_socket(near, server_side=True) as tls:
            tls.read()

    refusing = asyncio.create_task(asyncio.to_thread(refuse))
    towards = dataclasses.replace(config, cloud=CloudPeer(address=f"127.0.0.1:{listener.getsockname()[1]}"))
    error = await _failure(towards, bundle)
    assert isinstance(error, AccessDenied) and "UNKNOWN_CA" in str(error)
    await refusing
    listener.close()


async def test_an_answer_to_another_request_is_not_relayed(
    config: EdgeConfig, bundle: Bundle, slice_service: SliceService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slice_service, "relay_id", bytes(16))
    async with AsyncClient(config) as client:
        with pytest.raises(BadHeader, match="another request"):
            await client.relay([QUESTION], bundle, max_new_tokens=4)


PLANS: list[tuple[SliceKind, Plan]] = [
    (SliceKind.SHARED, Plan(codec="raw", layers=(0, 2), last=6)),
    (SliceKind.SHARED, Plan(codec="int8", bottleneck=True, padded=True)),
    (SliceKind.EXCERPT, Plan(codec="raw", positions=4, code_dim=6, padded=True)),
]


@pytest.mark.parametrize(("kind", "plan"), PLANS)
async def test_a_slice_partial_by_plan_arrives_whole(
    config: EdgeConfig, bundle: Bundle, kind: SliceKind, plan: Plan
) -> None:
    async with AsyncClient(config) as client:
        stream = client.share([DOCUMENT, QUESTION], bundle, kind=kind, plan=plan)
        header, *segments, summary = [part async for part in stream]
    assert isinstance(header, SliceHeader) and isinstance(summary, SliceTrailer)
    assert tuple(s.spec for s in segments if isinstance(s, Segment)) == header.specs
    assert header.specs == slice_specs(bundle, kind, plan, header.positions, header.specs[0].dtype)
    assert header.positions == (plan.last or plan.positions or header.positions)
    assert stream.share_arrived == 1.0


@pytest.mark.parametrize(
    ("number", "dial"),
    [(0, "layers"), (0, "last"), (1, "bottleneck"), (2, "positions"), (2, "code_dim")],
)
async def test_a_cloud_that_sends_more_than_the_plan_is_refused(
    config: EdgeConfig, bundle: Bundle, server: RunningServer, number: int, dial: str
) -> None:
    kind, plan = PLANS[number]
    wider = dataclasses.replace(plan, **{dial: getattr(WHOLE, dial)})  # type: ignore[arg-type]
    server.service.serve = lambda request: dataclasses.replace(request, plan=wider)
    assert isinstance(await _failure(config, bundle, kind=kind, plan=plan), BadHeader | BadPayload)


def test_more_positions_than_the_bundle_makes_are_refused_where_the_plan_names_none(bundle: Bundle) -> None:
    kind = SliceKind.EXCERPT
    most = most_positions(bundle, WHOLE, SliceKind.EXCERPT)

    def header(positions: int) -> SliceHeader:
        return SliceHeader(bytes(16), kind, slice_specs(bundle, kind, WHOLE, positions, "float32"), (), 0)

    check_specs(header(most), bundle, WHOLE)
    with pytest.raises(BadHeader, match="more positions"):
        check_specs(header(most + 1), bundle, WHOLE)


async def test_a_slice_that_is_not_padded_as_asked_is_refused(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    for padded in (True, False):
        other = Plan(codec="raw", padded=not padded)
        server.service.serve = lambda request, other=other: dataclasses.replace(request, plan=other)
        plan = Plan(codec="raw", padded=padded)
        assert isinstance(await _failure(config, bundle, plan=plan), BadPayload)


async def test_a_cloud_that_may_send_more_bytes_than_asked_for_is_refused(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    most = 8 * 24 * 4
    async with AsyncClient(config) as client:
        assert len(await _parts(client, bundle, DOCUMENT, QUESTION, max_bytes=most)) == 3
    assert isinstance(
        await _failure(config, bundle, max_bytes=most - 1), TooLarge
    )  # the cloud says so itself
    server.service.serve = lambda request: dataclasses.replace(request, max_bytes=0)
    error = await _failure(config, bundle, max_bytes=most - 1)
    assert isinstance(error, BadPayload) and "payload bytes" in error.detail


async def test_a_plan_that_the_bundle_cannot_do_is_not_sent(
    config: EdgeConfig, bundle: Bundle, server: RunningServer
) -> None:
    async with AsyncClient(config) as client:
        for kind, plan, error in (
            (SliceKind.SHARED, Plan(codec="raw", layers=(3,)), InvalidRequest),
            (SliceKind.SHARED, Plan(codec="raw", code_dim=3), InvalidRequest),
            (SliceKind.EXCERPT, Plan(codec="raw", code_dim=99), InvalidRequest),
            (SliceKind.EXCERPT, Plan(codec="raw", bottleneck=True), InvalidRequest),
        ):
            with pytest.raises(error):
                client.share([DOCUMENT, QUESTION], bundle, kind=kind, plan=plan)
        with pytest.raises(TooLarge, match="96 is over the limit of 95"):  # of one position
            client.share([DOCUMENT, QUESTION], bundle, kind=SliceKind.EXCERPT, max_bytes=95)
        with pytest.raises(InvalidRequest, match="max_bytes"):
            client.share([DOCUMENT, QUESTION], bundle, kind=SliceKind.EXCERPT, max_bytes=-1)
    assert not server.service.requests
