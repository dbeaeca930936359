"""What size and time of replies tell of a document: its length, and which of two it is.

The attacker has seen replies of the same cloud under the same load to the same questions, and knows their documents; it
goes by the nearest mean. Whoever has to guess how long a cloud takes finds less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor

from fuser.config import to_dict
from fuser.lab.interval import mean

_SEED: Final = 5_003
_CLASSES: Final = 3
_SHUFFLES: Final = 10
_STRENGTH: Final = 6.0
"""Of the planted leak between two documents, in spreads of its noise."""
_FOUND, _CHANCE = 0.9, 0.1
"""What of the planted leak must be found, and how much better than chance an attack may seem after shuffled labels."""
_LEAST: Final = 6
"""Documents: two of each class of length."""
_LEAST_SPREAD: Final = 1e-3
"""Of logarithms: what differs by less than a thousandth is taken for noise."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Replies as somebody sees them, who knows which question each is to.

    seen: (replies, numbers) float32. documents, questions, halves: (replies,) int64, what was asked about, what was
        asked, and 0 or 1, so that one half can be learnt from and the other judged by. lengths: (documents,), of the
        documents.

    Raises:
        ValueError: there are too few.
    """

    seen: Tensor
    documents: Tensor
    questions: Tensor
    halves: Tensor
    lengths: Tensor

    def __post_init__(self) -> None:
        if len(self.lengths) < _LEAST or len(self.halves.unique()) < 2:
            raise ValueError(f"too few replies: {_LEAST} documents, and each question twice, are needed")

    def found(self) -> dict[str, Any]:
        """Each attack's share of hits with its interval, and the control's, which learns shuffled labels."""
        order = self.lengths.argsort(stable=True)
        others = order[torch.randperm(len(order), generator=_chance(), device="cpu")]
        return {
            "length class": self._length(self.seen),
            "which of two documents": self._pairs(self.seen, others),
            "which of two of like length": self._pairs(self.seen, order),
        }

    def checks(self) -> list[dict[str, Any]]:
        """A leak of known strength must be found, and shuffled labels must not be read."""
        noise = torch.randn(len(self.seen), 1, generator=_chance(), device="cpu")
        order = self.lengths.argsort(stable=True)
        place = order.argsort()[self.documents]

        def leaking(what: Tensor) -> Tensor:
            return torch.cat((self.seen, _STRENGTH * what[:, None] + noise), 1)

        planted = min(
            self._length(leaking(place * _CLASSES // len(order)))["point"],
            self._pairs(leaking(place), order)["point"],
        )
        classes, pairs = self._length(self.seen), self._pairs(self.seen, order)
        seen = max(classes["control"] - 1 / _CLASSES, pairs["control"] - 1 / 2)
        return [
            {"check": "a planted leak is found", "found": planted, "passed": planted >= _FOUND},
            {"check": "shuffled labels are not read", "found": seen, "passed": seen <= _CHANCE},
        ]

    def _length(self, seen: Tensor) -> dict[str, Any]:
        """Of three classes of as many documents; learnt from every other document by length, judged by the rest."""
        rank = self.lengths.argsort(stable=True).argsort()
        labels = (rank * _CLASSES // len(rank))[self.documents]
        hits, control = self._hits(seen, labels, rank[self.documents] % 2, self.questions)
        found: dict[str, Any] = to_dict(mean(hits, self.documents))
        return found | {"control": control}

    def _pairs(self, seen: Tensor, order: Tensor) -> dict[str, Any]:
        """Documents are paired as they stand in `order`; learnt from one half of the replies, judged by the other."""
        pair = order.argsort()[self.documents] // 2
        some = pair < len(order) // 2
        labels, cells = order.argsort()[self.documents] % 2, self.questions * len(order) + pair
        hits, control = self._hits(seen[some], labels[some], self.halves[some], cells[some])
        found: dict[str, Any] = to_dict(mean(hits, pair[some]))
        return found | {"control": control, "pairs": len(order) // 2}

    @staticmethod
    def _hits(seen: Tensor, labels: Tensor, halves: Tensor, cells: Tensor) -> tuple[Tensor, float]:
        """Within each cell, learn from one half and judge by the other: (replies,) hits, and the control's share."""
        hits, shuffled, chance = torch.zeros(len(seen), device="cpu"), list[Tensor](), _chance()
        for cell in cells.unique():
            for held in (0, 1):
                train, test = ((cells == cell) & (halves == half) for half in (1 - held, held))
                known, right = labels[train], labels[test]
                hits[test] = (_nearest(seen[train], known, seen[test]) == right).float()
                for _ in range(_SHUFFLES):
                    order = torch.randperm(len(known), generator=chance, device="cpu")
                    shuffled.append((_nearest(seen[train], known[order], seen[test]) == right).float())
        return hits, float(torch.cat(shuffled).mean())


def _chance() -> torch.Generator:
    return torch.Generator().manual_seed(_SEED)


def _nearest(known: Tensor, labels: Tensor, seen: Tensor) -> Tensor:
    """For each row of `seen` the label whose mean is nearest, in spreads within a label: (rows,) int64."""
    names = labels.unique()
    means = torch.stack([known[labels == name].mean(0) for name in names])
    left = known - means[torch.searchsorted(names, labels)]
    spread = left.square().mean(0).sqrt().clamp(min=_LEAST_SPREAD)
    # By differences: from 26 rows on `cdist` multiplies matrices, which loses what sizes alike differ by.
    nearest = torch.cdist(
        (seen / spread).double(),
        (means / spread).double(),
        compute_mode="donot_use_mm_for_euclid_dist",
    ).argmin(1)
    of: Tensor = names[nearest]
    return of
