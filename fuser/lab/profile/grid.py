"""Settings of a profile, and which plans are tried: raw, and every other codec with every setting of the dials."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

from fuser.bundle.bundle import Bundle
from fuser.heads.compact import CompactFuse
from fuser.heads.selection import SHORTEST
from fuser.lab.data.hub import PREFIX, HubName
from fuser.lab.data.load import GENERATED, RECORDS
from fuser.lab.data.notes.generate import TRAINING as NOTES_TRAINING
from fuser.lab.data.records.generate import TRAINING
from fuser.slice_specs import layers_by_gate
from kvwire.plan import Plan
from kvwire.segment import SliceKind

RAW = "raw"
SEED = 7_001
"""Of the questions drawn: not the seed of any training run that ships."""

_OTHER = re.compile(r"(dev|test|valid|val|eval)(set)?|validation|evaluation|held_?out")
"""Words in a file's name, or its folder's, that mark it as no training data."""


@dataclass(frozen=True, slots=True)
class Dials:
    """Values of the dials to try; of one that is empty, halves of the most, down to an eighth.

    codecs: empty takes all. positions, fit: of excerpts. quoted: before drafts. code_dims: of both. last: of shared
    slices, whole ones besides. padded: every plan fills its payloads up.
    """

    codecs: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()
    fit: tuple[bool, ...] = (False, True)
    quoted: tuple[int, ...] = (0,)
    code_dims: tuple[int, ...] = ()
    last: tuple[int, ...] = (32, 8, 2, 1)
    padded: bool = False


@dataclass(frozen=True, slots=True)
class ProfileConfig:
    """Settings of a profile.

    data: as of an evaluation; training data alone. Questions over documents profile excerpts, or drafts where
    `drafts` is set; questions with choices shared slices. questions: answered. screened: of them, those of the
    screen. plans: answered, at most, besides the raw one. batch: questions at once.
    """

    data: str = "records:train"
    drafts: bool = False
    questions: int = 200
    screened: int = 48
    plans: int = 12
    dials: Dials = field(default_factory=Dials)
    seed: int = SEED
    batch: int = 16
    max_document_chars: int = 1200

    def __post_init__(self) -> None:
        if self.questions < 2 or min(self.screened, self.plans, self.batch, self.max_document_chars) < 1:
            raise ValueError(
                "a profile needs questions >= 2, and screened, plans, batch and max_document_chars >= 1"
            )


def check_training(source: str) -> None:
    """Refuse data that is marked as kept from training.

    Raises:
        ValueError: names the mark and what to give instead.
    """
    if source.startswith(GENERATED):
        split = source.partition(":")[2]
        found = None if split in (TRAINING if source.startswith(RECORDS) else NOTES_TRAINING) else split
    elif source.startswith(PREFIX):
        named = HubName.parse(source).split
        found = None if named is None or named.startswith("train") else named
    else:
        path = Path(source)
        words = re.split(
            r"[^a-z_]+|(?<!held)_|_(?!out)", f"{path.parent.name}/{path.name}".lower().replace("-", "_")
        )
        found = next((word for word in words if _OTHER.fullmatch(word)), None)
    if found is not None:
        raise ValueError(
            f"{source} is marked {found!r}: plans are chosen on training data, so that what is kept from training "
            f"can still judge them. Give {RECORDS}train or a training split"
        )


def grid(bundle: Bundle, kind: SliceKind, codecs: Sequence[str], dials: Dials) -> list[Plan]:
    """All plans to try for one kind of slice, the raw plan that all are compared with first.

    Args:
        codecs: names known.

    Raises:
        ValueError: a codec that is not known, or a value over what the bundle has.
        Unsupported: the bundle makes no slices of this kind.
    """
    if unknown := set(dials.codecs) - set(codecs):
        raise ValueError(f"unknown codec {sorted(unknown)[0]!r}; this bundle has {', '.join(codecs)}")
    tried = [name for name in dials.codecs or codecs if name != RAW]
    plans = _GRIDS[kind](bundle, tried, dials)
    return list(dict.fromkeys([Plan(codec=RAW), *plans]))


def _excerpts(bundle: Bundle, codecs: Sequence[str], dials: Dials) -> Iterable[Plan]:
    most, numbers = bundle.config.selection.positions, bundle.require_translate().code_dim
    positions = _values("positions", dials.positions, most)
    code_dims = _values("code_dims", dials.code_dims, numbers)
    return [
        Plan(
            codec=codec, positions=count, fit=fit, code_dim=0 if dim == numbers else dim, padded=dials.padded
        )
        for codec, count, fit, dim in product(codecs, positions, dials.fit, code_dims)
        if not fit or count >= 2 * SHORTEST
    ]


def _drafts(bundle: Bundle, codecs: Sequence[str], dials: Dials) -> Iterable[Plan]:
    numbers = bundle.require_translate().code_dim
    code_dims = _values("code_dims", dials.code_dims, numbers)
    return [
        Plan(codec=codec, quoted=quoted, code_dim=0 if dim == numbers else dim, padded=dials.padded)
        for codec, quoted, dim in product(codecs, dials.quoted, code_dims)
    ]


def _shared(bundle: Bundle, codecs: Sequence[str], dials: Dials) -> Iterable[Plan]:
    """Of the dials of shared slices one is turned at a time, with and without the bottleneck; of layers those with the
    widest gates are kept."""
    head, whole = bundle.require_fuse(), Plan(codec=RAW, padded=dials.padded)
    layers = layers_by_gate(head)
    some = {tuple(sorted(layers[: len(layers) // share])) for share in (2, 4)} - {()}
    turned = [whole, *(replace(whole, layers=few) for few in sorted(some))]
    turned += [replace(whole, last=last) for last in dials.last]
    bottlenecks = (False, True) if isinstance(head, CompactFuse) else (False,)
    return [
        replace(plan, codec=codec, bottleneck=bottleneck)
        for codec, bottleneck, plan in product(codecs, bottlenecks, turned)
    ]


_GRIDS = {SliceKind.EXCERPT: _excerpts, SliceKind.DRAFT: _drafts, SliceKind.SHARED: _shared}


def _values(name: str, given: Sequence[int], most: int) -> list[int]:
    wrong = [value for value in given if not 1 <= value <= most]
    if wrong:
        raise ValueError(f"{name}: {wrong[0]} is not 1 to {most}, as this bundle has")
    return list(given) or sorted({max(1, most >> step) for step in range(4)}, reverse=True)
