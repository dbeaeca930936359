"""Fit what tells whether documents hold the answer to a question, on cached questions with and without one.

What a model knows of that stands in its middle layers where the prompt ends, and a line parts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fuser.heads.answerable import Answerable, AnswerableConfig
from fuser.kv.geometry import Geometry
from fuser.lab.evaluate.confidence import auc
from fuser.lab.logistic import fit_logistic
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.cached import Cached
from fuser.lab.train.regress import those_of

_BAND = 0.5, 0.8  # shares of the Sharer's depth between which its layers are read
_PENALTY = 0.3  # of the squared weights, beside a mean loss: there are more weights than questions
_HELD_BACK = 5  # one document in so many judges the fit
_FEWEST = 20  # questions with an answer, and without


def fit_answerable(
    cache: FeatureCache, documents: Sequence[Cached], sharer: Geometry, no_answer: str
) -> tuple[Answerable, dict[str, Any]]:
    """Fit on all questions of cached documents; those whose answer is `no_answer` have none.

    Returns:
        The head; and what it told of the documents held back, when it was fitted without them: `auc`, how often it
        found a question with an answer likelier to have one than a question without, and the numbers of both.

    Raises:
        ValueError: too few questions with or without an answer.
    """
    asked = [(number, d, q) for number, d in enumerate(documents) for q in d.questions]
    held = torch.tensor([number % _HELD_BACK == 0 for number, _, _ in asked], device="cpu")
    wanted = torch.tensor([q.answers != (no_answer,) for _, _, q in asked], device="cpu").float()
    if min(int(wanted.sum()), int((1 - wanted).sum())) < _FEWEST:
        raise ValueError(
            f"at least {_FEWEST} questions that their document answers and {_FEWEST} that it does not are needed: "
            'give a source of "notes:unanswerable", or one with near = true'
        )
    low, high = (int(share * sharer.layers) for share in _BAND)
    layers = tuple(range(low, max(high, low + 1)))
    rows = torch.stack([cache.raw(d, torch.tensor([q.asked], device="cpu"))[0] for _, d, q in asked])
    features = those_of(rows, layers, 2 * sharer.layer_width)
    judged = _fitted(features[~held], wanted[~held], layers)
    told = judged(features[held]).tolist()
    counts = {"answered": int(wanted.sum()), "unanswered": int((1 - wanted).sum())}
    found = counts | {"held_back": int(held.sum()), "auc": auc(told, (wanted[held] > 0).tolist())}
    return _fitted(features, wanted, layers), found


def _fitted(features: Tensor, wanted: Tensor, layers: tuple[int, ...]) -> Answerable:
    """Both classes count alike, whatever their numbers."""
    shares = torch.where(wanted > 0, 0.5 / wanted.sum(), 0.5 / (1 - wanted).sum())
    weight, bias = fit_logistic(features, wanted, _PENALTY, shares)
    head = Answerable(AnswerableConfig(layers), features.shape[1] // len(layers))
    head.load_state_dict({"weight": weight, "bias": bias})
    return head.eval().requires_grad_(False)
