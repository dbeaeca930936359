"""Render sections to a prompt once, tokenise it once, and find sections by character offsets.

Tokenising a prompt in pieces changes the tokens at the seams and costs accuracy, so a prompt is always rendered
whole; where a section lies is then read from character offsets (docs/design.md, "The life of an answer").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fuser.prompts.ordinary import encode
from kvwire.section import Role, Section, Visibility


@dataclass(frozen=True, slots=True)
class PromptStyle:
    """How one model's prompt is written: text around each role's body, and the closing that asks for an answer.

    `opening` opens every prompt; its first token is the attention sink.
    """

    opening: str
    wraps: Mapping[str, tuple[str, str]]
    closing: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "opening": self.opening,
            "wraps": {k: list(v) for k, v in self.wraps.items()},
            "closing": self.closing,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> PromptStyle:
        wraps = {str(Role(role)): (str(before), str(after)) for role, (before, after) in raw["wraps"].items()}
        return cls(opening=str(raw["opening"]), wraps=wraps, closing=str(raw["closing"]))


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
    parts.append(style.closing)
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
