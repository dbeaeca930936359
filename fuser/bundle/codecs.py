"""The codec state of a bundle: a basis for each segment it may send, from which its `transform` codecs are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kvwire.codec import Basis, Transform
from kvwire.codec.transform import Place
from kvwire.segment import SegmentKind


@dataclass(frozen=True, slots=True)
class CodecBasesConfig:
    """Which bases there are; calibration writes it.

    rates: bits a number, one codec each. layers: by kind of segment, the layers that have a basis. code_widths: of the
    codes that have one, in numbers.
    """

    rates: tuple[float, ...]
    layers: Mapping[str, tuple[int, ...]]
    code_widths: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not self.rates or not all(0 < rate <= 16 for rate in self.rates):
            raise ValueError("codec_bases.rates are bits a number, above 0 and at most 16")
        if len(set(self.rates)) < len(self.rates):
            raise ValueError("codec_bases.rates has one rate twice")
        kinds = {kind.value for kind in SegmentKind if kind is not SegmentKind.CODE}
        if unknown := sorted(set(self.layers) - kinds):
            raise ValueError(f"codec_bases.layers has {unknown[0]!r}; known are {', '.join(sorted(kinds))}")
        for name, numbers in (*self.layers.items(), ("code_widths", self.code_widths)):
            if list(numbers) != sorted(set(numbers)) or any(number < 0 for number in numbers):
                raise ValueError(f"codec_bases: {name} must be ascending without repeats")
        if 0 in self.code_widths:
            raise ValueError("codec_bases.code_widths start at 1")


class CodecBases(nn.Module):
    """Bases as buffers, so that they are stored and hashed with the heads. Nothing in it is trained.

    Args:
        places: in the order of the bases.

    Attributes:
        bits: (rates, places) float32, bits a number that a segment may use at each rate.
    """

    bits: Tensor

    def __init__(self, config: CodecBasesConfig, places: Sequence[Place]) -> None:
        super().__init__()
        self.config = config
        self.places = tuple(places)
        self.bases = nn.ModuleList(_Buffers(width) for _, _, width in self.places)
        self.register_buffer("bits", torch.zeros(len(config.rates), len(self.places)))

    def write(self, bases: Mapping[Place, Basis], bits: Tensor) -> None:
        """Take in what calibration found; every place must be there."""
        for place, buffers in zip(self.places, self.bases, strict=True):
            found = bases[place]
            state = {"mean": found.mean, "synthesis": found.synthesis, "spread": found.spread}
            buffers.load_state_dict(state)
        self.bits.copy_(bits)

    def codecs(self) -> tuple[Transform, ...]:
        """One for each rate.

        Raises:
            ValueError: numbers that no calibration gives.
        """
        bases = {
            place: Basis(*(tensor.cpu() for tensor in buffers.buffers()))
            for place, buffers in zip(self.places, self.bases, strict=True)
        }
        rows = self.bits.tolist()
        return tuple(
            Transform(rate, bases, dict(zip(self.places, row, strict=True)))
            for rate, row in zip(self.config.rates, rows, strict=True)
        )


class _Buffers(nn.Module):
    """What a `Basis` of this width is made from, in the order of its fields."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("synthesis", torch.zeros(width, width, dtype=torch.float16))
        self.register_buffer("spread", torch.zeros(width))
