"""Real segments to try codecs on: what a Sharer makes of documents, as a bundle's slices hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kvwire.codec.base import DTYPES
from kvwire.codec.transform import by_position
from kvwire.plan import Plan
from kvwire.segment import Segment, SegmentKind, SegmentSpec, SliceKind

if TYPE_CHECKING:
    from rich.progress import Progress

    from fuser.bundle.bundle import Bundle
    from fuser.lab.data.document import Item
    from fuser.reading import Reading
    from fuser.sharer import Sharer

CODES = "codes"
SOURCE_HALVES = "source halves"
_GROUPS = {SegmentKind.KEY: "K", SegmentKind.VALUE: "V", SegmentKind.CODE: CODES}


@dataclass(frozen=True)
class Sample:
    """One segment. group: which kind of segments it is reported with.

    tensor: as the wire takes it. judge: turns it, or what was decoded, into (positions, numbers) float32, where errors
    are measured: of codes in what the Receiver gets, in units of its spread.
    """

    group: str
    spec: SegmentSpec
    tensor: Tensor
    judge: Callable[[Tensor], Tensor]


def read_samples(
    bundle: Bundle, model: Any, tokenizer: Any, items: Sequence[Item], progress: Progress
) -> list[Sample]:
    """Segments of one question over each document: K and V in bfloat16, of the layers that are sent, or of all layers
    where the bundle sends none; source halves and codes in float32."""
    from fuser.sharer import Sharer

    sharer = Sharer(model, tokenizer, bundle)
    found: list[Sample] = []
    with torch.inference_mode():
        for item in progress.track(items, description="reading documents"):
            found += [*_shared(sharer, item), *_codes(sharer, item)]
    return found


def _shared(sharer: Sharer, item: Item) -> Iterator[Sample]:
    """Document and question as one prompt that both sides hold."""
    from fuser.heads.compact import CompactFuse
    from fuser.lab.train.sharer_reading import shared_section

    head = sharer.bundle.fuse
    prompt = sharer.prompt(shared_section(f"{item.document}\n{item.questions[0].text}"))
    (reading,) = sharer.read([prompt], at=[prompt.shared.at])
    if head is None:
        segments = list(_every_layer(sharer, reading))
    else:
        ways = (False, True) if isinstance(head, CompactFuse) else (False,)
        plans = [Plan(codec="raw", bottleneck=way) for way in ways]
        layouts = [sharer.layout(prompt, SliceKind.SHARED, 0, plan) for plan in plans]
        segments = [segment for layout in layouts for segment in sharer.cut(reading, layout)]
    for segment in segments:
        spec = segment.spec if segment.spec.kind.is_code else replace(segment.spec, dtype="bfloat16")
        sent = segment.tensor.to(DTYPES[spec.dtype]).contiguous()
        yield Sample(_GROUPS.get(spec.kind, SOURCE_HALVES), spec, sent, _by_position)


def _every_layer(sharer: Sharer, reading: Reading) -> Iterator[Segment]:
    """K, re-based, and V of all layers, as if they were sent."""
    from fuser.heads.translate import split_kv

    both = torch.stack(split_kv(reading.features(tuple(reading.kv)), sharer.geometry), 1).flatten(0, 1)
    kinds = (SegmentKind.KEY, SegmentKind.VALUE)
    for number, half in enumerate(both):
        spec = SegmentSpec(number, kinds[number % 2], number // 2, tuple(half.shape), "bfloat16")
        yield Segment(spec, half)


def _by_position(tensor: Tensor) -> Tensor:
    return by_position(tensor).float()


def _codes(sharer: Sharer, item: Item) -> Iterator[Sample]:
    """The excerpt that a question gets."""
    from fuser.lab.train.sharer_reading import document_sections

    head = sharer.bundle.translate
    if head is None:
        return
    prompt = sharer.prompt(document_sections(item.document, item.questions[0].text))
    layout = sharer.layout(prompt, SliceKind.EXCERPT, sharer.selection.positions)
    (reading,) = sharer.read([prompt], head.layers, [layout.exported], asking=True)
    for segment in sharer.cut(reading, layout):
        yield Sample(CODES, segment.spec, segment.tensor.contiguous(), head.in_units)
