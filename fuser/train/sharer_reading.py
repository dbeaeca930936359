"""What the Sharer reads of an item: features of its positions, and the question's attention on the document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fuser.data.document import Item
from fuser.geometry import Geometry
from fuser.prefill import adopt, prefill
from fuser.prompt import (
    SHARER_HOLDS,
    PromptStyle,
    Tokens,
    common_prefix,
    positions_within,
    render,
    tokenise,
)
from fuser.rope import Rope
from fuser.scorer import Scorer
from fuser.select import SelectionConfig
from fuser.shared import SharedPositions, shared_positions
from fuser.train.cached import Asked, Cached, CachedItem, CachedPrompt
from fuser.train.sources import AnyItem, Prompt
from fuser.translate import features_of
from kvwire.section import Role, Section, Visibility

_KV = list[tuple[Tensor, Tensor]]  # per layer, each (1, kv_heads, positions, head_dim), keys rotated


@dataclass(frozen=True, slots=True)
class _Prompt:
    """A rendered prompt: the document's positions, the character its body starts at, and the shared part."""

    tokens: Tokens
    document: Tensor
    start: int
    shared: SharedPositions


class SharerReading:
    """The frozen Sharer, read one item at a time.

    Args:
        selection: which attention is read; how many positions are then chosen does not matter here.
        scorer: of a learnt selection.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        style: PromptStyle,
        selection: SelectionConfig,
        scorer: Scorer | None = None,
    ) -> None:
        adopt(model)
        self._model = model
        self._tokenizer = tokenizer
        self._style = style
        self._selection = selection
        self._scorer = None if scorer is None else scorer.to(model.device)
        self._rope = Rope(model)
        self._layers = Geometry.of(model.config).layers

    def rows(self, item: AnyItem) -> int:
        """Rows of features that `read` will give, from the tokens alone."""
        if isinstance(item, Prompt):
            return len(self._prompt(None, item.text).shared.at)
        return len(self._prompt(item.document, item.questions[0].text).document)

    def read(self, item: AnyItem) -> tuple[Tensor, CachedItem]:
        """Run the Sharer over an item; what its questions share is prefilled once.

        Returns:
            (rows, layers * 2 * layer width) float32 on the CPU, keys re-based; and the item, placed from row 0.
        """
        return self._read_prompt(item) if isinstance(item, Prompt) else self._read_document(item)

    def attention(self, document: str, question: str) -> tuple[Tensor, Tensor]:
        """What every attention head of the layers that count makes of a document, as the last token asks.

        Returns:
            (layers read, heads, positions) float32 on the CPU; and the positions' characters, (positions, 2).
        """
        prompt = self._prompt(document, question)
        ids = prompt.tokens.ids
        scores = prefill(
            self._model,
            ids[None].to(self._model.device),
            last_layer=self._layers - 1,
            on_layer=lambda *_: None,
            query_rows=1,
            first_query_layer=self._selection.first_query_layer(self._layers),
            per_head=True,
        )
        assert scores is not None
        by_layer = scores[0].unflatten(0, (-1, self._model.config.num_attention_heads))
        spans = prompt.tokens.offsets[prompt.document] - prompt.start
        return by_layer[..., prompt.document].cpu(), spans

    def _read_prompt(self, item: Prompt) -> tuple[Tensor, CachedPrompt]:
        prompt = self._prompt(None, item.text)
        kept: _KV = []
        self._prefill(prompt.tokens.ids, kept, [])
        at = prompt.shared.at
        place = (0, len(at), prompt.shared.spans[:, 1:], prompt.shared.tail, int(at[0]))
        cached = CachedPrompt(item.source, item.text, item.response, *place)
        return self._features(kept, at), cached

    def _read_document(self, item: Item) -> tuple[Tensor, Cached]:
        prompts = [self._prompt(item.document, question.text) for question in item.questions]
        first = prompts[0]
        kept: _KV = []
        asked: list[Asked] = []
        for question, prompt in zip(item.questions, prompts, strict=True):
            ids = prompt.tokens.ids
            known = min(common_prefix((first.tokens.ids, ids)), len(ids) - 1) if kept else 0
            past = [(k[:, :, :known], v[:, :, :known]) for k, v in kept]
            fresh: _KV = []
            scores = self._prefill(ids[known:], fresh, past, choosing=True)
            kept = kept or fresh
            asked.append(Asked(question.text, question.answers, scores[prompt.document]))
        spans = first.tokens.offsets[first.document] - first.start
        features = self._features(kept, first.document)
        return features, Cached(item.source, item.document, 0, len(first.document), spans, tuple(asked))

    def _prefill(self, ids: Tensor, kept: _KV, past: _KV, choosing: bool = False) -> Tensor:
        scores = prefill(
            self._model,
            ids[None].to(self._model.device),
            last_layer=self._layers - 1,
            on_layer=lambda _, keys, values: kept.append((keys, values)),
            query_rows=int(choosing),
            first_query_layer=self._selection.first_query_layer(self._layers),
            per_head=self._scorer is not None,
            past=past,
        )
        if scores is None:
            return ids
        with torch.inference_mode():
            return (scores if self._scorer is None else self._scorer(scores))[0].cpu()

    def _features(self, kept: _KV, at: Tensor) -> Tensor:
        at = at.to(self._model.device)
        keys = self._rope.unrotate_all(torch.stack([k[0][:, at] for k, _ in kept]), at)
        return features_of(keys, torch.stack([v[0][:, at] for _, v in kept])).float().cpu()

    def _prompt(self, document: str | None, question: str) -> _Prompt:
        held = () if document is None else (Section(Role.DOCUMENT, Visibility.CLOUD, text=document),)
        sections = (*held, Section(Role.QUESTION, Visibility.SHARED, text=question))
        rendered = render(sections, self._style, SHARER_HOLDS)
        tokens = tokenise(self._tokenizer, rendered)
        span = rendered.spans[0] if held else (0, 0)
        assert span is not None
        within = positions_within(tokens.offsets, span)
        return _Prompt(tokens, within, span[0], shared_positions(tokens.offsets, sections, rendered.spans))
