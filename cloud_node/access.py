"""Who may call what, and whose documents: certificate -> identity -> tenant -> document. Default deny."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import grpc
from cryptography import x509
from google.protobuf.message import DecodeError

from cloud_node.admission import Places
from cloud_node.control import Control
from cloud_node.document_reader import DocumentInfo, DocumentReader, Hit, available
from cloud_node.exposure import Budget, Leaving
from cloud_node.revoked import Revoked
from cloud_node.users import Principal
from kvwire.errors import (
    AccessDenied,
    AuditUnavailable,
    BadHeader,
    Cancelled,
    DeadlineExceeded,
    DocumentsUnavailable,
    InternalError,
    KvwireError,
)
from kvwire.identity import Identity, PeerRole
from kvwire.limits import Limits
from kvwire.messages import SearchRequest
from kvwire.segment import SliceKind
from kvwire.status import to_grpc

logger = logging.getLogger(__name__)

_T = TypeVar("_T")

_MESSAGE_S: Final = 5.0
"""How long a caller may take to send its one message once its stream is open."""
_WATCH_S: Final = 600.0
"""How long a probe may go on without a deadline of its own."""
_LOOKUPS: Final = 8
"""Look-ups of documents at once."""
_SEARCHES: Final = 4
"""Searches at once, beside them: long ones keep no look-up waiting. The store has 15 connections for all."""
_LOOKUP_S: Final = 2.0
"""How long one may take, or the database counts as gone; a search reads more, and has the call's own time."""
_COUNT_S: Final = 6.0
"""How long a count may take: it waits for whoever adds a document, in SQLite five seconds."""
_UNREADABLE: Final = (
    ValueError,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What reading the names of a certificate may raise."""
_AFTER_S: Final = 1.0
"""How long after its deadline, at which the method itself ends, a call may still hold its place."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which roles may call a method, and which places it takes. Calls need a deadline; probes and watches do not."""

    roles: frozenset[PeerRole]
    places: Literal["calls", "probes", "watches"] = "calls"


_EDGE: Final = Policy(frozenset({PeerRole.EDGE}))
_PROBE: Final = Policy(frozenset(PeerRole), "probes")
_WATCH: Final = Policy(frozenset(PeerRole), "watches")

POLICIES: Final[Mapping[str, Policy]] = {
    "/kvwire.v1.SharerService/Describe": _EDGE,
    "/kvwire.v1.SharerService/Search": _EDGE,
    "/kvwire.v1.SharerService/Share": _EDGE,
    "/kvwire.v1.SharerService/Relay": _EDGE,
    "/grpc.health.v1.Health/Check": _PROBE,
    "/grpc.health.v1.Health/List": _PROBE,
    "/grpc.health.v1.Health/Watch": _WATCH,
}
"""Every method that may be called at all; any other is refused, even where a servicer has it."""


class Gatekeeper(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """The door of every call, passed before its message is waited for.

    The method must be listed, the caller's identity have one of its roles, the stream a deadline, and a place be free.
    Every method is served as a stream of messages, because gRPC shows a unary one its caller only with the message.

    Args:
        places: for each kind of method, by the name in `Policy.places`.
        refused: told of each call that came no further, once its caller is known: method, tenant, error.
        revoked: certificates that are no longer good.
    """

    def __init__(
        self,
        limits: Limits,
        places: Mapping[str, Places],
        refused: Callable[[str, str, KvwireError], None],
        revoked: Revoked,
    ) -> None:
        self._limits, self._places, self._refused, self._revoked = limits, places, refused, revoked

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        method = handler_call_details.method
        policy = POLICIES.get(method)
        handler = await continuation(handler_call_details) if policy is not None else None
        if policy is None or handler is None or handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(self._unlisted)

        async def call(_: Any, context: Any) -> None:
            await self._call(method, policy, handler, context)

        return grpc.stream_stream_rpc_method_handler(call, response_serializer=handler.response_serializer)

    async def _call(self, method: str, policy: Policy, handler: Any, context: Any) -> None:
        tenant, limit_s = "", _WATCH_S
        async with contextlib.AsyncExitStack() as place:
            try:
                identity, serial = _certified(context, policy)
                tenant = identity.tenant
                self._revoked.check(identity, serial)
                places, host = self._places[policy.places], context.peer().rpartition(":")[0]
                place.enter_context(places.held(tenant=tenant, host=host))
                if policy.places == "calls":
                    limit_s = self._limits.checked_deadline(context.time_remaining()) + _AFTER_S
                request = handler.request_deserializer(await _message(context))
            except DecodeError:
                await self._refuse(method, tenant, BadHeader("no message of this method"), context)
            except Exception as error:
                await self._refuse(method, tenant, refusal_of(error, context), context)
            try:
                async with asyncio.timeout(limit_s):
                    await _answer(handler, request, context)
            except TimeoutError:
                # The call may be refused already: then it is the refusal that the caller does not take.
                with contextlib.suppress(grpc.aio.UsageError):
                    await context.abort_with_status(
                        to_grpc(DeadlineExceeded("the caller does not take its answer"))
                    )

    async def _unlisted(self, _: Any, context: Any) -> None:
        """Whoever has an identity of ours is told that there is no such method; nobody else is told which there are."""
        try:
            self._revoked.check(*_certified(context, _PROBE))
        except Exception as error:
            await context.abort_with_status(to_grpc(refusal_of(error, context)))
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "There is no such method.")

    async def _refuse(self, method: str, tenant: str, error: KvwireError, context: Any) -> None:
        if tenant and POLICIES[method].places == "calls":
            self._refused(method.rpartition("/")[2], tenant, error)
        await context.abort_with_status(to_grpc(error))


def refusal_of(error: Exception, context: Any) -> KvwireError:
    """What the caller is told of an error: no more than that the service failed, where nobody foresaw it."""
    if context.cancelled():  # a write to a caller who has gone
        return Cancelled()
    if isinstance(error, InternalError):
        logger.error("%s", error)
    if isinstance(error, KvwireError):
        return error
    if isinstance(error, TimeoutError):
        return DeadlineExceeded()
    logger.error("%s in a call", type(error).__name__)
    return InternalError(type(error).__name__)


def identify(context: Any, policy: Policy = _EDGE) -> Identity:
    """The caller's identity, from the certificate that TLS verified.

    Raises:
        AccessDenied: the certificate names no identity of ours, or one without the role.
    """
    return _certified(context, policy)[0]


def _certified(context: Any, policy: Policy) -> tuple[Identity, int]:
    """The identity, and the serial number of its certificate."""
    certificates = list(context.auth_context().get("x509_pem_cert", ()))
    if len(certificates) != 1:
        raise AccessDenied("the peer has no certificate")
    identity, serial = _identity_of(certificates[0])
    if identity.role not in policy.roles:
        raise AccessDenied(f"{identity.uri} is no {' or '.join(sorted(policy.roles))}")
    return identity, serial


@functools.lru_cache(maxsize=1024)
def _identity_of(pem: bytes) -> tuple[Identity, int]:
    """Read from the certificate itself: gRPC's own properties are C strings, which end at a NUL inside a name."""
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    except _UNREADABLE as error:
        raise AccessDenied("a certificate without names that can be read") from error
    if len(uris) != 1:
        raise AccessDenied(f"the peer's certificate carries {len(uris)} URIs, one is needed")
    return Identity.parse(uris[0]), certificate.serial_number


class Access:
    """Which documents a caller may ask about, its tenant's and granted to it, and how much of them has left."""

    def __init__(self, documents: DocumentReader) -> None:
        self._documents = documents
        self._threads, self._searches = Control(_LOOKUPS), Control(_SEARCHES)

    async def documents_of(self, caller: Principal, document_ids: Sequence[str]) -> tuple[DocumentInfo, ...]:
        """What is known of documents, without their text.

        An unknown document, another tenant's and one granted to others take the same query and raise the same error.

        Raises:
            NotFound: one of them is not for this caller.
        """
        if not document_ids:
            return ()
        return await self._ask(functools.partial(self._documents.find, caller.tenant, document_ids, caller))

    async def positions_left(
        self, caller: Principal, budgets: Mapping[str, Budget], all_new: bool
    ) -> int | None:
        """Positions that may still leave today of documents, by id, for this caller; None where there is no bound.

        Args:
            all_new: whether each will count as new, so that the budget of these is known to be spent.

        Raises:
            ExposureSpent: none of one of them, or no further question.
        """
        if not any(b.positions or b.questions or (all_new and b.new_positions) for b in budgets.values()):
            return None
        spent = await self._ask(functools.partial(self._documents.spent, caller, budgets))
        left = []
        for document_id, budget in budgets.items():
            positions, questions, new = spent.get(document_id, (0, 0, 0))
            budget.check(positions + 1, questions + 1, new + 1 if all_new else 0)
            if budget.positions:
                left.append(budget.positions - positions)
            if budget.new_positions and all_new:
                left.append(budget.new_positions - new)
        return min(left, default=None)

    async def count(self, caller: Principal, leaving: Sequence[Leaving]) -> dict[str, int]:
        """Write down what is about to leave; what may still, as `exposure.count`.

        Raises:
            ExposureSpent: it is more than may leave today. Busy, NotFound: a document has another text now, or is gone.
            AuditUnavailable: it cannot be written.
        """
        if not leaving:
            return {}
        given_up = threading.Event()
        count = functools.partial(self._documents.count, caller, leaving, given_up.is_set)
        try:
            return await self._ask(count, _COUNT_S)
        except (OSError, DocumentsUnavailable) as error:
            raise AuditUnavailable("what leaves cannot be counted") from error
        finally:
            given_up.set()  # a count that nobody waits for any more is not made

    async def search(
        self,
        caller: Principal,
        wanted: SearchRequest,
        kinds: Sequence[SliceKind],
        budget: Budget,
        may_be_read: Callable[[str, str], bool] | None,
    ) -> tuple[Hit, ...]:
        """The passages that have the question's words, of documents that this caller may ask about.

        Args:
            kinds: documents of which no slice of these kinds could leave are not searched.
            budget: nor are those of which so much has left today.
            may_be_read: of a tenant a passage's text, others are not told of; None: all.
        """
        tenant = caller.tenant

        def search() -> tuple[Hit, ...]:
            hits = self._documents.search(tenant, wanted.question, wanted.k, kinds, caller, budget)
            if may_be_read is None:
                return hits
            texts = [self._documents.get(tenant, hit.document, hit.passage).text for hit in hits]
            return tuple(hit for hit, text in zip(hits, texts, strict=True) if may_be_read(tenant, text))

        with available():
            return await self._searches.call(search)

    async def _ask(self, function: Callable[[], _T], most_s: float = _LOOKUP_S) -> _T:
        """What `function` returns of the store.

        Raises:
            DocumentsUnavailable: the database does not answer, or refuses.
        """
        try:
            with available():
                return await self._threads.call(function, most_s)
        except TimeoutError as error:
            logger.error("the documents' database: no answer in %g s", most_s)
            raise DocumentsUnavailable(f"no answer in {most_s} s") from error


async def _message(context: Any) -> bytes:
    """The one message of a call.

    Raises:
        DeadlineExceeded: it did not come in time. BadHeader: none came.
    """
    try:
        async with asyncio.timeout(_MESSAGE_S):
            message = await context.read()
    except TimeoutError as error:
        raise DeadlineExceeded(f"no message within {_MESSAGE_S} s") from error
    if message is grpc.aio.EOF:
        raise BadHeader("a call without a message")
    return bytes(message)


async def _answer(handler: Any, request: Any, context: Any) -> None:
    """Run the method; one that streams is a coroutine that writes to its context."""
    if handler.response_streaming:
        await handler.unary_stream(request, context)
    else:
        await context.write(await handler.unary_unary(request, context))
