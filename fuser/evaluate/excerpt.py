"""What the Sharer read of each question's document, and the positions of it that are chosen."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from fuser.bundle import Bundle
from fuser.evaluate.questions import DocumentQuestion
from fuser.select import SelectionConfig
from fuser.train.cache import FeatureCache
from fuser.train.excerpt import Example, Excerpts


class QuestionExcerpts:
    """The excerpts of questions, as a bundle with this selection chooses them.

    Args:
        bundle: with a translate head.
        cache: of the bundle's Sharer, prompt style and selection; it must hold every question.
        selection: the bundle's own, or that of a dial.

    Raises:
        ValueError: a question that the cache does not hold.
    """

    def __init__(
        self,
        bundle: Bundle,
        cache: FeatureCache,
        questions: Sequence[DocumentQuestion],
        selection: SelectionConfig,
    ) -> None:
        self._most = selection.positions
        self._cache = cache
        self._chosen = Excerpts(cache, selection, bundle.require_translate())
        held = {(d.text, q.text): (d, q) for d in cache.documents for q in d.questions}
        try:
            self._examples: list[Example] = [held[q.document, q.question] for q in questions]
        except KeyError as error:
            raise ValueError(f"the Sharer's cache holds no question {error.args[0][1]!r}") from error

    def count(self, index: int) -> int:
        """Positions of a question's excerpt: fewer than the selection's where the document is shorter."""
        return min(self._most, self._examples[index][0].count)

    def positions(self, index: int) -> Tensor:
        """The excerpt's positions within the document, ascending int64."""
        return self._chosen.chosen(*self._examples[index])

    def document(self, index: int) -> tuple[str, Tensor]:
        """A question's document as it stands in prompts, and the characters of the Sharer's tokens, (positions, 2)."""
        document, _ = self._examples[index]
        return document.text, document.spans

    def alongside(self, index: int) -> list[int]:
        """The questions over a question's document, itself among them."""
        document, _ = self._examples[index]
        return [i for i, (other, _) in enumerate(self._examples) if other is document]

    def features(self, indices: Sequence[int]) -> Tensor:
        """Features of excerpts of equal counts, of the layers that the translate head reads, unscaled."""
        return self._chosen.features([self._examples[i] for i in indices])

    def quote(self, index: int) -> str:
        """The characters of the excerpt's tokens, neighbours joined, gaps as dots: the rival at equal exposure."""
        text, spans = self.document(index)
        parts: list[str] = []
        last = -1
        for start, end in spans[self.positions(index)].tolist():
            if start > last:
                parts.append(" ... " if parts else "")
            parts.append(text[max(start, last) : end])
            last = max(last, end)
        return "".join(parts)
