"""Assistant: a question in, an answer out, with a slice from the cloud where one can be had; and questions in a row."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from edge_node.answer import NO_PLAN, NOTHING_TO_SHARE, REQUESTED, Answer
from edge_node.ask import Ask, Planned
from edge_node.bounds import Home
from edge_node.client import Client
from edge_node.config import EdgeConfig
from edge_node.history import TOLD, ChatTurn, before
from edge_node.picker import REQUESTED as REQUESTED_PLAN
from edge_node.picker import Pick, Picker
from edge_node.stream import AnswerStream
from fuser.config import BadConfig
from kvwire.errors import InvalidRequest
from kvwire.plan import Granted
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind

if TYPE_CHECKING:
    from fuser import Bundle, PlanTable, Receiver


class Assistant:
    """A Receiver and a client of the cloud. May be used from several threads: what they ask is answered at once.

    Args:
        table: what each plan of the Receiver's bundle is worth, if that was measured.
    """

    def __init__(
        self, config: EdgeConfig, receiver: Receiver, client: Client, table: PlanTable | None = None
    ) -> None:
        self.config = config
        self.receiver = receiver
        self.client = client
        self._picker = Picker(receiver.bundle, config.share, table)
        self._home = Home("an assistant")

    @classmethod
    def from_config(cls, config: EdgeConfig | str | Path) -> Assistant:
        """Load the Receiver and its bundle; nothing is sent yet.

        Raises (each names the file, if it is given as one, and the key):
            BadConfig: the configuration is not valid, or a file of `[tls]` cannot be used.
            BadBundle: the bundle cannot be read, or is for another Receiver.
            BadTable: a plan is to be picked, and the bundle's table of plans is not there, or another's.
            ModelError: the model is not on this machine, or is none; or `[receiver] device` is not there.
            OSError: the file cannot be read.
        """
        import torch

        from fuser import load_receiver

        named = "" if isinstance(config, EdgeConfig) else f"{config}: "
        config = config if isinstance(config, EdgeConfig) else EdgeConfig.load(config)
        with _about(named):
            config.check_files()
            if config.receiver.threads:
                torch.set_num_threads(config.receiver.threads)
            own = config.receiver
            receiver = load_receiver(own.bundle, own.model, device=own.device, dtype=own.dtype)
            own.check_confidence(receiver.bundle.config.confidence)
            return cls(config, receiver, Client(config), _table(config, receiver.bundle))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection to the cloud."""
        self.client.close()

    @property
    def bundle(self) -> Bundle:
        """The bundle in use."""
        return self.receiver.bundle

    def ask(self, question: str | Ask, document: str | None = None) -> Answer:
        """Answer a question. As `stream`, but all at once."""
        stream = self.stream(question, document)
        for _ in stream:
            pass
        return stream.answer

    def stream(self, question: str | Ask, document: str | None = None) -> AnswerStream:
        """Answer a question in pieces. Work begins at the first piece; the text ends with its first line.

        A question about a document of the cloud that gets neither a slice nor a relayed text is not answered: no text
        is generated, and `Answer.answered` is False.

        Args:
            question: what to answer; an `Ask`, where more is to be said than the question and a document.
            document: id of a document that the cloud holds, beside a question that is no `Ask`.

        Raises (here or at the first piece):
            NotFound, AccessDenied, InvalidRequest, TooLarge, IncompatiblePeer, and Unsupported for a plan that is not
                of this bundle, or a sampling that this Receiver cannot have: the caller's to mend. Whatever else goes
                wrong between edge and cloud stands as the reason of a receiver-only answer, or of none.
            RuntimeError: this is a child forked from the process that made the assistant.
        """
        self._home.check()
        planned = self._planned(Ask.of(question, document))
        return AnswerStream(self.receiver, self.client, self._home, planned)

    def conversation(self, document: str | None = None, **about: Any) -> Conversation:
        """Questions that follow each other, so that a later one may say "it".

        Args:
            about: further fields of `Ask` for every question, such as notes or a kind.

        Raises:
            InvalidRequest: as `Ask`.
        """
        return Conversation(self.stream, Ask("?", document=document, **about))

    def _planned(self, ask: Ask) -> Planned:
        """What is sent for it, and how: what it leaves open is as configured, or picked."""
        share = self.config.share
        chosen, reason = self._kind(ask)
        told = chosen in TOLD or ask.source == "relayed"  # both are the Sharer's words
        reads = len(_without_notes(own := ask.prompt())) < len(own)
        ask = ask if share.history_turns and ask.over_document and told else ask.kept()
        prompt = ask.prompt()
        self.client.limits.check_sections(prompt)
        tokens = self.config.receiver.max_new_tokens if ask.max_new_tokens is None else ask.max_new_tokens
        if not 1 <= tokens <= self.client.limits.max_new_tokens:
            raise InvalidRequest(f"max_new_tokens is 1 to {self.client.limits.max_new_tokens}, not {tokens}")
        deadline_s = share.deadline_s if ask.deadline_s is None else ask.deadline_s
        max_bytes = share.max_bytes if ask.max_bytes is None else ask.max_bytes
        least = (
            self.config.receiver.least_confidence if ask.least_confidence is None else ask.least_confidence
        )
        if ask.least_confidence and chosen is not None and chosen not in self.bundle.config.confidence:
            raise InvalidRequest(
                f"least_confidence: of answers behind {chosen} slices the bundle cannot tell it"
            )
        # Only who can abstain can turn to the notes then; anybody else reads them beside the slice.
        later = chosen in (SliceKind.EXCERPT, SliceKind.DRAFT) and self.bundle.config.abstain != ""
        later = later and not (ask.choices or ask.require_fused)
        alone = ask.source == "receiver-only" or (
            ask.source == "auto" and ask.guess is None and not (ask.require_fused or ask.over_document)
        )
        planned = Planned(
            ask=ask,
            sections=_without_notes(prompt) if later else prompt,
            unfused=prompt,
            kind=chosen,
            reason=reason,
            plan=share.configured(chosen or SliceKind.SHARED),
            max_new_tokens=tokens,
            deadline_s=deadline_s,
            max_bytes=max_bytes,
            before=before(prompt, ask.history, share.history_turns),
            relay=ask.source == "relayed",
            alone=alone or ask.guess is True,
            reads=reads,
            choose=None if ask.sampling is None else ask.sampling.chooser(self.receiver.model),
            least_confidence=least,
        )
        if reason == NOTHING_TO_SHARE:
            return replace(planned, relay=self._relays(ask))
        if chosen is None:
            return planned
        if ask.plan is not None:
            return self._with(planned, Pick(ask.plan, REQUESTED_PLAN))
        if not self._picker.measured(chosen, max_bytes):
            return self._with(planned, self._picker.configured(prompt, chosen, max_bytes))
        if ask.over_document:  # what may leave of one the cloud has to say
            return replace(planned, pick=self._pick)
        return self._pick(None, planned)

    def _pick(self, granted: Granted | None, planned: Planned) -> Planned:
        """The same with a plan of the table."""
        assert planned.kind is not None
        prompt, estimate = planned.unfused, self.client.link.estimate
        pick = self._picker.pick(
            prompt, planned.kind, planned.max_bytes, planned.deadline_s, estimate, granted
        )
        return self._with(planned, pick)

    def _with(self, planned: Planned, pick: Pick) -> Planned:
        """The same with this plan; or, where there is none of use, without a slice."""
        told = replace(planned, plan_reason=pick.reason, estimate=self.client.link.estimate, pick=None)
        if pick.plan is not None:
            return replace(told, plan=pick.plan)
        return replace(told, kind=None, reason=NO_PLAN, relay=self._relays(planned.ask))

    def _relays(self, ask: Ask) -> bool:
        """Whether the Sharer is asked for its own answer where there is no slice to ask for."""
        shared = any(section.visibility is Visibility.SHARED for section in ask.prompt())
        return self.config.share.relay and shared and not ask.require_fused

    def _kind(self, ask: Ask) -> tuple[SliceKind | None, str | None]:
        """The kind of slice to ask for, or why there is none."""
        if ask.source != "auto":
            return None, REQUESTED
        kinds = self.bundle.kinds
        if ask.kind is not None:
            if ask.kind not in kinds:
                raise InvalidRequest(f"this bundle takes no {ask.kind} slices in")
            return ask.kind, None
        best = self.config.share.usual(ask.over_document, self.bundle.config.usual)
        if best in kinds and (
            ask.over_document or any(s.visibility is Visibility.SHARED for s in ask.prompt())
        ):
            return best, None
        return None, NOTHING_TO_SHARE


class Conversation:
    """Questions to an assistant, one at a time, each with the history before it (`Ask.history`). Nothing is kept in the
    cloud but what it read of documents, for whoever asks again; leaving a `with` block forgets the turns.

    Args:
        ask: as `Assistant.stream`.
        about: what each question is that is a text alone, but for that text: a document, notes, a kind.
    """

    def __init__(self, ask: Callable[[Ask], AnswerStream], about: Ask) -> None:
        self._ask, self._about = ask, about
        self._turns: list[ChatTurn] = []
        self._asked: tuple[Ask, AnswerStream] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self._turns, self._asked = [], None

    @property
    def history(self) -> tuple[ChatTurn, ...]:
        """The turns so far, oldest first; a question that was not answered to its end is none."""
        if self._asked is not None:
            asked, stream = self._asked
            if stream.finished:
                self._asked = None
                self._turns += [_turn(asked, stream.answer)] if stream.answer.answered else []
        return tuple(self._turns)

    def ask(self, question: str | Ask) -> Answer:
        """As `Assistant.ask`."""
        stream = self.stream(question)
        for _ in stream:
            pass
        return stream.answer

    def stream(self, question: str | Ask) -> AnswerStream:
        """As `Assistant.stream`. A text is asked with the fields of this conversation, an `Ask` with its own."""
        asked = replace(self._about, question=question) if isinstance(question, str) else question
        if asked.history:
            raise InvalidRequest("a conversation has its own history")
        if asked.question is None:
            raise InvalidRequest("in a conversation the question is no section")
        asked = replace(asked, history=self.history)
        stream = self._ask(asked)
        self._asked = asked, stream
        return stream


def _turn(asked: Ask, answer: Answer) -> ChatTurn:
    if answer.bytes_sent == 0:  # the cloud does not know of it
        return ChatTurn(asked.question or "", answer.text, "all")
    quotes = any(section.visibility is Visibility.EDGE for section in asked.prompt())
    return ChatTurn(asked.question or "", answer.text, "answer" if quotes else "nothing")


@contextlib.contextmanager
def _about(named: str) -> Iterator[None]:
    """Puts the file, as `named`, and the key before what an error says."""
    from fuser import BadBundle, BadTable, ModelError, NoSuchDevice

    keys = {NoSuchDevice: "receiver.device: ", ModelError: "receiver.model: ", BadBundle: "receiver.bundle: "}
    keys |= {BadTable: "receiver.bundle: ", BadConfig: ""}
    try:
        yield
    except tuple(keys) as error:
        key = next(key for kind, key in keys.items() if isinstance(error, kind))
        error.args = (f"{named}{key}{error}",)
        raise


def _table(config: EdgeConfig, bundle: Bundle) -> PlanTable | None:
    """The table beside the bundle; None where there is none and none is needed.

    Raises:
        BadTable: it is needed, or it is not this bundle's.
    """
    from fuser import PlanTable

    directory = Path(config.receiver.bundle)
    if config.share.plan == "codec" and not PlanTable.lies_in(directory):
        return None
    return PlanTable.load(directory, bundle.hash)


def _without_notes(sections: Sequence[Section]) -> tuple[Section, ...]:
    return tuple(s for s in sections if s.visibility is not Visibility.EDGE or s.role is not Role.DOCUMENT)
