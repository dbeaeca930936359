"""Slices over shared prompts: what the Sharer reads or replies, kept, and how a Receiver takes it in."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fuser.atomic import atomic_write
from fuser.bundle.bundle import Bundle
from fuser.lab.evaluate.models import Model
from fuser.lab.evaluate.plans import registry_of
from fuser.lab.evaluate.speaker import sections
from fuser.prompts.choice import ChoiceItem, choice_prompt
from fuser.prompts.shared import SharedPositions
from fuser.reading import shared_layout
from fuser.receiver import Prefilled, Receiver
from fuser.sharer import Cut, Reading, Sharer
from fuser.slice_specs import (
    MAX_WRITTEN,
    SliceLayout,
    made_from,
    most_written,
    shared_segment,
    slice_specs,
    source_of,
)
from kvwire.codec import roundtrip
from kvwire.plan import Plan
from kvwire.section import Section
from kvwire.segment import Segment, SegmentKind, SliceKind
from kvwire.slice_io import most_bytes, payload_codec

TRAVELS_AS = torch.bfloat16
"""Slices are rounded to this before they are fused, kept or not: an answer never depends on what was on disk."""
_DTYPE = str(TRAVELS_AS).removeprefix("torch.")


@dataclass(frozen=True, slots=True)
class Heard:
    """One question as the Sharer read it.

    segments: (kind, Sharer layer) -> (kv_heads, positions, head_dim) bfloat16. spans: (positions - tail, 3) int64, as
    in `SharedPositions`. seconds: of the prefill, the share of its batch.
    """

    segments: Mapping[tuple[SegmentKind, int], Tensor]
    spans: Tensor
    tail: int
    seconds: float

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.segments.values())


class SharerSlices:
    """A Sharer's slices for one bundle, in a directory.

    Args:
        directory: made if absent. A file a question, named after all that decides what is in it.

    Raises:
        Unsupported: the bundle has no fuse head, or is for another Sharer.
    """

    def __init__(self, bundle: Bundle, sharer: Model, directory: Path) -> None:
        self._head = bundle.require_fuse()
        self._sharer = Sharer(sharer.network, sharer.tokenizer, bundle)
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        needed = [(str(kind), layer) for kind, layer in self._head.needed()]
        config = bundle.config
        self._key = json.dumps(
            [
                str(config.sharer),
                str(sharer.path),
                config.sharer_prompt.to_dict(),
                needed,
                self._head.rotated_keys,
            ]
        )

    def hear(self, prompts: Sequence[Sequence[Section]]) -> list[Heard]:
        paths = [self._path(prompt) for prompt in prompts]
        missing = {path: prompt for path, prompt in zip(paths, prompts, strict=True) if not path.exists()}
        fresh = dict(zip(missing, self._read(list(missing.values())), strict=True)) if missing else {}
        for path, heard in fresh.items():
            _save(path, heard)
        return [fresh[path] if path in fresh else _load(path) for path in paths]

    def _path(self, prompt: Sequence[Section]) -> Path:
        said = json.dumps([self._key, [[s.role, s.visibility, s.text] for s in prompt]])
        return self._directory / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.safetensors"

    def _read(self, prompts: Sequence[Sequence[Section]]) -> list[Heard]:
        cuts = [self._sharer.layout(prompt, SliceKind.SHARED, 0) for prompt in prompts]
        started = time.perf_counter()
        readings = self._sharer.read([cut.prompt for cut in cuts])
        seconds = (time.perf_counter() - started) / len(prompts)
        return [self._heard(*each, seconds) for each in zip(readings, cuts, strict=True)]

    def _heard(self, reading: Reading, cut: Cut, seconds: float) -> Heard:
        segments = {
            (segment.spec.kind, segment.spec.layer): segment.tensor.to(TRAVELS_AS).cpu()
            for segment in self._sharer.cut(reading, cut)
        }
        spans = torch.tensor(cut.spans, dtype=torch.int64, device="cpu").reshape(-1, 3)
        return Heard(segments, spans, cut.tail, seconds)


@torch.inference_mode()
def fuse_heard(prefilled: Prefilled, heard: Sequence[Heard]) -> None:
    """Fuse a slice into each row of prefilled prompts."""
    head = prefilled.receiver.bundle.require_fuse()
    prompts = zip(prefilled.prompts, heard, strict=True)
    fusing = prefilled.fusing(
        [prompt.shared.fed(one.spans, one.tail, partial=False) for prompt, one in prompts]
    )
    for layer in head.fed:
        source, reads = source_of(head, layer), head.live(layer)
        kinds = [k for k, read in zip((SegmentKind.KEY, SegmentKind.VALUE), reads, strict=True) if read]
        if kinds:
            theirs = {kind: fusing.fed([one.segments[kind, source] for one in heard])[None] for kind in kinds}
            fusing.merge([layer], theirs)


class ChoiceTransfer:
    """A bundle between a Sharer, whose slices of questions it sends, and a Receiver, which takes them in.

    Args:
        directory: of the slices.

    Raises:
        Unsupported: the bundle makes no shared slices.
    """

    def __init__(self, bundle: Bundle, sharer: Model, receiver: Model, directory: Path) -> None:
        self._bundle, self._head = bundle, bundle.require_fuse()
        self._slices = SharerSlices(bundle, sharer, directory)
        self.receiver = Receiver(receiver.network, receiver.tokenizer, bundle)

    def hear(self, items: Sequence[ChoiceItem]) -> list[Heard]:
        return self._slices.hear([sections(choice_prompt(item)) for item in items])

    def prefilled(self, item: ChoiceItem, heard: Heard, plan: Plan) -> tuple[Prefilled, int]:
        """A question's prompt, prefilled and fused with a slice by a plan; and the slice's payload bytes.

        The Receiver fills in what the plan leaves out.
        """
        shared, layout = self._layout(heard, plan)
        codec = payload_codec(plan, registry_of(self._bundle).get(plan.codec))
        prefilled = self.receiver.begin(sections(choice_prompt(item))).prefill(SliceKind.SHARED)
        intake = prefilled.take(layout, plan)
        size = 0
        for spec in layout.specs:
            half = heard.segments[made_from(self._head, spec.kind, spec.layer)][:, shared.at]
            half = half.to(self.receiver.model.device)  # where the bundle's heads are
            part = shared_segment(self._bundle, spec.kind, spec.layer, half)
            (arrived,), (sent,) = roundtrip(codec, part[None], spec)
            intake.add(Segment(spec, arrived))
            size += sent
        return intake.done(), size

    def most_bytes(self, heard: Iterable[Heard], plan: Plan) -> int:
        """The most that the payload of any of these may come to by a plan."""
        codec = payload_codec(plan, registry_of(self._bundle).get(plan.codec))
        specs = {self._layout(one, plan)[1].specs for one in heard}
        return max(most_bytes(one, codec) for one in specs)

    def _layout(self, heard: Heard, plan: Plan) -> tuple[SharedPositions, SliceLayout]:
        """What a plan sends of what was read; the positions are counted among those read."""
        count = len(heard.spans) + heard.tail
        every = SharedPositions(torch.arange(count, device="cpu"), heard.spans, heard.tail)
        shared = every.last(plan.last)
        return shared, shared_layout(shared, self._bundle, plan, _DTYPE)


class ChoiceDrafts:
    """Drafts between a Sharer and a Receiver, one question at a time; what was written is kept in memory.

    Raises:
        Unsupported: the bundle has no translate head, or is for other models.
    """

    def __init__(self, bundle: Bundle, sharer: Model, receiver: Receiver) -> None:
        self._bundle, self._head, self._receiver = bundle, bundle.require_translate(), receiver
        self._sharer = Sharer(sharer.network, sharer.tokenizer, bundle)
        self._written = lru_cache(maxsize=None)(self._write)

    def prefilled(self, item: ChoiceItem, other: ChoiceItem, plan: Plan) -> tuple[Prefilled, int, float]:
        """A question's prompt behind the draft for another or its own; the draft's bytes by a plan; seconds of both."""
        codes, seconds = self._written(other)
        codes, started = codes[: most_written(plan)], time.perf_counter()
        prefilled = self._receiver.begin(sections(choice_prompt(item))).prefill(SliceKind.DRAFT)
        size = 0
        for spec in slice_specs(self._bundle, SliceKind.DRAFT, plan, len(codes), "float32"):
            codec = payload_codec(plan, registry_of(self._bundle).get(plan.codec))
            arrived, (size,) = roundtrip(codec, codes[None, :, : spec.shape[1]], spec)
            prefilled.put_codes(arrived)
        return prefilled, size, seconds + time.perf_counter() - started

    def _write(self, item: ChoiceItem) -> tuple[Tensor, float]:
        """Codes (positions, values) of what the Sharer replies to a question, and its seconds."""
        cut = self._sharer.layout(sections(choice_prompt(item)), SliceKind.DRAFT, MAX_WRITTEN)
        started = time.perf_counter()
        with torch.inference_mode():
            (reading,) = self._sharer.read(
                [cut.prompt], self._head.layers, [cut.exported], draft=cut.drafting
            )
            parts = [segment.tensor for segment in self._sharer.cut(reading, cut)]
        empty = torch.zeros(0, self._head.code_dim, device="cpu")
        return torch.cat([empty, *(part.cpu() for part in parts)]), time.perf_counter() - started


def _save(path: Path, heard: Heard) -> None:
    tensors = {f"{kind.value}.{layer}": part.contiguous() for (kind, layer), part in heard.segments.items()}
    about = json.dumps({"tail": heard.tail, "seconds": heard.seconds})
    with atomic_write(path) as partial:
        save_file(tensors | {"spans": heard.spans}, partial, metadata={"about": about})


def _load(path: Path) -> Heard:
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    spans, segments = tensors.pop("spans"), {}
    for name, tensor in tensors.items():
        kind, _, layer = name.partition(".")
        segments[SegmentKind(kind), int(layer)] = tensor
    return Heard(segments, spans, about["tail"], about["seconds"])
