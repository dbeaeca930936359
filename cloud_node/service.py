"""SharerService: handshake, deadline, limits, access and policy, then the replicas."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Any, Protocol

from cloud_node.access import Access, identify
from cloud_node.audit import AuditLog
from cloud_node.call import Part, RelayCall, ShareCall
from cloud_node.config import CloudConfig
from cloud_node.documents import DOCUMENT_ID, DocumentInfo
from cloud_node.ledger import Ledger
from cloud_node.replay import RecentRequests
from kvwire import PROTOCOL_VERSION, serde
from kvwire.description import Description, check_request
from kvwire.errors import (
    Busy,
    Cancelled,
    DeadlineExceeded,
    Draining,
    IncompatiblePeer,
    InternalError,
    KvwireError,
    RelayDisabled,
    TooLarge,
)
from kvwire.identity import Identity
from kvwire.request import RelayReply, RelayRequest, ShareRequest
from kvwire.status import to_grpc
from kvwire.v1 import sharer_pb2 as pb
from kvwire.v1.sharer_pb2_grpc import SharerServiceServicer

logger = logging.getLogger(__name__)


class Replicas(Protocol):
    """Where slices come from: Ray Serve, or one replica in this process."""

    def share(self, call: ShareCall, timeout_s: float) -> AsyncIterator[Part]:
        """The parts of one slice. Closing the iterator stops the work. Raises KvwireError."""

    def relay(self, call: RelayCall, timeout_s: float) -> Awaitable[RelayReply]:
        """The Sharer's own answer. Raises KvwireError."""


class SharerService(SharerServiceServicer):  # type: ignore[misc]
    """The servicer. `description` is what this cloud offers. Every error it gives is of the catalogue."""

    def __init__(
        self,
        config: CloudConfig,
        description: Description,
        replicas: Replicas,
        access: Access,
        audit: AuditLog,
    ) -> None:
        self._config = config
        self._description = description
        self._limits = config.limits
        self._replicas = replicas
        self._access = access
        self._audit = audit
        self._recent = RecentRequests()
        self._in_flight = 0
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeResponse:
        """What this cloud offers, for the handshake."""
        async with self._answering("Describe", context):
            _check_version(request.protocol_version)
            self._limits.checked_deadline(context.time_remaining())
            return serde.description_to_proto(self._description)

    async def Share(self, request: pb.ShareRequest, context: Any) -> None:
        """One slice, written to the context part by part as the replica finishes them."""
        async with self._answering("Share", context) as (identity, ledger):
            timeout_s, wanted = self._checked_share(request, context, ledger)
            documents = await self._documents(identity, wanted, ledger)
            call = ShareCall(identity.tenant, wanted, self._allowed(documents))
            self._recent.enter(identity.tenant, wanted.request_id)
            begun = False
            try:
                async with asyncio.timeout(timeout_s):
                    async with contextlib.aclosing(self._replicas.share(call, timeout_s)) as parts:  # type: ignore[type-var]
                        async for part in parts:
                            begun = True
                            await context.write(serde.share_response_to_proto(part))
                            ledger.sent(part)
            finally:
                if not begun:
                    self._recent.forget(identity.tenant, wanted.request_id)

    async def Relay(self, request: pb.RelayRequest, context: Any) -> pb.RelayResponse:
        """The Sharer's own answer as text, where the configuration allows it."""
        async with self._answering("Relay", context) as (identity, ledger):
            timeout_s, wanted = self._checked_relay(request, context, ledger)
            await self._documents(identity, wanted, ledger)
            async with asyncio.timeout(timeout_s):
                reply = await self._replicas.relay(RelayCall(identity.tenant, wanted), timeout_s)
            ledger.bytes = len(reply.text.encode())
            return serde.relay_reply_to_proto(reply)

    async def drain(self, grace_s: float) -> bool:
        """Refuse new calls and wait for those in flight; whether all of them finished in time."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), grace_s)
        except TimeoutError:
            return False
        return True

    def _checked_share(
        self, request: pb.ShareRequest, context: Any, ledger: Ledger
    ) -> tuple[float, ShareRequest]:
        ledger.request_id = request.request_id[:16]
        self._check_size(request)
        _check_version(request.protocol_version)
        wanted = serde.share_request_from_proto(request, self._limits)
        ledger.kind = wanted.kind
        check_request(wanted, self._description)
        return self._limits.checked_deadline(context.time_remaining()), wanted

    def _checked_relay(
        self, request: pb.RelayRequest, context: Any, ledger: Ledger
    ) -> tuple[float, RelayRequest]:
        ledger.request_id = request.request_id[:16]
        if not self._config.export.allow_relay:
            raise RelayDisabled
        self._check_size(request)
        _check_version(request.protocol_version)
        wanted = serde.relay_request_from_proto(request, self._limits)
        check_request(wanted, self._description)
        return self._limits.checked_deadline(context.time_remaining()), wanted

    def _check_size(self, request: pb.ShareRequest | pb.RelayRequest) -> None:
        if request.ByteSize() > self._limits.max_request_bytes:
            raise TooLarge("request bytes", request.ByteSize(), self._limits.max_request_bytes)

    async def _documents(
        self, identity: Identity, wanted: ShareRequest | RelayRequest, ledger: Ledger
    ) -> tuple[DocumentInfo, ...]:
        asked = [section.document_id for section in wanted.sections if section.document_id is not None]
        ledger.documents = tuple(name if DOCUMENT_ID.fullmatch(name) else "?" for name in asked)
        return await self._access.documents_of(identity, asked)

    def _allowed(self, documents: tuple[DocumentInfo, ...]) -> int:
        """Excerpt positions that policy and documents allow."""
        caps = [document.max_positions for document in documents if document.max_positions is not None]
        return min([self._config.export.max_positions, *caps])

    @contextlib.asynccontextmanager
    async def _answering(self, method: str, context: Any) -> AsyncIterator[tuple[Identity, Ledger]]:
        """Identity, admission and books of one call; whatever is raised becomes a status of the catalogue."""
        ledger = Ledger(method)
        self._in_flight += 1
        self._idle.clear()
        try:
            identity = identify(context)
            ledger.tenant = identity.tenant
            retry_s = self._config.sharer.retry_after_s
            if self._draining:
                raise Draining(retry_s)
            if self._in_flight > self._config.gateway.max_concurrent_calls:
                raise Busy(retry_s)
            yield identity, ledger
        except asyncio.CancelledError:
            left_s = context.time_remaining()
            ledger.failed(DeadlineExceeded() if left_s is not None and left_s <= 0 else Cancelled())
            raise
        except Exception as error:
            told = _told(error)
            ledger.failed(told)
            await context.abort_with_status(to_grpc(told))
        finally:
            self._audit.append(ledger.record())
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()


def offered(description: Description, config: CloudConfig) -> Description:
    """What the replicas can do, less the kinds of slice that the export policy keeps in."""
    allowed = frozenset(config.export.kinds)
    bundles = tuple(
        dataclasses.replace(bundle, kinds=tuple(kind for kind in bundle.kinds if kind in allowed))
        for bundle in description.bundles
    )
    return dataclasses.replace(
        description, bundles=bundles, limits=config.limits, relay_allowed=config.export.allow_relay
    )


def _check_version(version: int) -> None:
    if version != PROTOCOL_VERSION:
        raise IncompatiblePeer("protocol version", PROTOCOL_VERSION, version)


def _told(error: Exception) -> KvwireError:
    if isinstance(error, KvwireError):
        return error
    if isinstance(error, TimeoutError):
        return DeadlineExceeded()
    logger.error("%s in a call", type(error).__name__)
    return InternalError(type(error).__name__)
