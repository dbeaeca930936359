"""The time of the public Cache-to-Cache code beside ours, in one process, with the same models, prompts and threads.

    python 2026-11-30-public-code.py CODE BUNDLE QUESTIONS OUT

CODE is a checkout of the authors' repository at d03cc7b; nothing is fetched. BUNDLE has a fuse head. QUESTIONS are JSON
lines with question and choices. The public Fuser has its published shape and weights of chance: they change no time.
Its code wants transformers 4.52, whose cache had lists of keys and values; they are given back here.
"""

import json
import statistics
import sys
import time
import types
from pathlib import Path

import torch
from transformers import DynamicCache

from fuser import Bundle, SliceLayout, load_pair
from fuser.kv.past import PrefixCache
from fuser.kv.prefill import prefill_together
from kvwire.section import Section, Visibility
from kvwire.segment import Segment, SliceKind

code, bundle_path, questions, out = sys.argv[1:]
for name in ("rosetta", "rosetta.model", "rosetta.utils"):  # without what its packages import, and we lack
    package = types.ModuleType(name)
    package.__path__ = [str(Path(code, *name.split(".")))]
    sys.modules[name] = package
from rosetta.model import wrapper  # noqa: E402
from rosetta.model.aligner import TokenAligner  # noqa: E402
from rosetta.model.projector import C2CProjector  # noqa: E402

TOKENS, ROUNDS = 16, 3
DynamicCache.key_cache = property(lambda self: [layer.keys for layer in self.layers])
DynamicCache.value_cache = property(lambda self: [layer.values for layer in self.layers])
DynamicCache.__getitem__ = lambda self, layer: (self.layers[layer].keys, self.layers[layer].values)


def clone(cache):
    copy = DynamicCache()
    for index, layer in enumerate(cache.layers):
        copy.update(layer.keys.clone(), layer.values.clone(), index)
    return copy


wrapper.clone_kv_cache = clone
sharer, receiver = load_pair(Path(bundle_path))
config = Bundle.load(Path(bundle_path)).config
receiver.prefix_cache = PrefixCache(0)
theirs, ours = config.sharer_geometry, config.receiver_geometry


def projector():
    return C2CProjector(
        theirs.head_dim, ours.head_dim, theirs.kv_heads, ours.kv_heads, dtype=receiver.model.dtype
    ).eval()


public = wrapper.RosettaModel(
    [receiver.model, sharer.model], projector_list=[projector() for _ in range(ours.layers)]
).eval()
for layer in range(ours.layers):
    public.set_projector_config(1, max(0, layer - ours.layers + theirs.layers), 0, layer, layer)
aligner = TokenAligner(receiver.tokenizer, sharer.tokenizer, "longest")


class Clock:
    """Takes tokens as the public code streams them: the prompt, then one after the other."""

    def __init__(self):
        self.times, self.began = [], time.perf_counter()

    def put(self, tokens):
        self.times.append(time.perf_counter() - self.began)

    def end(self):
        pass


def of_public(text):
    clock = Clock()
    ids = receiver.tokenizer(text)["input_ids"]
    pair = [torch.tensor([one]) for one in (ids, aligner.align_tokens(ids))]
    index = [torch.tensor([way, 0]).repeat(1, length, 1) for way, length in ((1, len(ids) - 1), (-1, 1))]
    masks = [torch.ones_like(one) for one in pair]
    public.generate(index, pair, TOKENS, attention_mask=masks, eos_token_id=[], streamer=clock)
    return clock.times[1], clock.times[-1]


def of_ours(text):
    began, times = time.perf_counter(), []
    sections = [Section(role="user", visibility=Visibility.SHARED, text=text)]
    announced, segments = [], []
    prompt = sharer.prompt(sections)
    layout = sharer.layout(prompt, SliceKind.SHARED, 1 << 20)
    steps = sharer.steps(
        layout, lambda spec, tensor: segments.append(Segment(spec, tensor)), announce=announced.append
    )
    for work in steps:
        prefill_together(sharer.model, [work])
        if work.failure is not None:
            raise work.failure
    intake = receiver.begin(sections).prefill(SliceKind.SHARED).take(SliceLayout.of(announced[0]))
    for segment in segments:
        intake.add(segment)
    ready = intake.done()
    receiver.stops = frozenset()
    for _ in ready.generate(TOKENS):
        times.append(time.perf_counter() - began)
    return times[0], times[-1]


def ratios(pairs):
    found = [ours / public for ours, public in pairs]
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}


asked = [json.loads(line) for line in Path(questions).read_text("utf-8").splitlines()[:8]]
found = []
for round_ in range(ROUNDS + 1):  # the first warms up
    for record in asked:
        letters = "\n".join(
            f"{letter}. {choice}" for letter, choice in zip("ABCDE", record["choices"], strict=False)
        )
        text = f"{record['question']}\n{letters}\nAnswer:"
        with torch.inference_mode():
            turns = (of_ours, of_public) if round_ % 2 else (of_public, of_ours)
            timed = {turn.__name__: turn(text) for turn in turns}
        if round_:
            found.append(timed)
report = {
    "first token": ratios([(one["of_ours"][0], one["of_public"][0]) for one in found]),
    f"{TOKENS} tokens": ratios([(one["of_ours"][1], one["of_public"][1]) for one in found]),
    "questions": len(asked),
    "rounds": ROUNDS,
    "threads": torch.get_num_threads(),
    "dtype": str(receiver.model.dtype),
}
Path(out).write_text(json.dumps({**report, "seconds": found}, indent=1))
print(json.dumps(report, indent=1))
