"""What the Sharer makes of a question, computed once and kept on disk: its slice and its own answer."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from fuser.atomic import atomic_write
from fuser.bundle.bundle import Bundle
from fuser.kv.past import Past
from fuser.lab.evaluate.speaker import Said, Side, Speaker
from fuser.receiver import Draft
from fuser.sharer import Cut, Reading, Sharer
from fuser.slice_specs import source_of
from kvwire.section import Section
from kvwire.segment import SegmentKind, SliceKind

TRAVELS_AS = torch.bfloat16
"""Slices are rounded to this before they are fused, kept or not: an answer never depends on what was on disk."""


@dataclass(frozen=True, slots=True)
class Heard:
    """One question as the Sharer read it.

    segments: (kind, Sharer layer) -> (kv_heads, positions, head_dim) bfloat16. spans: (positions - tail, 3) int64, as
    in `SharedPositions`. seconds: of the prefill, the share of its batch. said: the Sharer's own answer.
    """

    segments: Mapping[tuple[SegmentKind, int], Tensor]
    spans: Tensor
    tail: int
    seconds: float
    said: Said

    @property
    def bytes(self) -> int:
        """Payload of the slice."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.segments.values())


class SharerSlices:
    """A Sharer's slices for one bundle, in a directory.

    Args:
        directory: made if absent. A file a question, named after all that decides what is in it.

    Raises:
        Unsupported: the bundle has no fuse head, or is for another Sharer.
    """

    def __init__(self, bundle: Bundle, side: Side, max_new_tokens: int, directory: Path) -> None:
        self._head = bundle.require_fuse()
        self._sharer = Sharer(side.model, side.tokenizer, bundle)
        self._speaker = Speaker(side, max_new_tokens)
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        needed = [(str(kind), layer) for kind, layer in self._head.needed()]
        config = bundle.config
        self._key = json.dumps(
            [
                str(config.sharer),
                str(side.model.config.name_or_path),
                config.sharer_prompt.to_dict(),
                needed,
                self._head.rotated_keys,
                max_new_tokens,
            ]
        )

    def hear(self, prompts: Sequence[Sequence[Section]]) -> list[Heard]:
        """What the Sharer makes of each prompt; those not on disk are prefilled in one batch."""
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
        past = Past.of(
            [[(keys[:, :-1], values[:, :-1]) for keys, values in read.kv.values()] for read in readings]
        )
        said = self._speaker.say(past, [cut.prompt.tokens.ids[-1:] for cut in cuts])
        return [self._heard(*each, seconds) for each in zip(readings, cuts, said, strict=True)]

    def _heard(self, reading: Reading, cut: Cut, said: Said, seconds: float) -> Heard:
        segments = {
            (segment.spec.kind, segment.spec.layer): segment.tensor.to(TRAVELS_AS).cpu()
            for segment in self._sharer.cut(reading, cut)
        }
        spans = torch.tensor(cut.spans, dtype=torch.int64, device="cpu").reshape(-1, 3)
        return Heard(segments, spans, cut.tail, seconds, said)


@torch.inference_mode()
def fuse_heard(draft: Draft, heard: Sequence[Heard]) -> None:
    """Fuse a slice into each row of a prefilled draft."""
    head = draft.receiver.bundle.require_fuse()
    prompts = zip(draft.prompts, heard, strict=True)
    fusing = draft.fusing([prompt.shared.fed(one.spans, one.tail, partial=False) for prompt, one in prompts])
    for layer in head.fed:
        source, reads = source_of(head, layer), head.live(layer)
        kinds = [k for k, read in zip((SegmentKind.KEY, SegmentKind.VALUE), reads, strict=True) if read]
        if kinds:
            theirs = {kind: fusing.fed([one.segments[kind, source] for one in heard])[None] for kind in kinds}
            fusing.merge([layer], theirs)


def _save(path: Path, heard: Heard) -> None:
    tensors = {f"{kind.value}.{layer}": tensor for (kind, layer), tensor in heard.segments.items()}
    about = {
        "tail": heard.tail,
        "seconds": heard.seconds,
        "text": heard.said.text,
        "answering": heard.said.seconds,
    }
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    tensors |= {"spans": heard.spans, "letters": heard.said.letters}
    with atomic_write(path) as partial:
        save_file(tensors, partial, metadata={"about": json.dumps(about)})


def _load(path: Path) -> Heard:
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    spans, letters = tensors.pop("spans"), tensors.pop("letters")
    segments = {}
    for name, tensor in tensors.items():
        kind, _, layer = name.partition(".")
        segments[SegmentKind(kind), int(layer)] = tensor
    return Heard(
        segments, spans, about["tail"], about["seconds"], Said(about["text"], letters, about["answering"])
    )
