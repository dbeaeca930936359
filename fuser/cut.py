"""A slice before it is computed: what the header says of it, and which positions of the prompt it is cut from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fuser.bundle import Bundle
from fuser.prompt import Tokens, positions_within
from fuser.shared import shared_positions
from fuser.slice_specs import most_positions, slice_specs
from kvwire.errors import InvalidRequest
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SegmentSpec, SliceKind

Spans = Sequence[tuple[int, int] | None]
"""For each section the characters of its body in the prompt, None where the Sharer does not hold it."""


@dataclass(frozen=True, slots=True)
class Cut:
    """See the module. Positions are indices of the Sharer's prompt, int64.

    specs: segments in sending order. spans: (section, character start, character end) of each shared position, start
    and end within the section's text. tail: template positions after the last shared section. exported: positions that
    are cut (shared), or may be chosen (excerpt: the document's). prefix: how many positions, up to the last document's
    end, are prefilled for themselves: what they hold does not depend on what comes after, so it serves the next
    question too. 0 where there is no document.
    """

    kind: SliceKind
    specs: tuple[SegmentSpec, ...]
    spans: tuple[tuple[int, int, int], ...]
    tail: int
    tokens: Tokens
    exported: Tensor
    prefix: int = 0

    @property
    def positions(self) -> int:
        """Positions that travel."""
        return self.specs[0].positions if self.specs else 0


def cut_shared(
    sections: Sequence[Section], tokens: Tokens, spans: Spans, bundle: Bundle, plan: Plan, dtype: str
) -> Cut:
    """K and V of the shared positions, for the fuse head, or what its source half makes of them.

    dtype: of K and V, as the wire names it.

    Raises:
        Unsupported: the bundle has no fuse head, or none for this plan.
        InvalidRequest: no section is shared, or the plan names layers that nothing reads.
    """
    shared = shared_positions(tokens.offsets, sections, spans).sent().last(plan.last)
    specs = slice_specs(bundle, SliceKind.SHARED, plan, len(shared.at), dtype)
    named = tuple((section, low, high) for section, low, high in shared.spans.tolist())
    prefix = _prefix(_within(sections, tokens, spans, Role.DOCUMENT, Visibility.CLOUD), tokens)
    return Cut(SliceKind.SHARED, specs, named, shared.tail, tokens, shared.at, prefix)


def cut_excerpt(
    sections: Sequence[Section], tokens: Tokens, spans: Spans, bundle: Bundle, plan: Plan, max_positions: int
) -> Cut:
    """Codes of the document positions that the question attends to most.

    Raises:
        Unsupported: the bundle has no translate head, or none for this plan.
        InvalidRequest: no section is a cloud document, or the plan asks for numbers that there are not.
    """
    if not any(s.visibility is Visibility.CLOUD and s.role is Role.DOCUMENT for s in sections):
        raise InvalidRequest("an excerpt needs a cloud document")
    document = _within(sections, tokens, spans, Role.DOCUMENT, Visibility.CLOUD)
    count = min(max_positions, most_positions(bundle, plan), len(document))
    specs = slice_specs(bundle, SliceKind.EXCERPT, plan, count, "float32")
    return Cut(SliceKind.EXCERPT, specs, (), 0, tokens, document, _prefix(document, tokens))


def _prefix(document: Tensor, tokens: Tokens) -> int:
    """At least the last token comes after it: it chooses the excerpt."""
    return min(int(document[-1]) + 1, len(tokens.ids) - 1) if len(document) else 0


def _within(
    sections: Sequence[Section], tokens: Tokens, spans: Spans, role: Role, visibility: Visibility
) -> Tensor:
    """Positions within the sections of this role and visibility, ascending, int64."""
    found = [
        positions_within(tokens.offsets, span)
        for section, span in zip(sections, spans, strict=True)
        if section.visibility is visibility and section.role is role and span is not None
    ]
    return torch.cat(found).unique() if found else tokens.offsets.new_zeros(0)
