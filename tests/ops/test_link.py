"""The slow link: what goes through it, and that it holds senders back. How exact it is, benchmarks say."""

import asyncio
import contextlib
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from ops.link.background import BackgroundLink
from ops.link.fault import HOWS, Fault, How
from ops.link.proxy import LinkProxy
from ops.link.shape import Lane, NoLoss, Shape, check_loss, shapes

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
FAST = Shape(down_mbit=400, up_mbit=400)


@contextlib.asynccontextmanager
async def linked(
    handler: Handler, shape: Shape
) -> AsyncIterator[tuple[LinkProxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A server behind a link, and a client's connection through it."""
    ends: list[asyncio.StreamWriter] = []

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(writer)
        await handler(reader, writer)

    server = await asyncio.start_server(handled, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, LinkProxy("127.0.0.1:0", f"127.0.0.1:{port}", shape) as link:
        reader, writer = await asyncio.open_connection(*link.address.rsplit(":", 1))
        try:
            yield link, reader, writer
        finally:
            for end in (writer, *ends):
                end.transport.abort()
            await asyncio.sleep(0)  # until they are closed


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_bytes_arrive_unchanged_and_in_order_in_both_directions_at_once() -> None:
    sent = os.urandom(3 << 20)
    async with linked(echo, FAST) as (link, reader, writer):
        writer.write(sent)
        writer.write_eof()
        assert await reader.read(-1) == sent
        assert link.carried == (len(sent), len(sent))


async def test_one_end_may_be_done_while_the_other_still_sends() -> None:
    async def after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.read(-1)
        writer.write(asked[::-1] * 1_000)
        await writer.drain()
        writer.close()

    async with linked(after_the_end, FAST) as (_, reader, writer):
        writer.write(b"abc")
        writer.write_eof()
        assert await reader.read(-1) == b"cba" * 1_000


async def test_a_byte_takes_a_round_trip_there_and_back_and_so_does_a_handshake() -> None:
    shape = Shape(down_mbit=400, up_mbit=400, rtt_ms=60)
    async with linked(echo, shape) as (_, reader, writer):
        took = []
        for _ in range(2):
            began = time.monotonic()
            writer.write(b"x")
            await reader.readexactly(1)
            took.append(time.monotonic() - began)
    assert took[0] >= 0.12
    assert took[1] >= 0.06


async def test_a_transfer_takes_as_long_as_its_rate_says_and_directions_have_their_own() -> None:
    shape = Shape(down_mbit=8, up_mbit=400)
    size = 300_000  # 0.3 s at 8 Mbit/s
    async with linked(echo, shape) as (_, reader, writer):
        began = time.monotonic()
        writer.write(bytes(size))
        await reader.readexactly(size)
        took = time.monotonic() - began
    assert 0.29 <= took <= 1.5


async def test_connections_share_one_link() -> None:
    size = 150_000
    async with linked(echo, Shape(down_mbit=8, up_mbit=400)) as (link, reader, writer):
        reader2, writer2 = await asyncio.open_connection(*link.address.rsplit(":", 1))
        began = time.monotonic()
        for each in (writer, writer2):
            each.write(bytes(size))
        await asyncio.gather(reader.readexactly(size), reader2.readexactly(size))
        took = time.monotonic() - began
        writer2.transport.abort()
    assert took >= 0.29


async def test_a_sender_feels_a_slow_link() -> None:
    """Of a large message only what the buffers hold leaves the sender at once."""
    received = 0

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        while data := await reader.read(1 << 16):
            received += len(data)

    async with linked(sink, Shape(down_mbit=1, up_mbit=1, rtt_ms=20)) as (link, _, writer):
        own = writer.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16_384)
        writer.write(bytes(1 << 20))
        await asyncio.sleep(0.5)
        left = writer.transport.get_write_buffer_size()  # type: ignore[attr-defined]
        _, up = link.carried
    assert up <= 150_000 and received <= up  # half a second of 1 Mbit/s is 62,500 bytes
    assert left > (1 << 20) - up - 300_000  # the rest is still with the sender, not in the link


async def test_a_reader_that_does_not_read_holds_the_sender_back() -> None:
    released = asyncio.Event()

    async def lazy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await released.wait()
        writer.transport.resume_reading()  # type: ignore[attr-defined]
        await echo(reader, writer)

    shape = Shape(down_mbit=80, up_mbit=80)
    sent = os.urandom(8 << 20)
    async with linked(lazy, shape) as (link, reader, writer):
        writer.write(sent)
        writer.write_eof()
        before = -1
        while link.carried[1] != before:
            before = link.carried[1]
            await asyncio.sleep(0.3)
        assert before < 7 << 20
        released.set()
        assert await asyncio.wait_for(reader.read(-1), 30) == sent


async def test_a_server_that_breaks_off_breaks_the_client_off() -> None:
    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        writer.transport.abort()

    async with linked(rude, FAST) as (_, reader, writer):
        writer.write(b"xx")
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(-1), 10) == b""


async def test_where_nobody_listens_the_client_is_cut_off() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with LinkProxy("127.0.0.1:0", f"127.0.0.1:{port}", FAST) as link:
        reader, writer = await asyncio.open_connection(*link.address.rsplit(":", 1))
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(1), 10) == b""
        writer.close()


async def test_another_shape_ends_the_connections_of_the_old_one() -> None:
    async with linked(echo, FAST) as (link, reader, writer):
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        await link.reshape(Shape(down_mbit=5, up_mbit=5))
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(1), 10) == b""
        assert link.carried == (0, 0)
        reader2, writer2 = await asyncio.open_connection(*link.address.rsplit(":", 1))
        writer2.write(b"y")
        assert await reader2.readexactly(1) == b"y"
        writer2.transport.abort()


def test_a_link_runs_beside_code_without_an_event_loop() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        with BackgroundLink(f"{host}:{port}", FAST) as link:
            name, _, number = link.address.rpartition(":")
            with socket.create_connection((name, int(number)), timeout=10) as client:
                far, _ = server.accept()
                with far:
                    client.sendall(b"hello")
                    assert far.recv(5, socket.MSG_WAITALL) == b"hello"
            assert link.carried == (0, 5)


def test_a_link_that_cannot_listen_says_so_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        host, port = taken.getsockname()
        with pytest.raises(OSError):
            BackgroundLink("127.0.0.1:1", FAST, listen=f"{host}:{port}")


def test_bytes_stand_in_line_and_the_line_has_an_end() -> None:
    lane = Lane(8, 0.010)  # a byte a microsecond
    assert lane.enter(1_000, since=5.0) == pytest.approx(5.011)
    assert lane.enter(1_000, since=5.0) == pytest.approx(5.012)
    assert lane.enter(1_000, since=6.0) == pytest.approx(6.011)
    assert lane.wait_s(6.0) == 0
    lane.enter(100_000, since=6.0)
    assert lane.wait_s(6.0) == pytest.approx(0.101 - 0.025)
    assert lane.carried == 103_000


@pytest.mark.parametrize(
    "wrong", [{"down_mbit": 0}, {"up_mbit": float("nan")}, {"rtt_ms": -1}, {"up_mbit": -5}]
)
def test_a_link_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"above 0|or above"):
        Shape(**({"down_mbit": 1, "up_mbit": 1} | wrong))


def test_there_is_a_link_for_every_rate_at_every_round_trip() -> None:
    made = shapes((1, 10), (5, 40))
    assert [(s.down_mbit, s.up_mbit, s.rtt_ms) for s in made] == [
        (1, 1, 5),
        (10, 10, 5),
        (1, 1, 40),
        (10, 10, 40),
    ]
    assert str(made[0]) == "1 Mbit/s, 5 ms"


def test_loss_is_refused_with_the_way_to_have_it() -> None:
    check_loss(0)
    with pytest.raises(NoLoss, match="netem"):
        check_loss(1)


async def through(fault: Fault, sent: bytes) -> bytes:
    """What arrives of `sent` over a link with that fault in its way up."""
    came = bytearray()

    async def keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                came.extend(data)

    async with linked(keep, FAST) as (link, _, writer):
        link.strike(fault)
        writer.write(sent)
        writer.write_eof()
        await asyncio.sleep(0.3)
    return bytes(came)


@pytest.mark.parametrize(
    ("how", "arrives"),
    [
        ("close", b"0123"),
        ("reset", b"0123"),
        ("hang", b"0123"),
        ("half", b"0123"),
        ("stall", b"0123456789"),
        ("linger", b"0123456789"),
        ("damage", b"0123" + bytes([0x34 ^ 0x41, 0x35 ^ 0x41]) + b"6789"),
        ("drop", b"01236789"),
        ("repeat", b"012345456789"),
    ],
)
async def test_a_fault_happens_at_the_byte_that_was_told(how: How, arrives: bytes) -> None:
    assert await through(Fault("up", 4, how, seconds=0.05, size=2), b"0123456789") == arrives


def test_every_fault_of_a_link_is_tried_above() -> None:
    (mark,) = test_a_fault_happens_at_the_byte_that_was_told.pytestmark  # type: ignore[attr-defined]
    assert {how for how, _ in mark.args[1]} == set(HOWS)


async def test_pieces_keep_their_order_whatever_the_jitter() -> None:
    sent = os.urandom(200_000)
    async with linked(echo, Shape(down_mbit=100, up_mbit=100, jitter_ms=3)) as (_, reader, writer):
        writer.write(sent)
        writer.write_eof()
        assert await reader.read(-1) == sent
