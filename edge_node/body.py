"""The body of POST /v1/ask, and errors as the local API tells them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final, Literal

from edge_node.answer import EMPTY, NO_PLAN, NOTHING_TO_SHARE, Answer, explained
from fuser.config import BadConfig, from_dict
from kvwire.errors import (
    AccessDenied,
    Busy,
    Draining,
    IncompatiblePeer,
    InvalidRequest,
    KvwireError,
    NotFound,
    TooLarge,
    Unsupported,
    entry_of,
)
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind

_STATUS: Final[tuple[tuple[type[KvwireError], int], ...]] = (
    (NotFound, 404),
    (AccessDenied, 403),
    (InvalidRequest, 400),
    (Unsupported, 400),
    (TooLarge, 413),
    (IncompatiblePeer, 409),
    (Busy, 503),
    (Draining, 503),
)
_UNANSWERED: Final = {
    "DEADLINE_EXCEEDED": 504,
    **dict.fromkeys((EMPTY, NO_PLAN, NOTHING_TO_SHARE, "RELAY_DISABLED"), 422),
}
"""What time did not allow; what asking again does not mend. Anything else is a service that is not there: 503."""


@dataclass(frozen=True, slots=True)
class AskBody:
    """What may be asked.

    question: what to answer.
    document: id of a document that the cloud holds.
    notes, text: texts for the Receiver alone, never sent: the user's own, and a context that a caller brings.
    source: "receiver-only" asks the cloud nothing.
    plan: what of the slice is sent, and how; left out, as the edge is configured or picks.
    max_bytes: cap on the payload of the slice, 0 is none; left out, as the edge is configured.
    choices: 2 to 10 to pick from; the answer names a letter.
    guess: let the Receiver guess where there is no slice of the document.
    require_fused: no answer but from a whole slice.
    stream: JSON lines, one a piece, then the answer; otherwise one JSON object.
    """

    question: str
    document: str | None = None
    notes: str | None = None
    text: str | None = None
    source: Literal["auto", "receiver-only"] = "auto"
    kind: SliceKind | None = None
    max_new_tokens: int | None = None
    deadline_s: float | None = None
    plan: Plan | None = None
    max_bytes: int | None = None
    choices: tuple[str, ...] = ()
    guess: bool = False
    require_fused: bool = False
    stream: bool = False

    @classmethod
    def parse(cls, body: bytes) -> AskBody:
        """Read JSON strictly.

        Raises:
            InvalidRequest: no JSON, a text that is not Unicode, or a key that is unknown, missing or of a wrong type;
                the key is named.
        """
        try:
            value = json.loads(body)
            json.dumps(value, ensure_ascii=False).encode()  # JSON can spell half a surrogate pair
            return from_dict(cls, value)
        except (BadConfig, ValueError, RecursionError) as error:
            raise InvalidRequest(f"the body: {error}"[:500]) from error

    def arguments(self) -> dict[str, Any]:
        """As `Assistant.stream` takes them."""
        text = () if self.text is None else (Section(Role.DOCUMENT, Visibility.EDGE, text=self.text),)
        return {
            "question": self.question,
            "document": self.document,
            "sections": text,
            "notes": self.notes,
            "kind": self.kind,
            "max_new_tokens": self.max_new_tokens,
            "deadline_s": self.deadline_s,
            "source": self.source,
            "plan": self.plan,
            "max_bytes": self.max_bytes,
            "choices": self.choices,
            "guess": self.guess,
            "require_fused": self.require_fused,
        }


def status_of(error: KvwireError) -> int:
    """The HTTP status for an error."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def error_object(error: KvwireError) -> dict[str, Any]:
    """An error as JSON: the catalogue's reason, what happened, and names and numbers about it."""
    entry = entry_of(type(error))
    return {"error": {"reason": entry.reason, "message": str(error), "metadata": error.metadata()}}


def unanswered(answer: Answer, cloud: str) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the JSON of a question that got no answer; the whole account stands beside the error.

    `cloud`: its address, to be named.
    """
    error: dict[str, Any] = {"reason": answer.reason, "message": explained(answer, cloud), "metadata": {}}
    return _UNANSWERED.get(answer.reason or "", 503), {"error": error, "answer": answer.to_dict()}
