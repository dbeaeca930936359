"""Linear attacks: what a curious edge reads out of codes with the open weights of the Sharer and texts of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

_PENALTY = 1e-3
"""Of the regression, in units of a standardised value's variance times the samples."""
_FLOOR = 1e-2
"""Added to the covariance of what a regression leaves, in units of its mean variance: the vocabulary is not whitened
along directions in which there are too few samples."""
_TOGETHER = 1 << 13  # tokens of the vocabulary at once


@dataclass(frozen=True, slots=True)
class Regression:
    """Ridge regression of targets (samples, numbers) on codes (samples, values), both standardised."""

    mean: Tensor
    scale: Tensor
    weight: Tensor
    offset: Tensor

    @classmethod
    def fit(cls, codes: Tensor, targets: Tensor) -> Self:
        mean, scale = codes.mean(0), codes.std(0).clamp(min=1e-6)
        features, offset = (codes - mean) / scale, targets.mean(0)
        gram = features.T @ features
        gram += _PENALTY * len(codes) * torch.eye(len(gram), device=gram.device)
        weight = torch.linalg.solve(gram, features.T @ (targets - offset))
        return cls(mean, scale, weight, offset)

    def __call__(self, codes: Tensor) -> Tensor:
        """Targets expected at codes."""
        return (codes - self.mean) / self.scale @ self.weight + self.offset


class TokenReadout:
    """Reads a token at, or beside, each position of a slice out of its code.

    The Sharer's input embedding of the token is regressed on the code. Guesses are the tokens that are likeliest if
    what the regression leaves is Gaussian: their embedding is near, and the attacker's texts have them often. Tokens
    that those texts do not have can be guessed too.

    Args:
        codes: (samples, values) float32 of the attacker's own slices. tokens: (samples,) int64. embeddings:
            (vocabulary, numbers), of the Sharer.
    """

    def __init__(self, codes: Tensor, tokens: Tensor, embeddings: Tensor) -> None:
        targets = embeddings[tokens].float()
        self._regression = Regression.fit(codes, targets)
        left = targets - self._regression(codes)
        covariance = left.T @ left / len(left)
        covariance += (
            _FLOOR * covariance.diagonal().mean().clamp(min=1e-8) * torch.eye(len(covariance), device="cpu")
        )
        self._root = torch.linalg.cholesky(covariance)
        counts = torch.bincount(tokens, minlength=len(embeddings)).float() + 1
        self._log_prior = (counts / counts.sum()).log()
        self._embeddings = embeddings

    def _whiten(self, rows: Tensor) -> Tensor:
        """Embeddings in units in which what the regression leaves varies alike in all directions."""
        whitened: Tensor = torch.linalg.solve_triangular(self._root, rows.T, upper=False).T
        return whitened

    def guesses(self, codes: Tensor, most: int) -> Tensor:
        """The likeliest tokens at codes (samples, values), best first: (samples, most) int64."""
        read = self._whiten(self._regression(codes))
        best = read.new_full((len(read), most), float("-inf"))
        found = torch.zeros_like(best, dtype=torch.int64)
        for start in range(0, len(self._embeddings), _TOGETHER):
            some = self._whiten(self._embeddings[start : start + _TOGETHER].float())
            prior = self._log_prior[start : start + len(some)]
            scores = read @ some.T - some.square().sum(1) / 2 + prior
            at = torch.arange(start, start + len(some), device="cpu").expand_as(scores)
            best, picked = torch.cat((best, scores), 1).topk(most, 1)
            found = torch.cat((found, at), 1).gather(1, picked)
        return found


def likeliest_beside(tokens: Tensor, beside: Tensor) -> Callable[[Tensor], Tensor]:
    """The bigram baseline: for tokens, that which most often stood beside each in the attacker's texts.

    Args:
        tokens, beside: (samples,) int64. A token that was never seen gets the most frequent one of all.
    """
    usual = int(beside.mode().values) if len(beside) else 0
    pairs, counts = torch.stack((tokens, beside), 1).unique(dim=0, return_counts=True)
    table: dict[int, int] = {}
    for place in counts.argsort().tolist():  # the most frequent comes last, and stays
        table[int(pairs[place, 0])] = int(pairs[place, 1])
    return lambda asked: torch.tensor(
        [table.get(token, usual) for token in asked.tolist()], dtype=torch.int64, device="cpu"
    )


def exposure(distances: Tensor, secret: int) -> float:
    """log2 of the candidates less log2 of the secret's rank by distance, ties at the middle rank (Carlini et al. 2019).

    Chance is some 1.2 to 1.4 bits, not 0.
    """
    nearer = int((distances < distances[secret]).sum())
    level = int((distances == distances[secret]).sum())
    return float(torch.tensor(len(distances) / (nearer + (level + 1) / 2), device="cpu").log2())
