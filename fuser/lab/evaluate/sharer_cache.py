"""What the Sharers of an evaluation read: every document once for all rows, in a cache that later runs find again."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress

from fuser.atomic import write_json
from fuser.bundle.bundle import Bundle
from fuser.lab.data.document import Item, Question
from fuser.lab.evaluate.evaluation import OutOfTime, TimeLimit
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.train.cache import CacheIncomplete, FeatureCache, cache_folder
from fuser.lab.train.cache_writer import CacheWriter
from fuser.lab.train.sharer_reading import SharerReading


def read_documents(
    questions: Sequence[DocumentQuestion],
    bundle: Bundle,
    sharer: Model,
    root: Path,
    progress: Progress,
    deadline: TimeLimit,
    drafts: bool = False,
) -> tuple[FeatureCache, float]:
    """What a bundle's Sharer reads of the questions' documents, and its seconds a question.

    Args:
        root: directory of the caches; what is not cached there is read first.
        drafts: whether its own short answers are kept too.

    Raises:
        OutOfTime: the deadline passed; what was read is kept.
    """
    documents: dict[str, list[DocumentQuestion]] = {}
    for question in questions:
        documents.setdefault(question.document, []).append(question)
    items = [
        Item(asked[0].source, document, tuple(Question(q.question, q.answers) for q in asked))
        for document, asked in documents.items()
    ]
    reads = bundle.config.sharer_prompt, bundle.config.selection
    folder = cache_folder(bundle.config.sharer, *reads, str(root), sharer.dtype, bundle.scorer, drafts)
    reading = SharerReading(sharer.network, sharer.tokenizer, *reads, bundle.scorer, drafts)
    writer = CacheWriter(folder, reading)
    began = time.perf_counter()
    added, _ = writer.fill(items, progress, deadline.minutes_left)
    seconds = time.perf_counter() - began
    each = _seconds(folder / "seconds.json", items[0].source, seconds, added * len(questions) / len(items))
    try:
        return FeatureCache(folder, items), each
    except CacheIncomplete as error:
        raise OutOfTime from error


def _seconds(path: Path, source: str, seconds: float, questions: float) -> float:
    """Seconds a question of a source, with those of earlier runs: what is cached already has not come for nothing."""
    kept: dict[str, list[float]] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    before = kept.get(source, [0.0, 0.0])
    if questions:
        kept[source] = before = [before[0] + seconds, before[1] + questions]
        write_json(path, kept)
    return before[0] / before[1] if before[1] else 0.0
