"""Choose the excerpt: the few document positions that the question attends to most.

A rule says which positions of the prompt ask (`SelectionConfig.asking`), and how their attention becomes a choice
(`choose`). The scores are those positions' attention rows against the document's keys, max over heads, mean over the
asking positions, summed over the upper layers; never a full attention matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from fuser.config import LATER

Rule = Literal["last", "question", "pooled", "learnt"]

_ROWS_AT_ONCE = 32  # asking positions whose attention is in memory together


@dataclass(frozen=True, slots=True)
class SelectionConfig:
    """How an excerpt is chosen.

    positions: positions sent at most (the export policy may lower it).
    first_layer: share of the Sharer's layers below which attention is ignored.
    rows: how many of the prompt's last tokens ask; not for the rule "question".
    pool: width of the max-pooling along the document, so that neighbours of a hit come along; 1 is off, odd otherwise.
    rule:
        "last": the prompt's last tokens ask. They are template: the model is about to say the answer there.
        "question": every token of the shared question sections asks. Template tokens are left out: they are the same
            in every prompt.
        "pooled": the last tokens ask, as the observation window of SnapKV (arXiv 2404.14469), and hits bring their
            neighbours: `pool` is 3 or more.
        "learnt": the last tokens ask, and trained weights say which attention heads to follow (`fuser.scorer`).
    heads: attention heads of a Sharer layer; for the rule "learnt" alone.
    """

    positions: int = 16
    first_layer: float = 1 / 3
    rows: int = 1
    pool: int = 1
    rule: Rule = field(default="last", metadata=LATER)
    heads: int = field(default=0, metadata=LATER)

    def __post_init__(self) -> None:
        if self.positions < 1 or self.rows < 1 or self.pool < 1 or self.pool % 2 == 0:
            raise ValueError("selection needs positions >= 1, rows >= 1 and an odd pool >= 1")
        if not 0 <= self.first_layer < 1:
            raise ValueError("selection.first_layer is a share in [0, 1)")
        if self.rule == "pooled" and self.pool == 1:
            raise ValueError('selection.rule "pooled" needs a pool of 3 or more')
        if self.rule == "question" and self.rows != 1:
            raise ValueError(
                'selection.rows is for the last tokens; with rule "question" all question tokens ask'
            )
        if (self.rule == "learnt") != (self.heads > 0):
            raise ValueError('selection.heads, of a Sharer layer, belongs to rule "learnt", and to it alone')

    def first_query_layer(self, layers: int) -> int:
        """The lowest of the Sharer's `layers` whose attention counts."""
        return int(layers * self.first_layer)

    def asking(self, length: int, document: Tensor, question: Tensor) -> Tensor:
        """Which positions of a prompt ask, ascending, int64.

        Args:
            length: positions of the prompt.
            document: the document's positions, ascending.
            question: the positions within shared question sections, ascending.

        Returns:
            At least one. Question positions before the document have not read it and do not ask; where none is left
            the prompt's last position asks.
        """
        if self.rule == "question":
            after = question[question > document[0]] if len(document) else question
            if len(after):
                return after
        return torch.arange(max(0, length - self.rows), length)


def attention_row(
    query: Tensor,
    keys: Tensor,
    scaling: float,
    rows: Tensor | int,
    per_head: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """Attention of some tokens, max over heads and mean over those tokens.

    Args:
        query: (batch, heads, new positions, head_dim), rotated.
        keys: (batch, kv_heads, positions, head_dim), rotated, the new positions last; `heads` is a multiple of
            `kv_heads`.
        scaling: the model's softmax scale.
        rows: which of the new positions ask, (rows,) int64; or how many of the last ones.
        per_head: keep the heads apart.
        mask: what each new position may see, (1, 1, new positions, positions) bool; None is all that came before it.

    Returns:
        (batch, positions), or (batch, heads, positions) with `per_head`; float32, in [0, 1].
    """
    new = query.shape[2]
    if isinstance(rows, int):
        rows = torch.arange(max(0, new - rows), new)
    rows = rows.to(query.device)
    kept = query.shape[1] if per_head else 1
    total = query.new_zeros(query.shape[0], kept, keys.shape[2], dtype=torch.float32)
    transposed = keys.float().transpose(2, 3)
    for some in rows.split(_ROWS_AT_ONCE):
        if mask is None:
            at = torch.arange(keys.shape[2], device=query.device)
            seen = at <= (some + keys.shape[2] - new)[:, None]
        else:
            seen = mask[0, 0, some]
        weights = _weights(query[:, :, some].float(), transposed, scaling, seen)
        total += (weights if per_head else weights.amax(1, keepdim=True)).sum(2)
    total /= len(rows)
    return total if per_head else total[:, 0]


def _weights(asked: Tensor, keys: Tensor, scaling: float, seen: Tensor) -> Tensor:
    """Attention of tokens (batch, heads, rows, head_dim) to what they have `seen`: (batch, heads, rows, positions)."""
    batch, heads, rows, dim = asked.shape
    shared = heads // keys.shape[1]
    scores = asked.reshape(batch, keys.shape[1], shared * rows, dim) @ keys * scaling
    weights = scores.masked_fill(~seen.repeat(shared, 1), float("-inf")).softmax(-1)
    return weights.reshape(batch, heads, rows, -1)


def choose(scores: Tensor, document: Tensor, config: SelectionConfig, limit: int) -> Tensor:
    """Pick the excerpt among the document's positions.

    Args:
        scores: (positions,) over the prompt: summed attention rows, or what the learnt scorer made of them.
        document: indices of the document's positions, ascending.
        limit: positions allowed (already lowered by the export policy).

    Returns:
        Chosen positions, ascending, min(limit, config.positions, len(document)) of them.
    """
    count = min(limit, config.positions, len(document))
    if count == 0:
        return document[:0]
    inside = scores[document]
    if config.pool > 1:
        pooled = functional.max_pool1d(inside[None, None], config.pool, 1, config.pool // 2)[0, 0]
        inside = pooled + 1e-3 * inside  # a hit ranks before its neighbours
    return document[inside.topk(count).indices.sort().values]
