"""Which questions an evaluation can ask at all: all that is read with one must fit both models."""

from __future__ import annotations

import json
from collections.abc import Callable

from fuser.bundle.bundle import Bundle, BundleConfig
from fuser.lab.evaluate.choice.evaluation import Budget
from fuser.lab.evaluate.choice.prompts import sections, with_answer
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.qa import receiver_sections
from fuser.lab.evaluate.relay import ANSWER_TOKENS, sharer_prompt
from fuser.prompts.choice import ChoiceItem, choice_prompt
from fuser.prompts.prompt import RECEIVER_HOLDS, PromptStyle, render, tokenise

_SHARER = "longer than the Sharer's window"
_RECEIVER = "longer than the Receiver's window"


def unfit(
    bundle: Bundle, sharer: Model, receiver: Model, max_document_chars: int
) -> Callable[[str, str], str | None]:
    """For a document and a question the reason to leave it out, or None.

    All rows answer the same questions, so what one row cannot read is left out of all: the Sharer reads document and
    question, the Receiver too (in the row that is given the text), behind its learnt prefix. A slice may have all of
    the document's positions; the Receiver then has as many for each of the Sharer's as a code is expanded to.
    """
    pair, each = bundle.config, 1 if bundle.translate is None else bundle.translate.receiver_positions
    prefix = bundle.prefix_kv(None)
    behind = ANSWER_TOKENS + (0 if prefix is None else len(prefix))
    ample = _room(pair, sharer, receiver, behind)

    def reason(document: str, question: str) -> str | None:
        if len(document) > max_document_chars:
            return _too_long(max_document_chars)
        if each * _at_most(document + question) <= ample:
            return None
        asked = sharer_prompt(sharer.tokenizer, pair.sharer_prompt, document, question)
        if len(asked) + ANSWER_TOKENS > sharer.window:
            return _SHARER
        rendered = render(receiver_sections(document, question), pair.receiver_prompt, RECEIVER_HOLDS)
        told = tokenise(receiver.tokenizer, rendered).ids
        return _RECEIVER if max(len(told), each * len(asked)) + behind > receiver.window else None

    return reason


def unfit_choice(
    bundle: Bundle, sharer: Model, receiver: Model, max_document_chars: int
) -> Callable[[ChoiceItem], str | None]:
    """For a question with choices the reason to leave it out, or None.

    The Sharer must have room for what it says in the paper's relay; the Receiver for the words that introduce a relay.
    """
    pair, budget = bundle.config, Budget()
    behind = max(budget.max_new_tokens, budget.relay_tokens)
    ample = _room(pair, sharer, receiver, behind)

    def tokens(side: Model, style: PromptStyle, text: str) -> int:
        return len(tokenise(side.tokenizer, render(sections(text), style, RECEIVER_HOLDS)).ids)

    def reason(item: ChoiceItem) -> str | None:
        if len(item.context) > max_document_chars:
            return _too_long(max_document_chars)
        text = with_answer(item, "")
        if _at_most(text) <= ample:
            return None
        if tokens(sharer, pair.sharer_prompt, choice_prompt(item)) + behind > sharer.window:
            return _SHARER
        told = tokens(receiver, pair.receiver_prompt, text)
        return _RECEIVER if told + budget.max_new_tokens > receiver.window else None

    return reason


def _room(pair: BundleConfig, sharer: Model, receiver: Model, behind: int) -> int:
    """Tokens that surely fit both windows beside both templates and what comes `behind`: no need to count them."""
    template = sum(len(json.dumps(style.to_dict())) for style in (pair.sharer_prompt, pair.receiver_prompt))
    return min(sharer.window, receiver.window) - template - behind


def _at_most(text: str) -> int:
    """Tokens: one takes a byte or more, and control tokens in a text are spelt out, so half as much again is ample."""
    return 3 * len(text.encode()) // 2


def _too_long(chars: int) -> str:
    return f"over documents of more than {chars} characters"
