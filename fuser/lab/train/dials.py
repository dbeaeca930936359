"""What plans may choose of a slice, and the choice of one step of training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class DialsConfig:
    """What plans may choose of a slice, each drawn anew at every step, so that one head serves all of them.

    All but the last are of excerpts and drafts; shared slices get the noise of `noise.bits`.

    positions: in an excerpt; none given takes the selection's. quoted: positions of an excerpt before a draft, 0 for
    none; none given quotes none. code_dims: leading numbers of a code that are kept, so
    that the first carry most; none given keeps all. bits: of the codec whose noise the codes get, 0 for none; none
    given takes `noise.bits`. codecs: in place of bits, names of codecs through which the codes go, `raw` for as they
    are; `transform` ones are those of the bundle in `init`. last: of a shared slice, the last positions that are
    exported, 0 for all of them.
    """

    positions: tuple[int, ...] = ()
    quoted: tuple[int, ...] = ()
    code_dims: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    codecs: tuple[str, ...] = ()
    last: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min((1, *self.positions, *self.code_dims)) < 1:
            raise ValueError("dials.positions and dials.code_dims start at 1")
        if min(self.last, default=0) < 0:
            raise ValueError("dials.last are 0 (all positions) or more")
        if min(self.quoted, default=0) < 0:
            raise ValueError("dials.quoted are 0 (none) or more")
        if any(bits != 0 and not 2 <= bits <= 16 for bits in self.bits):
            raise ValueError("dials.bits are 0 (off) or 2 to 16")
        if self.bits and self.codecs:
            raise ValueError("dials.bits imitates a codec: give bits or codecs, not both")


def sample_one(among: Sequence[_T], otherwise: _T) -> _T:
    """One of them by torch's global generator, which the run seeds by its step."""
    return among[int(torch.randint(len(among), (), device="cpu"))] if among else otherwise
