"""Tell from what the Sharer has read whether documents hold the answer to a question."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class AnswerableConfig:
    """Which of the Sharer's layers tell whether documents hold the answer to a question, ascending."""

    layers: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.layers or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise ValueError("answerable.layers are some of the Sharer's, ascending without repeats")


class Answerable(nn.Module):
    """Whether documents hold the answer: a logistic regression on K, re-based, and V of some Sharer layers at a
    prompt's last position, where question and documents are read and no word is written yet.

    It needs no pass of its own, and what leaves is one number. The cloud alone uses it, and nothing that is fused
    depends on it.

    Args:
        width: numbers of a layer, `2 * layer width`.
    """

    def __init__(self, config: AnswerableConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(len(config.layers) * width))
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor) -> Tensor:
        """Log-odds in nats, (...), of features (..., layers * 2 * layer width) as `Reading.features` gives them."""
        odds: Tensor = features.float() @ self.weight + self.bias
        return odds
