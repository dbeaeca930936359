"""95 % intervals: Wilson for a share, a bootstrap over documents for means, paired differences and ratios of them.

Questions over one document are no independent draws, so documents are drawn and bring all their questions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fuser.bundle.plans import Interval

_Z = 1.959964
DRAWS = 10_000
_CELLS = 20_000_000  # numbers of a bootstrap in memory together


def wilson(hits: int, count: int) -> Interval:
    """Wilson's score interval of a share (Wilson 1927)."""
    if count == 0:
        return Interval(0.0, 0.0, 1.0)
    share = hits / count
    centre = (share + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z * math.sqrt(share * (1 - share) / count + _Z**2 / (4 * count**2)) / (1 + _Z**2 / count)
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def mean(marks: Tensor, groups: Tensor | None = None, draws: int = DRAWS) -> Interval:
    """Mean of (questions,) marks; percentile bootstrap with a fixed seed.

    groups: (questions,) int64, what is drawn together (see the module); None draws questions.
    """
    return _percentiles(float(marks.float().mean()), _resample(marks.float()[None], groups, draws)[0])


def difference(left: Tensor, right: Tensor, groups: Tensor | None = None) -> Interval:
    """Mean of left - right over the same questions, (questions,) each."""
    return mean(left.float() - right.float(), groups)


def gap_closed(
    fused: Tensor, floor: Tensor, ceiling: Tensor, groups: Tensor | None = None, draws: int = DRAWS
) -> Interval:
    """(fused - floor) / (ceiling - floor) over the same questions; all NaN where there is no gap to close.

    Draws without a gap are left out.
    """
    rows = torch.stack((fused.float(), floor.float(), ceiling.float()))
    means = _resample(rows, groups, draws)
    gap = means[2] - means[1]
    kept = gap > 0
    top, bottom = float((rows[0] - rows[1]).mean()), float((rows[2] - rows[1]).mean())
    if bottom <= 0 or not kept.any():
        return Interval(math.nan, math.nan, math.nan)
    return _percentiles(top / bottom, ((means[0] - means[1]) / gap)[kept])


def _resample(rows: Tensor, groups: Tensor | None, draws: int) -> Tensor:
    """Bootstrap means of (rows, questions), drawing the same groups in every row: (rows, draws)."""
    if groups is not None:
        _, groups = groups.unique(return_inverse=True)
    else:
        groups = torch.arange(rows.shape[1], device=rows.device)
    total = int(groups.max()) + 1
    sums = rows.new_zeros(len(rows) + 1, total).index_add_(
        1, groups, torch.cat((rows, rows.new_ones(1, rows.shape[1])))
    )
    generator = torch.Generator().manual_seed(0)
    parts: list[Tensor] = []
    for start in range(0, draws, max(1, _CELLS // total)):
        count = min(draws - start, max(1, _CELLS // total))
        picks = torch.randint(total, (count, total), generator=generator, device="cpu")
        parts.append(torch.stack([row[picks].sum(1) for row in sums]))
    drawn = torch.cat(parts, dim=1)
    return drawn[:-1] / drawn[-1]


def _percentiles(point: float, draws: Tensor) -> Interval:
    low, high = torch.quantile(draws, draws.new_tensor([0.025, 0.975])).tolist()
    return Interval(point, low, high)
