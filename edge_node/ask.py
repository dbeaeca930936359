"""Ask: a question with all that may be said beside it, checked where it is made. Planned: what is sent for one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from edge_node.history import ChatTurn, noted, told
from edge_node.link import Estimate
from fuser.prompts.choice import with_choices
from kvwire.errors import InvalidRequest
from kvwire.messages import Found
from kvwire.plan import Granted, Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind

if TYPE_CHECKING:
    from fuser import Choose, Sampling

Source = Literal["auto", "receiver-only", "relayed"]
_PASSAGE: Final = re.compile(r"[0-9]{1,10}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be said beside a question, from Python and over the local API alike.

    Attributes:
        document: id of a document that the cloud holds; `note-1#2` is the second passage of note-1 alone.
        documents: further ones, and passages that a search found.
        search: ask about so many more passages, those of the tenant's documents that have most of the question's words,
            rare words first. Where nothing is asked about then, it is not answered, for the reason NOTHING_FOUND.
        notes: text for the Receiver alone; it is never sent. Beside an excerpt or a draft it is not read at once, which
            confuses the Receiver, but where the Receiver abstains behind the slice: then the answer is one from the
            notes, word for word, receiver-only for the reason NOTES. A Receiver that was not taught to abstain, or has
            choices, or must give a fused answer, reads both together.
        source: "receiver-only" asks the cloud nothing; "relayed" asks for the Sharer's own answer as text, in place of
            a slice. Where the cloud's policy has none there is no answer, for the reason RELAY_DISABLED.
        kind: of the slice; None: as configured where a document of the cloud is asked about, else shared.
        deadline_s: seconds the cloud has for the slice; None: as configured.
        plan: what of the slice is sent, and how; None: as configured, or picked (`edge_node.picker`).
        max_bytes: cap on the slice's payload, or a relayed text, held by the cloud too; 0 is none, None: as configured.
        choices: 2 to 10 to pick from; `Answer.choice` is the index of the one picked. Without a document of the cloud
            the question is asked with them, in the words that bundles for shared prompts are trained on, and the reply
            is "The correct answer is A." or another letter. Over a document they stay at the edge: the text is the one
            that the Receiver is most likely to say to the bare question.
        guess: where neither slice nor relayed text comes, let the Receiver guess, knowing nothing of the document;
            False never, None only where no document of the cloud is asked about.
        require_fused: whatever is asked is answered from a whole slice or not at all.
        least_confidence: an answer from a slice that is less likely to be right (`Answer.confidence`) is withheld, and
            the Receiver abstains in its place; 0 withholds none, None: as configured, else as the bundle has it. It
            goes with no choices, of which one is always picked, and with no other source than "auto".
    """

    document: str | None = None
    documents: Sequence[str | Found] = ()
    search: int = 0
    notes: str | None = None
    source: Source = "auto"
    kind: SliceKind | None = None
    deadline_s: float | None = None
    plan: Plan | None = None
    max_bytes: int | None = None
    choices: Sequence[str] = ()
    guess: bool | None = None
    require_fused: bool = False
    least_confidence: float | None = None

    def about(self, question: str | None, **more: Any) -> Ask:
        """These beside a question. more: further fields of `Ask`, or others in place of these."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(Options)}
        return Ask(question, **(own | more))


@dataclass(frozen=True, slots=True)
class Ask(Options):
    """What is asked, and how. Changed copies come from `dataclasses.replace`.

    Attributes:
        question: what to answer; both sides read it. None where `sections` hold it.
        sections: further sections, put first.
        history: earlier turns of the conversation, oldest first. Where a draft over a document of the cloud is asked
            for, the last ones, as many as `[share] history_turns` allows, are sent for the Sharer to read; answers are
            not, where the Receiver may read notes or other text for it alone (`edge_node.history`). Else they are
            `kept`, which over a document leaves them out.
        max_new_tokens: tokens generated at most; None: as configured.
        sampling: how the Receiver's tokens are chosen; None: the most likely ones. A relayed text is the Sharer's, and
            always its most likely one.
        stop: strings that end the text, and are left out of it.
        user_token: a JSON Web Token that names to the cloud the user who asks, where it tells users apart; every call
            for this question has it, and nothing else.

    Raises:
        InvalidRequest: what is asked contradicts itself.
    """

    question: str | None = None
    sections: Sequence[Section] = dataclasses.field(default=(), kw_only=True)
    history: Sequence[ChatTurn] = dataclasses.field(default=(), kw_only=True)
    max_new_tokens: int | None = dataclasses.field(default=None, kw_only=True)
    sampling: Sampling | None = dataclasses.field(default=None, kw_only=True)
    stop: Sequence[str] = dataclasses.field(default=(), kw_only=True)
    user_token: str | None = dataclasses.field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        for name in ("choices", "documents", "history", "sections", "stop"):
            given = getattr(self, name)
            if isinstance(given, str):
                raise InvalidRequest(f"{name} is a list, not one string")
            object.__setattr__(self, name, tuple(given))
        if self.kind is not None:
            object.__setattr__(self, "kind", SliceKind.named(self.kind))
        if self.question is not None and not self.question.strip():
            raise InvalidRequest("there is no question")
        if self.require_fused and (self.guess or self.source != "auto"):
            raise InvalidRequest("a fused answer is required, so nothing else can be asked for")
        if self.source == "relayed" and (self.kind is not None or self.plan is not None or self.choices):
            raise InvalidRequest(
                "a relayed text is no slice and picks none of the choices: leave kind, plan and choices out"
            )
        if "" in self.stop:
            raise InvalidRequest("a stop string is not empty")
        if self.source not in get_args(Source):
            raise InvalidRequest(f"source is one of {', '.join(get_args(Source))}, not {self.source!r}")
        if self.search < 0:
            raise InvalidRequest(f"search is {self.search}; 0 searches nothing")
        if self.search and not self.searched.strip():
            raise InvalidRequest("a question for the edge alone searches nothing: its words would be sent")
        if self.max_bytes is not None and self.max_bytes < 0:
            raise InvalidRequest(f"max_bytes is {self.max_bytes}; 0 is no cap")
        if self.least_confidence is not None and not 0 <= self.least_confidence <= 1:
            raise InvalidRequest(f"least_confidence is 0 to 1, not {self.least_confidence}")
        if self.least_confidence and (self.choices or self.source != "auto"):
            raise InvalidRequest(
                "least_confidence is of answers in the Receiver's own words from a slice: leave choices and source out"
            )
        for choice in self.choices:
            _check_text(choice, "choice")
        for turn in self.history:
            _check_text(turn.question + turn.answer, "history")
        prompt = self.prompt()
        if not any(section.role is Role.QUESTION and (section.text or "").strip() for section in prompt):
            raise InvalidRequest("there is no question")
        for section in prompt:
            _check_text(section.text or section.document_id or "", str(section.role))

    @classmethod
    def of(cls, question: str | Ask, document: str | None = None) -> Ask:
        """An `Ask` as it is, or a question, and a document beside it, as one.

        Raises:
            InvalidRequest: as `Ask`, or a document beside an `Ask`, which has a field for it.
        """
        if not isinstance(question, Ask):
            return cls(question, document=document)
        if document is not None:
            raise InvalidRequest("the document belongs into the Ask")
        return question

    @property
    def over_document(self) -> bool:
        """Whether a document of the cloud is asked about."""
        named = self.document is not None or self.documents or self.search
        return bool(named) or any(s.visibility is Visibility.CLOUD for s in self.sections)

    def kept(self) -> Ask:
        """The same with the history behind the notes: the Receiver may read it, and no request holds it.

        Beside a document of the cloud it is left out: an earlier answer would be taken for what the slice does not
        hold.
        """
        if self.over_document and self.source != "receiver-only":
            return dataclasses.replace(self, history=())
        notes = "\n\n".join(text for text in (self.notes, noted(self.history)) if text)
        return dataclasses.replace(self, notes=notes or None, history=())

    @property
    def searched(self) -> str:
        """What is searched for: the question, or the last one of the sections that may be sent; "" where none may."""
        shared = [s for s in self.sections if s.visibility is Visibility.SHARED and s.role is Role.QUESTION]
        return self.question or next((s.text for s in reversed(shared) if s.text), "")

    def prompt(self, found: Sequence[Found] = ()) -> tuple[Section, ...]:
        """All sections, the notes and the question last; the choices are listed where no document is asked about.

        Args:
            found: passages to be asked about too; those of what is named already are left out.

        Raises:
            InvalidRequest: choices without a question, or too few or many of them, or a document without an id.
        """
        prompt, question = list(self.sections), self.question
        if self.choices:
            if question is None:
                raise InvalidRequest("choices belong to a question: give one")
            try:
                listed = with_choices(question, self.choices)
            except ValueError as error:
                raise InvalidRequest(str(error)) from error
            question = question if self.over_document else listed
        prompt += map(_section, (*([] if self.document is None else [self.document]), *self.documents))
        named = {(s.document_id, s.passage) for s in prompt}
        further = [f for f in found if not {(f.document, 0), (f.document, f.passage)} & named]
        prompt += map(_section, further)
        if self.notes is not None:
            prompt.append(Section(Role.DOCUMENT, Visibility.EDGE, text=self.notes))
        if question is not None:
            prompt.append(Section(Role.QUESTION, Visibility.SHARED, text=question))
        return tuple(prompt)


@dataclass(frozen=True, slots=True)
class Planned:
    """What is sent for an `Ask`, and how.

    before: earlier turns that are sent. sections: what is sent with them, but for those of the edge, and what the
    Receiver reads beside the slice. unfused: what it reads where there is no slice, or where it abstains behind one:
    the same, with the notes. kind: of the slice to ask for; None asks for none, for the reason given. plan,
    plan_reason, estimate: what was picked and why (`edge_node.picker`). found: passages that a search found and that
    are asked about. max_bytes: cap on payload or text; 0 is none. relay: ask for the Sharer's own answer, as there is
    no slice. alone: without a slice the Receiver may answer by itself; else nothing is generated. reads: it then has
    notes or other text to read, earlier turns aside. choose: the Receiver's next token; None takes the most likely one.
    least_confidence: under which an answer is withheld; None is the bundle's own. pick: where a plan is to be picked,
    the same with it, by what the cloud's policy grants.
    """

    ask: Ask
    sections: tuple[Section, ...]
    unfused: tuple[Section, ...]
    kind: SliceKind | None
    reason: str | None
    plan: Plan
    max_new_tokens: int
    deadline_s: float
    before: tuple[str, ...] = ()
    plan_reason: str | None = None
    estimate: Estimate | None = None
    found: tuple[Found, ...] = ()
    max_bytes: int = 0
    relay: bool = False
    alone: bool = True
    reads: bool = False
    choose: Choose | None = None
    least_confidence: float | None = None
    pick: Callable[[Granted, Planned], Planned] | None = None

    @property
    def asked(self) -> tuple[Section, ...]:
        """What is sent, but for those of the edge."""
        return told(self.sections, self.before)

    @property
    def among(self) -> Sequence[str]:
        """Texts of which the Receiver says the most likely one, in place of its own words."""
        return self.ask.choices if self.ask.over_document else ()

    @property
    def noted(self) -> tuple[Section, ...]:
        """The notes, where they are not read beside a slice."""
        return tuple(section for section in self.unfused if section not in self.sections)

    @property
    def documents(self) -> tuple[dict[str, Any], ...]:
        """As `Answer.documents`."""
        scores = {(one.document, one.passage): one.score for one in self.found}
        return tuple(
            {"document": s.document_id, "passage": s.passage, "score": scores.get((s.document_id, s.passage))}
            for s in self.unfused
            if s.document_id is not None
        )

    def over(self, found: tuple[Found, ...]) -> Planned:
        """The same, about the passages that were found too."""
        unfused = self.ask.prompt(found)
        sections = tuple(section for section in unfused if section not in self.noted)
        return dataclasses.replace(self, sections=sections, unfused=unfused, found=found)


def _section(named: str | Found) -> Section:
    """A document of the cloud, or one passage of it."""
    name, mark, passage = str(named).partition("#")
    if mark and not (_PASSAGE.fullmatch(passage) and int(passage)):
        raise InvalidRequest(f"{str(named)[:80]}: a passage is an id, # and a number from 1")
    return Section(Role.DOCUMENT, Visibility.CLOUD, document_id=name, passage=int(passage or 0))


def _check_text(text: str, what: str) -> None:
    """Refuse half a surrogate pair: neither JSON nor a command line keeps it out, and it is in no encoding."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"the {what} is not Unicode at character {error.start}") from error
