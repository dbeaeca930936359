"""Bodies of the local API, read strictly, and the body of POST /v1/ask."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from edge_node.ask import Ask, Options
from edge_node.history import ChatTurn
from edge_node.refusals import Refused
from fuser.config import BadConfig, from_dict
from kvwire.section import Role, Section, Visibility

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
class AskBody(Options):
    """What may be asked, with `Options` beside it.

    question: what to answer.
    text: a context that a caller brings, for the Receiver alone, never sent.
    history: earlier turns, oldest first, as `Ask.history`.
    max_new_tokens: tokens generated at most.
    stream: JSON lines, one a piece, then the answer; otherwise one JSON object.
    """

    question: str
    text: str | None = None
    history: tuple[ChatTurn, ...] = ()
    max_new_tokens: int | None = None
    stream: bool = False

    def ask(self) -> Ask:
        """What is asked.

        Raises:
            InvalidRequest: as `Ask`.
        """
        text = () if self.text is None else (Section(Role.DOCUMENT, Visibility.EDGE, text=self.text),)
        return self.about(
            self.question, sections=text, history=self.history, max_new_tokens=self.max_new_tokens
        )
