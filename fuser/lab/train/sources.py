"""The items of a run, from its sources: documents with questions, and shared prompts with responses."""

from __future__ import annotations

from dataclasses import dataclass

from fuser.lab.data.cases import without_answers
from fuser.lab.data.cloze import with_continuations
from fuser.lab.data.document import Instruction, Item
from fuser.lab.data.load import load
from fuser.lab.train.config import SourceConfig, TrainConfig
from fuser.prompts.choice import ChoiceItem, choice_answer, choice_prompt

_HELD_BACK = (
    64  # items of a task that validate where no source does, at most: a tenth, and two for a mismatch
)


@dataclass(frozen=True, slots=True)
class TrainPrompt:
    """A text that both sides hold, body of the one question section, and the response that is trained on."""

    source: str
    text: str
    response: str


AnyItem = Item | TrainPrompt


@dataclass(frozen=True, slots=True)
class Sources:
    """The items of both splits, in order; no text of the validation split is in the training split."""

    train: tuple[AnyItem, ...]
    validation: tuple[AnyItem, ...]

    @property
    def all(self) -> tuple[AnyItem, ...]:
        return self.train + self.validation


def read_sources(config: TrainConfig) -> Sources:
    """Load every source; questions of the public evaluation sets are left out (`fuser.lab.data.overlap`).

    A task that no source validates gives up the last of its training items.

    Raises:
        BadRow, DatasetUnavailable, ValueError: as `fuser.lab.data.load.load`; or the rows do not fit the task.
    """
    train: list[AnyItem] = []
    validation: list[AnyItem] = []
    added: dict[AnyItem, int] = {}
    for source in config.sources:
        items = _read(source, config.answer.abstain)
        (validation if source.validation else train).extend(items)
        added |= dict.fromkeys(items, source.continuations)
    for kind in (Item, TrainPrompt):
        own = [item for item in train if isinstance(item, kind)]
        if own and not any(isinstance(item, kind) for item in validation):
            validation += own[-min(_HELD_BACK, max(2, len(own) // 10)) :]
    held = {text_of(item) for item in validation}
    left = [item for item in train if text_of(item) not in held]
    return Sources(_once([_continued(item, added[item]) for item in left]), _once(validation))


def text_of(item: AnyItem) -> str:
    """The text that the Sharer reads: a document, or a shared prompt."""
    return item.document if isinstance(item, Item) else item.text


def _continued(item: AnyItem, count: int) -> AnyItem:
    return with_continuations(item, count) if count and isinstance(item, Item) else item


def _once(items: list[AnyItem]) -> tuple[AnyItem, ...]:
    return tuple(dict.fromkeys(items))


def _read(source: SourceConfig, no_answer: str) -> list[AnyItem]:
    chars = source.max_document_chars
    if source.task == "document":
        items = load(source.source, "document", source.documents, source.seed, max_document_chars=chars)
        if not source.near:
            return list(items)
        pool = load(source.source, "document", None, source.seed, max_document_chars=chars)
        return list(without_answers(items, pool, no_answer))
    found = load(source.source, "auto", source.documents, source.seed, max_document_chars=chars)
    return [prompt for item in found if len((prompt := _prompt(source.source, item)).text) <= chars]


def _prompt(source: str, item: ChoiceItem | Item | Instruction) -> TrainPrompt:
    if isinstance(item, ChoiceItem):
        return TrainPrompt(source, choice_prompt(item), choice_answer(item))
    if isinstance(item, Instruction):
        return TrainPrompt(source, item.prompt, item.response)
    raise ValueError(f'{source}: rows over documents; give this source task = "document"')
