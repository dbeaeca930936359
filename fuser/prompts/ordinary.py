"""Tokenise what people wrote as ordinary text, whatever control tokens it spells.

A prompt goes through the tokenizer in one call. Where that call took a section's text for an added token, the prompt is
parted at the added tokens that the template itself writes, as the tokenizer does before anything else, and what lies
between goes through a copy of the tokenizer that has no added tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple
from uuid import uuid4
from weakref import WeakKeyDictionary

from tokenizers import Tokenizer

Span = tuple[int, int]
"""Characters [start, end) of a text."""

Encoded = tuple[list[int], list[Span]]
"""Token ids, and the characters of each token."""


class _Added(NamedTuple):
    """An added token in a text. `span` has the blanks that it swallows, `core` has not."""

    id: int
    span: Span
    core: Span


def encode(tokenizer: Any, text: str, bodies: Sequence[Span]) -> Encoded:
    """Tokenise a text in which `bodies`, ascending, are what people wrote, and the rest is template.

    No added token (special or not) has a character of a body, but for blanks that one of the template swallows.
    """
    known = _known.get(tokenizer)
    if known is None:
        known = _known[tokenizer] = _Known(tokenizer.backend_tokenizer)
    whole = _whole(tokenizer, text)
    if not any(_meet(one.core, body) for one in known.added(text, whole) for body in bodies):
        return whole
    ids: list[int] = []
    spans: list[Span] = []
    end = 0
    for first, last in _between(bodies, len(text)):
        piece = text[first:last]
        for one in known.added(piece, _whole(tokenizer, piece)):
            span = _moved(one.span, first)
            _append(ids, spans, known.ordinary(text[end : span[0]], end), end)
            ids.append(one.id)
            spans.append(span)
            end = span[1]
    _append(ids, spans, known.ordinary(text[end:], end), end)
    return ids, spans


class _Known:
    """What is asked of one tokenizer again and again."""

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        self._added: dict[int, Any] = backend.get_added_tokens_decoder()

    def added(self, text: str, encoded: Encoded) -> Iterator[_Added]:
        """The added tokens in an encoded text."""
        for token, (start, end) in zip(*encoded, strict=True):
            known = self._added.get(token)
            if known is None:
                continue
            written = text[start:end]
            # The same id may stand for what the vocabulary does not have.
            if known.normalized or written.strip() == known.content.strip():
                before = len(written) - len(written.lstrip()) if known.lstrip else 0
                after = len(written) - len(written.rstrip()) if known.rstrip else 0
                yield _Added(token, (start, end), (start + before, end - after))

    def ordinary(self, text: str, start: int) -> Encoded:
        """A part of a prompt, from character `start` of it, with no added tokens."""
        encoded = self._copies[start > 0].encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    @cached_property
    def _copies(self) -> tuple[Tokenizer, Tokenizer]:
        """For the start of a prompt, and for what comes later; made when first needed, which takes a second or two."""
        raw = _without_added(self._backend)
        first = Tokenizer.from_str(json.dumps(raw))
        step = raw["pre_tokenizer"] or {}
        at_start = [s for s in (step, *step.get("pretokenizers", ())) if s.get("prepend_scheme") == "first"]
        if not at_start:
            return first, first
        for step in at_start:  # a blank before the first word of a prompt alone
            step["prepend_scheme"] = "never"
        return first, Tokenizer.from_str(json.dumps(raw))


_known: WeakKeyDictionary[Any, _Known] = WeakKeyDictionary()


def _whole(tokenizer: Any, text: str) -> Encoded:
    """All of a text in one call, added tokens recognised."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    return encoded["input_ids"], encoded["offset_mapping"]


def _between(bodies: Sequence[Span], length: int) -> Iterator[Span]:
    """What is not in the bodies, from the start of a text to its end."""
    ends = [0, *(end for _, end in bodies)]
    starts = [*(start for start, _ in bodies), length]
    return zip(ends, starts, strict=True)


def _append(ids: list[int], spans: list[Span], encoded: Encoded, start: int) -> None:
    ids += encoded[0]
    spans += [_moved(span, start) for span in encoded[1]]


def _moved(span: Span, by: int) -> Span:
    return span[0] + by, span[1] + by


def _meet(one: Span, other: Span) -> bool:
    """Whether spans share a character; an empty `one`, whose blanks were trimmed, counts as the next character."""
    return one[0] < other[1] and max(one[1], one[0] + 1) > other[0]


def _without_added(backend: Tokenizer) -> dict[str, Any]:
    """A tokenizer, serialised, without added tokens; its model cannot make them of text either.

    Tokens of blanks alone stay in the model: there they are words like others.
    """
    raw: dict[str, Any] = json.loads(backend.to_str())
    contents = {token["content"] for token in raw["added_tokens"]}
    raw |= {"added_tokens": [], "truncation": None, "padding": None}
    _forget(raw["model"], {content for content in contents if content.replace("▁", " ").strip()})
    return raw


def _forget(model: dict[str, Any], contents: set[str]) -> None:
    """Take tokens out of a serialised model's vocabulary; what stands for unknown text is kept."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):  # Unigram: the place in the list is the id, so a name that no text has
        for entry in vocabulary:
            if entry[0] in contents:
                entry[0] = f"\uffff{uuid4().hex}"
        return
    for content in contents - {model.get("unk_token")}:
        vocabulary.pop(content, None)
    if "merges" in model:
        pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
        model["merges"] = [
            [left, right] for left, right in pairs if contents.isdisjoint((left, right, left + right))
        ]
