"""What the Sharer says about a document as text: its answer to the very prompt that a slice is cut from."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from fuser.kv.generate import generate, stop_tokens
from fuser.kv.past import Past
from fuser.lab.evaluate.line import first_line, line_ended
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.train.sharer_reading import document_sections
from fuser.prompts.prompt import PromptStyle, common_prefix
from fuser.reading import prompt_of

ANSWER_TOKENS = 16
_TOGETHER = 3  # questions over one document from which prefilling it once outweighs smaller batches


class SharerTexts:
    """The Sharer, asked for text in batches."""

    def __init__(self, model: Any, tokenizer: Any, style: PromptStyle) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._style = style
        self._stops = stop_tokens(model, tokenizer)

    def answers(
        self, questions: Sequence[DocumentQuestion], batch: int
    ) -> Iterator[list[tuple[DocumentQuestion, str, float]]]:
        """(question, first line of the answer, seconds), a batch at a time; questions over one document share it."""
        for some in _batches(questions, batch):
            began = time.perf_counter()
            prompts = [sharer_prompt(self._tokenizer, self._style, q.document, q.question) for q in some]
            ids = self._generate(prompts)
            texts = [first_line(self._tokenizer.decode(i, skip_special_tokens=True)) for i in ids]
            yield _timed(some, texts, began)

    def _generate(self, prompts: list[Tensor]) -> list[list[int]]:
        past = Past.empty(1, self._model.device)
        shared = min(common_prefix(prompts), min(len(ids) for ids in prompts) - 1)  # each has a rest to run
        if shared:
            with torch.inference_mode():
                past.run(self._model, [prompts[0][:shared]])
        rest = [ids[shared:] for ids in prompts]
        ended = line_ended(self._tokenizer)
        past = past.repeat(len(prompts))
        return generate(self._model, past, rest, self._stops, ANSWER_TOKENS, ended).tokens


def sharer_prompt(tokenizer: Any, style: PromptStyle, document: str, question: str) -> Tensor:
    """Ids of the prompt that a slice is cut from."""
    return prompt_of(tokenizer, style, document_sections(document, question)).tokens.ids


def _batches(questions: Sequence[DocumentQuestion], batch: int) -> Iterator[list[DocumentQuestion]]:
    """Questions over one document together where they are many; the others by length."""
    groups: dict[str, list[DocumentQuestion]] = {}
    for question in questions:
        groups.setdefault(question.document, []).append(question)
    alone = [q for group in groups.values() if len(group) < _TOGETHER for q in group]
    alone.sort(key=lambda q: len(q.document) + len(q.question))
    for group in (*(g for g in groups.values() if len(g) >= _TOGETHER), alone):
        yield from (group[start : start + batch] for start in range(0, len(group), batch))


def _timed(
    questions: Sequence[DocumentQuestion], texts: Sequence[str], began: float
) -> list[tuple[DocumentQuestion, str, float]]:
    each = (time.perf_counter() - began) / len(questions)
    return [(question, text, each) for question, text in zip(questions, texts, strict=True)]
