"""What an ask gives back: the first line of text, where it came from, and why there is none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from kvwire.errors import CATALOGUE

FUSED: Final = "fused"
RECEIVER_ONLY: Final = "receiver-only"
RELAYED: Final = "relayed"

REQUESTED: Final = "REQUESTED"
"""Reason of a receiver-only answer: the caller asked for one."""
NOTHING_TO_SHARE: Final = "NOTHING_TO_SHARE"
"""Reason of a receiver-only answer: the bundle has no head for a slice of this prompt."""
UNREACHABLE: Final = "UNREACHABLE"
"""Reason of an answer without a slice: as `kvwire.errors.Unreachable`."""
EMPTY: Final = "EMPTY"
"""Reason of an answer without a slice: the slice of a document, or the relayed text, came and is empty."""
NOTES: Final = "NOTES"
"""Reason of a receiver-only answer: the Receiver abstained behind the slice, and read the notes instead."""
NOTHING_FOUND: Final = "NOTHING_FOUND"
"""Reason of an answer without a slice: the search found no passage, and no other document is asked about."""
NO_PLAN: Final = "NO_PLAN"
"""Reason of an answer without a slice: no plan of use fits the bytes or the time; `plan_reason` says which."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer and its account.

    Attributes:
        text: the first line of what the Receiver generated, or the Sharer where it was relayed, less blanks around it,
            up to a stop string that was asked for.
        tokens: how many tokens were generated.
        prompt_tokens: tokens of the Receiver's prompt, those of the slice aside; 0 where it read none.
        cut: the limit of tokens or bytes, or the Receiver's window, ended the text.
        source: "fused" (a whole slice was taken in), "receiver-only", or "relayed" (the Sharer's own text).
        answered: False where there is no answer, for `reason`: the Receiver knew nothing of the document asked about
            and was not to guess, or a fused answer was required. Then `text` is empty. It is True where the Receiver
            read a slice and says that it does not hold the answer, which `abstained` tells.
        guess: the Receiver said it with nothing to read: no slice and, where no document was asked about, no notes or
            other text of the edge.
        abstained: a slice was taken in, and the text is what the bundle taught the Receiver to say where neither it
            nor notes hold the answer: the Receiver says so, or its answer was withheld as too unlikely to be right.
        confidence: how likely it is, 0 to 1, that what the Receiver answers behind an excerpt or a draft is right, by
            its own probabilities of the tokens; of an answer that was withheld, how likely that one was. None where
            the bundle has no numbers for it, where the Receiver itself abstains, and of all other answers.
        least_confidence: the bound that held for it: with a lower `confidence` an answer is withheld. 0 withholds none;
            None beside no `confidence`.
        choice: of a question with choices, the index of the one picked; None where the text names none in the form
            asked for, or there were none.
        reason: why no slice was taken in: a reason of `kvwire.errors.CATALOGUE` or of this module; None if
            fused.
        document: the id of the first document asked about, if any.
        documents: all documents and passages asked about: "document", "passage" (0 is the whole document), "score"
            (None where it was named, not found) and "version", which text the slice or the relayed text is of, as the
            cloud names it (None where neither came).
        kind: kind of slice asked for, None if none was.
        codec: codec asked for, None if no slice was.
        plan: all of the plan asked for, None if no slice was.
        plan_reason: why this plan, or why none fits: a constant of `edge_node.picker`; None where none was looked for.
        estimate: the link as it was known then: "bandwidth_bytes_per_s", "rtt_s" and "cloud_s", each None where nothing
            was.
        positions: positions of the slice that was taken in.
        quoted, runs: of them those of documents, and in how many runs of neighbours these stand.
        positions_left, questions_left, new_positions_left: what may still leave today, to this edge, of the document of
            which least may; None where there is no bound, or no slice came.
        bytes_sent, bytes_received: serialised protobuf messages of this ask, retries included; not what the cloud
            offers, which is asked for once a connection where a plan is to be picked.
        turns_sent: earlier turns of the conversation that the cloud was asked with.
        payload_bytes: bytes of segments among those received.
        share_arrived: share of the slice that arrived, 0 to 1; only a whole one is used.
        time_to_first_token_s: seconds from the ask to the first piece of text (to the end if there was none).
        timings: seconds: "search", "receiver_prefill" (before the slice), "wait" for the slice after that, "connect"
            and "decode" (meanwhile), "fuse", "slice" from the ask to the end of the slice, "generate", "total"; and
            where a slice came, the cloud's own "cloud_queue", "cloud_prefill", and "cloud_encode" after it.
    """

    text: str
    tokens: int
    source: str
    prompt_tokens: int = 0
    cut: bool = False
    answered: bool = True
    guess: bool = False
    abstained: bool = False
    confidence: float | None = None
    least_confidence: float | None = None
    choice: int | None = None
    reason: str | None = None
    document: str | None = None
    documents: tuple[dict[str, Any], ...] = ()
    kind: str | None = None
    codec: str | None = None
    plan: dict[str, Any] | None = None
    plan_reason: str | None = None
    estimate: dict[str, float | None] | None = None
    positions: int = 0
    quoted: int = 0
    runs: int = 0
    positions_left: int | None = None
    questions_left: int | None = None
    new_positions_left: int | None = None
    bytes_sent: int = 0
    bytes_received: int = 0
    turns_sent: int = 0
    payload_bytes: int = 0
    share_arrived: float = 0.0
    time_to_first_token_s: float = 0.0
    timings: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one for each attribute."""
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)


_LOOK: Final = "`kvwire doctor --config` with this edge's file looks"
_DAMAGED: Final = (
    "what came from the cloud cannot be used; ask again, and see that both sides run the same version"
)
_WORDS: Final = {
    UNREACHABLE: f"the cloud at {{address}} cannot be reached; is `kvwire cloud` running there? {_LOOK}",
    "BUSY": "the cloud at {address} has no room now; ask again in a moment",
    "EXPOSURE_SPENT": "no more of it may leave the cloud today for this edge; ask again after midnight UTC",
    "DRAINING": "the cloud at {address} is shutting down; ask again when it is back",
    "DEADLINE_EXCEEDED": "the cloud's slice did not come in time; ask again, or allow more seconds (deadline)",
    "CANCELLED": "the call to the cloud was cut off; ask again",
    "DOCUMENTS_UNAVAILABLE": "the cloud at {address} cannot read its documents; its log says why",
    "INTERNAL": "the cloud at {address} failed; its log says why",
    "RELAY_DISABLED": "the cloud relays no text (`[export] allow_relay`); ask for a slice, or more bytes",
    EMPTY: "what the cloud at {address} sent is empty; is there text in the document?",
    NO_PLAN: "no plan of a slice is of use: {no_plan}",
    NOTHING_FOUND: "no passage of this tenant's documents has a word of the question; ask in other words",
    NOTHING_TO_SHARE: "of a question without a document this bundle makes no slice: name one (`--document ID`, in the "
    "API `document`), or search for one (`--search 3`, `search`)",
    **dict.fromkeys(("WIRE_ERROR", "BAD_HEADER", "BAD_CHECKSUM", "BAD_PAYLOAD"), _DAMAGED),
}
NO_PLANS: Final = {
    "BYTE_BUDGET": "each may need more bytes than are allowed; allow more",
    "DEADLINE": "each would come too late over this link; allow more seconds",
    "NOT_USEFUL": "the bundle's table has none that helps; ask for another kind of slice, or name a plan",
    "NOT_GRANTED": "the cloud's policy lets none of the bundle's table out whole; name a smaller plan",
}
"""Why there is no plan, by `Answer.plan_reason`."""
_NO_DOCUMENTS: Final = "this bundle makes no slices of documents; take another on both sides"
_TEXTS: Final = {entry.reason: entry.text.rstrip(".") for entry in CATALOGUE.values()}


def explained(answer: Answer, address: str) -> str:
    """One line about an answer that has a reason. `address`: of the cloud."""
    reason = answer.reason or "INTERNAL"
    if reason == NOTHING_TO_SHARE and answer.document is not None:
        return _NO_DOCUMENTS
    words = _WORDS.get(reason) or f"{_TEXTS.get(reason, 'there is no slice')}; {_LOOK}"
    return words.format(address=address, no_plan=NO_PLANS.get(answer.plan_reason or ""))


class FirstLine:
    """Takes pieces of text and gives on what belongs to the first line that is not blank, less blanks around it.

    A newline ends it, and so does a string of `stops`, which is left out with all behind it.
    """

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self.ended = False
        """The line is over: nothing more belongs to it."""
        self._stops = ("\n", *stops)
        self._begun = False
        self._held = ""

    def add(self, piece: str) -> str:
        """What of `piece` belongs to the line; blanks, and what may begin a stop, come once something follows them."""
        if self.ended:
            return ""
        text = self._held + piece
        text = text if self._begun else text.lstrip()
        ends = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        self.ended = bool(ends)
        said = text[: min(ends)[1] if ends else self._sure(text)].rstrip()  # the stop that is whole first
        self._held = "" if self.ended else text[len(said) :]
        self._begun = self._begun or bool(said)
        return said

    def rest(self) -> str:
        """What was held back in case a stop began with it, where no more text comes."""
        held, self._held, self.ended = self._held.rstrip(), "", True
        return held

    def _sure(self, text: str) -> int:
        """Characters of `text` behind which no stop can begin."""
        longest = max(len(stop) for stop in self._stops) - 1
        begins = (at for at in range(max(0, len(text) - longest), len(text)) if self._may_begin(text[at:]))
        return next(begins, len(text))

    def _may_begin(self, end: str) -> bool:
        return any(stop.startswith(end) for stop in self._stops)
