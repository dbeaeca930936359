"""AnswerStream: one ask on its way. The slice comes while the Receiver prefills, then text in pieces."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Final, Self

from edge_node.answer import EMPTY, FUSED, NOTES, NOTHING_FOUND, RECEIVER_ONLY, RELAYED, Answer, FirstLine
from edge_node.ask import Planned
from edge_node.bounds import Home
from edge_node.channel import Traffic
from edge_node.client import Client
from edge_node.intake import SharedSlice
from edge_node.saying import Saying, Steps
from fuser import SliceLayout
from fuser.prompts.choice import LETTERS, named
from kvwire.errors import (
    AccessDenied,
    BadPayload,
    IncompatiblePeer,
    InvalidRequest,
    KvwireError,
    NotFound,
    TooLarge,
    entry_of,
)
from kvwire.messages import RelayReply
from kvwire.plan import Granted
from kvwire.section import Section, documents_of
from kvwire.segment import Segment, SliceHeader, SliceKind, SliceTrailer

if TYPE_CHECKING:
    from fuser import Begun, Prefilled, Receiver

RAISED: Final = (AccessDenied, IncompatiblePeer, InvalidRequest, NotFound, TooLarge)
"""Errors that the caller can mend; any other leads to an answer without a slice, or none, with its reason."""


class AnswerStream:
    """Iterate over the pieces of text; `answer` is there once they have all come. Close it to stop early.

    Several streams may be read at once, within the process `home`: their steps take turns on the Receiver, and their
    next tokens are one step.
    """

    def __init__(self, receiver: Receiver, client: Client, home: Home, planned: Planned) -> None:
        self._receiver, self._client, self._home, self._planned = receiver, client, home, planned
        self._answer: Answer | None = None
        self._shared: SharedSlice | None = None
        self._trailer: SliceTrailer | None = None
        self._versions: tuple[str, ...] = ()
        self._beside, self._left_s = Traffic(), planned.deadline_s
        self._calling: Future[Any] | None = None
        self._timings: dict[str, float] = {}
        self._unfused: Begun | None = None
        self._prompt_tokens = 0
        self._steps = Steps(receiver)
        self._saying = Saying(receiver, self._steps)
        self._started = time.monotonic()
        self._pieces = self._run()

    @property
    def finished(self) -> bool:
        """Whether all pieces have come."""
        return self._answer is not None

    @property
    def answer(self) -> Answer:
        """The whole answer.

        Raises:
            RuntimeError: pieces are still to come.
        """
        if self._answer is None:
            raise RuntimeError("the answer is not finished: read the stream to its end first")
        return self._answer

    @property
    def request_id(self) -> str:
        """Of what the cloud was asked for last, a slice or a text, by which its log has it; empty before."""
        shared = self._shared.stream.request_id if self._shared is not None else ""
        return shared or self._beside.request_id

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self._home.check()  # another thread of the parent may have had the turn, and nobody gives it back here
        return next(self._pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, from any thread: what the cloud was asked for is cancelled, and no step of the Receiver begins.

        Where another thread waits for a piece, it gets `Cancelled` as soon as the step under way is over.
        """
        self._steps.closed.set()
        if self._shared is not None:
            self._shared.close()
        if self._calling is not None:
            self._calling.cancel()
        with contextlib.suppress(ValueError):  # another thread runs it, and will see that it is closed
            self._pieces.close()

    def _run(self) -> Generator[str, None, None]:
        self._started = time.monotonic()
        failure = None if self._planned.pick is None else self._plan_picked(self._planned.pick)
        reason = failure or self._planned.reason
        if (
            failure is None
            and self._planned.ask.search
            and (self._planned.kind is not None or self._planned.relay)
        ):
            reason = self._searched() or reason
        if self._planned.relay:
            reply, reason = self._relayed()
            if reply is not None:
                self._versions = reply.versions
                line = FirstLine(self._planned.ask.stop)
                text = line.add(reply.text)
                cut = not line.ended and self._relay_cut(reply)
                text += line.rest()
                first_s = self._since(self._started)
                yield text
                self._timings |= {f"cloud_{name}": seconds for name, seconds in reply.timings.items()}
                self._timings["total"] = self._since(self._started)
                self._answer = self._account(text, reply.tokens, reason, first_s, RELAYED, cut=cut)
                return
        prefilled, reason = self._ready(reason)
        begun = time.monotonic()
        first: float | None = None
        text, said = "", self._saying
        if prefilled is not None:
            for piece in said.pieces(self._planned, prefilled, self._trailer, self._reading_notes()):
                first = self._since(self._started) if first is None else first
                text += piece
                yield piece
            self._timings["generate"] = self._since(begun)
        self._timings["total"] = self._since(self._started)
        first = self._timings["total"] if first is None else first
        source = FUSED if self._trailer is not None and not said.from_notes else RECEIVER_ONLY
        reason = NOTES if said.from_notes else reason
        answered = prefilled is not None
        self._answer = self._account(text, said.tokens, reason, first, source, answered, said.cut)

    def _reading_notes(self) -> Callable[[], Prefilled] | None:
        """What makes the Receiver's prompt with the notes, where they are not read beside the slice."""
        unfused = self._unfused
        if unfused is None or self._planned.sections == self._planned.unfused:
            return None
        return lambda: self._prefill(unfused, None)

    def _relay_cut(self, reply: RelayReply) -> bool:
        """Whether a cap ended it; of bytes, where one more character might have gone over."""
        size, most = len(reply.text.encode()), self._planned.max_bytes
        return reply.tokens >= self._planned.max_new_tokens or 0 < most < size + 4

    def _plan_picked(self, pick: Callable[[Granted, Planned], Planned]) -> str | None:
        """Pick a plan that the cloud's policy grants; why nothing can be asked for, if so."""

        def picked() -> Planned:
            return pick(self._client.offered(self._left_s, self._called).granted, self._planned)

        return self._before(picked)

    def _searched(self) -> str | None:
        """Search, and plan to ask about what is found; why there is nothing to ask about, if so."""
        began, planned = time.monotonic(), self._planned

        def searched() -> Planned:
            words = "\n".join((*planned.before, planned.ask.searched))
            words = words[-self._client.limits.max_question_chars :]
            ask, left = planned.ask, self._left_s
            return planned.over(
                self._client.search(words, ask.search, left, self._beside, self._called, ask.user_token)
            )

        failure = self._before(searched)
        self._timings["search"] = self._since(began)
        if failure is not None or self._planned.documents:
            return failure
        self._planned = dataclasses.replace(self._planned, kind=None, relay=False)
        return NOTHING_FOUND

    def _before(self, step: Callable[[], Planned]) -> str | None:
        """Plan anew by what the cloud tells before the slice; why it did not, if so: then nothing more is asked."""
        failure: str | None = None
        try:
            self._planned = step()
        except RAISED:
            raise
        except KvwireError as error:
            if self._steps.closed.is_set():
                raise
            failure = entry_of(type(error)).reason
            self._planned = dataclasses.replace(self._planned, kind=None, relay=False)
        left_s = self._planned.deadline_s - self._since(self._started)
        self._left_s = max(left_s, self._client.limits.min_deadline_s)
        return failure

    def _relayed(self) -> tuple[RelayReply | None, str | None]:
        """The Sharer's own answer, and why there is no slice; none where the relay failed, and why."""
        planned = self._planned
        try:
            reply = self._client.relay(
                planned.asked,
                self._receiver.bundle,
                max_new_tokens=planned.max_new_tokens,
                max_bytes=planned.max_bytes,
                deadline_s=self._left_s,
                traffic=self._beside,
                begun=self._called,
                user_token=planned.ask.user_token,
            )
        except RAISED:
            raise
        except KvwireError as error:
            if self._steps.closed.is_set():
                raise
            return None, entry_of(type(error)).reason
        return (reply, planned.reason) if reply.text.strip() else (None, EMPTY)

    def _called(self, call: Future[Any]) -> None:
        self._calling = call
        if self._steps.closed.is_set():
            call.cancel()

    def _ready(self, reason: str | None) -> tuple[Prefilled | None, str | None]:
        """What to generate from, and why it is the Receiver's alone: `reason` where no slice is asked for.

        None where there is no slice and the Receiver may not answer alone.
        """
        planned = self._planned
        # Prompts that cannot fit are refused before anything is asked for.
        self._unfused = unfused = self._begun(planned.unfused)
        begun = unfused if planned.sections == planned.unfused else self._begun(planned.sections)
        if planned.among:
            with self._steps.taken():
                begun.check_replies(planned.among, planned.kind, planned.plan.positions)
                if planned.alone:
                    unfused.check_replies(planned.among, None)
        if planned.kind is None:
            return self._prefill(unfused, None) if planned.alone else None, reason
        self._shared = shared = self._client.share(
            planned.asked,
            self._receiver.bundle,
            kind=planned.kind,
            plan=planned.plan,
            max_bytes=planned.max_bytes,
            deadline_s=self._left_s,
            user_token=planned.ask.user_token,
        )
        try:
            self._receiver.turns.prepare()  # once a process, while the cloud reads
            prefilled, trailer, versions = self._take_in(self._prefill(begun, planned.kind), shared)
            if trailer.positions or planned.kind is SliceKind.SHARED:
                self._trailer, self._versions = trailer, versions
                return prefilled, None
            reason = EMPTY
        except RAISED:
            raise
        except KvwireError as error:
            if self._steps.closed.is_set():
                raise
            reason = entry_of(type(error)).reason
        finally:
            self._timings["slice"] = self._since(self._started)
            shared.close()
        # What has taken a part of a slice in is never used without the rest.
        return self._prefill(unfused, None) if planned.alone else None, reason

    def _begun(self, sections: Sequence[Section]) -> Begun:
        with self._steps.taken():
            return self._receiver.begin(sections)

    def _prefill(self, begun: Begun, kind: SliceKind | None) -> Prefilled:
        with self._steps.taken():
            began = time.monotonic()
            prefilled = begun.prefill(kind)
        self._prompt_tokens = len(begun.prompts[0].tokens.ids)
        self._spend("receiver_prefill", began)
        return prefilled

    def _take_in(
        self, prefilled: Prefilled, shared: SharedSlice
    ) -> tuple[Prefilled, SliceTrailer, tuple[str, ...]]:
        """The prompt with the whole slice, the slice's trailer, and the versions of its documents."""
        parts, intake = iter(shared), None
        versions: tuple[str, ...] = ()
        while True:
            asked = time.monotonic()
            part = next(parts, None)
            self._spend("wait", asked)
            if part is None:
                raise BadPayload("the slice ended without a trailer")
            try:
                if isinstance(part, SliceTrailer) and intake is not None:
                    return intake.done(), part, versions
                with self._steps.taken():
                    taken = time.monotonic()
                    if isinstance(part, SliceHeader):
                        intake, versions = (
                            prefilled.take(SliceLayout.of(part), self._planned.plan),
                            part.versions,
                        )
                    elif isinstance(part, Segment) and intake is not None:
                        intake.add(part)
                self._spend("fuse", taken)
            except ValueError as error:
                raise BadPayload("the slice does not fit the Receiver's prompt") from error

    def _account(
        self,
        text: str,
        tokens: int,
        reason: str | None,
        first_s: float,
        source: str,
        answered: bool = True,
        cut: bool = False,
    ) -> Answer:
        planned, trailer, said = self._planned, self._trailer, self._saying
        versions = dict(zip(documents_of(planned.asked), self._versions, strict=False))
        abstain = self._receiver.bundle.config.abstain
        abstained = trailer is not None and abstain != "" and text.rstrip(" .").endswith(abstain)
        own = said.from_notes or (abstained and not said.withheld)
        confidence = None if own else said.confidence
        stream = self._shared.stream if self._shared else None
        if trailer is not None:
            self._timings |= {f"cloud_{name}": seconds for name, seconds in trailer.timings.items()}
        if stream is not None:
            self._timings |= {"connect": stream.connect_s, "decode": stream.decode_s}
        return Answer(
            text=text,
            tokens=tokens,
            source=source,
            prompt_tokens=self._prompt_tokens,
            cut=cut,
            answered=answered,
            guess=answered
            and source == RECEIVER_ONLY
            and not said.from_notes
            and (bool(planned.documents) or not planned.reads),
            abstained=abstained,
            confidence=confidence,
            least_confidence=None if confidence is None else said.least,
            choice=_choice(text, planned) if said.choice is None else said.choice,
            reason=reason,
            document=next((str(named["document"]) for named in planned.documents), None),
            documents=tuple(one | {"version": versions.get(one["document"])} for one in planned.documents),
            kind=None if planned.kind is None else str(planned.kind),
            codec=None if planned.kind is None else planned.plan.codec,
            plan=None if planned.kind is None else dataclasses.asdict(planned.plan),
            plan_reason=planned.plan_reason,
            estimate=None if planned.estimate is None else planned.estimate.to_dict(),
            positions=trailer.positions if trailer is not None else 0,
            quoted=trailer.quoted if trailer is not None else 0,
            runs=trailer.runs if trailer is not None else 0,
            positions_left=trailer.positions_left if trailer is not None else None,
            questions_left=trailer.questions_left if trailer is not None else None,
            new_positions_left=trailer.new_positions_left if trailer is not None else None,
            bytes_sent=self._beside.sent + (stream.bytes_sent if stream else 0),
            bytes_received=self._beside.received + (stream.bytes_received if stream else 0),
            turns_sent=len(planned.before) if stream or self._beside.sent else 0,
            payload_bytes=stream.payload_bytes if stream else 0,
            share_arrived=stream.share_arrived if stream else 0.0,
            time_to_first_token_s=first_s,
            timings=dict(self._timings),
        )

    def _spend(self, stage: str, since: float) -> None:
        self._timings[stage] = self._timings.get(stage, 0.0) + self._since(since)

    @staticmethod
    def _since(moment: float) -> float:
        return time.monotonic() - moment


def _choice(text: str, planned: Planned) -> int | None:
    """The choice that a text names by its letter, where they were listed, or else is, case and full stop aside."""
    if planned.among:
        said = text.strip(" .").casefold()
        return next((at for at, one in enumerate(planned.among) if one.strip(" .").casefold() == said), None)
    letter = named(text, LETTERS[: len(choices)]) if (choices := planned.ask.choices) else None
    return None if letter is None else LETTERS.index(letter)
