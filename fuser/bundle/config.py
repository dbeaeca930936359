"""The config of a bundle: which models, how each side writes its prompt, and the shapes of the heads."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from fuser.bundle.codecs import CodecBases, CodecBasesConfig
from fuser.bundle.tensors import BadBundle
from fuser.config import BadConfig, from_dict, to_dict
from fuser.heads.c2c import C2CConfig, C2CFuse
from fuser.heads.compact import CompactConfig, CompactFuse
from fuser.heads.fuse import FuseHead
from fuser.heads.selection import Scorer, SelectionConfig
from fuser.heads.translate import TranslateConfig, TranslateHead
from fuser.kv.geometry import Geometry
from fuser.prompts.prompt import PromptStyle
from kvwire.identity import ModelRef
from kvwire.segment import SegmentKind


@dataclass(frozen=True, slots=True)
class BundleConfig:
    """What a bundle was made for and how its heads are shaped.

    `abstain` is what the Receiver was taught to say where a slice is about something else; empty if it was not taught.
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

    def __post_init__(self) -> None:
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
        """Of a position in a segment of this kind and layer."""
        if not kind.is_code:
            return self.sharer_geometry.layer_width
        fuse = self.fuse
        if not isinstance(fuse, CompactConfig) or layer not in (at for at, _ in fuse.layer_map.mapped):
            raise ValueError(f"codec_bases: no source half of kind {kind} for layer {layer}")
        return fuse.rank

    def to_json(self) -> str:
        """The canonical text: sorted keys, two spaces, non-ASCII kept, a newline at the end."""
        return json.dumps(to_dict(self), sort_keys=True, indent=2, ensure_ascii=False) + "\n"

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


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number a config may hold")
