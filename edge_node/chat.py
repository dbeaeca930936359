"""POST /v1/chat/completions: OpenAI's body to a question, and an answer in OpenAI's shape (docs/api.md).

The last turn is the question, which both sides read. System prompts and earlier turns are edge sections: the Receiver
reads them, and no request holds them.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from edge_node.answer import Answer
from edge_node.body import Options, read_as
from edge_node.refusals import Refused
from kvwire.section import Role, Section, Visibility

if TYPE_CHECKING:
    from fuser import Sampling

MODEL: Final = "kvwire"
_STOPS: Final = 4

_REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "tools": ([],),
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "response_format": ({"type": "text"},),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "top_logprobs": (0,),
    "web_search_options": (),
}
"""What cannot be honoured, with the values that ask for nothing."""
_IGNORED: Final = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "reasoning_effort",
        "safety_identifier",
        "service_tier",
        "user",
        "verbosity",
    }
)
"""What changes no answer of this API."""
_MESSAGE_REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "tools": ([],),
    "audio": (),
    "function_call": (),
    "tool_calls": ([],),
}
_MESSAGE_IGNORED: Final = frozenset({"annotations", "name", "refusal"})


@dataclass(frozen=True, slots=True)
class TextPart:
    """A part of a message's content."""

    type: Literal["text"]
    text: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | tuple[TextPart, ...] = ""

    @property
    def text(self) -> str:
        """All of the content."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """include_usage: one more chunk before the end has the usage."""

    include_usage: bool = False
    include_obfuscation: bool = False


@dataclass(frozen=True, slots=True)
class ChatBody:
    """What may be asked for; docs/api.md tells each key."""

    model: str
    messages: tuple[Message, ...]
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | tuple[str, ...] = ()
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream: bool = False
    stream_options: StreamOptions = field(default_factory=StreamOptions)
    kvwire: Options = field(default_factory=Options)

    @classmethod
    def parse(cls, value: Any) -> ChatBody:
        """Read a body strictly; null is as good as left out.

        Raises:
            Refused: names the key that is unknown, missing, wrong, or not supported.
        """
        if not isinstance(value, dict):
            raise Refused("the body is not a JSON object")
        value = _supported(value, _REFUSED, _IGNORED)
        if isinstance(messages := value.get("messages"), list):
            value["messages"] = [_message(each, f"messages[{i}]") for i, each in enumerate(messages)]
        return read_as(cls, value)

    def arguments(self, most_tokens: int) -> dict[str, Any]:
        """As `Assistant.stream` takes them. `most_tokens`: that an answer can have.

        Raises:
            Refused: names the key with a wrong value.
        """
        document = named_document(self.model)
        if document is not None and self.kvwire.document not in (None, document):
            raise Refused("kvwire.document is not the one that model names", "kvwire.document")
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        if len(stop) > _STOPS or "" in stop:
            raise Refused(f"stop is at most {_STOPS} strings, none of them empty", "stop")
        question, before = self._turns()
        notes = "\n\n".join(text for text in (self.kvwire.notes, before) if text)
        system = [m.text for m in self.messages if m.role in ("system", "developer") and m.text.strip()]
        return self.kvwire.arguments() | {
            "question": question,
            "document": document or self.kvwire.document,
            "sections": [Section(Role.SYSTEM, Visibility.EDGE, text=text) for text in system],
            "notes": notes or None,
            "max_new_tokens": self._tokens(most_tokens),
            "sampling": self._sampling(),
            "stop": stop,
        }

    def _turns(self) -> tuple[str, str]:
        """The question, and the turns before it as one text."""
        turns = [m for m in self.messages if m.role in ("user", "assistant")]
        if not turns or turns[-1].role != "user" or not turns[-1].text.strip():
            raise Refused("messages: the last turn is not a question of the user", "messages")
        said = [f"{turn.role.capitalize()}: {turn.text}" for turn in turns[:-1]]
        return turns[-1].text, "\n".join(said)

    def _tokens(self, most: int) -> int | None:
        for name in ("max_completion_tokens", "max_tokens"):
            wanted: int | None = getattr(self, name)
            if wanted is not None and wanted < 1:
                raise Refused(f"{name} starts at 1", name)
            if wanted is not None:
                return min(wanted, most)
        return None

    def _sampling(self) -> Sampling | None:
        from fuser import Sampling

        given = {name: getattr(self, name) for name in ("temperature", "top_p", "seed")}
        given = {name: value for name, value in given.items() if value is not None}
        for name, value in given.items():
            try:
                Sampling(**{name: value})
            except ValueError as error:
                raise Refused(str(error), name) from error
        return Sampling(**given) if self.temperature else None


class ChatForm:
    """A completion, or chunks of one as server-sent events."""

    media = b"text/event-stream; charset=utf-8"
    waiting = b": waiting\n\n"

    def __init__(self, body: ChatBody, fingerprint: str) -> None:
        self.streamed = body.stream
        self._usage = body.stream_options.include_usage
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._about = {
            "created": int(time.time()),
            "model": body.model,
            "system_fingerprint": fingerprint,
        }
        self._begun = False

    def piece(self, text: str) -> bytes:
        return self._opening() + self._chunk({"content": text})

    def end(self, answer: Answer) -> bytes:
        last = self._chunk({}, finish_reason(answer), {"kvwire": account(answer)})
        usage = self._event([], {"usage": usage_of(answer)}) if self._usage else b""
        return self._opening() + last + usage + b"data: [DONE]\n\n"

    def failed(self, told: dict[str, Any]) -> bytes:
        return event(told)

    def whole(self, answer: Answer) -> dict[str, Any]:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": answer.text,
            "refusal": None,
            "annotations": [],
        }
        choice = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": finish_reason(answer),
        }
        about = {"id": self._id, "object": "chat.completion"} | self._about
        return about | {"choices": [choice], "usage": usage_of(answer)}

    def unanswered(self, error: dict[str, Any], answer: Answer) -> dict[str, Any]:
        return {"error": error | {"kvwire": account(answer)}}

    def _opening(self) -> bytes:
        begun, self._begun = self._begun, True
        return b"" if begun else self._chunk({"role": "assistant", "content": ""})

    def _chunk(
        self, delta: dict[str, str], reason: str | None = None, more: dict[str, Any] | None = None
    ) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._event([choice], ({"usage": None} if self._usage else {}) | (more or {}))

    def _event(self, choices: Sequence[dict[str, Any]], more: dict[str, Any]) -> bytes:
        about = {"id": self._id, "object": "chat.completion.chunk"} | self._about
        return event(about | {"choices": choices} | more)


def named_document(model: str) -> str | None:
    """The document that a model's name stands for: "kvwire/note-1" is note-1, "kvwire" none.

    Raises:
        Refused: there is no such model.
    """
    first, slash, document = model.partition("/")
    if first != MODEL or (slash and not document):
        said = f"there is no model {model!r}; {MODEL!r} answers, and '{MODEL}/ID' about the document ID"
        raise Refused(said, "model", "model_not_found", 404)
    return document or None


def account(answer: Answer) -> dict[str, Any]:
    """Where an answer came from, and why: all that is known of it but its text."""
    told = answer.to_dict()
    del told["text"]
    return {"mode": told.pop("source")} | told


def usage_of(answer: Answer) -> dict[str, Any]:
    """Tokens as OpenAI counts them, the Receiver's; and the account."""
    read, said = answer.prompt_tokens, answer.tokens
    return {
        "prompt_tokens": read,
        "completion_tokens": said,
        "total_tokens": read + said,
        "kvwire": account(answer),
    }


def finish_reason(answer: Answer) -> str:
    """Why the text ended, in OpenAI's words."""
    return "length" if answer.cut else "stop"


def event(value: dict[str, Any]) -> bytes:
    """A server-sent event of JSON."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def _message(value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        return value
    if value.get("role") in ("tool", "function"):
        named = f"{path}.role"
        raise Refused(f"{named}: tools are not supported", named, "unsupported")
    value = _supported(value, _MESSAGE_REFUSED, _MESSAGE_IGNORED, path)
    if isinstance(parts := value.get("content"), list):
        for i, part in enumerate(parts):
            if isinstance(part, dict) and part.get("type") != "text":
                named = f"{path}.content[{i}].type"
                raise Refused(f"{named}: content is text only", named, "unsupported")
    return value


def _supported(
    value: dict[str, Any], refused: Mapping[str, tuple[Any, ...]], ignored: frozenset[str], path: str = ""
) -> dict[str, Any]:
    """Less what is null, or ignored, or asks for nothing."""
    given = {key: each for key, each in value.items() if each is not None and key not in ignored}
    for key, nothing in refused.items():
        if key in given and given.pop(key) not in nothing:
            named = f"{path}.{key}" if path else key
            raise Refused(f"{named} is not supported", named, "unsupported")
    return given
