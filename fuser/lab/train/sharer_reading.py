"""What the Sharer reads of an item: features of its positions, and the question's attention on the document.

And what it writes: its own short answer, with the features of that one's positions, as a draft slice holds them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fuser.heads.selection import Scorer, SelectionConfig
from fuser.lab.data.document import Item
from fuser.lab.train.cached import Cached, CachedItem, CachedPrompt, CachedQuestion
from fuser.lab.train.sources import AnyItem, TrainPrompt
from fuser.prompts.prompt import PromptStyle
from fuser.reader import Reader
from fuser.reading import Reading, SharerPrompt
from fuser.slice_specs import MAX_WRITTEN
from kvwire.section import Role, Section, Visibility


def document_sections(document: str, question: str) -> tuple[Section, ...]:
    """What the Sharer reads of a question over a cloud document."""
    return (
        Section(Role.DOCUMENT, Visibility.CLOUD, text=document),
        Section(Role.QUESTION, Visibility.SHARED, text=question),
    )


def shared_section(text: str) -> tuple[Section, ...]:
    """What the Sharer reads of a prompt that both sides hold."""
    return (Section(Role.QUESTION, Visibility.SHARED, text=text),)


class SharerReading(Reader):
    """The frozen Sharer, read one item at a time.

    Args:
        drafts: write a short answer to each question over a document. The others are those of `Reader`.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        style: PromptStyle,
        selection: SelectionConfig,
        scorer: Scorer | None = None,
        drafts: bool = False,
    ) -> None:
        super().__init__(model, tokenizer, style, selection, scorer)
        self._most_written = MAX_WRITTEN if drafts else 0

    def rows(self, item: AnyItem) -> int:
        """Rows of features that `read_item` will give, from the tokens alone; with drafts at most so many."""
        if isinstance(item, TrainPrompt):
            return len(self.prompt(shared_section(item.text)).shared.at)
        document = self.prompt(document_sections(item.document, item.questions[0].text)).document
        return len(document) + (1 + self._most_written) * len(item.questions)

    def read_item(self, item: AnyItem) -> tuple[Tensor, CachedItem]:
        """Run the Sharer over an item; what its questions share is prefilled once.

        Returns:
            (rows, layers * 2 * layer width) float32 on the CPU, keys re-based, those of questions and drafts last; and
            the item, placed from row 0.
        """
        return self._read_prompt(item) if isinstance(item, TrainPrompt) else self._read_document(item)

    def attention(self, document: str, question: str) -> tuple[Tensor, Tensor]:
        """What every attention head of the layers that count makes of a document, as the last token asks.

        Returns:
            (layers read, heads, positions) float32 on the CPU; and the positions' characters, (positions, 2).
        """
        prompt = self.prompt(document_sections(document, question))
        (reading,) = self.read([prompt], (), per_head=True)
        assert reading.scores is not None
        by_layer = reading.scores.unflatten(0, (-1, self.model.config.num_attention_heads))
        return by_layer[..., prompt.document], _within_document(prompt)

    def _read_prompt(self, item: TrainPrompt) -> tuple[Tensor, CachedPrompt]:
        prompt = self.prompt(shared_section(item.text))
        shared = prompt.shared
        (reading,) = self.read([prompt], at=[shared.at])
        place = (0, len(shared.at), shared.spans[:, 1:], shared.tail, int(shared.at[0]))
        return _features(reading), CachedPrompt(item.source, item.text, item.response, *place)

    def _read_document(self, item: Item) -> tuple[Tensor, Cached]:
        prompts = [
            self.prompt(document_sections(item.document, question.text)) for question in item.questions
        ]
        document = prompts[0].document
        ends = [torch.tensor([len(prompt) - 1], device="cpu") for prompt in prompts]
        kept = [torch.cat((document, ends[0])), *ends[1:]]
        readings = self.read(prompts, at=kept, asking=True, draft=self._most_written)
        asked: list[CachedQuestion] = []
        after = len(document)
        for question, reading in zip(item.questions, readings, strict=True):
            assert reading.scores is not None
            draft = reading.draft
            drafted = torch.arange(after + 1, after + 1 + len(draft), device="cpu")
            scores, written = reading.scores[reading.prompt.document], self.tokenizer.decode(draft).strip()
            own = scores, draft, written, drafted, reading.likely, after
            asked.append(CachedQuestion(question.text, question.answers, *own))
            after += 1 + len(draft)
        place = (0, len(document), _within_document(prompts[0]), tuple(asked))
        features = torch.cat([_features(reading) for reading in readings])
        return features, Cached(item.source, item.document, *place)


def _features(reading: Reading) -> Tensor:
    return reading.features(tuple(reading.kv)).float().cpu()


def _within_document(prompt: SharerPrompt) -> Tensor:
    """Characters of the document's tokens, within its text: (positions, 2)."""
    start, _ = prompt.spans[0] or (0, 0)
    return prompt.tokens.offsets[prompt.document] - start
