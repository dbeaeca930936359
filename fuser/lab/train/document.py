"""The document task: translated excerpts and drafts, the answer loss through the frozen Receiver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

from fuser.heads.translate import TranslateHead
from fuser.lab.evaluate.score import normalise
from fuser.lab.train.batch import ExampleBatch
from fuser.lab.train.cached import Cached, CachedQuestion
from fuser.lab.train.dials import sample_one
from fuser.lab.train.excerpt import Example, Excerpts
from fuser.lab.train.noise import quantisation_noise
from fuser.lab.train.questions import Posed, QuestionTask
from fuser.lab.train.regress import explained_variance, gather_moments, standardise_as
from fuser.lab.train.ridge import start_in_closed_form
from fuser.lab.train.selection import answer_at
from fuser.lab.train.setting import Setting
from fuser.lab.train.task import Control
from fuser.lab.train.window import RECITE, window_of
from kvwire.codec import Codec, roundtrip
from kvwire.segment import SegmentKind, SegmentSpec

_HELD_OUT = 48  # documents on which the regression is judged


class DocumentTask(QuestionTask):
    """Trains the translate head and its prefix on excerpts, and on drafts, as the service cuts them."""

    name = "document"

    def __init__(self, setting: Setting) -> None:
        head = setting.heads.get("translate")
        if not isinstance(head, TranslateHead):
            raise ValueError("the document task trains a translate head: give [translate]")
        dials, most = setting.config.dials, setting.config.selection.positions
        super().__init__(setting, head, shortest=min(dials.positions, default=most))
        self._translate, self._dials = head, dials
        self._codecs = [setting.codecs.get(name) for name in dials.codecs]
        self._excerpts = Excerpts(setting.cache, setting.config.selection, head)
        if setting.config.answer.draft_share:
            self.controls = (*self.controls, "mismatched_draft")

    def modules(self) -> Mapping[str, nn.Module]:
        """As in `Task`."""
        return {"translate": self._translate}

    def start(self, progress: Progress) -> Mapping[str, Any]:
        """Closed-form regression on text alone, and the lead's KV as prefix, unless the head has started."""
        setting, head = self.setting, self._translate
        if "translate" not in setting.started:
            start_translate(head, setting, progress)
            head.start_prefix(setting.reading.prefix_kv())
        held = setting.validation.documents[:_HELD_OUT]
        key, value = explained_variance(head, setting.cache, held, setting.reading)
        found = {"explained_key": key, "explained_value": value}
        return found | {"questions": self.questions, "questions_left_out": self.left_out}

    def slice(self, examples: Sequence[Example]) -> Tensor:
        """The excerpts, encoded and expanded; in training as one of the plans would send them."""
        return self._excerpts_of(self._excerpts.features(examples, self._positions(examples)))

    def shares(self, prefixed: bool) -> dict[Control, float]:
        """With the shares of windows and of drafts."""
        answer, shares = self.setting.config.answer, super().shares(prefixed)
        drafts = answer.draft_share
        return shares | {
            "unanswerable": shares["unanswerable"] * (1 - drafts),
            "recite": answer.recite_share,
            "draft": drafts,
            "unanswerable_draft": shares["unanswerable"] * drafts,
        }

    def posed(
        self, batch: ExampleBatch[Example], control: Control
    ) -> tuple[Tensor | Sequence[Tensor] | None, list[Posed]]:
        """Of windows too: where chance puts them in training, in the middle otherwise. And of drafts."""
        if control in ("draft", "mismatched_draft", "unanswerable_draft"):
            return self._drafts(batch, control)
        if control != "recite":
            return super().posed(batch, control)
        most = self._positions(batch.own)
        places = torch.full((len(batch),), 0.5, device="cpu")
        if self._translate.training:
            places = torch.rand(len(batch), device="cpu")
        documents = [document for document, _ in batch.own]
        windows = [window_of(d, most, at) for d, at in zip(documents, places.tolist(), strict=True)]
        features = self._excerpts.at([(d, w.positions) for d, w in zip(documents, windows, strict=True)])
        return self._excerpts_of(features), [(RECITE, window.text) for window in windows]

    def _drafts(self, batch: ExampleBatch[Example], control: Control) -> tuple[list[Tensor], list[Posed]]:
        """Draft slices; in training behind as many quoted positions as one of the plans would have."""
        training = self._translate.training
        quoted = sample_one(self._dials.quoted, 0) if training else 0
        written_by = batch.own if control == "draft" else batch.other
        slices = self._translated([self._excerpts.of_draft(d, q, quoted) for d, q in written_by])
        if control == "unanswerable_draft":
            abstain = self.setting.config.answer.abstain
            return slices, [(question.text, abstain) for _, question in batch.own]
        if control == "draft" and training:
            quotes = [self._excerpts.chosen(document, question, quoted) for document, question in batch.own]
            return slices, [
                (q.text, reply_to(d, q, at)) for (d, q), at in zip(batch.own, quotes, strict=True)
            ]
        return slices, [(question.text, question.answers[0]) for _, question in batch.own]

    def _excerpts_of(self, features: Tensor) -> Tensor:
        return torch.stack(self._translated(list(features)))

    def _positions(self, examples: Sequence[Example]) -> int:
        """Positions in the slices of a batch: as a plan would have, as many as the shortest document allows."""
        most = self.setting.config.selection.positions
        wanted = sample_one(self._dials.positions, most) if self._translate.training else most
        return min(wanted, min(document.count for document, _ in examples))

    def _translated(self, slices: Sequence[Tensor]) -> list[Tensor]:
        """Features (positions, numbers) of slices, encoded and expanded; in training as a plan would send them."""
        counts = [len(features) for features in slices]
        codes = self._translate.encode(torch.cat(list(slices)).to(self.setting.device))
        if self._translate.training:
            dials, config = self._dials, self.setting.config
            kept = sample_one(dials.code_dims, codes.shape[-1])
            sent = codes[:, :kept]
            if self._codecs:
                codec = sample_one(self._codecs, self._codecs[0])
                arrived = torch.cat([_arrived(codec, each) for each in sent.split(counts)])
            else:
                arrived = quantisation_noise(sent, sample_one(dials.bits, config.noise.bits), -1)
            codes = functional.pad(arrived, (0, codes.shape[-1] - kept))
        each = self._translate.receiver_positions
        return list(self._translate.expand(codes).split([count * each for count in counts]))


def reply_to(document: Cached, question: CachedQuestion, quoted: Tensor) -> str:
    """The right answer, where the draft or what is quoted holds it; else the draft's own words: more was not said.

    Args:
        quoted: positions of the document.
    """
    held = any(f" {normalise(answer)} " in f" {normalise(question.written)} " for answer in question.answers)
    at = answer_at(document.text, document.spans, question.answers)
    held |= bool(at.any()) and bool(at[quoted].sum() == at.sum())
    return question.answers[0] if held or not question.written else question.written


def _arrived(codec: Codec, codes: Tensor) -> Tensor:
    """Codes (positions, numbers) of one slice, as they arrive."""
    if not len(codes):
        return codes
    spec = SegmentSpec(0, SegmentKind.CODE, -1, tuple(codes.shape), "float32")
    return roundtrip(codec, codes[None], spec)[0][0]


def start_translate(head: TranslateHead, setting: Setting, progress: Progress) -> None:
    """Standardise a head as the cache is and give it the closed form."""
    config = setting.config
    standardise_as(setting.cache, head)
    with torch.no_grad():
        moments = gather_moments(
            head,
            setting.cache,
            setting.train.documents,
            setting.reading,
            config.regression_positions,
            progress,
        )
        solving = progress.add_task("solving the regression", total=1)
        start_in_closed_form(head, moments, setting.reading.geometry, config.ridge)
        progress.advance(solving)
