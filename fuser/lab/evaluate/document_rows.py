"""The rows over cloud documents. docs/evaluation.md says what each of them is for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from fuser.lab.evaluate.rows import Answers, Registry, RowAnswer
from kvwire.plan import WHOLE, Plan
from kvwire.segment import SliceKind

if TYPE_CHECKING:
    from fuser.lab.evaluate.documents import DocumentBatch, DocumentEvaluation

ROWS: Registry[DocumentBatch] = Registry("over documents")
SURE = 0.5
"""Mean probability of its tokens from which the Receiver's own answer is taken in the row `routing`."""

EVERYWHERE = replace(WHOLE, positions=1 << 20)
"""A plan of all positions of a document."""


def _excerpts(task: DocumentEvaluation) -> str | None:
    kinds = task.given.bundle.kinds
    return None if SliceKind.EXCERPT in kinds else f"the bundle makes no {SliceKind.EXCERPT} slices"


def _another(task: DocumentEvaluation) -> str | None:
    if not task.answerable:
        return "every slice is one of a document that does not answer the question"
    if len({question.own for question in task.questions}) < 2:
        return "needs questions over at least two documents: a higher limit"
    return _excerpts(task)


def _exchanged(task: DocumentEvaluation) -> str | None:
    if not task.answerable or not all(question.other for question in task.questions):
        return "needs documents in which the answer can be exchanged for another value: records:SPLIT"
    return _excerpts(task)


def _identical(task: DocumentEvaluation) -> str | None:
    if task.given.identical is None:
        return "needs a bundle whose Sharer is the Receiver's own model: the key identical"
    if SliceKind.EXCERPT not in task.given.identical.kinds:
        return f"the bundle of the key identical makes no {SliceKind.EXCERPT} slices"
    return None


@ROWS.row("receiver", "Receiver alone (floor)")
def receiver(batch: DocumentBatch, plan: Plan) -> Answers:
    """Nothing before the question."""
    return batch.ask()


@ROWS.row("text", "Receiver given the document's text (ceiling)")
def text(batch: DocumentBatch, plan: Plan) -> Answers:
    """The document before the question."""
    return batch.ask([question.document for question in batch.questions])


@ROWS.row("excerpt-text", "Receiver given the excerpt's text", needs=_excerpts, by="positions")
def excerpt_text(batch: DocumentBatch, plan: Plan) -> Answers:
    """The text of the positions that a slice has."""
    return _quoted(batch, plan, batch.picked)


@ROWS.row(
    "mismatched-text",
    "Receiver given the text of another document's excerpt",
    needs=_another,
    control="excerpt-text",
    by="positions",
    on_request=True,
)
def mismatched_text(batch: DocumentBatch, plan: Plan) -> Answers:
    """The same of another question."""
    return _quoted(batch, plan, batch.others)


def _quoted(batch: DocumentBatch, plan: Plan, sources: list[int]) -> Answers:
    excerpts = batch.task.transfer.excerpts(plan)
    quotes = [excerpts.quote(source) for source in sources]
    seconds = batch.task.transfer.seconds
    return batch.ask(quotes, [RowAnswer("", seconds, len(quote.encode())) for quote in quotes])


@ROWS.row("own", "Receiver's own KV, the excerpt's positions", needs=_excerpts, by="positions")
def own(batch: DocumentBatch, plan: Plan) -> Answers:
    """The Receiver's own KV at the positions that a slice has, no Fuser in between."""
    transfer = batch.task.transfer
    return batch.behind(transfer, transfer.own(plan))


@ROWS.row("own-draft", "Receiver's own KV, its own draft", on_request=True)
def own_draft(batch: DocumentBatch, plan: Plan) -> Answers:
    """The Receiver's own KV of its own short answer to the document's text: it is its own Sharer."""
    return batch.behind_own_drafts()


@ROWS.row("sharer", "Sharer's own answer")
def sharer(batch: DocumentBatch, plan: Plan) -> Answers:
    """The Sharer's answer to the prompt that the slice is cut from."""
    return batch.from_sharer()


@ROWS.row("relay-fair", "text relay (fair)")
def relay_fair(batch: DocumentBatch, plan: Plan) -> Answers:
    """The Sharer's answer before the question."""
    told = batch.of("sharer")
    return batch.ask([answer.text for answer in told], told)


@ROWS.row("routing", "routing")
def routing(batch: DocumentBatch, plan: Plan) -> Answers:
    """The Receiver's own answer where it is sure of it, else the Sharer's."""
    pairs = zip(batch.of("receiver"), batch.of("sharer"), strict=True)
    return [mine if mine.sure >= SURE else theirs.with_cost_of(mine) for mine, theirs in pairs]


@ROWS.row("fused", "fused", needs=_excerpts, by="plan")
def fused(batch: DocumentBatch, plan: Plan) -> Answers:
    """The slice."""
    transfer = batch.task.transfer
    return batch.behind(transfer, transfer.slices(plan))


@ROWS.row("mismatched", "fused, slice of another document", needs=_another, control="fused", by="plan")
def mismatched(batch: DocumentBatch, plan: Plan) -> Answers:
    """The slice of the most alike question over another document (`fuser.lab.evaluate.mismatched`)."""
    transfer = batch.task.transfer
    return batch.behind(transfer, transfer.slices(plan), batch.others)


@ROWS.row("wrong-binding", "fused, the answer exchanged in the document", needs=_exchanged, by="plan")
def wrong_binding(batch: DocumentBatch, plan: Plan) -> Answers:
    """The slice of the same document with another value in the answer's place, which is right then."""
    transfer = batch.task.rebound
    return batch.rebound(batch.behind(transfer, transfer.slices(plan)))


@ROWS.row("wrong-binding-text", "Receiver given the text of that document", needs=_exchanged, on_request=True)
def wrong_binding_text(batch: DocumentBatch, plan: Plan) -> Answers:
    """The text of the same: its ceiling."""
    return batch.rebound(batch.ask([question.rebound.document for question in batch.questions]))


@ROWS.row("zeroed", "fused, a slice of zeros", needs=_excerpts, control="fused", by="plan")
def zeroed(batch: DocumentBatch, plan: Plan) -> Answers:
    """Codes of zeros, which are the mean of all."""
    transfer = batch.task.transfer
    return batch.behind(transfer, transfer.slices(plan, torch.zeros_like))


@ROWS.row("random", "fused, a random slice", needs=_another, control="fused", by="plan")
def random(batch: DocumentBatch, plan: Plan) -> Answers:
    """Random codes with the mean and covariance of those of all questions."""
    transfer = batch.task.transfer
    noise = partial(transfer.noise(plan).in_place_of, seed=batch.picked[0])
    return batch.behind(transfer, transfer.slices(plan, noise))


@ROWS.row("drafted", "fused, the Sharer's draft", needs=_excerpts, by="draft", on_request=True)
def drafted(batch: DocumentBatch, plan: Plan) -> Answers:
    """The KV of the Sharer's own short answer, behind what the plan quotes."""
    transfer = batch.task.transfer
    return batch.behind(transfer, transfer.drafts(plan))


@ROWS.row(
    "drafted-mismatched",
    "fused, the draft of another document",
    needs=_another,
    control="drafted",
    by="draft",
    on_request=True,
)
def drafted_mismatched(batch: DocumentBatch, plan: Plan) -> Answers:
    """The same of the most alike question over another document."""
    transfer = batch.task.transfer
    return batch.behind(transfer, transfer.drafts(plan), batch.others)


@ROWS.row("drafted-text", "Receiver given the draft's text", needs=_excerpts, on_request=True)
def drafted_text(batch: DocumentBatch, plan: Plan) -> Answers:
    """The text of the same draft, relayed: the honest rival of its KV."""
    written = batch.task.transfer.drafted(plan).written
    return batch.ask([written(index) for index in batch.picked])


@ROWS.row("ridge", "closed form alone, all positions", needs=_excerpts, on_request=True)
def ridge(batch: DocumentBatch, plan: Plan) -> Answers:
    """Every position of the document, translated by the regression that training starts from; nothing is chosen."""
    transfer = batch.task.ridged
    return batch.behind(transfer, transfer.slices(EVERYWHERE))


@ROWS.row("avp", "AVP: expected embeddings", needs=_excerpts, by="positions", on_request=True)
def avp(batch: DocumentBatch, plan: Plan) -> Answers:
    """The Sharer's last hidden states at the positions that a slice has, through the vocabulary (AVP)."""
    transfer = batch.task.transfer
    return batch.behind(transfer, transfer.projected(plan))


@ROWS.row("identical", "fused, Identical Sharer", needs=_identical)
def identical(batch: DocumentBatch, plan: Plan) -> Answers:
    """The slice of a bundle whose Sharer is the Receiver's own model."""
    transfer = batch.task.identical
    return batch.behind(transfer, transfer.slices(plan))
