"""The summary task: learnt positions that read document and question, the answer loss (DESIGN.md section 2, kind 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from fuser.summary import SummaryHead
from fuser.train.dials import drawn
from fuser.train.document import start_translate
from fuser.train.excerpt import Example
from fuser.train.noise import quantisation_noise
from fuser.train.questions import QuestionTask
from fuser.train.regress import of_layers
from fuser.train.setting import Setting
from fuser.translate import TranslateConfig, TranslateHead


class SummaryTask(QuestionTask):
    """Trains the summary head on documents of any length. Starts after the document task where both are there."""

    name = "summary"

    def __init__(self, setting: Setting) -> None:
        head = setting.heads.get("summary")
        if not isinstance(head, SummaryHead):
            raise ValueError("the summary task trains a summary head: give [summary]")
        super().__init__(setting, head, shortest=1)
        self._summary = head

    def modules(self) -> Mapping[str, nn.Module]:
        """As in `Task`; a borrowed expansion is trained along."""
        translate = self.setting.heads.get("translate")
        borrowed = translate if self._summary.config.expand == "translate" else None
        return {"summary": self._summary} | ({"translate": borrowed} if borrowed is not None else {})

    def start(self, progress: Progress) -> Mapping[str, Any]:
        """Statistics and expansion of a translate head of the same code; of one made for this if there is none."""
        head, setting = self._summary, self.setting
        if "summary" in setting.started:
            return {}
        translate = setting.heads.get("translate")
        shape = (head.layers, head.config.code_dim, head.receiver_positions)
        fits = isinstance(translate, TranslateHead) and shape == (
            translate.layers,
            translate.code_dim,
            translate.receiver_positions,
        )
        if not fits or not isinstance(translate, TranslateHead):
            config = TranslateConfig(code_dim=head.config.code_dim, sharer_layers=head.layers)
            geometries = setting.bundle.sharer_geometry, setting.bundle.receiver_geometry
            translate = TranslateHead(config, *geometries).to(setting.device)
            start_translate(translate, setting, progress)
        head.start(translate)
        if head.expansion is not None:
            head.expansion.start_prefix(self.reading.prefix_kv())
        return {}

    def length(self, example: Example) -> int:
        """Documents of like length: their positions are what is padded most."""
        return example[0].count

    def slice(self, examples: Sequence[Example]) -> Tensor:
        """The summaries, encoded and expanded; in training cut and with the noise of the codec between the two."""
        documents, document_mask = self._padded([(d.start, d.count) for d, _ in examples])
        questions, question_mask = self._padded([(q.start, q.count) for _, q in examples])
        codes = self._summary.encode(documents, questions, document_mask, question_mask)
        if self._summary.training:
            config = self.setting.config
            kept = drawn(config.dials.summary_positions, codes.shape[1])
            codes = quantisation_noise(codes[:, :kept], config.noise.bits, -1)
        return self._summary.expand(codes)

    def _padded(self, places: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
        """Features (batch, positions, numbers) of rows of the cache, as the Sharer gave them, and which are real."""
        cache, device = self.setting.cache, self.setting.device
        lengths = torch.tensor([count for _, count in places])
        read = [
            cache.take(torch.arange(start, start + count)) / cache.scale + cache.mean
            for start, count in places
        ]
        features = of_layers(pad_sequence(read, batch_first=True), self._summary)
        real = torch.arange(features.shape[1])[None] < lengths[:, None]
        return features.to(device), real.to(device)
