"""Assistant: a question in, an answer out, with a slice from the cloud where one can be had."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from edge_node.answer import NO_PLAN, NOTHING_TO_SHARE, REQUESTED, Answer
from edge_node.bounds import Home
from edge_node.client import Client
from edge_node.config import EdgeConfig
from edge_node.picker import REQUESTED as REQUESTED_PLAN
from edge_node.picker import Pick, Picker
from edge_node.stream import AnswerStream, Ask, first_document
from fuser.prompts.choice import with_choices
from kvwire.errors import InvalidRequest
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind

if TYPE_CHECKING:
    from fuser import Bundle, PlanTable, Receiver, Sampling

Source = Literal["auto", "receiver-only"]


class Assistant:
    """A Receiver and a client of the cloud. May be used from several threads; model steps never overlap.

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
        self._turn, self._home = threading.Lock(), Home("an assistant")

    @classmethod
    def from_config(cls, config: EdgeConfig | str | Path) -> Assistant:
        """Load the Receiver and its bundle; nothing is sent yet.

        Raises:
            BadConfig: the configuration is not valid, or a file of `[tls]` cannot be used.
            BadBundle: the bundle cannot be read, or is for another Receiver.
            NoSuchDevice: `[receiver] device` is not there.
            fuser.bundle.plans.BadTable and the errors of fuser.models.
        """
        import torch

        from fuser import load_receiver

        config = config if isinstance(config, EdgeConfig) else EdgeConfig.load(config)
        config.check_files()
        if config.receiver.threads:
            torch.set_num_threads(config.receiver.threads)
        own = config.receiver
        receiver = load_receiver(own.bundle, own.model, device=own.device, dtype=own.dtype)
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

    def ask(
        self,
        question: str | None,
        document: str | None = None,
        sections: Sequence[Section] | None = None,
        notes: str | None = None,
        kind: SliceKind | str | None = None,
        max_new_tokens: int | None = None,
        deadline_s: float | None = None,
        source: Source = "auto",
        plan: Plan | None = None,
        max_bytes: int | None = None,
        choices: Sequence[str] = (),
        guess: bool = False,
        require_fused: bool = False,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
    ) -> Answer:
        """Answer a question. As `stream`, but all at once."""
        stream = self.stream(
            question,
            document,
            sections,
            notes,
            kind,
            max_new_tokens,
            deadline_s,
            source=source,
            plan=plan,
            max_bytes=max_bytes,
            choices=choices,
            guess=guess,
            require_fused=require_fused,
            sampling=sampling,
            stop=stop,
        )
        for _ in stream:
            pass
        return stream.answer

    def stream(
        self,
        question: str | None,
        document: str | None = None,
        sections: Sequence[Section] | None = None,
        notes: str | None = None,
        kind: SliceKind | str | None = None,
        max_new_tokens: int | None = None,
        deadline_s: float | None = None,
        source: Source = "auto",
        plan: Plan | None = None,
        max_bytes: int | None = None,
        choices: Sequence[str] = (),
        guess: bool = False,
        require_fused: bool = False,
        sampling: Sampling | None = None,
        stop: Sequence[str] = (),
    ) -> AnswerStream:
        """Answer a question in pieces. Work begins at the first piece; the text ends with its first line.

        A question about a document of the cloud that gets neither a slice nor a relayed text is not answered: no text
        is generated, and `Answer.answered` is False.

        Args:
            question: what to answer; both sides read it. None where `sections` hold it.
            document: id of a document that the cloud holds.
            sections: further sections, put first.
            notes: text for the Receiver alone; it is never sent. Beside an excerpt or a draft it is not read at once,
                which confuses the Receiver, but where the Receiver abstains behind the slice: then the answer is one
                from the notes, word for word, receiver-only for the reason NOTES. A Receiver that was not taught to
                abstain, or has choices, or must give a fused answer, reads both together.
            kind: of the slice, or its name; by default as configured where a document of the cloud is asked about, else
                shared.
            max_new_tokens: tokens generated at most.
            deadline_s: seconds the cloud has for the slice.
            source: "receiver-only" asks the cloud nothing.
            plan: what of the slice is sent, and how; by default as configured, or picked (`edge_node.picker`).
            max_bytes: cap on the slice's payload, or a relayed text, held by the cloud too; 0 is none. By default as
                configured.
            choices: 2 to 10 to pick from; `Answer.choice` is the index of the one picked. Without a document of the
                cloud the question is asked with them, in the words that bundles for shared prompts are trained on, and
                the reply is "The correct answer is A." or another letter. Over a document they stay at the edge: the
                text is the one that the Receiver is most likely to say to the bare question.
            guess: let the Receiver guess where it would not be answered, knowing nothing of the document.
            require_fused: whatever is asked is answered from a whole slice or not at all.
            sampling: how the Receiver's tokens are chosen (`fuser.Sampling`); by default the most likely ones. A
                relayed text is the Sharer's, and always its most likely one.
            stop: strings that end the text, and are left out of it.

        Raises (here or at the first piece):
            NotFound, AccessDenied, InvalidRequest, TooLarge, IncompatiblePeer, and Unsupported for a plan that is not
                of this bundle, or a sampling that this Receiver cannot have: the caller's to mend. Whatever else goes
                wrong between edge and cloud stands as the reason of a receiver-only answer, or of none.
            RuntimeError: this is a child forked from the process that made the assistant.
        """
        self._home.check()
        if require_fused and (guess or source == "receiver-only"):
            raise InvalidRequest("a fused answer is required, so nothing else can be asked for")
        if "" in stop:
            raise InvalidRequest("a stop string is not empty")
        over = document is not None or any(s.visibility is Visibility.CLOUD for s in sections or ())
        prompt = _sections(_asked(question, choices, over), document, sections, notes)
        self.client.limits.check_sections(prompt)
        share = self.config.share
        tokens = self.config.receiver.max_new_tokens if max_new_tokens is None else max_new_tokens
        if not 1 <= tokens <= self.client.limits.max_new_tokens:
            raise InvalidRequest(f"max_new_tokens is 1 to {self.client.limits.max_new_tokens}, not {tokens}")
        chosen, reason = self._kind(prompt, kind, source)
        deadline_s = share.deadline_s if deadline_s is None else deadline_s
        max_bytes = share.max_bytes if max_bytes is None else max_bytes
        if max_bytes < 0:
            raise InvalidRequest(f"max_bytes is {max_bytes}; 0 is no cap")
        estimate, plan_reason = self.client.link.estimate, None
        if chosen is not None:
            pick = Pick(plan, REQUESTED_PLAN)
            if plan is None:
                pick = self._picker.pick(prompt, chosen, max_bytes, deadline_s, estimate)
            plan, plan_reason = pick.plan, pick.reason
            if plan is None:
                chosen, reason = None, NO_PLAN
        # Only who can abstain can turn to the notes then; anybody else reads them beside the slice.
        later = chosen in (SliceKind.EXCERPT, SliceKind.DRAFT) and self.bundle.config.abstain != ""
        later = later and not (choices or require_fused)
        ask = Ask(
            sections=_without_notes(prompt) if later else prompt,
            unfused=prompt,
            kind=chosen,
            reason=reason,
            document=first_document(prompt),
            plan=plan or share.configured(chosen or SliceKind.SHARED),
            plan_reason=plan_reason,
            estimate=None if plan_reason is None else estimate,
            max_new_tokens=tokens,
            deadline_s=deadline_s,
            max_bytes=max_bytes,
            relay=share.relay and reason == NO_PLAN and not require_fused,
            choices=0 if over else len(choices),
            among=tuple(choices) if over else (),
            alone=source == "receiver-only" or guess or not (require_fused or over),
            choose=None if sampling is None else sampling.chooser(self.receiver.model),
            stop=tuple(stop),
        )
        return AnswerStream(self.receiver, self.client, self._turn, self._home, ask)

    def _kind(
        self, prompt: Sequence[Section], wanted: SliceKind | str | None, source: Source
    ) -> tuple[SliceKind | None, str | None]:
        """The kind of slice to ask for, or why there is none."""
        if source == "receiver-only":
            return None, REQUESTED
        kinds = self.bundle.kinds
        if wanted is not None:
            kind = SliceKind.named(wanted)
            if kind not in kinds:
                raise InvalidRequest(f"this bundle takes no {kind} slices in")
            return kind, None
        document = any(s.visibility is Visibility.CLOUD for s in prompt)
        best = self.config.share.usual(document)
        if best in kinds and (document or any(s.visibility is Visibility.SHARED for s in prompt)):
            return best, None
        return None, NOTHING_TO_SHARE


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


def _asked(question: str | None, choices: Sequence[str], over: bool) -> str | None:
    """The question with its choices; over a document of the cloud without them."""
    if question is not None and not question.strip():
        raise InvalidRequest("there is no question")
    if not choices:
        return question
    if question is None:
        raise InvalidRequest("choices belong to a question: give one")
    for choice in choices:
        _check_text(choice, "choice")
    try:
        listed = with_choices(question, choices)
        return question if over else listed
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def _sections(
    question: str | None, document: str | None, further: Sequence[Section] | None, notes: str | None
) -> tuple[Section, ...]:
    prompt = list(further or ())
    if document is not None:
        prompt.append(Section(Role.DOCUMENT, Visibility.CLOUD, document_id=document))
    if notes is not None:
        prompt.append(Section(Role.DOCUMENT, Visibility.EDGE, text=notes))
    if question is not None:
        prompt.append(Section(Role.QUESTION, Visibility.SHARED, text=question))
    if not any(section.role is Role.QUESTION and (section.text or "").strip() for section in prompt):
        raise InvalidRequest("there is no question")
    for section in prompt:
        _check_text(section.text or section.document_id or "", str(section.role))
    return tuple(prompt)


def _without_notes(sections: Sequence[Section]) -> tuple[Section, ...]:
    return tuple(s for s in sections if s.visibility is not Visibility.EDGE or s.role is not Role.DOCUMENT)


def _check_text(text: str, what: str) -> None:
    """Refuse half a surrogate pair: neither JSON nor a command line keeps it out, and it is in no encoding."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"the {what} is not Unicode at character {error.start}") from error
