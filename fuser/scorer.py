"""The learnt selection rule: which of the Sharer's attention heads point at answers."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

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
