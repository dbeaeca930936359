"""Render sections to a prompt once, tokenise it once, and find sections by character offsets.

Tokenising a prompt in pieces changes the tokens at the seams and costs accuracy, so a prompt is always rendered
whole; where a section lies is then read from character offsets (docs/design.md, "The life of an answer").

What people wrote is ordinary text, whatever control tokens it spells: where the tokenizer's one call took a section's
text for an added token, the prompt is parted at the added tokens that the template itself writes, and what lies
between goes through a copy of the tokenizer that has no added tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple
from uuid import uuid4
from weakref import WeakKeyDictionary

import torch
from tokenizers import Tokenizer
from torch import Tensor

from kvwire.section import Role, Section, Visibility


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """How one model's prompt is written: text around each role's body, and the closing that asks for an answer.

    `opening` opens every prompt; its first token is the attention sink. `answering` follows the closing where
    this side reads a document: with "Answer:" there a model answers shortly, which spoils its reply to choices.
    """

    opening: str
    wraps: Mapping[str, tuple[str, str]]
    closing: str
    answering: str = ""

    def to_dict(self) -> dict[str, Any]:
        plain = {
            "opening": self.opening,
            "wraps": {k: list(v) for k, v in self.wraps.items()},
            "closing": self.closing,
        }
        return plain | ({"answering": self.answering} if self.answering else {})

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> PromptStyle:
        wraps = {str(Role(role)): (str(before), str(after)) for role, (before, after) in raw["wraps"].items()}
        texts = {key: str(raw[key]) for key in ("opening", "closing", "answering") if key in raw}
        return cls(wraps=wraps, **texts)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt and where its sections lie.

    spans: per section the characters of its body, None where this side may not hold the section. insertion: the
    character at which the first document stands or would stand, else the first section.
    """

    text: str
    spans: tuple[tuple[int, int] | None, ...]
    insertion: int


@dataclass(frozen=True, slots=True)
class Tokens:
    """ids (positions,) int64 and offsets (positions, 2) int64: the character span of each token, in the prompt.

    On the CPU, whatever a model runs on.
    """

    ids: Tensor
    offsets: Tensor


SHARER_HOLDS = frozenset({Visibility.CLOUD, Visibility.SHARED})
RECEIVER_HOLDS = frozenset({Visibility.SHARED, Visibility.EDGE})


def render(sections: Sequence[Section], style: PromptStyle, holds: frozenset[Visibility]) -> Rendered:
    """Write the prompt of a side that holds sections of the given visibilities.

    Raises:
        ValueError: a held section has no text (its document was not resolved).
    """
    parts = [style.opening]
    length = len(style.opening)
    insertion: int | None = None
    spans: list[tuple[int, int] | None] = []
    for section in sections:
        if insertion is None and section.role is Role.DOCUMENT:
            insertion = length
        if section.visibility not in holds:
            spans.append(None)
            continue
        if section.text is None:
            raise ValueError(f"section {len(spans)} ({section.role}) has no text; resolve its document first")
        before, after = style.wraps.get(str(section.role), ("", "\n"))
        start = length + len(before)
        end = start + len(section.text)
        spans.append((start, end))
        parts += [before, section.text, after]
        length = end + len(after)
    reads = any(s.role is Role.DOCUMENT and s.visibility in holds for s in sections)
    parts += [style.closing, style.answering if reads else ""]
    text = "".join(parts)
    return Rendered(text, tuple(spans), len(style.opening) if insertion is None else insertion)


def tokenise(tokenizer: Any, prompt: Rendered | str) -> Tokens:
    """Tokenise a rendered prompt whole, or a text that people or models wrote.

    What the template writes between the sections may be control tokens; no text of a section becomes one, however it is
    spelt, nor does any part of a bare `str`.
    """
    if isinstance(prompt, str):
        ids, spans = encode(tokenizer, prompt, [(0, len(prompt))])
    else:
        ids, spans = encode(tokenizer, prompt.text, [span for span in prompt.spans if span is not None])
    offsets = torch.tensor(spans, dtype=torch.int64, device="cpu").reshape(-1, 2)
    return Tokens(torch.tensor(ids, dtype=torch.int64, device="cpu"), offsets)


def reply_ids(tokenizer: Any, prompt: Rendered, reply: str, end: int) -> Tensor:
    """Ids of a reply as it follows a prompt, a blank before it where the prompt ends in none; then the end."""
    blank = "" if prompt.text[-1:].isspace() else " "
    ids = tokenise(tokenizer, blank + reply).ids
    return torch.cat((ids, ids.new_tensor([end])))


def withheld(question: str) -> tuple[Section, Section]:
    """A question over a document that keeps its place in the Receiver's prompt, which may not hold it."""
    return (
        Section(Role.DOCUMENT, Visibility.CLOUD, document_id="withheld"),
        Section(Role.QUESTION, Visibility.SHARED, text=question),
    )


def common_prefix(prompts: Sequence[Tensor]) -> int:
    """How many tokens all prompts, (tokens,) int64 each, begin with."""
    shortest = min(len(ids) for ids in prompts)
    stacked = torch.stack([ids[:shortest] for ids in prompts])
    same = (stacked == stacked[0]).all(0)
    return shortest if bool(same.all()) else int(same.int().argmin())


def positions_within(offsets: Tensor, span: tuple[int, int]) -> Tensor:
    """Indices of the tokens whose character span overlaps [start, end), int64; none for an empty span."""
    start, end = span
    inside = (offsets[:, 0] < end) & (offsets[:, 1] > start) & (end > start)
    return inside.nonzero().flatten()


def tail_positions(offsets: Tensor, spanned: Tensor, last_end: int) -> Tensor:
    """Indices of the template tokens after the last shared section, int64.

    `spanned` are the positions within shared sections, ascending by section; `last_end` is where the last one ends.
    """
    first = int(spanned[-1]) + 1 if len(spanned) else int((offsets[:, 1] <= last_end).sum())
    return torch.arange(first, len(offsets), device=offsets.device)


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
