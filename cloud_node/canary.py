"""The node's own question, asked where nobody else asks: whether it is answered is what health says of the replicas."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Protocol

from cloud_node.call import Part, ShareCall
from cloud_node.export import check_leaving
from kvwire.errors import DeadlineExceeded, InternalError, KvwireError, entry_of
from kvwire.messages import Description, ShareRequest
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceHeader, SliceKind, SliceTrailer

logger = logging.getLogger(__name__)

_CODEC: Final = "raw"
_IDLE_S: Final = 1.5
_SHARE: Final = 20
"""A question that took so long is followed by a pause of this many times as long: 5 % of a slow device's time."""
_LONGEST_PAUSE_S: Final = 30.0
_PATIENCE_S: Final = 3.0
_SLOWER: Final = 4
_WORD_S: Final = 1.0
"""A replica is to say by so long before the patience ends that it has no answer yet: then it is there."""
_AGAIN_S: Final = 0.5
_BUSY_S: Final = 60.0
"""So long replicas may be there without an answer, as in a layer of a long prompt, before they count as hanging."""


class _Asked(Protocol):
    def share(self, call: ShareCall, timeout_s: float) -> AsyncIterator[Part]: ...


class Canary:
    """Asks for a small slice of a fixed shared section a moment after the last answer, whoever got that.

    It is nobody's: no tenant's turn, budget or line of the audit log. It goes to whatever replica a caller's call
    would go to, through its queue and its model, and nothing of it leaves the node.

    Args:
        description: what may be asked for. Where that is excerpts alone nothing can be, as those need a document.
        failed: called with the reason of each question that was not answered.
    """

    def __init__(self, replicas: _Asked, description: Description, failed: Callable[[str], None]) -> None:
        self._replicas, self._failed = replicas, failed
        self._request = _request(description)
        self._answered_s = time.monotonic()
        self._pause_s, self._usual_s, self._patience_s = _IDLE_S, _PATIENCE_S, _PATIENCE_S
        self.failure = ""
        """The reason, as in the catalogue, why the last question was not answered; "" where it was."""

    def answered(self) -> None:
        """A caller got an answer: that is as good as one of the node's own."""
        self._answered_s, self._patience_s = time.monotonic(), self._usual_s

    async def watch(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Ask for ever; `tell` is awaited each time that `failure` changes."""
        if self._request is None:
            return
        while True:
            left_s = self._answered_s + self._pause_s - time.monotonic()
            await asyncio.sleep(_AGAIN_S if self.failure or left_s <= 0 else left_s)
            answered = time.monotonic() < self._answered_s + self._pause_s
            if answered and not self.failure:
                continue
            before, self.failure = self.failure, "" if answered else await self._ask(self._request)
            if self.failure:
                self._failed(self.failure)
            if before != self.failure:
                why = f"is not answered: {self.failure}" if self.failure else "is answered again"
                logger.log(
                    logging.ERROR if self.failure else logging.WARNING, "the node's own question %s", why
                )
                await tell()

    async def _ask(self, request: ShareRequest) -> str:
        """Until it is answered, or the patience ends; as `failure` has it."""
        began, error = time.monotonic(), KvwireError()
        patience_s = self._patience_s
        if not self.failure:  # which a longer wait may end, and a shorter one would not find sooner
            patience_s = min(patience_s, max(self._usual_s, self._answered_s + _BUSY_S - began))
        try:
            async with asyncio.timeout(patience_s):
                while (left_s := began + patience_s - _WORD_S - time.monotonic()) > 0:
                    once_s = time.monotonic()
                    try:
                        await self._once(request, left_s)
                    except DeadlineExceeded:
                        # It is there, and slow or busy; but one that failed before may just have had too little time.
                        self._patience_s = min(2 * self._patience_s, _BUSY_S)
                        if isinstance(error, InternalError) or time.monotonic() >= self._answered_s + _BUSY_S:
                            raise
                        return ""
                    except KvwireError as failure:
                        # Perhaps of a replica that is gone: another one may answer.
                        error = failure
                        await asyncio.sleep(_AGAIN_S)
                    else:
                        took_s = time.monotonic() - once_s
                        self._usual_s = min(max(_SLOWER * took_s, _PATIENCE_S), _BUSY_S)
                        self._pause_s = min(max(_SHARE * took_s, _IDLE_S), _LONGEST_PAUSE_S)
                        self.answered()
                        return ""
        except (TimeoutError, DeadlineExceeded):
            if type(error) is KvwireError:
                error = DeadlineExceeded()
        return "" if self._answered_s > began else entry_of(type(error)).reason

    async def _once(self, request: ShareRequest, timeout_s: float) -> None:
        """Raises DeadlineExceeded: a replica said so. TimeoutError and other KvwireError: it did not even say that."""
        wanted = dataclasses.replace(request, request_id=os.urandom(len(request.request_id)))
        asked = self._replicas.share(ShareCall("", wanted, None), timeout_s)
        async with contextlib.aclosing(asked) as parts:  # type: ignore[type-var]
            header = part = await anext(parts, None)
            if not isinstance(header, SliceHeader):
                raise InternalError("a slice without a header")
            check_leaving(header, wanted, None)
            async for one in parts:
                part = one
        if not isinstance(part, SliceTrailer):
            raise InternalError("a slice without an end")


def _request(description: Description) -> ShareRequest | None:
    """The smallest that there is: one position of a shared slice, or one token of a draft."""
    offered = {kind: one.bundle_hash for one in reversed(description.bundles) for kind in one.kinds}
    kind = next((kind for kind in (SliceKind.SHARED, SliceKind.DRAFT) if kind in offered), None)
    if kind is None:
        return None
    return ShareRequest(
        request_id=bytes(16),
        sharer=description.sharer,
        bundle_hash=offered[kind],
        codec_hash=next(codec.parameters_hash for codec in description.codecs if codec.name == _CODEC),
        kind=kind,
        plan=Plan(codec=_CODEC, last=1) if kind is SliceKind.SHARED else Plan(codec=_CODEC, positions=1),
        sections=(Section(Role.QUESTION, Visibility.SHARED, text="?"),),
    )
