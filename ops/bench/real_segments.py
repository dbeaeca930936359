"""Real segments to try codecs on: what a Sharer makes of documents, as a bundle's slices hold it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kvwire.codec.layout import DTYPES
from kvwire.plan import Plan
from kvwire.segment import SegmentKind, SegmentSpec, SliceKind

if TYPE_CHECKING:
    from rich.progress import Progress

    from fuser.bundle import Bundle
    from fuser.data.document import Item
    from fuser.train.sharer_reading import SharerReading

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
    from fuser.train.sharer_reading import SharerReading

    config = bundle.config
    reading = SharerReading(model, tokenizer, config.sharer_prompt, config.selection, bundle.scorer)
    found: list[Sample] = []
    with torch.inference_mode():
        for item in progress.track(items, description="reading documents"):
            found += [*_shared(bundle, reading, item), *_codes(bundle, reading, item)]
    return found


def _shared(bundle: Bundle, reading: SharerReading, item: Item) -> Iterator[Sample]:
    """Document and question as one prompt that both sides hold."""
    from fuser.calibrate import segment_numbers
    from fuser.compact.head import CompactFuse
    from fuser.slice_specs import slice_specs
    from fuser.train.sources import Prompt
    from fuser.translate import split_kv

    text = f"{item.document}\n{item.questions[0].text}"
    features, _ = reading.read(Prompt(item.source, text, ""))
    sharer, head = bundle.config.sharer_geometry, bundle.fuse
    kv = torch.stack(split_kv(features, sharer))
    if head is None:
        shape = (sharer.kv_heads, len(features), sharer.head_dim)
        both = [
            (kind, layer) for layer in range(sharer.layers) for kind in (SegmentKind.KEY, SegmentKind.VALUE)
        ]
        specs = [SegmentSpec(i, kind, layer, shape, "bfloat16") for i, (kind, layer) in enumerate(both)]
    else:
        ways = (False, True) if isinstance(head, CompactFuse) else (False,)
        plans = [Plan(codec="raw", bottleneck=way) for way in ways]
        about = len(features), "bfloat16"
        specs = [spec for plan in plans for spec in slice_specs(bundle, SliceKind.SHARED, plan, *about)]
    for spec in specs:
        if spec.kind.is_code:
            assert head is not None
            tensor = segment_numbers(head, spec.kind, spec.layer, kv)
        else:
            tensor = kv[int(spec.kind is SegmentKind.VALUE), spec.layer]
        sent = tensor.to(DTYPES[spec.dtype]).contiguous()
        yield Sample(_GROUPS.get(spec.kind, SOURCE_HALVES), spec, sent, _by_position)


def _by_position(tensor: Tensor) -> Tensor:
    flat = tensor if tensor.dim() == 2 else tensor.transpose(0, 1).flatten(1)
    return flat.float()


def _codes(bundle: Bundle, reading: SharerReading, item: Item) -> Iterator[Sample]:
    """The excerpt that a question gets."""
    from fuser.select import choose
    from fuser.train.cached import Cached
    from fuser.train.regress import of_layers

    head, selection = bundle.translate, bundle.config.selection
    if head is None:
        return
    features, cached = reading.read(item)
    assert isinstance(cached, Cached)
    scores = cached.questions[0].scores
    chosen = choose(scores, torch.arange(cached.count), selection, selection.positions)
    codes = head.encode(of_layers(features[chosen], head))
    spec = SegmentSpec(0, SegmentKind.CODE, -1, tuple(codes.shape), "float32")
    yield Sample(CODES, spec, codes.contiguous(), head.in_units)
