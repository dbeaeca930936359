"""Which questions an evaluation can ask at all: all that is read with one must fit both models."""

from __future__ import annotations

from collections.abc import Callable

from fuser.lab.evaluate.choices import ANSWER_TOKENS, with_answer
from fuser.lab.evaluate.documents import receiver_sections
from fuser.lab.evaluate.evaluation import Given
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.evaluate.speaker import Speaker
from fuser.lab.train.sharer_reading import document_sections
from fuser.prompts.choice import ChoiceItem, choice_prompt
from fuser.prompts.prompt import RECEIVER_HOLDS, render, tokenise
from fuser.reading import prompt_of

_SHARER = "longer than the Sharer's window"
_RECEIVER = "longer than the Receiver's window"


def unfit(given: Given, max_document_chars: int) -> Callable[[DocumentQuestion], str | None]:
    """For a question over a document the reason to leave it out, or None.

    All rows answer the same questions, so what one row cannot read is left out of all: the Sharer reads document and
    question, the Receiver too (in the row that is given the text), behind its learnt prefix. A slice may have all of
    the document's positions; the Receiver then has as many for each of the Sharer's as a code is expanded to.
    """
    bundle, sharer, receiver = given.bundle, given.sharer, given.receiver
    pair, each = bundle.config, 1 if bundle.translate is None else bundle.translate.receiver_positions
    prefix = bundle.prefix_kv(None)
    behind = ANSWER_TOKENS + (0 if prefix is None else len(prefix))

    def reason(asked: DocumentQuestion) -> str | None:
        if len(asked.document) > max_document_chars:
            return _too_long(max_document_chars)
        sections = document_sections(asked.document, asked.question)
        read = len(prompt_of(sharer.tokenizer, pair.sharer_prompt, sections))
        if read + ANSWER_TOKENS > sharer.window:
            return _SHARER
        sections = receiver_sections(asked.document, asked.question)
        told = tokenise(receiver.tokenizer, render(sections, pair.receiver_prompt, RECEIVER_HOLDS)).ids
        return _RECEIVER if max(len(told), each * read) + behind > receiver.window else None

    return reason


def unfit_choice(given: Given, max_document_chars: int) -> Callable[[ChoiceItem], str | None]:
    """For a question with choices the reason to leave it out, or None: both must have room for an answer, the Receiver
    behind the words that introduce a relay."""
    pair = given.bundle.config
    sharer = Speaker(given.sharer, pair.sharer_prompt, ANSWER_TOKENS)
    receiver = Speaker(given.receiver, pair.receiver_prompt, ANSWER_TOKENS)

    def reason(item: ChoiceItem) -> str | None:
        if len(item.context) > max_document_chars:
            return _too_long(max_document_chars)
        if not sharer.fits(choice_prompt(item)):
            return _SHARER
        return None if receiver.fits(with_answer(item, "")) else _RECEIVER

    return reason


def _too_long(chars: int) -> str:
    return f"over documents of more than {chars} characters"
