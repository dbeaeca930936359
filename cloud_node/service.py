"""SharerService: handshake, deadline, limits, access and policy, then the replicas."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from cloud_node.access import Access, identify, refusal_of
from cloud_node.admission import RecentRequests, Turns
from cloud_node.audit import AuditLog, AuditRecord
from cloud_node.call import (
    CallRecord,
    Part,
    Quoting,
    RelayCall,
    ShareCall,
    SummedRecords,
    meter_of,
)
from cloud_node.canary import Canary
from cloud_node.config import CloudConfig
from cloud_node.document_reader import DOCUMENT_ID, DocumentInfo
from cloud_node.export import (
    budget_of,
    check_leaving,
    check_read,
    check_relayed,
    kinds_searched,
    least,
    leaving,
    leaving_nothing,
    positions_allowed,
    tokens_allowed,
    versions_of,
)
from cloud_node.exposure import Budget, Leaving, seconds_left
from cloud_node.passages import PASSAGE_CHARS
from cloud_node.redaction import LookedThrough
from cloud_node.users import Principal, Users
from kvwire import PROTOCOL_VERSION, serde
from kvwire.errors import (
    AuditUnavailable,
    Cancelled,
    DeadlineExceeded,
    Draining,
    ExposureSpent,
    IncompatiblePeer,
    InternalError,
    KvwireError,
    NoPassage,
    TooLarge,
)
from kvwire.limits import Limits
from kvwire.messages import Description, Found, RelayReply, RelayRequest, ShareRequest, check_request
from kvwire.segment import SliceHeader, SliceKind, SliceTrailer
from kvwire.status import to_grpc
from kvwire.telemetry import Lines
from kvwire.traces import Traces
from kvwire.v1 import sharer_pb2 as pb
from kvwire.v1.sharer_pb2_grpc import SharerServiceServicer

logger = logging.getLogger(__name__)

_T = TypeVar("_T")
_SAME_END_S: Final = 0.1
"""A call that its caller ends so shortly before its deadline was ended by the deadline."""


class Replicas(Protocol):
    """Where slices come from: Ray Serve, or one replica in this process."""

    def share(self, call: ShareCall, timeout_s: float) -> AsyncIterator[Part]:
        """The parts of one slice. Closing the iterator stops the work. Raises KvwireError."""

    def relay(self, call: RelayCall, timeout_s: float) -> Awaitable[RelayReply]:
        """The Sharer's own answer. Raises KvwireError."""


class SharerService(SharerServiceServicer):  # type: ignore[misc]
    """The servicer. `description` is what this cloud offers. Every error it gives is of the catalogue.

    Raises:
        OSError, ValueError: as `cloud_node.users.Users`.
    """

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
        self._access, self._users = access, Users(config.users)
        self._looked = LookedThrough()
        self._audit = audit
        self._unanswered = SummedRecords(audit)
        self._recent = RecentRequests()
        sharer = config.sharer
        room, weights = sharer.replicas * sharer.max_ongoing, config.gateway.weights
        self._turns = Turns(room, sharer.max_queued, sharer.retry_after_s, weights)
        self._in_flight = 0
        self.meter, self._lines = meter_of(config, description), Lines(logger)
        self.traces = Traces(config.telemetry.otlp, "kvwire-cloud")
        self.meter.read("kvwire_cloud_calls_in_flight", lambda: self._in_flight)
        unanswered = functools.partial(self.meter.add, "kvwire_cloud_canary_failures_total")
        self.canary = Canary(replicas, description, lambda reason: unanswered(reason=reason))
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    def replicas_up(self, count: int) -> None:
        """So many replicas can take calls now. Calls go on waiting for turns while they are fewer than configured."""
        sharer = self._config.sharer
        self._turns.resize(max(count, sharer.replicas) * sharer.max_ongoing)

    async def Describe(self, request: pb.DescribeRequest, context: Any) -> pb.DescribeResponse:
        """What this cloud offers, for the handshake."""
        async with self._answering("Describe", context):
            _check_version(request.protocol_version)
            return serde.description_to_proto(self._description)

    async def Search(self, request: pb.SearchRequest, context: Any) -> pb.SearchResponse:
        """Which passages of the tenant's documents have a question's words, where the configuration tells that."""
        async with self._answering("Search", context) as (caller, record):
            wanted = self._parsed(request, serde.search_request_from_proto)
            policy = self._config.export
            # New positions cost a search nothing.
            day = Budget(policy.positions_per_day, policy.questions_per_day)
            clean = functools.partial(self._looked.clean, policy.redact) if policy.redact else None
            kinds = kinds_searched(policy)
            # Counted before it searches: to be refused for what it found, or did not, would say that.
            nothing = [leaving_nothing(policy)] if policy.questions_per_day else []
            await self._access.count(caller, nothing)
            while True:
                hits = await self._access.search(caller, wanted, kinds, day, clean)
                found = [Found(hit.document, hit.passage, hit.score) for hit in hits]
                record.documents = tuple(dict.fromkeys(one.document for one in found))
                told = await self._access.documents_of(caller, record.documents)
                if not told:
                    break
                # That a document has a word tells of it as an answer does: a question of it, then, and not of none.
                taken = [
                    *leaving(policy, told, 0),
                    *(dataclasses.replace(one, questions=-1) for one in nothing),
                ]
                # Where others had the last of one meanwhile, it is found no more.
                with contextlib.suppress(ExposureSpent):
                    await self._access.count(caller, taken)
                    break
            self._write_ahead(record.leaving(told))
            return serde.found_to_proto(found)

    async def Share(self, request: pb.ShareRequest, context: Any) -> None:
        """One slice, written to the context part by part as the replica finishes them."""
        async with self._answering("Share", context) as (caller, record):
            record.request_id = request.request_id[:16]
            wanted = self._parsed(request, serde.share_request_from_proto)
            record.kind, record.codec = wanted.kind, wanted.plan.codec
            check_request(wanted, self._description)
            documents = await self._documents(caller, wanted, record)
            # The policy first: how long a document is shows in what is refused for its length.
            allowed = positions_allowed(self._config.export, wanted.kind, wanted.plan, documents)
            left = await self._positions_left(caller, documents, all_new=wanted.kind is not SliceKind.EXCERPT)
            self._check_length(wanted, documents)
            timeout_s = self._limits.checked_deadline(context.time_remaining())
            call = ShareCall(caller.tenant, wanted, allowed, left)
            self._recent.enter(caller.tenant, wanted.request_id)
            begun = False
            try:
                async with (
                    self._turns.taken(caller.tenant) as record.stages["turn"],
                    contextlib.aclosing(self._replicas.share(call, timeout_s)) as parts,  # type: ignore[type-var]
                ):
                    async for part in parts:
                        self.canary.answered()
                        if not begun:
                            still = await self._release(caller, part, wanted, record)
                        elif isinstance(part, SliceHeader):
                            raise InternalError("a second header")
                        begun = True
                        record.sent(part)
                        if isinstance(part, SliceTrailer):
                            part = dataclasses.replace(part, timings=record.as_told(part.timings), **still)
                        await context.write(serde.share_response_to_proto(part))
            finally:
                if not begun:
                    self._recent.forget(caller.tenant, wanted.request_id)

    async def Relay(self, request: pb.RelayRequest, context: Any) -> pb.RelayResponse:
        """The Sharer's own answer as text, where the configuration allows it."""
        async with self._answering("Relay", context) as (caller, record):
            record.request_id = request.request_id[:16]
            wanted = self._parsed(request, serde.relay_request_from_proto)
            check_request(wanted, self._description)
            documents = await self._documents(caller, wanted, record)
            allowed = tokens_allowed(self._config.export, documents)
            left = await self._positions_left(caller, documents, all_new=True)
            if left is not None and (least(wanted.max_new_tokens, allowed) or 0) > left:
                raise ExposureSpent(seconds_left())
            self._check_length(wanted, documents)
            timeout_s = self._limits.checked_deadline(context.time_remaining())
            async with self._turns.taken(caller.tenant) as record.stages["turn"]:
                reply = await self._replicas.relay(RelayCall(caller.tenant, wanted, allowed), timeout_s)
            self.canary.answered()
            record.stages |= reply.timings
            timings = record.as_told(reply.timings)
            # A replica does not tell which text it read: it is the one from before, if that is there now.
            versions = versions_of(documents)
            documents = await self._documents(caller, wanted, record)
            check_relayed(reply, wanted, tokens_allowed(self._config.export, documents))
            check_read(versions, documents)
            self._check_length(wanted, documents)
            record.bytes, record.positions = len(reply.text.encode()), reply.tokens
            await self._count(caller, leaving(self._config.export, documents, reply.tokens))
            self._write_ahead(record.leaving(documents))
            return serde.relay_reply_to_proto(dataclasses.replace(reply, versions=versions, timings=timings))

    def refused(self, method: str, tenant: str, error: KvwireError) -> None:
        """A call that came no further than the door."""
        record = CallRecord(method, tenant)
        record.failed(error)
        self.meter.add("kvwire_cloud_refusals_total", reason=record.decision)
        self._lines.tell("refused", method=method, reason=record.decision)
        self._unanswered.tell(record.line())

    def recording(self) -> bool:
        """Whether calls can be recorded; if not, none is answered. To be asked every second or so."""
        self._unanswered.flush()
        return self._audit.writable()

    async def drain(self, grace_s: float) -> bool:
        """Refuse new calls and wait for those in flight; whether all of them finished in time."""
        self._draining = True
        try:
            await asyncio.wait_for(self._idle.wait(), grace_s)
        except TimeoutError:
            return False
        return True

    def _parsed(self, request: Any, parse: Callable[[Any, Limits], _T]) -> _T:
        """A message that is not too large, and of this version."""
        if request.ByteSize() > self._limits.max_request_bytes:
            raise TooLarge("request bytes", request.ByteSize(), self._limits.max_request_bytes)
        _check_version(request.protocol_version)
        return parse(request, self._limits)

    async def _documents(
        self, caller: Principal, wanted: ShareRequest | RelayRequest, record: CallRecord
    ) -> tuple[DocumentInfo, ...]:
        """One for each section that names one."""
        asked = [section.document_id for section in wanted.sections if section.document_id is not None]
        names = (name if DOCUMENT_ID.fullmatch(name) else "?" for name in asked)
        record.documents = tuple(dict.fromkeys(names))
        return await self._access.documents_of(caller, asked)

    async def _positions_left(
        self, caller: Principal, documents: Sequence[DocumentInfo], all_new: bool
    ) -> int | None:
        budgets = {document.id: budget_of(self._config.export, document) for document in documents}
        return await self._access.positions_left(caller, budgets, all_new)

    def _check_length(self, wanted: ShareRequest | RelayRequest, documents: Sequence[DocumentInfo]) -> None:
        """Of a passage the longest that it can be counts: the replica looks again, at its text."""
        length = sum(len(section.text or "") for section in wanted.sections)
        asked = (section for section in wanted.sections if section.document_id is not None)
        for passage, document in zip((one.passage for one in asked), documents, strict=True):
            if passage > document.passages:
                raise NoPassage(passage)
            length += min(document.characters, PASSAGE_CHARS) if passage else document.characters
        self._limits.check_prompt(length)

    async def _release(
        self, caller: Principal, part: Part, wanted: ShareRequest, record: CallRecord
    ) -> dict[str, Any]:
        """The first part of a slice may leave: it is the header asked for, within the policy, and it is recorded.

        Gives what may still leave today, as `Access.count`.

        The documents are looked up again: one may have been removed, sealed or replaced while the call waited for its
        turn.
        """
        if not isinstance(part, SliceHeader):
            raise InternalError("a slice without a header")
        documents = await self._documents(caller, wanted, record)
        allowed = positions_allowed(self._config.export, wanted.kind, wanted.plan, documents)
        self._check_length(wanted, documents)
        check_leaving(part, wanted, allowed)
        check_read(part.versions, documents)
        quoted = part.quoted if isinstance(part, Quoting) else ()
        left = await self._count(caller, leaving(self._config.export, documents, part.positions, quoted))
        record.announced(part)
        self._write_ahead(record.leaving(documents))
        return left

    async def _count(self, caller: Principal, taken: Sequence[Leaving]) -> dict[str, int]:
        """As `Access.count`. What is refused now was read, and the refusal tells of it: it counts as a question."""
        try:
            return await self._access.count(caller, taken)
        except ExposureSpent:
            await self._access.count(
                caller, [dataclasses.replace(one, positions=0, quoted=()) for one in taken]
            )
            raise

    def _write_ahead(self, record: AuditRecord) -> None:
        try:
            self._audit.append(record)
        except OSError as error:
            logger.error("%s", error)
            raise AuditUnavailable from error

    @contextlib.asynccontextmanager
    async def _answering(self, method: str, context: Any) -> AsyncIterator[tuple[Principal, CallRecord]]:
        """Who asks, and the record of the call; whatever is raised becomes a status of the catalogue."""
        record = CallRecord(method)
        self._in_flight += 1
        self._idle.clear()
        try:
            identity = identify(context)
            record.tenant, record.identity = identity.tenant, identity.uri
            if method == "Describe":  # which tells of no document, so it needs no user
                caller = Principal(identity)
            else:
                caller = self._users.caller(identity, context.invocation_metadata())
            record.user = caller.user
            if self._draining:
                raise Draining(self._config.sharer.retry_after_s)
            if not self._audit.writable():
                raise AuditUnavailable
            async with asyncio.timeout(self._limits.checked_deadline(context.time_remaining())):
                yield caller, record
        except asyncio.CancelledError:
            left_s = context.time_remaining()
            # Both sides end a call at its deadline, and the caller's word may be here first.
            late = left_s is not None and left_s <= _SAME_END_S
            record.failed(DeadlineExceeded() if late else Cancelled())
            raise
        except Exception as error:
            refusal = refusal_of(error, context)
            record.failed(refusal)
            await context.abort_with_status(to_grpc(refusal))
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()
            record.measured(self.meter)
            if self.traces.on and (traced := record.traced(_traceparent(context))) is not None:
                self.traces.tell(traced)
            self._lines.tell("call", **record.told())
            if record.left:
                self._audit.keep(record.line())
            else:
                self._unanswered.tell(record.line())


def offered(description: Description, config: CloudConfig) -> Description:
    """What the replicas can do, less the kinds of slice that the export policy keeps in."""
    allowed = frozenset(config.export.kinds)
    bundles = tuple(
        dataclasses.replace(bundle, kinds=tuple(kind for kind in bundle.kinds if kind in allowed))
        for bundle in description.bundles
    )
    return dataclasses.replace(
        description,
        bundles=bundles,
        limits=config.limits,
        relay_allowed=config.export.allow_relay,
        granted=config.export.granted,
    )


def _traceparent(context: Any) -> str:
    return next(
        (str(value) for key, value in context.invocation_metadata() or () if key == "traceparent"), ""
    )


def _check_version(version: int) -> None:
    if version != PROTOCOL_VERSION:
        raise IncompatiblePeer("protocol version", PROTOCOL_VERSION, version)
