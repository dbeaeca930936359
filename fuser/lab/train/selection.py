"""The learnt selection: which attention heads point at answers, fitted on training documents that hold theirs.

It comes before the cache, which keeps one score a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from fuser.atomic import atomic_write
from fuser.heads.selection import Scorer, SelectionConfig, choose
from fuser.lab.data.document import Item
from fuser.lab.train.batch import evenly_spaced
from fuser.lab.train.sharer_reading import SharerReading

_STEPS = 500
_BATCH = 32
_LEARNING_RATE = 0.01
_SPARSITY = 1e-3  # price of a weight: few heads are worth following
_HELD_BACK = 5  # one question in so many judges the fit
_COUNTS = (8, 16, 32)


@dataclass(frozen=True, slots=True)
class Pointed:
    """One question: attention (layers, heads, positions) on its document, and which positions read its answer."""

    attention: Tensor
    wanted: Tensor


def fit_scorer(
    items: Sequence[Item], reading: SharerReading, questions: int, seed: int, progress: Progress
) -> tuple[Scorer, dict[str, Any]]:
    """Read the first question of this many documents, evenly over the sources; fit one weight per head.

    Returns:
        The scorer, and how often a whole answer is among so many chosen positions, on questions held back: by its
        choice (`learnt`) and by that of rule "last".

    Raises:
        ValueError: too few training documents hold the answer to their question.
    """
    seen = _read(_of_every_source(items, questions), reading, progress)
    held = seen[::_HELD_BACK]
    fitted = [each for index, each in enumerate(seen) if index % _HELD_BACK]
    if len(fitted) < _BATCH:
        raise ValueError(
            f"a learnt selection needs {_BATCH} training documents that hold the answer to their first question; "
            f"{len(fitted)} do"
        )
    scorer = _fit(fitted, seed, progress)
    covered = {
        rule: {str(count): _covered(held, rule, scorer, count) for count in _COUNTS}
        for rule in ("last", "learnt")
    }
    return scorer, {"questions": len(fitted), "held_back": len(held), "answer_within": covered}


def save_scorer(scorer: Scorer, path: Path) -> None:
    with atomic_write(path) as partial:
        save_file({"weight": scorer.weight.detach()}, partial)


def load_scorer(path: Path) -> Scorer:
    """Read what `save_scorer` wrote.

    Raises:
        ValueError: the file is missing or something else.
    """
    try:
        weight = load_file(path)["weight"]
    except (OSError, SafetensorError, KeyError) as error:
        raise ValueError(
            f"scorer: {path} holds no selection ({error}); a stage of kind fit makes one"
        ) from error
    scorer = Scorer(weight.numel())
    scorer.load_state_dict({"weight": weight})
    return scorer.requires_grad_(False)


def answer_at(text: str, spans: Tensor, answers: Sequence[str]) -> Tensor:
    """Which positions, with characters `spans` (positions, 2) of the text, read a part of an answer: bool."""
    found = torch.zeros(len(spans), dtype=torch.bool, device=spans.device)
    starts, ends = spans.unbind(1)
    for answer in answers:
        at = text.find(answer)
        while answer and at >= 0:
            found |= (starts < at + len(answer)) & (ends > at)
            at = text.find(answer, at + 1)
    return found


def _of_every_source(items: Sequence[Item], questions: int) -> list[Item]:
    sources: dict[str, list[Item]] = {}
    for item in items:
        sources.setdefault(item.source, []).append(item)
    return [item for own in sources.values() for item in evenly_spaced(own, questions // len(sources))]


def _read(items: Sequence[Item], reading: SharerReading, progress: Progress) -> list[Pointed]:
    seen: list[Pointed] = []
    for item in progress.track(items, description="reading attention heads"):
        question = item.questions[0]
        attention, spans = reading.attention(item.document, question.text)
        wanted = answer_at(item.document, spans, question.answers)
        if bool(wanted.any()):
            seen.append(Pointed(attention, wanted))
    return seen


def _fit(seen: Sequence[Pointed], seed: int, progress: Progress) -> Scorer:
    attention = pad_sequence([each.attention.flatten(0, 1).mT for each in seen], batch_first=True).mT
    wanted = pad_sequence([each.wanted for each in seen], batch_first=True)
    real = pad_sequence([torch.ones_like(each.wanted) for each in seen], batch_first=True)
    scorer = Scorer(attention.shape[1])
    optimizer = torch.optim.Adam(scorer.parameters(), lr=_LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in progress.track(range(_STEPS), description="fitting the selection"):
        picked = torch.randint(len(seen), (_BATCH,), generator=generator)
        loss = scorer.loss(attention[picked], wanted[picked], real[picked])
        optimizer.zero_grad()
        (loss + _SPARSITY * scorer.weight.abs().sum()).backward()
        optimizer.step()
    return scorer.requires_grad_(False)


def _covered(held: Sequence[Pointed], rule: str, scorer: Scorer, count: int) -> float:
    hits = 0
    for each in held:
        # "last" as the service does it: the loudest head of each layer, summed (`fuser.heads.selection.attention_row`)
        by_last = each.attention.amax(1).sum(0)
        scores = scorer(each.attention.flatten(0, 1)) if rule == "learnt" else by_last
        chosen = choose(
            scores, torch.arange(len(scores), device=scores.device), SelectionConfig(positions=count), count
        )
        hits += bool(each.wanted[chosen].sum() == each.wanted.sum())
    return hits / len(held)
