"""The document task: translated excerpts and drafts, the answer loss through the frozen Receiver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

from fuser.heads.translate import TranslateHead
from fuser.kv.generate import Outcome
from fuser.lab.evaluate.score import normalise
from fuser.lab.train.batch import ExampleBatch, Examples, evenly_spaced, sample_one
from fuser.lab.train.cached import Cached, CachedQuestion
from fuser.lab.train.excerpt import RECITE, Example, Excerpts, examples_of, window_of
from fuser.lab.train.reading import replies_to
from fuser.lab.train.regress import explained_variance, gather_moments, standardise_as, start_in_closed_form
from fuser.lab.train.selection import answer_at
from fuser.lab.train.task import Control, Setting
from fuser.prompts.prompt import tokenise, withheld
from kvwire.codec import Codec, roundtrip
from kvwire.segment import SegmentKind, SegmentSpec, SliceKind

Posed = tuple[str, str]
"""A question and its right reply."""
_HELD_OUT = 48  # documents on which the regression is judged


class DocumentTask:
    """A `fuser.lab.train.task.TrainTask` over the cached documents of a setting.

    It trains the translate head and its prefix on excerpts, and on drafts, as the service cuts them.

    The learnt prefix, if there is one, stands before whatever else is read, in every control.

    Attributes:
        questions, left_out: training questions, and those over documents that are too short.
    """

    name = "document"

    def __init__(self, setting: Setting) -> None:
        head, config = setting.heads.get("translate"), setting.config
        if not isinstance(head, TranslateHead):
            raise ValueError("the document task trains a translate head: give [translate]")
        self.setting, self._translate, self._dials = setting, head, config.dials
        self._shares = self._shared_out()
        own: tuple[Control, ...] = ("true", "mismatched", "alone", "text")
        self.controls = (*own, *(name for name, share in self._shares.items() if share and name not in own))
        if config.answer.draft_share:
            self.controls = (*self.controls, "mismatched_draft")
        self.receiver = setting.receiver()
        shortest = min(config.dials.positions, default=config.selection.positions)
        held = examples_of(setting.validation.documents, shortest)
        self._train = self._together(examples_of(setting.train.documents, shortest), "training")
        self.questions = len(self._train)
        self.left_out = sum(len(d.questions) for d in setting.train.documents) - self.questions
        for split, lacking in (
            ("training", self.left_out and not self.questions),
            ("validation", not held and any(d.questions for d in setting.validation.documents)),
        ):
            if lacking:
                raise ValueError(
                    f"the {self.name} task has no {split} document of {shortest} positions, as many as a slice has"
                )
        self._validation = self._together(evenly_spaced(held, config.answer.validation), "validation")
        self._codecs = [setting.codecs.get(name) for name in config.dials.codecs]
        self._excerpts = Excerpts(setting.cache, config.selection, head)

    def modules(self) -> Mapping[str, nn.Module]:
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

    def epoch(self, batch: int, seed: int) -> list[ExampleBatch[Example]]:
        return self._train.shuffled(batch, seed)

    def validation(self, batch: int) -> list[ExampleBatch[Example]]:
        return self._validation.sorted(batch)

    def control_at(self, step: int) -> Control:
        """Every share of the steps as evenly spread as it goes; the rest is "true"."""
        left = 1.0
        for name, share in self._shares.items():
            part = share / left
            if int((step + 1) * part) > int(
                step * part
            ):  # a share of all steps has grown by one with this one
                return name
            step -= int(step * part)  # its number among the steps that are not this one's
            left -= share
        return "true"

    def loss(self, batch: ExampleBatch[Example], control: Control) -> Outcome:
        if control not in self.controls:
            raise ValueError(
                f"the {self.name} task has no control {control}; it has {', '.join(self.controls)}"
            )
        slices, posed = self.posed(batch, control)
        prefilled = self.receiver.begin(*(withheld(asked) for asked, _ in posed)).prefill(SliceKind.EXCERPT)
        tokenizer, prompts = self.receiver.tokenizer, [prompt.rendered for prompt in prefilled.prompts]
        if slices is not None:
            prefilled.put(slices)
        if control == "text":
            prefilled.ask_after([tokenise(tokenizer, document.text).ids for document, _ in batch.own])
        return prefilled.loss(replies_to(tokenizer, prompts, [reply for _, reply in posed], self.setting.end))

    def _shared_out(self) -> dict[Control, float]:
        """Shares of the steps that train on something else than excerpts and their answers."""
        answer = self.setting.config.answer
        prefixed = len(self._translate.prefix_kv()) > 0  # which alone can learn from text
        return {
            "text": answer.text_share if prefixed else 0.0,
            "unanswerable": answer.unanswerable_share * (1 - answer.draft_share),
            "recite": answer.recite_share,
            "draft": answer.draft_share,
            "unanswerable_draft": answer.unanswerable_share * answer.draft_share,
        }

    def posed(
        self, batch: ExampleBatch[Example], control: Control
    ) -> tuple[Tensor | Sequence[Tensor] | None, list[Posed]]:
        """What stands behind the prefix, (positions, width) a row, keys re-based, or nothing; and what is then asked.

        Windows stand where chance puts them in training, in the middle otherwise.
        """
        if control in ("draft", "mismatched_draft", "unanswerable_draft"):
            return self._drafts(batch, control)
        if control == "recite":
            most = self._positions(batch.own)
            places = torch.full((len(batch),), 0.5, device="cpu")
            if self._translate.training:
                places = torch.rand(len(batch), device="cpu")
            documents = [document for document, _ in batch.own]
            windows = [window_of(d, most, at) for d, at in zip(documents, places.tolist(), strict=True)]
            features = self._excerpts.at([(d, w.positions) for d, w in zip(documents, windows, strict=True)])
            return self._excerpts_of(features), [(RECITE, window.text) for window in windows]
        slices, abstain = None, self.setting.config.answer.abstain
        if control not in ("alone", "text"):
            examples = batch.own if control == "true" else batch.other
            slices = self.slice(examples)
        return slices, [
            (question.text, abstain if control == "unanswerable" else question.answers[0])
            for _, question in batch.own
        ]

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

    def slice(self, examples: Sequence[Example]) -> Tensor:
        """The excerpts, encoded and expanded; in training as one of the plans would send them."""
        return self._excerpts_of(self._excerpts.features(examples, self._positions(examples)))

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
            dials = self._dials
            kept = sample_one(dials.code_dims, codes.shape[-1])
            sent = codes[:, :kept]
            if self._codecs:
                codec = sample_one(self._codecs, self._codecs[0])
                arrived = torch.cat([_arrived(codec, each) for each in sent.split(counts)])
            else:
                arrived = quantisation_noise(sent, sample_one(dials.bits, 0))
            codes = functional.pad(arrived, (0, codes.shape[-1] - kept))
        each = self._translate.receiver_positions
        return list(self._translate.expand(codes).split([count * each for count in counts]))

    def _together(self, found: Sequence[Example], split: str) -> Examples[Example]:
        return Examples(
            found,
            lambda example: len(example[1].text) + len(example[1].answers[0]),
            lambda example: example[0].text,
            f"{self.name} task, {split}",
        )


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


def quantisation_noise(codes: Tensor, bits: int) -> Tensor:
    """Add noise uniform within half a step of a symmetric codec, a step serving all numbers of a code.

    The steps are those of the codec `int8` (KIVI, arXiv 2402.02750) at `bits` = 8: the largest number is
    2^(bits - 1) - 1 of them. The steps pass no gradient; the codes do. Drawn from torch's global generator; with 0
    bits codes stay as they are.
    """
    if bits == 0:
        return codes
    steps = codes.detach().abs().amax(-1, keepdim=True) / (2 ** (bits - 1) - 1)
    noisy: Tensor = codes + (torch.rand_like(codes) - 0.5) * steps
    return noisy
