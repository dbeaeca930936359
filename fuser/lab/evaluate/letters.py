"""What is read from an answer to a question with choices, and what is fitted on training questions: a bias per letter.

`lenient` is the reading of the public code of arXiv 2510.03215, step by step, for the letters of any item. It takes
almost any letter for an answer, which rewards a letter bias. Tables report the strict one beside it
(`fuser.prompts.choice.named`), and the row `calibrated`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.progress import Progress
from torch import Tensor
from torch.nn import functional

from fuser.atomic import write_json
from fuser.lab.evaluate.evaluation import TimeLimit, bucketed
from fuser.lab.evaluate.rows import RowAnswer
from fuser.lab.evaluate.speaker import Speaker
from fuser.lab.logistic import minimise
from fuser.prompts.choice import LETTERS, ChoiceItem, choice_prompt, named

# Phrases that announce an answer, in the public evaluator's order, and what follows up to the end of a line.
_CUES = tuple(
    re.compile(rf"{cue}\s*(.*)", re.IGNORECASE)
    for cue in (
        "answer:",
        "your answer:",
        "the answer is",
        "correct answer is",
        "correct answer is:",
        "correct answer:",
        "jibu lako:",
        "jibu:",
        "jibu sahihi:",
        "response:",
        "choice:",
        "option:",
    )
)
_MATHS = ("+", "-", "*", "/", "=", "^", "mod", "sqrt", "sin", "cos", "tan")
_ANSWERING = ("jibu", "answer", "choice", "option", "response", "correct", "sahihi")


def lenient(text: str, letters: str) -> str | None:
    """The letter that an answer most likely means, or None.

    In this order: the first capital letter on the line behind a phrase that announces an answer (so "because" is none,
    "Because" is B); the last letter of its own in any case ("a" counts) that ends the text, then one before
    punctuation, then any; the last such capital anywhere. A text with signs of maths and no word for answering has no
    letters of its own.

    Args:
        letters: those of the item's choices, capitals.
    """
    text = text.strip()
    for cue in _CUES:
        found = cue.search(text)
        if found and (letter := next((c for c in found[1] if c in letters), None)):
            return letter
    own = rf"\b([{letters}])"
    for place in (rf"{own}\s*[.,!?:)]?\s*$", rf"{own}\s*[.,!?:)]\s", rf"{own}\b"):
        if alone := re.findall(place, text, re.IGNORECASE):
            return None if _is_maths(text) else str(alone[-1]).upper()
    return next((c for c in reversed(text) if c in letters), None)


def _is_maths(text: str) -> bool:
    lowered = text.lower()
    return any(sign in text for sign in _MATHS) and not any(word in lowered for word in _ANSWERING)


def best_letter(letters: Tensor, item: ChoiceItem) -> str:
    """Of the item's letters the one with the highest logit, of (10,)."""
    return LETTERS[int(letters[: len(item.choices)].argmax())]


def mark(text: str, letters: Tensor, item: ChoiceItem) -> dict[str, float]:
    """1 or 0 for each metric; no letter is wrong. letter: the best one at the first position, by logits (10,)."""
    read = {
        "lenient": lenient(text, item.letters),
        "strict": named(text, item.letters),
        "letter": best_letter(letters, item),
    }
    return {name: float(letter == item.letter) for name, letter in read.items()}


_PENALTY = 1e-3  # of the squared bias; it also holds letters that no item has at 0


def letter_bias(
    items: Sequence[ChoiceItem],
    receiver: Speaker,
    model: str,
    directory: Path,
    batch: int,
    progress: Progress,
    deadline: TimeLimit,
) -> Tensor:
    """The bias a letter, (10,) float32, that makes the Receiver's answers to training questions likeliest right.

    Args:
        items: training questions; none may be one that is evaluated.
        model: names the Receiver, by its weights.
        directory: keeps the answers to them, a batch at a time, so that a run that was stopped continues.
    """
    texts = [choice_prompt(item) for item in items]
    about = json.dumps([model, receiver.style.to_dict(), receiver.max_new_tokens, texts])
    path = directory / f"receiver-{hashlib.sha256(about.encode()).hexdigest()[:16]}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    said = {place: torch.tensor(row, device="cpu") for place, row in kept}
    task = progress.add_task("Receiver on training questions", total=len(texts))
    for picked in bucketed([len(receiver.tokens(text)) for text in texts], batch):
        if not said.keys() >= set(picked):
            answers = receiver.answer([texts[place] for place in picked])
            said |= zip(picked, map(letters_of, answers), strict=True)
            write_json(path, [(place, row.tolist()) for place, row in said.items()])
            deadline.check()
        progress.advance(task, len(picked))
    logits = torch.stack([said[place] for place in range(len(texts))])
    right = torch.tensor([item.answer for item in items], device="cpu")
    return fit_bias(masked(logits, [len(item.choices) for item in items]), right)


def letters_of(answer: RowAnswer) -> Tensor:
    """(10,) float32, the letter logits of a model's answer to a question with choices."""
    assert answer.letters is not None  # every answer of a speaker has them
    return answer.letters


def masked(logits: Tensor, choices: Sequence[int]) -> Tensor:
    """Letter logits (items, letters) with those beyond an item's number of choices at minus infinity."""
    letters = torch.arange(logits.shape[1], device="cpu")
    return logits.masked_fill(letters >= torch.tensor(choices, device="cpu")[:, None], -torch.inf)


def fit_bias(logits: Tensor, answers: Tensor) -> Tensor:
    """The bias a letter, (letters,) float32 with mean 0, under which the answers are most likely.

    A logistic regression with intercepts alone: convex, and no more numbers than letters. It is what a Fuser must beat
    that has only learnt how often each letter is right (reference: the four-number calibration of the published pair).

    Args:
        logits: (items, letters), minus infinity where an item has no such choice.
        answers: (items,) int64.
    """
    bias = torch.zeros(logits.shape[1], dtype=torch.float64, requires_grad=True, device="cpu")
    fixed = logits.double()
    minimise(bias, lambda: functional.cross_entropy(fixed + bias, answers) + _PENALTY * (bias * bias).sum())
    found = bias.detach()
    return (found - found.mean()).float()
