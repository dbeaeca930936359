"""Bodies of the local API: what may be said beside a question, and the body of POST /v1/ask."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from edge_node.refusals import Refused
from fuser.config import BadConfig, from_dict
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind

T = TypeVar("T")

_KEY: Final = re.compile(r"(?:(?:unknown|missing) key )?([\w.\[\]]+)")
"""The key at the beginning of what a `BadConfig` says."""


def read_json(body: bytes) -> Any:
    """The JSON value of a body.

    Raises:
        Refused: no JSON, or a text in it is not Unicode.
    """
    try:
        value = json.loads(body)
        json.dumps(value, ensure_ascii=False).encode()  # JSON can spell half a surrogate pair
    except (ValueError, RecursionError) as error:
        raise Refused(f"the body: {error}"[:500]) from error
    return value


def read_as(cls: type[T], value: Any) -> T:
    """The dataclass `cls` of a JSON value, strictly.

    Raises:
        Refused: a key that is unknown, missing or of a wrong type; the key is named.
    """
    if not isinstance(value, dict):
        raise Refused("the body is not a JSON object")
    try:
        return from_dict(cls, value)
    except BadConfig as error:
        named = _KEY.match(str(error))
        raise Refused(f"the body: {error}"[:500], named and named[1]) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be said beside a question.

    document: id of a document that the cloud holds.
    notes: text for the Receiver alone, never sent.
    source: "receiver-only" asks the cloud nothing.
    kind: of the slice; left out, as the edge is configured.
    deadline_s: seconds the cloud has for the slice.
    plan: what of the slice is sent, and how; left out, as the edge is configured or picks.
    max_bytes: cap on the payload of the slice, 0 is none; left out, as the edge is configured.
    choices: 2 to 10 to pick from (`Assistant.stream`).
    guess: let the Receiver guess where there is no slice of the document.
    require_fused: no answer but from a whole slice.
    """

    document: str | None = None
    notes: str | None = None
    source: Literal["auto", "receiver-only"] = "auto"
    kind: SliceKind | None = None
    deadline_s: float | None = None
    plan: Plan | None = None
    max_bytes: int | None = None
    choices: tuple[str, ...] = ()
    guess: bool = False
    require_fused: bool = False

    def arguments(self) -> dict[str, Any]:
        """As `Assistant.stream` takes them."""
        return {
            "document": self.document,
            "notes": self.notes,
            "source": self.source,
            "kind": self.kind,
            "deadline_s": self.deadline_s,
            "plan": self.plan,
            "max_bytes": self.max_bytes,
            "choices": self.choices,
            "guess": self.guess,
            "require_fused": self.require_fused,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class AskBody(Options):
    """What may be asked.

    question: what to answer.
    text: a context that a caller brings, for the Receiver alone, never sent.
    max_new_tokens: tokens generated at most.
    stream: JSON lines, one a piece, then the answer; otherwise one JSON object.
    """

    question: str
    text: str | None = None
    max_new_tokens: int | None = None
    stream: bool = False

    def arguments(self) -> dict[str, Any]:
        """As `Assistant.stream` takes them."""
        text = () if self.text is None else (Section(Role.DOCUMENT, Visibility.EDGE, text=self.text),)
        own = {"question": self.question, "sections": text, "max_new_tokens": self.max_new_tokens}
        return Options.arguments(self) | own
