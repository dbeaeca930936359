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
from torch.nn import functional

from fuser.bundle import Bundle
from fuser.evaluate.prefilled import Prefilled
from fuser.evaluate.speaker import Said, Side, Speaker
from fuser.fuse import FuseHead
from fuser.rope import Rope
from fuser.shared import SharedPositions
from fuser.sharer import Cut, Reading, Sharer
from fuser.whole_file import whole_file
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
        said = self._speaker.say(_behind(readings))
        return [self._heard(*each, seconds) for each in zip(readings, cuts, said, strict=True)]

    def _heard(self, reading: Reading, cut: Cut, said: Said, seconds: float) -> Heard:
        segments = {
            (segment.spec.kind, segment.spec.layer): segment.tensor.to(TRAVELS_AS).cpu()
            for segment in self._sharer.cut(reading, cut)
        }
        spans = torch.tensor(cut.spans, dtype=torch.int64, device="cpu").reshape(-1, 3)
        return Heard(segments, spans, cut.tail, seconds, said)


def _behind(readings: Sequence[Reading]) -> Prefilled:
    """What was read, up to each prompt's last token, for the Sharer to answer on top of."""
    lengths = torch.tensor([len(reading.prompt) for reading in readings], device="cpu")
    pads = lengths.max() - lengths

    def padded(layer: int, half: int) -> Tensor:
        return torch.stack(
            [
                functional.pad(reading.kv[layer][half][:, :-1], (0, 0, pad, 0))
                for reading, pad in zip(readings, pads.tolist(), strict=True)
            ]
        )

    kv = tuple((padded(layer, 0), padded(layer, 1)) for layer in readings[0].kv)
    return Prefilled(kv, pads, torch.stack([reading.prompt.tokens.ids[-1] for reading in readings]))


def fuse_batch(
    head: FuseHead, rope: Rope, prefilled: Prefilled, mine: Sequence[SharedPositions], heard: Sequence[Heard]
) -> Prefilled:
    """The Receiver's KV fused with a slice a row, every layer with an open gate.

    A fuse head works position by position, so the rows' positions are laid end to end: no padding is fused.

    Args:
        rope: of the Receiver.
        mine: each row's positions in the Receiver's prompt that are fused.
    """
    device = prefilled.kv[0][0].device
    feeds = [positions.sources(one.spans, one.tail) for positions, one in zip(mine, heard, strict=True)]
    at = torch.cat([positions.at for positions in mine]).to(device)
    rows = torch.repeat_interleave(torch.tensor([len(feed) for feed in feeds])).to(device)
    slots = prefilled.pads.to(device)[rows] + at

    def theirs(kind: SegmentKind, layer: int) -> Tensor:
        parts = [one.segments[kind, layer][:, feed] for one, feed in zip(heard, feeds, strict=True)]
        return torch.cat(parts, dim=1)[None].to(device=device, dtype=torch.float32)

    fused = []
    for layer, (keys, values) in enumerate(prefilled.kv):
        source = head.layer_map.sources[layer]
        reads_keys, reads_values = head.open_layers()[layer]
        if source is not None and (reads_keys or reads_values):
            own_keys, own_values = (half[rows, :, slots].transpose(0, 1)[None] for half in (keys, values))
            bare = own_keys if head.rotated_keys else rope.unrotate(own_keys, at, layer)
            new_keys, new_values = head.fuse_layer(
                layer,
                theirs(SegmentKind.KEY, source) if reads_keys else None,
                theirs(SegmentKind.VALUE, source) if reads_values else None,
                bare,
                own_values,
            )
            if new_keys is not bare:
                turned = new_keys if head.rotated_keys else rope.rotate(new_keys, at, layer)
                keys = _put(keys, rows, slots, turned)
            if new_values is not own_values:
                values = _put(values, rows, slots, new_values)
        fused.append((keys, values))
    return prefilled.with_kv(tuple(fused))


def _put(half: Tensor, rows: Tensor, slots: Tensor, new: Tensor) -> Tensor:
    changed = half.clone()
    changed[rows, :, slots] = new[0].transpose(0, 1).to(half.dtype)
    return changed


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
    with whole_file(path) as partial:
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
