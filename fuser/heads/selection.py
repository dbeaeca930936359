"""Choose the excerpt: the short run of a document that the question attends to most, by a rule that may be learnt."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Rule = Literal["last", "learnt"]


@dataclass(frozen=True, slots=True)
class SelectionConfig:
    """How an excerpt is chosen.

    positions: positions sent at most (the export policy may lower it).
    first_layer: share of the Sharer's layers below which attention is ignored.
    rule: "last": the loudest head of each layer, added up. "learnt": trained weights say which attention heads to
        follow (`fuser.heads.selection`).
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


_FIT = 0.9  # share of a run's probability that a shorter one must hold
SHORTEST = 4
"""Positions of a fitted run at least: to tell fewer apart would tell how long an answer is."""


def choose(
    scores: Tensor, document: Tensor, config: SelectionConfig, limit: int, runs: int = 0, fit: bool = False
) -> Tensor:
    """Pick the excerpt among the document's positions.

    Args:
        scores: (positions,) over the prompt: summed attention rows, or what the learnt scorer made of them.
        document: indices of the document's positions, ascending.
        limit: positions allowed (already lowered by the export policy).
        runs: of neighbouring positions at most, 0 is one. They share the number evenly, and each has the most
            probability, a softmax of the scores, of what those before it left.
        fit: one run is halved as long as a run of half its length has 0.9 of the probability of the longest.

    Returns:
        Chosen positions, ascending, min(limit, config.positions, len(document)) of them; fewer with `fit`.
    """
    count = min(limit, config.positions, len(document))
    if count == 0:
        return document[:0]
    runs = min(max(runs, 1), count)
    probability = scores[document].double().softmax(0)
    left, chosen = torch.arange(len(document), device=document.device), []
    for run in range(runs):
        size = count // runs + (run < count % runs)
        start, most = _best_run(probability[left], size)
        while fit and size // 2 >= SHORTEST and (half := _best_run(probability, size // 2))[1] >= _FIT * most:
            size, start = size // 2, half[0]
        chosen.append(left[start : start + size])
        left = torch.cat((left[:start], left[start + size :]))
    return document[torch.cat(chosen).sort().values]


def _best_run(probability: Tensor, size: int) -> tuple[int, float]:
    """Where the run of this many neighbours with the most probability (positions,) begins, and how much it has."""
    mass = functional.pad(probability.cumsum(0), (1, 0))
    among = mass[size:] - mass[:-size]
    start = int(among.argmax())
    return start, float(among[start])


_LEAST = 1e-5  # attention below this counts as this


class Scorer(nn.Module):
    """score = weight . log(attention), one weight for each attention head that is read.

    A few heads retrieve: they attend to what is copied into the answer (Retrieval Head, arXiv 2404.15574), while most
    look at sinks, names and punctuation. Untrained, all heads weigh the same.

    Args:
        heads: attention heads, of all layers read together.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((heads,), 1 / heads))

    def forward(self, attention: Tensor) -> Tensor:
        """attention (..., heads, positions) in [0, 1], layer after layer -> scores (..., positions) float32."""
        scores: Tensor = self.weight @ attention.float().clamp(min=_LEAST).log()
        return scores

    def loss(self, attention: Tensor, wanted: Tensor, real: Tensor) -> Tensor:
        """Minus the mean log probability of wanted positions, under a softmax over a document's; mean over documents.

        attention: (batch, heads, positions), padded; wanted, real: (batch, positions) bool, at least one wanted a row.
        """
        log = self(attention).masked_fill(~real, float("-inf")).log_softmax(-1)
        each: Tensor = -log.where(wanted, 0.0).sum(1) / wanted.sum(1)
        return each.mean()

    def digest(self) -> str:
        """SHA-256 of the weights, in hex."""
        return hashlib.sha256(self.weight.detach().float().cpu().numpy().tobytes()).hexdigest()
