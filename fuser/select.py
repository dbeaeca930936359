"""Choose the excerpt: the few document positions that the prompt's last token attends to most.

The last token is template: the model is about to say the answer there. The scores are its attention row against the
document's keys, max over heads, summed over the upper layers, or weighed head by head (`fuser.scorer`); never a full
attention matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Rule = Literal["last", "learnt"]


@dataclass(frozen=True, slots=True)
class SelectionConfig:
    """How an excerpt is chosen.

    positions: positions sent at most (the export policy may lower it).
    first_layer: share of the Sharer's layers below which attention is ignored.
    rule: "last": the loudest head of each layer, added up. "learnt": trained weights say which attention heads to
        follow (`fuser.scorer`).
    heads: attention heads of a Sharer layer; for the rule "learnt" alone.
    """

    positions: int = 16
    first_layer: float = 1 / 3
    rule: Rule = "last"
    heads: int = 0

    def __post_init__(self) -> None:
        if self.positions < 1:
            raise ValueError("selection needs positions >= 1")
        if not 0 <= self.first_layer < 1:
            raise ValueError("selection.first_layer is a share in [0, 1)")
        if (self.rule == "learnt") != (self.heads > 0):
            raise ValueError('selection.heads, of a Sharer layer, belongs to rule "learnt", and to it alone')

    def first_query_layer(self, layers: int) -> int:
        """The lowest of the Sharer's `layers` whose attention counts."""
        return int(layers * self.first_layer)


def attention_row(
    query: Tensor, keys: Tensor, scaling: float, per_head: bool = False, mask: Tensor | None = None
) -> Tensor:
    """Attention of the last token, max over heads.

    Args:
        query: (batch, heads, new positions, head_dim), rotated.
        keys: (batch, kv_heads, positions, head_dim), rotated; `heads` is a multiple of `kv_heads`.
        scaling: the model's softmax scale.
        per_head: keep the heads apart.
        mask: what each new position may see, (1, 1, new positions, positions) bool; None is all that came before it.

    Returns:
        (batch, positions), or (batch, heads, positions) with `per_head`; float32, in [0, 1].
    """
    asked = (
        query[:, :, -1].float().unflatten(1, (keys.shape[1], -1))
    )  # batch, kv_heads, heads of each, head_dim
    scores = asked @ keys.float().transpose(2, 3) * scaling
    if mask is not None:
        scores = scores.masked_fill(~mask[0, 0, -1], float("-inf"))
    weights: Tensor = scores.softmax(-1).flatten(1, 2)
    return weights if per_head else weights.amax(1)


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
    return document[scores[document].topk(count).indices.sort().values]
