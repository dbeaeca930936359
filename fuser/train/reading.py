"""What the Receiver has before its question, in training: its own reading of a text, and re-based targets from it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from fuser.alignment import read_as
from fuser.geometry import Geometry
from fuser.prefill import prefill
from fuser.prompt import RECEIVER_HOLDS, PromptStyle, Rendered, Tokens, render, tokenise
from fuser.rope import Rope
from fuser.shared import SharedPositions, shared_positions
from fuser.translate import split_kv
from kvwire.section import Role, Section, Visibility

REPLY_TOKENS = 64
"""Tokens of a reply that are trained on: the logits of more, for a batch, would not fit a laptop."""

WITHHELD = Section(Role.DOCUMENT, Visibility.CLOUD, document_id="withheld")
"""A document in its place in a Receiver's prompt, which may not hold it."""


class Reading:
    """The frozen Receiver, read for KV. `lead` is the text whose KV starts the learnt prefix.

    Raises:
        ValueError: neither the style's head nor the lead has a token.
    """

    def __init__(self, model: Any, tokenizer: Any, style: PromptStyle, lead: str) -> None:
        self.model = model
        self.device: torch.device = model.device
        self.tokenizer = tokenizer
        self.style = style
        self.geometry = Geometry.of(model.config)
        self.rope = Rope(model)
        self.head = tokenise(tokenizer, Rendered(style.opening, (), 0)).ids
        self._lead_ids = tokenise(tokenizer, Rendered(style.opening + lead, (), 0)).ids
        if not len(self._lead_ids):
            raise ValueError(
                "give receiver_prompt.opening or lead: the Receiver reads at least one token before a slice"
            )
        self._lead = self._prefill(self._lead_ids[None], [])

    @property
    def prefix_positions(self) -> int:
        """Positions the lead takes after the prompt's head."""
        return len(self._lead_ids) - len(self.head)

    def head_kv(self) -> list[tuple[Tensor, Tensor]]:
        """Rotated K and V per layer of the prompt's head (the attention sink), usable in a graph."""
        sink = len(self.head)
        return [(k[:, :, :sink].clone(), v[:, :, :sink].clone()) for k, v in self._lead]

    def prefix_kv(self) -> Tensor:
        """KV of the lead, (prefix_positions, width) float32, keys re-based: where the learnt prefix starts from."""
        return self._bare(self._lead, len(self.head), len(self._lead_ids))

    def document_kv(self, text: str, spans: Tensor, receiver_positions: int = 1) -> Tensor:
        """The Receiver's own KV at the Sharer's tokens of a document, keys re-based.

        Args:
            text: the document.
            spans: (positions, 2) characters of the Sharer's tokens.
            receiver_positions: for each of them, as `fuser.alignment.read_as` chooses them.

        Returns:
            (positions, receiver_positions * width) float32.
        """
        tokens = tokenise(self.tokenizer, text)  # spans and offsets stay on the CPU
        kept = self._prefill(tokens.ids[None], self._lead)
        start = len(self._lead_ids)
        at = read_as(spans, tokens.offsets, receiver_positions).to(self.device)
        return self._bare(kept, 0, len(tokens.ids), start)[at].flatten(1)

    def cache(self, flat: Tensor) -> DynamicCache:
        """A cache of the prompt's head and then given KV (batch, positions, width), keys re-based; differentiable."""
        keys, values = split_kv(flat, self.geometry)
        first = len(self.head)
        keys = self.rope.rotate_all(keys, self._positions(first, first + flat.shape[1]))
        cache = DynamicCache()
        shape = (len(flat), -1, -1, -1)
        for layer, (head_keys, head_values) in enumerate(self.head_kv()):
            cache.update(
                torch.cat((head_keys.expand(*shape), keys[layer].to(head_keys.dtype)), dim=2),
                torch.cat((head_values.expand(*shape), values[layer].to(head_values.dtype)), dim=2),
                layer,
            )
        return cache

    def question(self, text: str, answer: str, end: int) -> tuple[Tensor, int]:
        """Ids of a withheld-document prompt after its head, with the answer and the end token; and where the answer is.

        The prompt is tokenised whole, as the service does.
        """
        prompt = self._render(WITHHELD, Section(Role.QUESTION, Visibility.SHARED, text=text))
        asked = tokenise(self.tokenizer, prompt).ids[len(self.head) :]
        return torch.cat((asked, self.reply(prompt, answer, end))), len(asked)

    def response(self, text: str, response: str, end: int) -> tuple[Tensor, int]:
        """Ids of a shared prompt with the response, and where the response starts."""
        prompt, tokens, _ = self.shared(text)
        return torch.cat((tokens.ids, self.reply(prompt, response, end))), len(tokens.ids)

    def shared(self, text: str) -> tuple[Rendered, Tokens, SharedPositions]:
        """A prompt that both sides hold, whole, and the positions of it that are fused."""
        section = Section(Role.QUESTION, Visibility.SHARED, text=text)
        prompt = self._render(section)
        tokens = tokenise(self.tokenizer, prompt)
        return (
            prompt,
            tokens,
            shared_positions(tokens.offsets, (section,), prompt.spans).fused(len(tokens.ids)),
        )

    def reply(self, prompt: Rendered, answer: str, end: int) -> Tensor:
        """Ids of the answer as it follows a prompt, a blank before it where the prompt ends in none; then the end.

        A long answer is cut to `REPLY_TOKENS`, without an end.
        """
        blank = "" if prompt.text[-1:].isspace() else " "
        ids = tokenise(self.tokenizer, blank + answer).ids
        return torch.cat((ids, torch.tensor([end])))[:REPLY_TOKENS]

    def prefill(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """The Receiver's own K (rotated) and V of right-padded prompts, from position 0; no gradient.

        Args:
            ids: (batch, positions) int64. What is padding comes last, so nothing real attends to it.

        Returns:
            K and V, each (layers, batch, kv_heads, positions, head_dim).
        """
        kept = self._prefill(ids, [])
        return torch.stack([k for k, _ in kept]), torch.stack([v for _, v in kept])

    def _render(self, *sections: Section) -> Rendered:
        return render(sections, self.style, RECEIVER_HOLDS)

    def _positions(self, first: int, last: int) -> Tensor:
        return torch.arange(first, last, device=self.device)

    def _prefill(self, ids: Tensor, past: list[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        kept: list[tuple[Tensor, Tensor]] = []
        prefill(
            self.model,
            ids.to(self.device),
            last_layer=self.geometry.layers - 1,
            on_layer=lambda _, keys, values: kept.append((keys, values)),
            past=past,
        )
        return kept

    def _bare(self, kept: list[tuple[Tensor, Tensor]], first: int, last: int, start: int = 0) -> Tensor:
        keys = torch.stack([k[0][:, first:last] for k, _ in kept])
        values = torch.stack([v[0][:, first:last] for _, v in kept])
        keys = self.rope.unrotate_all(keys, self._positions(start + first, start + last))
        both = torch.stack((keys, values), dim=1)  # layers, 2, kv_heads, positions, head_dim
        return both.permute(3, 0, 1, 2, 4).flatten(1).float()
