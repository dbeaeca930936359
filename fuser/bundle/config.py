"""The config of a bundle: which models, how each side writes its prompt, the shapes of the heads, the codecs' bases."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import torch
from torch import Tensor, nn

from fuser.bundle.tensors import BadBundle
from fuser.config import BadConfig, from_dict, to_dict
from fuser.heads.answerable import Answerable, AnswerableConfig
from fuser.heads.c2c import C2CConfig, C2CFuse
from fuser.heads.compact import CompactConfig, CompactFuse
from fuser.heads.fuse import FuseHead
from fuser.heads.selection import Scorer, SelectionConfig
from fuser.heads.translate import TranslateConfig, TranslateHead
from fuser.kv.generate import SIGNALS
from fuser.kv.geometry import Geometry
from fuser.prompts.prompt import PromptStyle
from kvwire.codec import Basis, Transform
from kvwire.codec.transform import Place
from kvwire.identity import ModelRef
from kvwire.segment import SegmentKind, SliceKind


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

    def read(self) -> dict[Place, Basis]:
        """The basis of each place.

        Raises:
            ValueError: numbers that no calibration gives.
        """
        return {
            place: Basis(*(tensor.cpu() for tensor in buffers.buffers()))
            for place, buffers in zip(self.places, self.bases, strict=True)
        }

    def codecs(self) -> tuple[Transform, ...]:
        """One for each rate. Raises ValueError, as `read`."""
        bases = self.read()
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


@dataclass(frozen=True, slots=True)
class ConfidenceConfig:
    """How likely an answer behind a slice of one kind is right: a logistic regression over its signals.

    weights: of signals by their names (`fuser.kv.generate.SIGNALS`). bias: in nats, too. least_confidence: an
    answer that is less likely to be right is withheld, and the abstention given in its place; 0 withholds none.
    """

    weights: Mapping[str, float]
    bias: float
    least_confidence: float = 0.0

    def __post_init__(self) -> None:
        if unknown := sorted(self.weights.keys() - set(SIGNALS)):
            raise ValueError(f"there is no signal {unknown[0]!r}; known are {', '.join(SIGNALS)}")
        if not all(map(math.isfinite, (*self.weights.values(), self.bias))):
            raise ValueError("weights and bias are finite numbers")
        if not 0 <= self.least_confidence <= 1:
            raise ValueError("least_confidence is a probability, 0 to 1")

    def of(self, signals: Mapping[str, float]) -> float | None:
        """The probability, 0 to 1, that the answer with these signals is right; None where one of them is not told."""
        if not self.weights.keys() <= signals.keys():
            return None
        logit = self.bias + sum(weight * signals[name] for name, weight in self.weights.items())
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))

    def withholds(self, signals: Mapping[str, float], least_confidence: float) -> bool:
        """Whether the answer with these signals is less likely to be right; not, where one of them is not told."""
        confidence = self.of(signals)
        return confidence is not None and confidence < least_confidence


_NOT_FUSED: Final = ("confidence", "usual", "answerable")


@dataclass(frozen=True, slots=True)
class BundleConfig:
    """What a bundle was made for and how its heads are shaped.

    `abstain` is what the Receiver was taught to say where a slice is about something else; empty if it was not taught.
    `confidence` says by the kind of slice ("excerpt", "draft") how likely an answer is right, and `usual` which kind an
    edge asks for over documents where it is not told; only the edge reads them. `answerable` tells the cloud alone
    whether documents hold an answer. These three are no part of the bundle's hash, as nothing that is fused depends on
    them, and each side may have its own.
    `sharer_prompt` and `receiver_prompt` say how each side writes its prompt. A head that is None is absent.
    """

    sharer: ModelRef
    receiver: ModelRef
    sharer_geometry: Geometry
    receiver_geometry: Geometry
    sharer_prompt: PromptStyle
    receiver_prompt: PromptStyle
    fuse: CompactConfig | C2CConfig | None = None
    translate: TranslateConfig | None = None
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    format: Literal[1] = 1
    codec_bases: CodecBasesConfig | None = None
    abstain: str = ""
    confidence: Mapping[str, ConfidenceConfig] = field(default_factory=dict)
    usual: Literal["excerpt", "draft"] = "excerpt"
    answerable: AnswerableConfig | None = None

    def __post_init__(self) -> None:
        if unknown := sorted(self.confidence.keys() - {SliceKind.EXCERPT, SliceKind.DRAFT}):
            raise ValueError(f"confidence is of excerpts and drafts, not of {unknown[0]!r}")
        if self.confidence and not self.abstain:
            raise ValueError("confidence needs abstain: what is said in place of an answer that is withheld")
        if self.answerable is not None and self.answerable.layers[-1] >= self.sharer_geometry.layers:
            raise ValueError(f"answerable.layers: the Sharer has {self.sharer_geometry.layers} layers")
        if self.selection.rule == "learnt" and self.translate is None:
            raise ValueError('selection.rule "learnt" chooses excerpts: it needs a translate head')

    def new_fuse(self) -> FuseHead | None:
        """An untrained fuse head of the configured shape."""
        if self.fuse is None:
            return None
        kind = CompactFuse if isinstance(self.fuse, CompactConfig) else C2CFuse
        return kind(self.fuse, self.sharer_geometry, self.receiver_geometry)  # type: ignore[arg-type]

    def new_translate(self) -> TranslateHead | None:
        """An untrained translate head of the configured shape."""
        if self.translate is None:
            return None
        return TranslateHead(self.translate, self.sharer_geometry, self.receiver_geometry)

    def new_scorer(self) -> Scorer | None:
        """An untrained scorer, where the selection rule is learnt."""
        if self.selection.rule != "learnt":
            return None
        layers = self.sharer_geometry.layers
        return Scorer((layers - self.selection.first_query_layer(layers)) * self.selection.heads)

    def new_answerable(self) -> Answerable | None:
        if self.answerable is None:
            return None
        return Answerable(self.answerable, 2 * self.sharer_geometry.layer_width)

    def new_codec_bases(self) -> CodecBases | None:
        """Bases of the configured shapes, not calibrated.

        Raises:
            ValueError: source halves of a fuse head or layer that cannot be parted.
        """
        if self.codec_bases is None:
            return None
        places = [
            (kind, layer, self._numbers(kind, layer))
            for kind in SegmentKind
            for layer in self.codec_bases.layers.get(kind.value, ())
        ]
        places += [(SegmentKind.CODE, -1, width) for width in self.codec_bases.code_widths]
        return CodecBases(self.codec_bases, places)

    def _numbers(self, kind: SegmentKind, layer: int) -> int:
        if not kind.is_code:
            return self.sharer_geometry.layer_width
        fuse = self.fuse
        if not isinstance(fuse, CompactConfig) or layer not in (at for at, _ in fuse.layer_map.mapped):
            raise ValueError(f"codec_bases: no source half of kind {kind} for layer {layer}")
        return fuse.rank

    def to_json(self) -> str:
        """The canonical text: sorted keys, two spaces, non-ASCII kept, a newline at the end."""
        return _canonical(to_dict(self))

    @property
    def hashed(self) -> str:
        """The part of the canonical text that both sides must have alike: all that what is fused depends on."""
        return _canonical({key: value for key, value in to_dict(self).items() if key not in _NOT_FUSED})

    @classmethod
    def from_json(cls, text: str) -> BundleConfig:
        """Read strictly.

        Raises:
            BadBundle: not JSON, or a key that is unknown, missing or of a wrong type (named).
        """
        try:
            return from_dict(cls, json.loads(text, parse_constant=_refuse_constant))
        except (BadConfig, ValueError, RecursionError) as error:
            raise BadBundle(f"{error}") from error


def _canonical(values: Mapping[str, object]) -> str:
    return json.dumps(values, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number a config may hold")
