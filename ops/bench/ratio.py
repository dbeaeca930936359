"""Two times of one run beside each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean


def ratio_of(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """ours_s, theirs_s: means, seconds. ratio, low, high: ours to theirs, the geometric mean and its 95 % interval."""
    import torch

    from fuser.lab.interval import mean

    interval = mean(torch.tensor([ours / theirs for ours, theirs in pairs]).log())
    return {
        "ours_s": fmean(ours for ours, _ in pairs),
        "theirs_s": fmean(theirs for _, theirs in pairs),
        "ratio": math.exp(interval.point),
        "low": math.exp(interval.low),
        "high": math.exp(interval.high),
    }


def told(ratio: Mapping[str, float]) -> str:
    """A ratio with its interval, for a table."""
    return f"{ratio['ratio']:.2f} ({ratio['low']:.2f}-{ratio['high']:.2f})"
