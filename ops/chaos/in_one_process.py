"""The path without a wire: Sharer and Receiver in one process. What the service does must equal this, bit for bit."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fuser.slice_specs import SliceLayout
from kvwire.plan import WHOLE, Plan
from kvwire.section import Section, Visibility
from kvwire.segment import Segment, SliceKind

if TYPE_CHECKING:
    from torch import Tensor

    from fuser.receiver import Prefilled, Receiver
    from fuser.sharer import Cut, Sharer


@dataclass
class LocalAnswer:
    """What was cut, the prompt it was fused into, and the text; `keys` and `values` are the cache before it."""

    cut: "Cut"
    segments: list[Segment]
    prefilled: "Prefilled"
    keys: list["Tensor"]
    values: list["Tensor"]
    text: str


def first_line(text: str) -> str:
    """What of a generated text is the answer, said again without the code that cuts it."""
    return text.strip().partition("\n")[0].rstrip()


def cache_of(prefilled: "Prefilled") -> tuple[list["Tensor"], list["Tensor"]]:
    """A copy of the prompt's keys and values, layer by layer; empty where nothing is prefilled yet."""
    layers = prefilled.past.layers
    return [keys.clone() for keys, _ in layers], [values.clone() for _, values in layers]


def answer_in_one_process(
    sharer: "Sharer",
    receiver: "Receiver",
    sections: Sequence[Section],
    documents: Mapping[str, str],
    kind: SliceKind,
    max_positions: int,
    max_new_tokens: int,
    plan: Plan = WHOLE,
) -> LocalAnswer:
    """Plan, run, fuse and generate without a client, a server, a codec or a frame."""
    places = [i for i, section in enumerate(sections) if section.visibility is not Visibility.EDGE]
    cut = sharer.layout([_resolved(sections[i], documents) for i in places], kind, max_positions, plan)
    spans = tuple((places[section], start, end) for section, start, end in cut.spans)
    prefilled = receiver.begin(sections).prefill(kind)
    announced: list[Cut] = []
    segments: list[Segment] = []
    sharer.run(
        cut,
        lambda spec, tensor: segments.append(Segment(spec, tensor.clone())),
        announce=announced.append,
    )
    (cut,) = announced
    intake = prefilled.take(SliceLayout(kind, cut.specs, spans, cut.tail), plan)
    for segment in segments:
        intake.add(segment)
    prefilled = intake.done()
    keys, values = cache_of(prefilled)
    return LocalAnswer(cut, segments, prefilled, keys, values, "".join(prefilled.generate(max_new_tokens)))


def _resolved(section: Section, documents: Mapping[str, str]) -> Section:
    if section.document_id is None:
        return section
    return dataclasses.replace(section, text=documents[section.document_id], document_id=None)
