"""Attacks on the slices of one plan, and the checks without which what they find counts for nothing.

Every attack says its share of hits with its interval, and beside it the control's: what is hit without the slice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from fuser.bundle.bundle import Bundle
from fuser.bundle.plans import Interval
from fuser.config import to_dict
from fuser.lab.evaluate.questions import DocumentQuestion
from fuser.lab.interval import mean, wilson
from fuser.lab.leakage.held import NOTHING, Held, SliceReader
from fuser.lab.leakage.readout import Regression, TokenReadout, exposure, likeliest_beside
from fuser.lab.train.cache import FeatureCache
from fuser.prompts.prompt import tokenise
from fuser.reading import SharerPrompt
from kvwire.plan import Plan
from kvwire.segment import SliceKind

_SEED = 5_003
_TOP = 10
_RUN = 8
"""Positions of the slices that the attacker makes of its own documents."""
_LEAST = 64
"""Positions from which a readout can be fitted."""
_PLANTED, _STRENGTH, _FOUND = 16, 1.0, 0.8
"""The planted leak: to each code one of 16 directions is added, as long as the spread of all values; an attack that
finds fewer than this share of them is no attack."""
_CHANCE = 0.05
"""How much better than the most frequent token an attack may seem that was fitted to shuffled tokens."""
_COMMON = 0.1
"""A token that more of all documents have than this share is no content."""
_WITHIN = 1.25
"""A length is right up to this factor."""


@dataclass(frozen=True, slots=True)
class Texts:
    """Documents that the Sharer has read, with questions over them, and for each document a prompt."""

    cache: FeatureCache
    questions: Sequence[DocumentQuestion]
    prompts: Sequence[SharerPrompt]


class Attack:
    """All attacks on slices of one plan.

    Args:
        known: the attacker's own texts. asked: those that it asks about. embeddings: (vocabulary, numbers) of the
            Sharer's input. tokenizer: the Sharer's. among: documents among which that of a slice is to be found.

    Raises:
        ValueError: there is too little to learn from, or no slice.
    """

    def __init__(
        self,
        bundle: Bundle,
        kind: SliceKind,
        plan: Plan,
        known: Texts,
        asked: Texts,
        embeddings: Tensor,
        tokenizer: Any,
        among: int,
    ) -> None:
        self._bundle, self._kind, self._plan, self._among = bundle, kind, plan, among
        self._embeddings, self._tokenizer = embeddings, tokenizer
        self._known, self._asked = known, asked
        self._theirs, self._mine = self._reader(asked), self._reader(known)
        self._own, self._held = (
            list(r.of_questions(t.questions)) for r, t in ((self._mine, known), (self._theirs, asked))
        )
        self._samples = [*self._mine.of_runs(_RUN), *(self._own if kind is SliceKind.DRAFT else ())]
        if sum(len(one.tokens) for one in self._samples) < _LEAST or not self._own or not self._held:
            raise ValueError("there is too little to learn from: raise documents and known_documents")
        self._codes, self._tokens = _joined(self._samples)
        self._sent, self._read_there = _joined(self._held)
        self._groups = torch.cat(
            [torch.full((len(one.tokens),), one.document, device="cpu") for one in self._held]
        )
        self._guesses = TokenReadout(self._codes, self._tokens, embeddings).guesses(self._sent, _TOP)

    def sizes(self) -> dict[str, float]:
        """Slices, and their positions and bytes on average."""
        count = len(self._held)
        sizes = {"positions": len(self._read_there) / count, "bytes": sum(h.size for h in self._held) / count}
        return {"slices": count} | sizes

    def checks(self) -> list[dict[str, Any]]:
        """A leak of known strength must be found, and tokens that are shuffled must not be read."""
        generator = torch.Generator().manual_seed(_SEED)
        shuffled = self._tokens[torch.randperm(len(self._tokens), generator=generator, device="cpu")]
        guesses = TokenReadout(self._codes, shuffled, self._embeddings).guesses(self._sent, 1)[:, 0]
        seen, chance = (_part(tokens == self._read_there) for tokens in (guesses, self._usual))
        width, count = self._codes.shape[1], len(self._codes)
        marks = functional.normalize(torch.randn(_PLANTED, width, generator=generator, device="cpu"), dim=1)
        marks *= _STRENGTH * float(self._codes.std(0).square().sum().sqrt())
        hidden = torch.randint(_PLANTED, (count + len(self._sent),), generator=generator, device="cpu")
        readout = Regression.fit(
            self._codes + marks[hidden[:count]], torch.eye(_PLANTED, device="cpu")[hidden[:count]]
        )
        found = _part(readout(self._sent + marks[hidden[count:]]).argmax(1) == hidden[count:])
        return [
            {"check": "shuffled tokens are not read", "found": seen, "passed": seen <= chance + _CHANCE},
            {"check": "a planted leak is found", "found": found, "passed": found >= _FOUND},
        ]

    def found(self) -> dict[str, Any]:
        """Every attack that reads nothing further."""
        right, tokens = self._guesses[:, 0] == self._read_there, self._read_there
        unseen = ~torch.isin(tokens, self._tokens.unique())
        return {
            "token at a position": _share(right, self._groups, self._usual == tokens),
            "token at a position, one of ten guesses": _share(
                (self._guesses == tokens[:, None]).any(1), self._groups
            ),
            "token that the attacker's texts lack": _share(right[unseen], self._groups[unseen]),
            "token before, not sent": self._beside(-1),
            "token after, not sent": self._beside(1),
            "content tokens beyond answer and question": self._beyond(),
            "content of the document, all its questions": self._together(),
            "which document": self._document(),
            "length of the document": self._length(),
        }

    def secret(self, secrets: Sequence[tuple[int, Texts]]) -> dict[str, Any]:
        """A secret that nobody asks about: each value that it may have is put in its place, read, and compared.

        Args:
            secrets: the number of the true one, and the document with every value, a question over each.
        """
        bits, hits, most = list[float](), 0, 1
        for true, texts in secrets:
            reader = self._reader(texts)
            held = list(reader.of_questions(texts.questions))
            if len(held) < len(texts.questions):
                continue
            sent = held[true]
            if self._kind is SliceKind.EXCERPT:
                documents = {document.text: document for document in texts.cache.documents}
                every = [reader.all_codes(documents[question.document]) for question in texts.questions]
                apart = torch.stack([_nearest(sent.codes, codes) for codes in every])
            else:
                apart = torch.stack([_aligned(sent.codes, one.codes) for one in held])
            bits.append(exposure(apart, true))
            hits += int(int((apart <= apart[true]).sum()) == 1)
            most = len(held)
        found = _plain(wilson(hits, len(bits)) if bits else None) | {"control": 1 / most, "cases": len(bits)}
        return found | ({"bits": sum(bits) / len(bits)} if bits else {})

    def _reader(self, texts: Texts) -> SliceReader:
        return SliceReader(self._bundle, texts.cache, texts.prompts, self._kind, self._plan)

    def _beside(self, step: int) -> dict[str, Any]:
        """Of the positions whose neighbour is the document's and not sent. Control: the bigram of the true token."""
        mine, _ = _beside(self._samples, self._mine, step)
        theirs, sent = _beside(self._held, self._theirs, step)
        kept, wanted = mine != NOTHING, (theirs != NOTHING) & ~sent
        if not bool(wanted.any()) or int(kept.sum()) < _LEAST:
            return _plain(None)
        readout = TokenReadout(self._codes[kept], mine[kept], self._embeddings)
        guesses = readout.guesses(self._sent[wanted], 1)[:, 0]
        bigram = likeliest_beside(self._tokens[kept], mine[kept])(self._read_there[wanted])
        right = theirs[wanted]
        return _share(guesses == right, self._groups[wanted], bigram == right)

    def _beyond(self) -> dict[str, Any]:
        """Distinct ones that are read right at the document's positions, on average a slice."""
        counts = []
        for one, read in zip(self._held, self._read(), strict=True):
            asked = self._asked.questions[one.question]
            told = {token for text in (asked.question, *asked.answers) for token in self._forms(text)}
            right = set(one.tokens[: len(one.at)][read[: len(one.at)] == one.tokens[: len(one.at)]].tolist())
            counts.append(float(len(right & self._content(one.document) - told)))
        return _plain(mean(torch.tensor(counts, device="cpu"), self._of_slices)) | {"unit": "tokens"}

    def _together(self) -> dict[str, Any]:
        """The share of a document's content tokens that is read by all questions over it."""
        seen: dict[int, set[int]] = {}
        for one, read in zip(self._held, self._read(), strict=True):
            seen.setdefault(one.document, set()).update(one.tokens[read == one.tokens].tolist())
        shares = [len(some & self._content(d)) / max(1, len(self._content(d))) for d, some in seen.items()]
        return _plain(mean(torch.tensor(shares, device="cpu"))) | {
            "questions a document": len(self._held) / len(seen)
        }

    def _document(self) -> dict[str, Any]:
        """Which of some documents that the attacker has: that with the nearest codes; of a draft that most like it."""
        documents = self._asked.cache.documents[: self._among]
        every = [self._theirs.all_codes(document) for document in documents]
        tried = [one for one in self._held if one.document < len(documents)]
        if self._kind is SliceKind.EXCERPT:
            found = [int(torch.stack([_nearest(o.codes, codes) for codes in every]).argmin()) for o in tried]
        else:
            signs = torch.stack([codes.mean(0) for codes in every])
            own = [self._mine.all_codes(document).mean(0) for document in self._known.cache.documents]
            like = Regression.fit(_means(self._own), torch.stack([own[one.document] for one in self._own]))
            found = torch.cdist(like(_means(tried)), signs).argmin(1).tolist() if tried else []
        of = torch.tensor([one.document for one in tried], device="cpu")
        return _share(torch.tensor(found, device="cpu") == of, of) | {"control": 1 / len(documents)}

    def _length(self) -> dict[str, Any]:
        """In tokens, up to a factor, from a slice's codes and bytes. Control: the usual length."""

        def told(held: Sequence[Held], reader: SliceReader) -> tuple[Tensor, Tensor]:
            sizes = torch.tensor([[float(one.size)] for one in held], device="cpu")
            lengths = torch.tensor([[float(len(reader.tokens[one.document]))] for one in held], device="cpu")
            return torch.cat((_means(held), sizes), 1), lengths.log()

        features, lengths = told(self._own, self._mine)
        theirs, right = told(self._held, self._theirs)
        guesses = Regression.fit(features, lengths)(theirs), lengths.mean(0).expand_as(right)
        near, usual = ((g - right).abs()[:, 0] < torch.tensor(_WITHIN, device="cpu").log() for g in guesses)
        return _share(near, self._of_slices, usual)

    def _read(self) -> Sequence[Tensor]:
        best: Sequence[Tensor] = self._guesses[:, 0].split([len(one.tokens) for one in self._held])
        return best

    def _forms(self, text: str) -> list[int]:
        """Tokens of a text at the start of a line, and within one."""
        return [id_ for form in (text, f" {text}") for id_ in tokenise(self._tokenizer, form).ids.tolist()]

    def _content(self, document: int) -> set[int]:
        """Tokens of a document that few documents have."""
        return set(self._theirs.tokens[document].tolist()) - self.common

    @cached_property
    def common(self) -> set[int]:
        """Tokens that more than a few of all documents have: no content."""
        every = [set(tokens.tolist()) for tokens in (*self._mine.tokens, *self._theirs.tokens)]
        counts = Counter(token for some in every for token in some)
        return {token for token, count in counts.items() if count > _COMMON * len(every)}

    @cached_property
    def _usual(self) -> Tensor:
        """The attacker's most frequent token, of no dimension."""
        return self._tokens.mode().values

    @cached_property
    def _of_slices(self) -> Tensor:
        return torch.tensor([one.document for one in self._held], device="cpu")


def _joined(held: Sequence[Held]) -> tuple[Tensor, Tensor]:
    """Codes (positions, values) and tokens (positions,) of all."""
    return torch.cat([one.codes for one in held]), torch.cat([one.tokens for one in held])


def _means(held: Sequence[Held]) -> Tensor:
    return torch.stack([one.codes.mean(0) for one in held])


def _beside(held: Sequence[Held], reader: SliceReader, step: int) -> tuple[Tensor, Tensor]:
    pairs = [one.beside(reader.tokens[one.document], step) for one in held]
    return torch.cat([tokens for tokens, _ in pairs]), torch.cat([sent for _, sent in pairs])


def _nearest(sent: Tensor, codes: Tensor) -> Tensor:
    """How far a slice's codes are from the nearest ones of a document, together."""
    return torch.cdist(sent, codes).min(1).values.sum()


def _aligned(sent: Tensor, codes: Tensor) -> Tensor:
    """How far a draft's codes are from another's, position by position; the missing ones count as zeros."""
    longest = max(len(sent), len(codes))
    one, other = (functional.pad(some, (0, 0, 0, longest - len(some))) for some in (sent, codes))
    apart: Tensor = (one - other).norm()
    return apart


def _part(hits: Tensor) -> float:
    return float(hits.float().mean())


def _share(hits: Tensor, groups: Tensor, control: Tensor | None = None) -> dict[str, Any]:
    """Hits with their interval over documents, and the control's."""
    if not len(hits):
        return _plain(None)
    return _plain(mean(hits.float(), groups)) | ({} if control is None else {"control": _part(control)})


def _plain(value: Interval | None) -> dict[str, Any]:
    """Plain JSON values; empty where an attack has nothing to try."""
    return {} if value is None else to_dict(value)
