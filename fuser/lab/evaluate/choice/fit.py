"""What is fitted on training questions: a bias per letter (the calibrated row) and a threshold (the routing row)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def masked(logits: Tensor, choices: Sequence[int]) -> Tensor:
    """Letter logits (items, letters) with those beyond an item's number of choices at minus infinity."""
    return logits.masked_fill(torch.arange(logits.shape[1]) >= torch.tensor(choices)[:, None], -torch.inf)


def fit_bias(logits: Tensor, answers: Tensor, penalty: float = 1e-3) -> Tensor:
    """The bias a letter, (letters,) float32 with mean 0, under which the answers are most likely.

    A logistic regression with intercepts alone: convex, and no more numbers than letters. It is what a Fuser must beat
    that has only learnt how often each letter is right (reference: the four-number calibration of the published pair).

    Args:
        logits: (items, letters), minus infinity where an item has no such choice.
        answers: (items,) int64.
        penalty: of the squared bias; it also holds letters that no item has at 0.
    """
    bias = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([bias], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9)
    fixed = logits.double()

    def loss() -> Tensor:
        solver.zero_grad()
        value = functional.cross_entropy(fixed + bias, answers) + penalty * (bias * bias).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        solver.step(loss)  # type: ignore[no-untyped-call]
    found = bias.detach()
    return (found - found.mean()).float()


def confidence(logits: Tensor) -> Tensor:
    """The largest probability among an item's letters, (items,)."""
    return logits.softmax(1).amax(1)


def fit_threshold(confidences: Tensor, receiver_right: Tensor, sharer_right: Tensor) -> float:
    """The confidence below which asking the Sharer pays most on training questions; of equals, the lowest.

    Args:
        confidences: (items,) of the Receiver. receiver_right, sharer_right: (items,) 0 or 1.

    Returns:
        0 where asking never pays.
    """
    order = confidences.argsort()
    gains = torch.cat((torch.zeros(1), (sharer_right - receiver_right)[order].cumsum(0)))
    ascending = confidences[order]
    # Equal confidences are routed together: a cut is possible only where the next one is larger.
    possible = torch.cat((torch.ones(1), (ascending[1:] > ascending[:-1]).float(), torch.ones(1))) > 0
    routed = int(gains.masked_fill(~possible, -torch.inf).argmax())
    if routed == 0:
        return 0.0
    if routed == len(order):
        return 2.0  # above every probability: always
    return float((ascending[routed - 1] + ascending[routed]) / 2)
