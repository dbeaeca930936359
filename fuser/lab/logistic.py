"""Logistic regression of a few rows, with a price of its weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional


def fit_logistic(rows: Tensor, wanted: Tensor, penalty: float, shares: Tensor) -> tuple[Tensor, Tensor]:
    """The weights (n,) and the bias that tell the log-odds of `wanted`, in nats, of rows as they are.

    Args:
        rows: (count, n), floating point; fitted as each column's distance from its mean, in standard deviations.
        wanted: (count,), 0 or 1, of the rows' dtype.
        penalty: of the squared weights of those distances, beside a loss of one for all rows together.
        shares: (count,) of each row in that loss.
    """
    mean, spread = rows.mean(0), rows.std(0).clamp(min=1e-6)
    inputs = (rows - mean) / spread
    weights = torch.zeros(rows.shape[1] + 1, dtype=rows.dtype, device=rows.device, requires_grad=True)

    def loss() -> Tensor:
        odds = inputs @ weights[:-1] + weights[-1]
        each = functional.binary_cross_entropy_with_logits(odds, wanted, weight=shares, reduction="sum")
        return each + penalty * weights[:-1].square().sum()

    minimise(weights, loss)
    scaled = weights.detach()[:-1] / spread
    return scaled, weights.detach()[-1] - scaled @ mean


def minimise(weights: Tensor, loss: Callable[[], Tensor]) -> None:
    """Set weights, which want a gradient, to where a convex loss of them is smallest."""
    solver = torch.optim.LBFGS([weights], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def step() -> Tensor:
        solver.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        solver.step(step)  # type: ignore[no-untyped-call]
