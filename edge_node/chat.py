"""POST /v1/chat/completions: OpenAI's body to a question, and an answer in OpenAI's shape (docs/api.md).

The last turn is the question, which both sides read. Earlier turns are its history (`edge_node.history`), kept at the
edge where `kvwire.history` is false. System prompts are edge sections: the Receiver reads them, and no request holds
them.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Self

from edge_node.answer import Answer
from edge_node.ask import Ask, Options
from edge_node.body import read_as
from edge_node.history import ChatTurn
from edge_node.refusals import Refused
from kvwire.section import Role, Section, Visibility

if TYPE_CHECKING:
    from fuser import Sampling

MODEL: Final = "kvwire"
_STOPS: Final = 4
_TURNS: Final = 1_000

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
IGNORED: Final = frozenset(
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
_MESSAGE_REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "tools": ([],),
    "audio": (),
    "function_call": (),
    "tool_calls": ([],),
}
_MESSAGE_IGNORED: Final = frozenset({"annotations", "id", "name", "phase", "refusal", "status"})
_PART_IGNORED: Final = frozenset({"annotations", "logprobs"})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions(Options):
    """The object `kvwire` of a body. history: earlier turns may be sent; otherwise the Receiver alone may read them."""

    history: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIBody:
    """What OpenAI's calls have in common; docs/api.md tells each key.

    turns_key: the key of the turns. refused: what cannot be honoured, with the values that ask for nothing. ignored:
    what changes no answer of this API.
    """

    turns_key: ClassVar[str]
    refused: ClassVar[Mapping[str, tuple[Any, ...]]]
    ignored: ClassVar[frozenset[str]]

    model: str
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: str | tuple[str, ...] = ()
    stream: bool = False
    kvwire: ChatOptions = field(default_factory=ChatOptions)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Read a body strictly; null is as good as left out.

        Raises:
            Refused: names the key that is unknown, missing, wrong, or not supported.
        """
        value = supported(value, cls.refused, cls.ignored)
        if isinstance(turns := value.get(cls.turns_key), list):
            if len(turns) > _TURNS:
                raise Refused(f"{cls.turns_key} are at most {_TURNS}, not {len(turns)}", cls.turns_key)
            value[cls.turns_key] = [cls.turn(each, f"{cls.turns_key}[{i}]") for i, each in enumerate(turns)]
        return read_as(cls, value)

    @staticmethod
    def turn(value: Any, path: str) -> Any:
        """One turn, to be read as a `Message`. Raises Refused."""
        return message(value, path)

    def about(self, turns: Sequence[Message], max_new_tokens: int | None) -> Ask:
        """The last turn, with the others beside it.

        Raises:
            Refused: names the key with a wrong value. InvalidRequest: as `Ask`.
        """
        document = named_document(self.model)
        if document is not None and self.kvwire.document not in (None, document):
            raise Refused("kvwire.document is not the one that model names", "kvwire.document")
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        if len(stop) > _STOPS or "" in stop:
            raise Refused(f"stop is at most {_STOPS} strings, none of them empty", "stop")
        said = [turn for turn in turns if turn.role in ("user", "assistant")]
        if not said or said[-1].role != "user" or not said[-1].text.strip():
            raise Refused(f"{self.turns_key}: the last turn is not a question of the user", self.turns_key)
        system = [turn.text for turn in turns if turn.role in ("system", "developer") and turn.text.strip()]
        asked = self.kvwire.about(
            said[-1].text,
            document=document or self.kvwire.document,
            sections=[Section(Role.SYSTEM, Visibility.EDGE, text=text) for text in system],
            history=_history(said[:-1]),
            max_new_tokens=max_new_tokens,
            sampling=self._sampling(),
            stop=stop,
        )
        return asked if self.kvwire.history else asked.kept()

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatBody(OpenAIBody):
    """The body of POST /v1/chat/completions."""

    turns_key: ClassVar = "messages"
    refused: ClassVar = _REFUSED
    ignored: ClassVar = IGNORED

    messages: tuple[Message, ...]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stream_options: StreamOptions = field(default_factory=StreamOptions)

    def ask(self, most_tokens: int) -> Ask:
        """What is asked. `most_tokens`: that an answer can have.

        Raises:
            Refused: names the key with a wrong value. InvalidRequest: as `Ask`.
        """
        counts = {
            name: at_most(getattr(self, name), most_tokens, name)
            for name in ("max_tokens", "max_completion_tokens")
        }
        tokens = counts["max_completion_tokens"] or counts["max_tokens"]
        return self.about(self.messages, tokens)


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


def _history(said: Sequence[Message]) -> list[ChatTurn]:
    """Turns of what was said; a question or an answer that follows its like is a turn of its own."""
    turns: list[ChatTurn] = []
    for one in said:
        if one.role == "user":
            turns.append(ChatTurn(one.text))
        elif turns and not turns[-1].answer:
            turns[-1] = ChatTurn(turns[-1].question, one.text)
        else:
            turns.append(ChatTurn("", one.text))
    return turns


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
    return told


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


def event(value: dict[str, Any], kind: str = "") -> bytes:
    """A server-sent event of JSON."""
    named = f"event: {kind}\n" if kind else ""
    return f"{named}data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()


def at_most(tokens: int | None, most: int, named: str) -> int | None:
    """A number of tokens, no more than an answer can have.

    Raises:
        Refused: it is under 1.
    """
    if tokens is not None and tokens < 1:
        raise Refused(f"{named} starts at 1", named)
    return None if tokens is None else min(tokens, most)


def message(value: Any, path: str, texts: Sequence[str] = ("text",)) -> Any:
    """A turn, to be read as a `Message`. texts: what a part of text may be called.

    Raises:
        Refused: it is of a tool, or not text.
    """
    if not isinstance(value, dict):
        return value
    if value.get("role") in ("tool", "function"):
        raise Refused(f"{path}.role: tools are not supported", f"{path}.role", "unsupported_value")
    value = supported(value, _MESSAGE_REFUSED, _MESSAGE_IGNORED, path)
    if isinstance(parts := value.get("content"), list):
        value["content"] = [_part(part, f"{path}.content[{i}]", texts) for i, part in enumerate(parts)]
    return value


def _part(value: Any, path: str, texts: Sequence[str]) -> Any:
    if not isinstance(value, dict):
        return value
    if value.get("type") not in texts:
        raise Refused(f"{path}.type: content is text only", f"{path}.type", "unsupported_value")
    return supported(value, {}, _PART_IGNORED) | {"type": "text"}


def supported(
    value: Any, refused: Mapping[str, tuple[Any, ...]], ignored: frozenset[str], path: str = ""
) -> dict[str, Any]:
    """A JSON object less what is null, or ignored, or asks for nothing.

    Raises:
        Refused: it is no object, or asks for something that is refused.
    """
    if not isinstance(value, dict):
        raise Refused("the body is not a JSON object")
    given = {key: each for key, each in value.items() if each is not None and key not in ignored}
    for key, nothing in refused.items():
        if key in given and given.pop(key) not in nothing:
            named = f"{path}.{key}" if path else key
            raise Refused(f"{named} is not supported", named, "unsupported_parameter")
    return given
