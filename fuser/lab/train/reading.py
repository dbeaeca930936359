"""The frozen Receiver's own reading of texts: what the regression aims at, and where the learnt prefix starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fuser.heads.translate import features_of
from fuser.kv.geometry import Geometry
from fuser.kv.prefill import prefill
from fuser.kv.rope import Rope
from fuser.prompts.prompt import PromptStyle, Rendered, reply_ids, tokenise
from fuser.prompts.shared import read_as

REPLY_TOKENS = 64
"""Tokens of a reply that are trained on: the logits of more, for a batch, would not fit a laptop."""

KV = list[tuple[Tensor, Tensor]]
"""K (rotated) and V of every layer, each (1, kv_heads, positions, head_dim)."""


class FrozenReceiver:
    """See the module. `lead` is the text whose KV starts the learnt prefix.

    Raises:
        ValueError: neither the style's head nor the lead has a token.
    """

    def __init__(self, model: Any, tokenizer: Any, style: PromptStyle, lead: str) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.geometry = Geometry.of(model.config)
        self._rope = Rope(model)
        self._head = len(tokenise(tokenizer, Rendered(style.opening, (), 0)).ids)
        self._lead_ids = tokenise(tokenizer, Rendered(style.opening + lead, (), 0)).ids
        if not len(self._lead_ids):
            raise ValueError(
                "give receiver_prompt.opening or lead: the Receiver reads at least one token before a slice"
            )
        self._lead, self._lead_kv = self.read(self._lead_ids, [])

    @property
    def prefix_positions(self) -> int:
        """Positions the lead takes after the prompt's head."""
        return len(self._lead_ids) - self._head

    def prefix_kv(self) -> Tensor:
        """KV of the lead, (prefix_positions, width) float32, keys re-based: where the learnt prefix starts from."""
        return self._lead_kv[self._head :]

    def document_kv(self, text: str, spans: Tensor, receiver_positions: int = 1) -> Tensor:
        """The Receiver's own KV at the Sharer's tokens of a document behind the lead, keys re-based.

        Args:
            text: the document.
            spans: (positions, 2) characters of the Sharer's tokens.
            receiver_positions: for each of them, as `fuser.prompts.shared.read_as` chooses them.

        Returns:
            (positions, receiver_positions * width) float32.
        """
        flat, offsets = self.text_kv(text, self._lead)
        return flat[read_as(spans, offsets, receiver_positions).to(flat.device)].flatten(1)

    def text_kv(self, text: str, past: KV) -> tuple[Tensor, Tensor]:
        """KV of a text behind what was read before, as `read` gives it; and (tokens, 2) characters of its tokens."""
        tokens = tokenise(self.tokenizer, text)
        return self.read(tokens.ids, past)[1], tokens.offsets

    def read(self, ids: Tensor, past: KV) -> tuple[KV, Tensor]:
        """Read tokens (positions,) int64 behind a past: their K (rotated) and V, and the same as (positions, width)
        float32, keys re-based. No gradient."""
        kept: KV = []
        device = self.model.device
        prefill(
            self.model,
            ids[None].to(device),
            last_layer=self.geometry.layers - 1,
            on_layer=lambda _, keys, values: kept.append((keys, values)),
            past=past,
        )
        start = past[0][0].shape[2] if past else 0
        at = torch.arange(start, start + len(ids), device=device)
        keys = self._rope.unrotate_all(torch.stack([k[0] for k, _ in kept]), at)
        return kept, features_of(keys, torch.stack([v[0] for _, v in kept])).float()


def replies_to(tokenizer: Any, prompts: Sequence[Rendered], answers: Sequence[str], end: int) -> list[Tensor]:
    """`reply_ids` of each prompt and its answer. A long one is cut to `REPLY_TOKENS`, without an end."""
    pairs = zip(prompts, answers, strict=True)
    return [reply_ids(tokenizer, *pair, end)[:REPLY_TOKENS] for pair in pairs]
