"""What the Sharers of an evaluation read: every document once for all rows, in a cache that later runs find again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from fuser.bundle.bundle import Bundle
from fuser.lab.data.document import Item, Question
from fuser.lab.evaluate.deadline import Deadline, OutOfTime
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.questions import DocumentQuestion, by_document
from fuser.lab.evaluate.spent import Spent
from fuser.lab.train.cache import CacheIncomplete, FeatureCache, cache_folder
from fuser.lab.train.cache_writer import CacheWriter
from fuser.lab.train.sharer_reading import SharerReading


class SharerCache:
    """Caches of what each bundle's Sharer reads of the questions' documents.

    Args:
        root: directory that holds them.
    """

    def __init__(self, questions: Sequence[DocumentQuestion], root: Path) -> None:
        self._root = root
        self._questions = len(questions)
        self._items = [
            Item(
                questions[at[0]].source,
                document,
                tuple(Question(questions[i].question, questions[i].answers) for i in at),
            )
            for document, at in by_document(questions).items()
        ]
        self._open: dict[str, tuple[FeatureCache, float]] = {}

    def read(
        self, bundle: Bundle, sharer: Model, progress: Progress, deadline: Deadline
    ) -> tuple[FeatureCache, float]:
        """What a bundle's Sharer reads, and its seconds a question; what is not cached yet is read first.

        Raises:
            OutOfTime: the deadline passed; what was read is kept.
        """
        if bundle.hash not in self._open:
            config, items = bundle.config, self._items
            reads = config.sharer_prompt, config.selection
            folder = cache_folder(config.sharer, *reads, str(self._root), sharer.dtype, bundle.scorer)
            spent = Spent(folder / "seconds.json", items[0].source)
            reading = SharerReading(sharer.network, sharer.tokenizer, *reads, bundle.scorer)
            writer = CacheWriter(folder, reading)
            began = time.perf_counter()
            added = writer.fill(items, progress, deadline.minutes_left)
            spent.add(time.perf_counter() - began, added * self._questions / len(items))
            try:
                self._open[bundle.hash] = FeatureCache(folder, items), spent.each
            except CacheIncomplete as error:
                raise OutOfTime from error
        return self._open[bundle.hash]
