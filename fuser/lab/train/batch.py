"""Examples put together: batches of like length, each example with a stranger for the mismatched control."""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

E = TypeVar("E")

_POOL = 16  # batches that are sorted by length together


@dataclass(frozen=True, slots=True)
class ExampleBatch(Generic[E]):
    """Examples, and for each another one whose slice it gets in the mismatched control."""

    own: tuple[E, ...]
    other: tuple[E, ...]

    def __len__(self) -> int:
        return len(self.own)

    def shard(self, rank: int, world: int) -> ExampleBatch[E]:
        """Every `world`-th example from `rank` on.

        Raises:
            ValueError: `world` does not divide the batch.
        """
        if len(self) % world:
            raise ValueError(f"a batch of {len(self)} cannot be cut into {world} equal parts")
        return ExampleBatch(self.own[rank::world], self.other[rank::world])


class Examples(Generic[E]):
    """The examples of one split.

    Args:
        items: in an order that is always the same.
        length: what is alike in a batch, so that little is padding.
        subject: what an example is about; a stranger is about something else.
        where: the task and the split, for the error.

    Raises:
        ValueError: all items have one subject, so that nothing can be mismatched.
    """

    def __init__(
        self, items: Sequence[E], length: Callable[[E], int], subject: Callable[[E], Hashable], where: str
    ) -> None:
        self.items = tuple(items)
        self._lengths = [length(item) for item in self.items]
        subjects = [subject(item) for item in self.items]
        if subjects and len(set(subjects)) == 1:
            raise ValueError(
                f"{where}: a mismatched slice needs at least two documents or prompts, there is one"
            )
        self._others = _mismatched(subjects)

    def __len__(self) -> int:
        return len(self.items)

    def shuffled(self, batch: int, seed: int) -> list[ExampleBatch[E]]:
        """Batches of exactly `batch` of like length, in an order fixed by the seed; what fills none is left out."""
        rng = random.Random(seed)
        order = rng.sample(range(len(self)), len(self) // batch * batch)
        batches: list[ExampleBatch[E]] = []
        for start in range(0, len(order), batch * _POOL):
            pool = sorted(order[start : start + batch * _POOL], key=self._lengths.__getitem__)
            batches += [self._batch(pool[i : i + batch]) for i in range(0, len(pool), batch)]
        rng.shuffle(batches)
        return batches

    def sorted(self, batch: int) -> list[ExampleBatch[E]]:
        """All of them, shortest first, in batches of `batch`; the last may be shorter."""
        order = sorted(range(len(self)), key=self._lengths.__getitem__)
        return [self._batch(order[i : i + batch]) for i in range(0, len(order), batch)]

    def _batch(self, picked: Sequence[int]) -> ExampleBatch[E]:
        own = tuple(self.items[i] for i in picked)
        return ExampleBatch(own, tuple(self.items[self._others[i]] for i in picked))


def _mismatched(subjects: Sequence[Hashable]) -> list[int]:
    """For each the index of the first with another subject, from halfway round the list on."""
    count, found = len(subjects), []
    for index, subject in enumerate(subjects):
        hop = count // 2
        while subjects[(index + hop) % count] == subject:
            hop += 1
        found.append((index + hop) % count)
    return found


def evenly_spaced(items: Sequence[E], limit: int) -> Sequence[E]:
    """At most `limit` items, evenly spread over all of them."""
    if len(items) <= limit:
        return items
    return [items[i * len(items) // limit] for i in range(limit)]


def sample_one(among: Sequence[E], otherwise: E) -> E:
    """One of them by torch's global generator, which the run seeds by its step."""
    return among[int(torch.randint(len(among), (), device="cpu"))] if among else otherwise
