"""POST /v1/responses: what `edge_node.chat` answers, in the words of OpenAI's newer call. Nothing is stored."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from edge_node.answer import Answer
from edge_node.ask import Ask
from edge_node.chat import IGNORED, Message, OpenAIBody, account, at_most, event, message
from edge_node.refusals import Refused

_REFUSED: Final[Mapping[str, tuple[Any, ...]]] = {
    "tools": ([],),
    "background": (False,),
    "context_management": (),
    "conversation": (),
    "include": ([],),
    "moderation": (),
    "previous_response_id": (),
    "prompt": (),
    "store": (False,),
    "text": ({}, {"format": {"type": "text"}}),
    "tool_choice": ("none", "auto"),
    "top_logprobs": (0,),
}
_TEXTS: Final = ("input_text", "output_text")


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesBody(OpenAIBody):
    """The body of POST /v1/responses."""

    turns_key: ClassVar = "input"
    refused: ClassVar = _REFUSED
    ignored: ClassVar = IGNORED | {"max_tool_calls", "reasoning", "stream_options", "truncation"}

    input: str | tuple[Message, ...]
    instructions: str = ""
    max_output_tokens: int | None = None

    @staticmethod
    def turn(value: Any, path: str) -> Any:
        """One item, to be read as a `Message`. Raises Refused."""
        if isinstance(value, dict) and value.get("type", "message") != "message":
            raise Refused(f"{path}.type: items are messages only", f"{path}.type", "unsupported_value")
        read = message(value, path, _TEXTS)
        if isinstance(read, dict):
            read.pop("type", None)
        return read

    def ask(self, most_tokens: int) -> Ask:
        """What is asked. `most_tokens`: that an answer can have.

        Raises:
            Refused: names the key with a wrong value. InvalidRequest: as `Ask`.
        """
        turns = (Message("user", self.input),) if isinstance(self.input, str) else self.input
        tokens = at_most(self.max_output_tokens, most_tokens, "max_output_tokens")
        return self.about((Message("system", self.instructions), *turns), tokens)


class ResponsesForm:
    """A response, or the events of one."""

    media = b"text/event-stream; charset=utf-8"
    waiting = b": waiting\n\n"

    def __init__(self, body: ResponsesBody) -> None:
        self.streamed = body.stream
        self._body = body
        self._id, self._item = f"resp_{uuid.uuid4().hex}", f"msg_{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._events = 0

    def piece(self, text: str) -> bytes:
        return self._opening() + self._in_part("output_text.delta", delta=text, logprobs=[])

    def end(self, answer: Answer) -> bytes:
        done = self._response(answer)
        (item,) = done["output"]
        return b"".join(
            (
                self._opening(),
                self._in_part("output_text.done", text=answer.text, logprobs=[]),
                self._in_part("content_part.done", part=_text(answer.text)),
                self._event("output_item.done", output_index=0, item=item),
                self._event(done["status"], response=done),
            )
        )

    def failed(self, told: dict[str, Any]) -> bytes:
        error = {name: told["error"][name] for name in ("message", "code", "param")}
        return event({"type": "error", "sequence_number": self._events} | error | told, "error")

    def whole(self, answer: Answer) -> dict[str, Any]:
        return self._response(answer)

    def unanswered(self, error: dict[str, Any], answer: Answer) -> dict[str, Any]:
        return {"error": error | {"kvwire": account(answer)}}

    def _opening(self) -> bytes:
        if self._events:
            return b""
        begun = self._response(None)
        return b"".join(
            (
                self._event("created", response=begun),
                self._event("in_progress", response=begun),
                self._event("output_item.added", output_index=0, item=self._message("in_progress")),
                self._in_part("content_part.added", part=_text("")),
            )
        )

    def _in_part(self, kind: str, **more: Any) -> bytes:
        return self._event(kind, item_id=self._item, output_index=0, content_index=0, **more)

    def _event(self, kind: str, **more: Any) -> bytes:
        kind, number = f"response.{kind}", self._events
        self._events += 1
        return event({"type": kind, "sequence_number": number} | more, kind)

    def _message(self, status: str, *parts: dict[str, Any]) -> dict[str, Any]:
        about = {"type": "message", "id": self._item, "status": status, "role": "assistant"}
        return about | {"content": list(parts)}

    def _response(self, answer: Answer | None) -> dict[str, Any]:
        """The whole resource; all that it says of what this API does not have is that there is none."""
        body = self._body
        status = "in_progress" if answer is None else "incomplete" if answer.cut else "completed"
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "incomplete_details": cut,
            "error": None,
            "model": body.model,
            "instructions": body.instructions or None,
            "output": [] if answer is None else [self._message(status, _text(answer.text))],
            "usage": None if answer is None else _usage(answer),
            "temperature": body.temperature or 0.0,
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "max_output_tokens": body.max_output_tokens,
            "text": {"format": {"type": "text"}},
            "store": False,
            "background": False,
            "truncation": "disabled",
            "service_tier": "default",
            "metadata": {},
            "tools": [],
            "tool_choice": "none",
            "parallel_tool_calls": False,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "top_logprobs": 0,
            **dict.fromkeys(("previous_response_id", "reasoning", "max_tool_calls")),
            **dict.fromkeys(("safety_identifier", "prompt_cache_key")),
        }


def _text(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(answer: Answer) -> dict[str, Any]:
    read, said = answer.prompt_tokens, answer.tokens
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": said,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + said,
        "kvwire": account(answer),
    }
