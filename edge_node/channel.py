"""Calls to the cloud, over a channel that is pinned to its identity; what crosses the wire is counted and captured.

Messages are bytes here, so what is counted and captured is exactly what crosses the wire. gRPC for Python checks a
server's host name and shows nothing of its certificate. So one TLS handshake is made first that reads the certificate
and checks its SPIFFE id; the channel then trusts that certificate alone, so the same key must answer there. Gateways
behind one address share a certificate, or else the client looks again when one fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import grpc
import grpc.aio

from edge_node.bounds import Deadline, Home
from edge_node.config import EdgeConfig, TlsConfig, split_address
from edge_node.connection import Connected, Connection, Unanswered
from edge_node.link import Link
from fuser.config import BadConfig
from kvwire.errors import AccessDenied, DeadlineExceeded, InvalidRequest, TooLarge, Unreachable
from kvwire.limits import MAX_TOKEN_CHARS, METADATA_OPTIONS, PING_S, Limits
from kvwire.status import from_rpc_error
from kvwire.traces import traceparent

SERVICE: Final = "/kvwire.v1.SharerService"
_KEEPALIVE_TIMEOUT_MS: Final = 10_000


@dataclass(slots=True)
class Traffic:
    """Bytes of serialised protobuf messages; when the last one left and came, in seconds of the monotonic clock; and
    the id of the last request for a slice or a text, in hex, by which the cloud's log has it."""

    sent: int = 0
    received: int = 0
    sent_at: float = 0.0
    received_at: float = 0.0
    request_id: str = ""
    connect_s: float = 0.0
    """Seconds that were waited for a connection."""


class CloudChannel:
    """Calls over one shared connection. Used within one event loop."""

    def __init__(self, config: EdgeConfig, limits: Limits) -> None:
        self._config = config
        self.limits = limits
        self.link = Link()
        """The running estimate of the link, from these calls."""
        self.home = Home("a client of the cloud")
        """The process that it may be used in."""
        self._capture = Capture(config.capture) if config.capture else None
        self.connection = Connection(self._open, config.cloud.addresses)
        """The one connection; its state may be looked at."""

    async def unary(
        self, method: str, message: bytes, deadline: Deadline, traffic: Traffic, user_token: str | None = None
    ) -> bytes:
        """One message for one message; `user_token` says for which user. Raises KvwireError."""
        async with self._leased(deadline, traffic) as held:
            self._count(traffic, Direction.SENT, message)
            call: Any = held.channel.unary_unary(f"{SERVICE}/{method}")
            coming = call(message, timeout=deadline.left_s, metadata=self._metadata(traffic, user_token))
            reply: bytes = await self.connection.reply(held, coming)
            self._count(traffic, Direction.RECEIVED, reply)
            return reply

    async def stream(
        self, method: str, message: bytes, deadline: Deadline, traffic: Traffic, user_token: str | None = None
    ) -> AsyncIterator[bytes]:
        """One message for a stream of them. Closing the iterator cancels the call. Raises KvwireError."""
        async with self._leased(deadline, traffic) as held:
            self._count(traffic, Direction.SENT, message)
            begin: Any = held.channel.unary_stream(f"{SERVICE}/{method}")
            call = begin(message, timeout=deadline.left_s, metadata=self._metadata(traffic, user_token))
            try:
                while (reply := await self.connection.reply(held, call.read())) is not grpc.aio.EOF:
                    self._count(traffic, Direction.RECEIVED, reply)
                    yield reply
            finally:
                call.cancel()  # does nothing where the call is over

    async def close(self) -> None:
        """Close the connection and the capture. Calls in flight are cancelled."""
        await self.connection.close()
        if self._capture is not None:
            self._capture.close()

    async def _open(self, address: str) -> grpc.aio.Channel:
        pinned = await pin_cloud(self._config, address)
        options = [
            ("grpc.ssl_target_name_override", pinned.name),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),  # `edge_node.bounds` decides
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.max_send_message_length", self.limits.max_request_bytes),
            ("grpc.max_receive_message_length", self.limits.max_message_bytes),
            *METADATA_OPTIONS,
            ("grpc.keepalive_time_ms", round(PING_S * 1_000)),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        return grpc.aio.secure_channel(address, pinned.credentials, options=options)

    def _metadata(self, traffic: Traffic, user_token: str | None) -> tuple[tuple[str, str], ...]:
        """The user's token, and W3C's trace context where traces are sent: the request's id is the trace's."""
        traced = self._config.telemetry.otlp is not None and traffic.request_id
        return for_user(user_token) + ((("traceparent", traceparent(traffic.request_id)),) if traced else ())

    @contextlib.asynccontextmanager
    async def _leased(self, deadline: Deadline, traffic: Traffic) -> AsyncIterator[Connected]:
        began = time.monotonic()
        async with self.connection.lease(deadline) as held, self._translated(traffic):
            traffic.connect_s += time.monotonic() - began
            yield held

    @contextlib.asynccontextmanager
    async def _translated(self, traffic: Traffic) -> AsyncIterator[None]:
        received = traffic.received
        try:
            yield
        except grpc.aio.AioRpcError as error:
            for key, value in error.trailing_metadata() or ():
                if key == "grpc-status-details-bin" and isinstance(value, bytes):
                    self._count(traffic, Direction.RECEIVED, value)
            known = from_rpc_error(error)
            if isinstance(known, DeadlineExceeded) and traffic.received == received:
                known = Unanswered(known.detail)
            raise known from error

    def _count(self, traffic: Traffic, direction: Direction, message: bytes) -> None:
        if direction is Direction.SENT:
            traffic.sent += len(message)
            traffic.sent_at = time.monotonic()
        else:
            traffic.received += len(message)
            traffic.received_at = time.monotonic()
        if self._capture is not None:
            self._capture.add(direction, message)


def for_user(token: str | None) -> tuple[tuple[str, str], ...]:
    """What the cloud tells the users of one edge by; no capture has it.

    Raises:
        TooLarge: it is too long. InvalidRequest: it is no such token.
    """
    if token is None:
        return ()
    if len(token) > MAX_TOKEN_CHARS:
        raise TooLarge("user token characters", len(token), MAX_TOKEN_CHARS)
    if not _TOKEN.fullmatch(token):
        raise InvalidRequest("the user's token is no JSON Web Token")
    return (("authorization", f"Bearer {token}"),)


_TOKEN: Final = re.compile(r"[A-Za-z0-9_.-]+")


_PREFIX = struct.Struct("<IB")


class Direction(IntEnum):
    """Which way a message went, as the edge sees it."""

    SENT = 0
    RECEIVED = 1


class Captured(NamedTuple):
    """One message of a capture."""

    direction: Direction
    message: bytes


class Capture:
    """A record of every protobuf message that crossed the wire, for audits: what was really sent can be searched.

    Appends messages to a file that only its owner may read. Safe to use from several threads. Format, repeated
    until the end of the file: length of the message (4 bytes, little-endian), direction (1 byte, 0 sent, 1 received),
    the serialised message. An error's `google.rpc.Status` counts as a message received.
    """

    def __init__(self, path: str | Path) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file = os.fdopen(descriptor, "ab", buffering=0)
        self._lock = threading.Lock()

    def add(self, direction: Direction, message: bytes) -> None:
        """Append one serialised message; a closed capture takes no more."""
        with self._lock:
            if not self._file.closed:
                self._file.write(_PREFIX.pack(len(message), direction) + message)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


def read_capture(path: str | Path) -> Iterator[Captured]:
    """The messages of a capture, in the order they crossed.

    Raises:
        ValueError: the file ends inside a message, or is no capture.
    """
    with Path(path).open("rb") as file:
        while prefix := file.read(_PREFIX.size):
            if len(prefix) < _PREFIX.size:
                raise ValueError(f"{path} ends inside a message")
            length, direction = _PREFIX.unpack(prefix)
            message = file.read(length)
            if len(message) < length:
                raise ValueError(f"{path} ends inside a message")
            yield Captured(Direction(direction), message)


_REFUSALS: Final = frozenset(
    f"{version}_ALERT_{what}"
    for version in ("SSLV3", "TLSV1", "TLSV13")
    for what in (
        *("BAD_CERTIFICATE", "CERTIFICATE_EXPIRED", "CERTIFICATE_REQUIRED", "CERTIFICATE_REVOKED"),
        *("CERTIFICATE_UNKNOWN", "UNSUPPORTED_CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED", "NO_CERTIFICATE"),
    )
)
"""Alerts by which a cloud says that it does not accept our certificate, as `ssl` names them."""


@dataclass(frozen=True, slots=True)
class Pinned:
    """Credentials that accept one certificate alone, and a name that it answers to."""

    credentials: grpc.ChannelCredentials
    name: str


async def pin_cloud(config: EdgeConfig, address: str) -> Pinned:
    """Connect to an address of the cloud once, check who is there, and pin it. The caller's timeout ends it.

    Only a certificate that was read and is wrong is a decision; whatever else goes wrong is the link's.

    Raises:
        Unreachable: nobody answers, the connection breaks, or one of our own PEM files cannot be used.
        AccessDenied: the certificate is not the expected cloud's, or the cloud does not accept ours.
    """
    try:
        context, certificate, key = config.tls.load()
    except BadConfig as error:
        raise Unreachable(str(error)) from error
    try:
        named, der, greeted = await _greet(context, *split_address(address))
    except ssl.SSLCertVerificationError as error:
        raise AccessDenied(f"the certificate at {address}: {error.verify_message}") from error
    except ssl.SSLError as error:
        if error.reason in _REFUSALS:
            raise AccessDenied(
                f"{address} does not accept this edge's certificate: {error.reason}"
            ) from error
        raise Unreachable(f"TLS with {address} broke: {error.reason}") from error
    except (OSError, UnicodeError) as error:  # the latter of a name that no resolver takes
        raise Unreachable(f"{address}: {str(error) or 'hung up'}") from error
    check_identity(named, config.cloud.identity)
    if not greeted:
        if fault := _own_fault(config.tls):
            raise AccessDenied(f"{address} does not accept this edge's certificate: {fault}")
        raise Unreachable(f"{address} hung up after the handshake: cut off, or this edge is not accepted")
    credentials = grpc.ssl_channel_credentials(
        ssl.DER_cert_to_PEM_cert(der).encode(), private_key=key, certificate_chain=certificate
    )
    return Pinned(credentials, answers_to(named))


def check_identity(named: Mapping[str, Any], expected: str) -> None:
    """Compare the SPIFFE ids of a certificate, as `ssl` decodes it, with the one expected.

    Raises:
        AccessDenied: it carries none, several, or another one.
    """
    uris = [value for kind, value in named.get("subjectAltName", ()) if kind == "URI"]
    if uris != [expected]:
        found = ", ".join(uris)[:300] or "nobody"
        raise AccessDenied(f"the cloud's certificate is for {found}, not for {expected}")


def answers_to(named: Mapping[str, Any]) -> str:
    """A name that gRPC's own host check will find in the (pinned) certificate."""
    names = named.get("subjectAltName", ())
    for wanted in ("DNS", "IP Address"):
        for kind, value in names:
            if kind == wanted:
                return str(value).replace("*", "pinned", 1)
    for part in named.get("subject", ()):
        for kind, value in part:
            if kind == "commonName":
                return str(value)
    return "pinned"


async def _greet(context: ssl.SSLContext, host: str, port: int) -> tuple[Mapping[str, Any], bytes, bool]:
    """The certificate, decoded and as DER; and whether a byte came after it.

    With TLS 1.3 a server refuses ours only after the handshake.
    """
    reader, writer = await asyncio.open_connection(host, port, ssl=context, server_hostname="")
    try:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        try:
            named, der = tls.getpeercert(), tls.getpeercert(binary_form=True)
        except ValueError as error:  # what came right behind the handshake has broken the connection already
            raise ConnectionAbortedError("TLS broke behind the handshake") from error
        greeted = bool(await reader.read(1))  # an HTTP/2 server speaks first
        return named or {}, der or b"", greeted
    finally:
        writer.transport.abort()


def _own_fault(tls: TlsConfig) -> str | None:
    """What a cloud of the same authority finds wrong with our certificate; None where it would take it.

    gRPC refuses a client's certificate by closing, without an alert, as a link that is cut does. So this edge
    looks for itself: it shows the certificate to a server of its own, in memory.
    """
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode, server.verify_mode = ssl.CERT_NONE, ssl.CERT_REQUIRED
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        server.load_verify_locations(tls.authority)
        for context in (client, server):
            context.load_cert_chain(tls.certificate, tls.key)
        for end in (client.wrap_bio(down, up), server.wrap_bio(up, down, server_side=True)) * 2:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        return error.verify_message
    except OSError:  # a file that changed meanwhile: the next attempt reads it
        return None
    return None
