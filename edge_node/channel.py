"""Calls to the cloud, over a channel that is pinned to its identity.

Messages are bytes here, so what is counted and captured is exactly what crosses the wire.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import grpc
import grpc.aio

from edge_node.capture import Capture, Direction
from edge_node.config import EdgeConfig
from edge_node.connection import Connection, Unanswered
from edge_node.peer import pin_cloud
from edge_node.retry import Deadline
from kvwire.errors import DeadlineExceeded
from kvwire.limits import PING_S, Limits
from kvwire.status import from_rpc_error

SERVICE: Final = "/kvwire.v1.SharerService"
_KEEPALIVE_TIMEOUT_MS: Final = 10_000


@dataclass(slots=True)
class Traffic:
    """Bytes of serialised protobuf messages; and when the last one left and came, in seconds of the monotonic clock."""

    sent: int = 0
    received: int = 0
    sent_at: float = 0.0
    received_at: float = 0.0


class CloudChannel:
    """Calls over one shared connection. Used within one event loop."""

    def __init__(self, config: EdgeConfig, limits: Limits) -> None:
        self._config = config
        self._limits = limits
        self._capture = Capture(config.capture) if config.capture else None
        self._connection = Connection(self._open, config.cloud.address)

    async def unary(self, method: str, message: bytes, deadline: Deadline, traffic: Traffic) -> bytes:
        """One message for one message. Raises KvwireError."""
        async with self._connection.lease(deadline) as held, self._translated(traffic):
            self._count(traffic, Direction.SENT, message)
            call: Any = held.channel.unary_unary(f"{SERVICE}/{method}")
            reply: bytes = await self._connection.reply(held, call(message, timeout=deadline.left_s))
            self._count(traffic, Direction.RECEIVED, reply)
            return reply

    async def stream(
        self, method: str, message: bytes, deadline: Deadline, traffic: Traffic
    ) -> AsyncIterator[bytes]:
        """One message for a stream of them. Closing the iterator cancels the call. Raises KvwireError."""
        async with self._connection.lease(deadline) as held, self._translated(traffic):
            self._count(traffic, Direction.SENT, message)
            begin: Any = held.channel.unary_stream(f"{SERVICE}/{method}")
            call = begin(message, timeout=deadline.left_s)
            try:
                while (reply := await self._connection.reply(held, call.read())) is not grpc.aio.EOF:
                    self._count(traffic, Direction.RECEIVED, reply)
                    yield reply
            finally:
                call.cancel()  # does nothing where the call is over

    async def close(self) -> None:
        """Close the connection and the capture. Calls in flight are cancelled."""
        await self._connection.close()
        if self._capture is not None:
            self._capture.close()

    async def _open(self) -> grpc.aio.Channel:
        pinned = await pin_cloud(self._config)
        options = [
            ("grpc.ssl_target_name_override", pinned.name),
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),  # `edge_node.retry` decides
            ("grpc.max_reconnect_backoff_ms", 2_000),
            ("grpc.max_send_message_length", self._limits.max_request_bytes),
            ("grpc.max_receive_message_length", self._limits.max_message_bytes),
            ("grpc.keepalive_time_ms", round(PING_S * 1_000)),
            ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        return grpc.aio.secure_channel(self._config.cloud.address, pinned.credentials, options=options)

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
