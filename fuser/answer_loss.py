"""The answer loss: how surprised a frozen model is by the right replies, on top of what it has before them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from fuser.kv.past import Past


@dataclass(frozen=True, slots=True)
class Outcome:
    """loss: scalar, mean over examples. exact: (batch,) bool, greedy generation would give the answer and stop."""

    loss: Tensor
    exact: Tensor


def answer_loss(model: Any, past: Past, prompts: Sequence[Tensor], replies: Sequence[Tensor]) -> Outcome:
    """The mean over examples of each example's mean over the tokens of its reply; differentiable in the past.

    Args:
        past: a row for each example; used up.
        prompts: what is read on top of each row before its reply, (tokens,) int64, at least one token.
        replies: (tokens,) int64, at least one token.
    """
    device = past.pads.device
    ids = pad_sequence([torch.cat(pair) for pair in zip(prompts, replies, strict=True)], batch_first=True)
    hidden = past.read(model, ids)
    counts = torch.tensor([len(reply) for reply in replies], device=device)
    row = torch.arange(len(replies), device=device).repeat_interleave(counts)
    starts = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
    within = torch.arange(len(row), device=device) - (counts.cumsum(0) - counts)[row]
    target = torch.cat(list(replies)).to(device)
    logits = model.get_output_embeddings()(hidden[row, starts[row] + within]).float()
    each = functional.cross_entropy(logits, target, reduction="none")
    zeros = torch.zeros(len(replies), device=device)
    loss = zeros.index_add(0, row, each) / counts
    wrong = zeros.index_add(0, row, (logits.argmax(1) != target).float())
    return Outcome(loss.mean(), wrong == 0)
