"""The document task: translated excerpts, the answer loss through the frozen Receiver."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn import functional

from fuser.heads.translate import TranslateHead
from fuser.lab.train.batch import ExampleBatch
from fuser.lab.train.dials import sample_one
from fuser.lab.train.excerpt import Example, Excerpts
from fuser.lab.train.noise import quantisation_noise
from fuser.lab.train.questions import Posed, QuestionTask
from fuser.lab.train.regress import explained_variance, gather_moments, standardise_as
from fuser.lab.train.ridge import start_in_closed_form
from fuser.lab.train.setting import Setting
from fuser.lab.train.task import Control
from fuser.lab.train.window import RECITE, window_of
from kvwire.codec import roundtrip
from kvwire.segment import SegmentKind, SegmentSpec

_HELD_OUT = 48  # documents on which the regression is judged


class DocumentTask(QuestionTask):
    """Trains the translate head and its prefix on excerpts as the service cuts them."""

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
        return self._translated(self._excerpts.features(examples, self._positions(examples)))

    def shares(self, prefixed: bool) -> dict[Control, float]:
        """With the share of windows."""
        return super().shares(prefixed) | {"recite": self.setting.config.answer.recite_share}

    def posed(self, batch: ExampleBatch[Example], control: Control) -> tuple[Tensor | None, list[Posed]]:
        """Of windows too: where chance puts them in training, in the middle otherwise."""
        if control != "recite":
            return super().posed(batch, control)
        most = self._positions(batch.own)
        places = torch.full((len(batch),), 0.5, device="cpu")
        if self._translate.training:
            places = torch.rand(len(batch), device="cpu")
        documents = [document for document, _ in batch.own]
        windows = [window_of(d, most, at) for d, at in zip(documents, places.tolist(), strict=True)]
        features = self._excerpts.at([(d, w.positions) for d, w in zip(documents, windows, strict=True)])
        return self._translated(features), [(RECITE, window.text) for window in windows]

    def _positions(self, examples: Sequence[Example]) -> int:
        """Positions in the slices of a batch: as a plan would have, as many as the shortest document allows."""
        most = self.setting.config.selection.positions
        wanted = sample_one(self._dials.positions, most) if self._translate.training else most
        return min(wanted, min(document.count for document, _ in examples))

    def _translated(self, features: Tensor) -> Tensor:
        """Features encoded and expanded; in training as one of the plans would send them."""
        codes = self._translate.encode(features.to(self.setting.device))
        if self._translate.training:
            dials, config = self._dials, self.setting.config
            kept = sample_one(dials.code_dims, codes.shape[-1])
            sent = codes[..., :kept]
            if self._codecs:
                spec = SegmentSpec(0, SegmentKind.CODE, -1, tuple(sent.shape[1:]), "float32")
                arrived, _ = roundtrip(sample_one(self._codecs, self._codecs[0]), sent, spec)
            else:
                arrived = quantisation_noise(sent, sample_one(dials.bits, config.noise.bits), -1)
            codes = functional.pad(arrived, (0, codes.shape[-1] - kept))
        return self._translate.expand(codes)


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
