"""The connection: shared, inside each call's deadline, and not waited for again and again where nobody answers."""

import asyncio
import contextlib
import dataclasses
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edge_node import Ask, Assistant, AsyncClient, Client, EdgeConfig, bounds, connection
from edge_node.config import CloudPeer
from fuser.bundle.bundle import Bundle
from fuser.receiver import Receiver
from kvwire.errors import Cancelled, DeadlineExceeded, Draining, KvwireError, Unreachable
from kvwire.identity import TlsFiles
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.link.background import BackgroundLink
from ops.link.fault import Fault, How, Way
from ops.link.shape import Shape
from tests.edge_node.sharer_server import RunningServer, serving
from tests.edge_node.toml import write_toml
from tests.process import python

if TYPE_CHECKING:
    from ops.certs import Certificates


QUESTION = (Section(Role.QUESTION, Visibility.SHARED, text="Where is the key?"),)


def _towards(config: EdgeConfig, address: str) -> EdgeConfig:
    return dataclasses.replace(config, cloud=CloudPeer(address=address))


@pytest.fixture
def black_hole(config: EdgeConfig) -> Iterator[EdgeConfig]:
    """A configuration whose cloud takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as deaf:
        yield _towards(config, f"127.0.0.1:{deaf.getsockname()[1]}")


@pytest.fixture
def link(server: RunningServer) -> Iterator[BackgroundLink]:
    with BackgroundLink(server.address, Shape(down_mbit=1_000, up_mbit=1_000)) as made:
        yield made


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """All waits shorter, in proportion."""
    monkeypatch.setattr(connection, "CONNECT_S", 1.0)
    monkeypatch.setattr(connection, "_QUICK_S", 0.5)
    monkeypatch.setattr(connection, "_ANSWER_S", 0.5)
    monkeypatch.setattr(connection, "_FIRST_PROBE_S", 0.1)
    monkeypatch.setattr(connection, "_MOST_PROBE_S", 0.2)
    monkeypatch.setattr(bounds, "_FIRST_S", 0.01)


async def _ask(client: AsyncClient, deadline_s: float) -> tuple[KvwireError | None, float]:
    """How it ended, and after how many seconds."""
    began = time.monotonic()
    try:
        await client.describe(deadline_s)
    except KvwireError as error:
        return error, time.monotonic() - began
    return None, time.monotonic() - began


async def _until_answered(client: AsyncClient) -> None:
    end = time.monotonic() + 20
    while (await _ask(client, 5.0))[0] is not None:
        assert time.monotonic() < end
        await asyncio.sleep(0.05)


async def test_each_call_waits_for_a_connection_no_longer_than_its_own_deadline(
    black_hole: EdgeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_S", 2.0)
    async with AsyncClient(black_hole) as client:
        ends = await asyncio.gather(*(_ask(client, s) for s in (20.0, 20.0, 0.4, 20.0, 0.4, 20.0, 0.4)))
    short, long = [ends[i] for i in (2, 4, 6)], [ends[i] for i in (0, 1, 3, 5)]
    assert all(isinstance(error, DeadlineExceeded) and 0.3 < took < 1.6 for error, took in short)
    assert all(isinstance(error, Unreachable) and 1.8 < took < 5.0 for error, took in long)


async def test_a_cloud_that_never_answers_costs_one_connect_timeout_once(
    black_hole: EdgeConfig, hasty: None
) -> None:
    async with AsyncClient(black_hole) as client:
        first, took = await _ask(client, 20.0)
        assert isinstance(first, Unreachable) and 0.9 < took < 4.0
        for _ in range(3):
            again, took = await _ask(client, 20.0)
            assert isinstance(again, Unreachable) and took < 0.5
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_cloud_that_answers_again_is_found_by_the_probe(
    config: EdgeConfig, link: BackgroundLink, hasty: None
) -> None:
    link.silence(True)
    async with AsyncClient(_towards(config, link.address)) as client:
        error, _ = await _ask(client, 5.0)
        assert isinstance(error, Unreachable)
        link.silence(False)
        await _until_answered(client)


async def test_a_connection_that_falls_silent_costs_one_deadline_and_is_then_away(
    config: EdgeConfig, link: BackgroundLink, hasty: None
) -> None:
    async with AsyncClient(_towards(config, link.address)) as client:
        assert (await _ask(client, 5.0))[0] is None
        link.silence(True)
        error, took = await _ask(client, 1.0)
        assert isinstance(error, DeadlineExceeded) and took < 2.0
        error, took = await _ask(client, 10.0)
        assert isinstance(error, Unreachable) and took < 3.0
        error, took = await _ask(client, 10.0)
        assert isinstance(error, Unreachable) and took < 0.3
        link.silence(False)
        await _until_answered(client)


@pytest.fixture
def attentive(hasty: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silence is noticed sooner as well."""
    monkeypatch.setattr(connection, "_SILENT_S", 0.3)
    monkeypatch.setattr(connection, "_ANSWER_S", 2.0)


async def _slice(client: AsyncClient, bundle: Bundle, deadline_s: float) -> tuple[KvwireError | None, float]:
    question = Section(Role.QUESTION, Visibility.SHARED, text="Who keeps the key?")
    began = time.monotonic()
    try:
        async for _ in client.share([question], bundle, kind=SliceKind.SHARED, deadline_s=deadline_s):
            pass
    except KvwireError as error:
        return error, time.monotonic() - began
    return None, time.monotonic() - began


async def test_a_cloud_that_hangs_ends_all_calls_that_wait_and_opens_the_circuit(
    config: EdgeConfig, bundle: Bundle, link: BackgroundLink, attentive: None
) -> None:
    async with AsyncClient(_towards(config, link.address)) as client:
        assert (await _ask(client, 5.0))[0] is None
        link.silence(True)
        ends = await asyncio.gather(*(_slice(client, bundle, 20.0) for _ in range(3)), _ask(client, 20.0))
        for error, took in ends:
            assert isinstance(error, Unreachable) and took < 5.0, (error, took)
        error, took = await _ask(client, 20.0)
        assert isinstance(error, Unreachable) and took < 0.3
        link.silence(False)
        await _until_answered(client)


async def test_a_silence_shorter_than_a_connect_timeout_ends_no_call(
    config: EdgeConfig, bundle: Bundle, link: BackgroundLink, attentive: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_S", 4.0)
    monkeypatch.setattr(connection, "_ANSWER_S", 0.5)
    async with AsyncClient(_towards(config, link.address)) as client:
        assert (await _ask(client, 5.0))[0] is None
        link.silence(True)
        call = asyncio.create_task(_slice(client, bundle, 20.0))
        await asyncio.sleep(1.5)
        link.silence(False)
        error, took = await call
        assert error is None and took > 1.4, error


async def test_a_slice_that_stops_half_way_with_its_cloud_is_not_waited_for(
    config: EdgeConfig, bundle: Bundle, server: RunningServer, link: BackgroundLink, attentive: None
) -> None:
    async with AsyncClient(_towards(config, link.address)) as client:
        server.service.tamper = lambda parts: [*list(parts)[:1], 30.0]
        question = Section(Role.QUESTION, Visibility.SHARED, text="Who keeps the key?")
        with pytest.raises(Unreachable):
            async for _ in client.share([question], bundle, kind=SliceKind.SHARED, deadline_s=20.0):
                link.silence(True)
        link.silence(False)
        await _until_answered(client)


async def test_a_cloud_that_lives_has_all_the_time_it_was_given_and_is_asked_once_for_all_calls(
    config: EdgeConfig,
    bundle: Bundle,
    server: RunningServer,
    link: BackgroundLink,
    attentive: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = 0
    answers = connection._answers

    async def counted(*how: Any, **more: Any) -> bool:
        nonlocal asked
        asked += 1
        return await answers(*how, **more)

    monkeypatch.setattr(connection, "_answers", counted)
    server.service.tamper = lambda parts: [2.0, *parts]
    async with AsyncClient(_towards(config, link.address)) as client:
        assert (await _ask(client, 5.0))[0] is None
        connections = link.proxy.accepted
        ends = await asyncio.gather(*(_slice(client, bundle, 20.0) for _ in range(8)))
        assert all(error is None and took > 1.9 for error, took in ends), ends
    assert 1 <= asked <= 8 and link.proxy.accepted == connections  # of 8 calls in 2 s, one in 0.3 s


async def test_a_call_goes_on_by_the_sign_of_life_that_it_waited_for_though_another_asks_anew(
    attentive: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = connection.Connected(channel=None)  # type: ignore[arg-type]

    async def alive(*how: Any, **more: Any) -> bool:
        held.check = asyncio.create_task(asyncio.sleep(60.0, True))  # as another call does, which woke first
        return True

    monkeypatch.setattr(connection, "_answers", alive)
    calls = connection.Connection(lambda _: asyncio.sleep(0), ["cloud:1"])  # type: ignore[arg-type, return-value]
    assert await calls.reply(held, asyncio.sleep(1.0, "came")) == "came"
    assert held.check is not None and held.check.cancel()


async def test_a_slow_answer_is_no_reason_to_connect_anew(
    config: EdgeConfig, bundle: Bundle, server: RunningServer, link: BackgroundLink
) -> None:
    question = Section(Role.QUESTION, Visibility.SHARED, text="Who keeps the key?")
    async with AsyncClient(_towards(config, link.address)) as client:
        server.service.tamper = lambda parts: [30.0]
        with pytest.raises(DeadlineExceeded):
            async for _ in client.share([question], bundle, kind=SliceKind.SHARED, deadline_s=1.0):
                pass
        connections = link.proxy.accepted
        server.service.tamper = lambda parts: parts
        assert (await _ask(client, 5.0))[0] is None
    assert link.proxy.accepted == connections == 2  # the one that looks who is there, and the channel


@pytest.fixture
def other(server: RunningServer, certificates: "Certificates") -> Iterator[RunningServer]:
    """A second gateway of the same cloud."""
    pair = certificates.cloud
    with serving(
        server.service, TlsFiles(pair.certificate, pair.key, certificates.ca.certificate)
    ) as gateway:
        yield gateway


def _with(config: EdgeConfig, address: str, *fallbacks: str) -> EdgeConfig:
    return dataclasses.replace(config, cloud=CloudPeer(address=address, fallbacks=fallbacks))


async def test_where_the_first_gateway_is_gone_the_next_one_answers(
    config: EdgeConfig, server: RunningServer, hasty: None
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        nobody = f"127.0.0.1:{gone.getsockname()[1]}"
    async with AsyncClient(_with(config, nobody, server.address)) as client:
        assert (await _ask(client, 5.0))[0] is None


async def test_a_gateway_that_hangs_or_takes_no_calls_is_passed_over_too(
    black_hole: EdgeConfig, server: RunningServer, other: RunningServer, hasty: None
) -> None:
    other.health.taking = False
    hung = black_hole.cloud.address
    async with AsyncClient(_with(black_hole, hung, other.address, server.address)) as client:
        assert (await _ask(client, 5.0))[0] is None
    async with AsyncClient(_with(black_hole, hung, other.address)) as client:
        error, _ = await _ask(client, 5.0)
    assert isinstance(error, Unreachable)
    assert "takes no calls now" in error.detail
    assert "no answer from" in error.detail


async def test_a_link_that_is_slow_to_every_gateway_is_given_time_for_each(
    config: EdgeConfig, server: RunningServer, other: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_S", 4.0)
    slow = Shape(down_mbit=1_000, up_mbit=1_000, rtt_ms=300)
    with BackgroundLink(server.address, slow) as one, BackgroundLink(other.address, slow) as two:
        nobody = [f"127.0.0.1:{port}" for port in range(1, 5)]
        async with AsyncClient(_with(config, one.address, two.address, *nobody)) as client:
            assert (await _ask(client, 20.0))[0] is None
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_a_gateway_that_is_going_away_is_left_for_the_next_one(
    config: EdgeConfig, server: RunningServer, other: RunningServer, hasty: None
) -> None:
    async with AsyncClient(_with(config, other.address, server.address)) as client:
        assert (await _ask(client, 5.0))[0] is None
        other.health.taking = False
        other.service.failures.append(Draining(0.0))
        reply = await client.relay(QUESTION, server.service.bundle, max_new_tokens=3, deadline_s=5.0)
        assert reply.tokens == 3
        other.stop()  # nothing of the client is there any more
        assert (await _ask(client, 5.0))[0] is None


def test_an_address_that_stands_there_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        CloudPeer(address="a:1", fallbacks=("b:1", "a:1"))


async def test_a_closed_client_says_so_to_calls_that_wait_for_a_connection(black_hole: EdgeConfig) -> None:
    client = AsyncClient(black_hole)
    waiting = asyncio.create_task(_ask(client, 20.0))
    await asyncio.sleep(0.2)
    await client.close()
    assert isinstance((await waiting)[0], Cancelled)
    assert isinstance((await _ask(client, 20.0))[0], Cancelled)


def test_a_client_closed_by_another_thread_ends_every_call(black_hole: EdgeConfig, bundle: Bundle) -> None:
    client = Client(black_hole)
    question = Section(Role.QUESTION, Visibility.SHARED, text="Who keeps the key?")
    shared = client.share([question], bundle, kind=SliceKind.SHARED)
    with ThreadPoolExecutor(2) as callers:
        calls = callers.submit(client.describe, 20.0), callers.submit(list, shared)
        time.sleep(0.2)
        began = time.monotonic()
        client.close()
        for call in calls:
            with pytest.raises(Cancelled):
                call.result(5.0)
    assert time.monotonic() - began < 2.0
    with pytest.raises(Cancelled):
        client.describe()
    with pytest.raises(Cancelled):
        client.share([question], bundle, kind=SliceKind.SHARED)


async def test_a_name_that_no_resolver_takes_is_unreachable(config: EdgeConfig) -> None:
    async with AsyncClient(_towards(config, f"{'a' * 70}.example:7443")) as client:
        error, _ = await _ask(client, 5.0)
    assert isinstance(error, Unreachable)


BROKEN_HEADERS = b"\0\0\5\1\5\0\0\0\1" + b"\xff" * 5


@pytest.mark.parametrize("said", [b"220 mail.example ready\r\n", BROKEN_HEADERS], ids=["mail", "headers"])
async def test_a_server_that_does_not_keep_to_http_2_is_unreachable(
    config: EdgeConfig, certificates: "Certificates", hasty: None, said: bytes
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cloud.certificate, certificates.cloud.key)
    context.set_alpn_protocols(["h2"])

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0\0\0\4\0\0\0\0\0")  # settings: so far it looks well
        with contextlib.suppress(OSError):
            while await reader.read(65_536):
                writer.write(said)
        writer.close()

    async with await asyncio.start_server(babble, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncClient(_towards(config, f"127.0.0.1:{port}")) as client:
            error, _ = await _ask(client, 5.0)
            assert isinstance(error, Unreachable), error


async def test_a_record_that_is_damaged_right_behind_the_handshake_is_a_fault_of_the_link(
    config: EdgeConfig, certificates: "Certificates", hasty: None
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.cloud.certificate, certificates.cloud.key)

    async def damage(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came, leaves = ssl.MemoryBIO(), ssl.MemoryBIO()
        came.write(await reader.read(65_536))
        with contextlib.suppress(ssl.SSLWantReadError):
            context.wrap_bio(came, leaves, server_side=True).do_handshake()
        writer.write(
            leaves.read() + b"\x17\x03\x03\0\x20" + bytes(32)
        )  # in one piece with the server's last words
        with contextlib.suppress(OSError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(damage, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with AsyncClient(_towards(config, f"127.0.0.1:{port}")) as client:
            error, _ = await _ask(client, 5.0)
            assert isinstance(error, Unreachable), error


POINTS = (0, 1, 7, 90, 200, 600, -1)
"""Bytes of the first connection, before a fault; -1 is its last one."""


@pytest.mark.parametrize("how", ["close", "reset", "damage"])
@pytest.mark.parametrize("way", ["down", "up"])
async def test_a_connection_that_breaks_anywhere_is_a_fault_of_the_link(
    config: EdgeConfig, link: BackgroundLink, hasty: None, way: Way, how: How
) -> None:
    towards = _towards(config, link.address)
    async with AsyncClient(towards) as client:
        assert (await _ask(client, 5.0))[0] is None
    whole = link.proxy.passages[0].carried[way]
    assert whole > 600
    for point in POINTS:
        fault = Fault(way, point % whole, how)
        link.break_new(fault)
        async with AsyncClient(towards) as client:
            error, _ = await _ask(client, 5.0)
        assert isinstance(error, Unreachable), (fault, error)
        link.break_new(fault, most=1)
        async with AsyncClient(towards) as client:
            error, _ = await _ask(client, 5.0)
            assert error is None or isinstance(error, Unreachable), (fault, error)
            await _until_answered(client)


def test_a_link_that_cuts_every_connection_leads_to_the_receivers_own_answer(
    config: EdgeConfig, receiver: Receiver, link: BackgroundLink
) -> None:
    link.break_new(Fault("down", 1_500, "close"))
    config = _towards(config, link.address)
    with Assistant(config, receiver, Client(config)) as assistant:
        answer = assistant.ask("Who keeps the key?", document="note-1")
    assert (answer.source, answer.reason) == ("receiver-only", "UNREACHABLE")


@pytest.mark.parametrize("seconds", [0.001, 0.03, 0.052])
def test_a_deadline_too_short_for_a_slice_leads_to_the_receivers_own_answer(
    assistant: Assistant, seconds: float
) -> None:
    answer = assistant.ask(Ask("Who keeps the key?", document="note-1", deadline_s=seconds))
    assert (answer.source, answer.reason) == ("receiver-only", "DEADLINE_EXCEEDED")


def test_a_file_that_is_gone_while_running_leads_to_the_receivers_own_answer(
    config: EdgeConfig, receiver: Receiver
) -> None:
    config = dataclasses.replace(config, tls=dataclasses.replace(config.tls, certificate="/gone.pem"))
    with Assistant(config, receiver, Client(config)) as assistant:
        answer = assistant.ask("Who keeps the key?", document="note-1")
    assert (answer.source, answer.reason) == ("receiver-only", "UNREACHABLE")


FORKED = """
import os, sys
from edge_node import Client, EdgeConfig

def main():
    client = Client(EdgeConfig.load("edge.toml"))
    print("parent", client.describe().sharer.name, flush=True)
    child = os.fork()
    if child == 0:
        try:
            client.describe(5.0)
        except RuntimeError as error:
            print("child", error, flush=True)
        sys.exit(7)  # runs the handlers of atexit
    print("status", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    print("parent", client.describe().sharer.name, flush=True)
    client.close()

main()
"""


def test_a_client_in_a_forked_child_says_so_and_the_child_ends(config: EdgeConfig, tmp_path: Path) -> None:
    write_toml(config, tmp_path / "edge.toml")
    ended = python("-c", FORKED, cwd=tmp_path)
    first, told, status, again = ended.stdout.splitlines()
    assert "forked" in told and status == "status 7" and first == again
    assert ended.returncode == 0, ended.stderr
