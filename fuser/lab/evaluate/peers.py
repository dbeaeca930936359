"""Two other ways to move what a Sharer has read, neither trained on answers: peers that a trained head must beat.

`closed_form` is the translate head before any training on answers. `VocabularyProjected` is AVP's way (VectorArc,
Agent Vector Protocol): the Sharer's last hidden state at a position becomes the Receiver's input embedding that is
expected under what the Sharer would say next.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.heads.translate import TranslateHead, features_of
from fuser.kv.past import Past
from fuser.kv.rope import Rope
from fuser.lab.data.load import load
from fuser.lab.evaluate.excerpts import QuestionSlices
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.questions import DocumentQuestion, draw
from fuser.lab.train.cache import FeatureCache
from fuser.lab.train.reading import KV, FrozenReceiver
from fuser.lab.train.regress import Moments, of_layers, standardise_as, start_in_closed_form
from fuser.lab.train.sharer_reading import document_sections
from fuser.prompts.prompt import PromptStyle
from fuser.prompts.shared import read_as
from fuser.reading import prompt_of
from kvwire.segment import UNTOLD, Certainty, SliceKind

RIDGE = 0.02
"""The penalty of the closed form, as in the recipes."""
_TEXTS = 400  # documents: some 25,000 positions
_TOGETHER = 1 << 12  # tokens of the vocabulary at once


def training_texts() -> list[DocumentQuestion]:
    """What the closed form is fitted to: generated records of the training split, a question of each."""
    items = load("records:train", "document", _TEXTS, 1)
    return list({question.document: question for question in draw(items, None, 1)}.values())


def closed_form(bundle: Bundle, cache: FeatureCache, reading: FrozenReceiver, before: KV) -> Bundle:
    """A bundle whose translate head is the regression of the Receiver's own KV on the Sharer's features, and no more.

    Args:
        bundle: says the head's shape, and has the learnt prefix that stays. cache: of what its Sharer read of the
            texts, all positions of which are fitted to. before: what the Receiver has read when it reads them.
    """
    trained, config = bundle.require_translate(), bundle.config
    head = TranslateHead(trained.config, config.sharer_geometry, config.receiver_geometry)
    head.to(trained.input_mean.device)
    standardise_as(cache, head)
    device = head.input_mean.device
    moments = Moments.empty(len(head.input_mean), len(head.output_mean), device)
    with torch.no_grad():
        for document in cache.documents:
            raw = cache.raw(document, torch.arange(document.count, device="cpu"))
            kv, offsets = reading.text_kv(document.text, before)
            targets = kv[read_as(document.spans, offsets, head.receiver_positions).to(kv.device)].flatten(1)
            moments.add(head.standardise(of_layers(raw, head).to(device)), targets.to(device))
        start_in_closed_form(head, moments, config.receiver_geometry, RIDGE)
        prefix = bundle.prefix_kv(SliceKind.EXCERPT)
        if prefix is not None and len(prefix):
            head.start_prefix(prefix)
    return Bundle(config, bundle.fuse, head.eval(), bundle.scorer, bundle.codec_bases, bundle.answerable)


class VocabularyProjected:
    """Excerpts as expected embeddings, which the Receiver reads behind what stands before a slice.

    They travel as float16. AVP itself wants one vocabulary in both models: of two, a Sharer's token has the mean
    embedding of the Receiver's tokens of its text, as many as it takes.

    Args:
        style: of the Sharer's prompt. reading, before: as in `ReceiversOwn`.
    """

    def __init__(
        self,
        sharer: Model,
        style: PromptStyle,
        questions: Sequence[DocumentQuestion],
        excerpts: QuestionSlices,
        reading: FrozenReceiver,
        before: KV,
    ) -> None:
        self._sharer, self._style, self._questions = sharer, style, questions
        self._excerpts, self._receiver, self._before = excerpts, reading, before
        self.count = excerpts.count

    def certainty(self, index: int) -> Certainty:
        """As in `Slices`: that is no part of what they send."""
        return UNTOLD

    @torch.inference_mode()
    def take(self, indices: Sequence[int]) -> tuple[Tensor, list[int]]:
        """As in `Slices`."""
        sent = [self.projected(index).half() for index in indices]
        return torch.stack([self.read(one) for one in sent]), [2 * one.numel() for one in sent]

    def projected(self, index: int) -> Tensor:
        """Expected embeddings at the positions of a question's excerpt, (positions, Receiver's hidden size) float32."""
        asked, network = self._questions[index], self._sharer.network
        sections = document_sections(asked.document, asked.question)
        prompt = prompt_of(self._sharer.tokenizer, self._style, sections)
        at = prompt.document[self._excerpts.positions(index)]
        hidden = Past.empty(1, network.device).read(network, prompt.tokens.ids[None])[
            0, at.to(network.device)
        ]
        chances = network.get_output_embeddings()(hidden).float().softmax(1)
        found: Tensor = chances[:, : len(self.embeddings)] @ self.embeddings.to(chances.device)
        return found

    def read(self, embeddings: Tensor) -> Tensor:
        """The Receiver's KV of input embeddings (positions, hidden size): (positions, width) float32, keys re-based."""
        model, past = self._receiver.model, Past.empty(1, self._receiver.model.device)
        past.append(self._before)
        start = past.slots
        at = torch.arange(start, start + len(embeddings), device=model.device)
        given = embeddings[None].to(model.device, model.dtype)
        model.get_decoder()(
            inputs_embeds=given, past_key_values=past.cache, position_ids=at[None], use_cache=True
        )
        keys, values = (torch.stack([layer[half][0][:, start:] for layer in past.layers]) for half in (0, 1))
        return features_of(Rope(model).unrotate_all(keys, at), values).float()

    @cached_property
    def embeddings(self) -> Tensor:
        """For each of the Sharer's tokens an embedding of the Receiver's, (tokens, hidden size) float32."""
        model, theirs = self._receiver.model, self._sharer.tokenizer
        table = model.get_input_embeddings().weight.detach().float().cpu()
        rows = [_mean(table, ids) for ids in _written(theirs, self._receiver.tokenizer)]
        return torch.stack(rows)


def _written(theirs: Any, ours: Any) -> list[list[int]]:
    """For each token of one tokenizer the tokens of another that write it; none for what writes no text."""
    special, found = set(theirs.all_special_ids), list[list[int]]()
    for start in range(0, len(theirs), _TOGETHER):
        ids = range(start, min(start + _TOGETHER, len(theirs)))
        texts = ["" if i in special else theirs.decode([i]) for i in ids]
        found += ours(texts, add_special_tokens=False)["input_ids"]
    return found


def _mean(table: Tensor, ids: Sequence[int]) -> Tensor:
    return table[list(ids)].mean(0) if ids else table.new_zeros(table.shape[1])
