"""A slice before it is computed: what its header says, and which positions of the Sharer's prompt it is cut from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.prompts.shared import SharedPositions
from fuser.reading import SharerPrompt
from fuser.slice_specs import SliceLayout, most_positions, most_quoted, most_written, slice_specs
from kvwire.errors import InvalidRequest
from kvwire.plan import Plan
from kvwire.section import Role, Visibility
from kvwire.segment import UNTOLD, Certainty, SegmentSpec, SliceKind


@dataclass(frozen=True, slots=True)
class Cut:
    """See the module.

    kind, specs, spans, tail: as in `SliceLayout`; the specs of an excerpt or a draft have room for the longest.
    exported: positions of the prompt, int64, that are cut (shared), or may be chosen (the document's). quoted: how many
    of these are chosen, runs: in how many runs, and fit: whether it may be fewer. drafting: how many positions may be
    written. chosen: which are, once they are; they stand first in the slice. certainty: how sure the Sharer is.
    """

    kind: SliceKind
    specs: tuple[SegmentSpec, ...]
    spans: tuple[tuple[int, int, int], ...]
    tail: int
    prompt: SharerPrompt
    exported: Tensor
    quoted: int = 0
    drafting: int = 0
    runs: int = 0
    fit: bool = False
    chosen: tuple[int, ...] = ()
    certainty: Certainty = UNTOLD

    @property
    def positions(self) -> int:
        """Positions that travel."""
        return self.specs[0].positions if self.specs else 0

    @property
    def chosen_runs(self) -> int:
        """In how many runs of neighbours the chosen positions stand."""
        return sum(at - 1 not in self.chosen for at in self.chosen)

    def settled(self, chosen: tuple[int, ...], drafting: int, certainty: Certainty) -> Cut:
        """The cut once it is known which positions are chosen and how many are written."""
        positions = len(chosen) + drafting
        specs = tuple(replace(s, shape=(positions, *s.shape[1:])) for s in self.specs) if positions else ()
        cut = replace(self, specs=specs, quoted=len(chosen), drafting=drafting)
        return replace(cut, chosen=chosen, certainty=certainty)


def shared_layout(shared: SharedPositions, bundle: Bundle, plan: Plan, dtype: str) -> SliceLayout:
    """The layout of a shared slice of these positions, in any prompt; arguments and errors as in `cut_shared`."""
    specs = slice_specs(bundle, SliceKind.SHARED, plan, len(shared.at), dtype)
    spans = tuple((section, low, high) for section, low, high in shared.spans.tolist())
    return SliceLayout(SliceKind.SHARED, specs, spans, shared.tail)


def cut_shared(prompt: SharerPrompt, bundle: Bundle, plan: Plan, dtype: str) -> Cut:
    """K and V of the shared positions, for the fuse head, or what its source half makes of them.

    Args:
        dtype: of K and V, as the wire names it.

    Raises:
        Unsupported: the bundle has no fuse head, or none for this plan.
        InvalidRequest: no section is shared, or the plan names layers that nothing reads.
    """
    shared = prompt.shared.sent().last(plan.last)
    layout = shared_layout(shared, bundle, plan, dtype)
    return Cut(layout.kind, layout.specs, layout.spans, layout.tail, prompt, shared.at)


def cut_excerpt(prompt: SharerPrompt, bundle: Bundle, plan: Plan, max_positions: int) -> Cut:
    """Codes of the document positions that the question attends to most.

    Raises:
        Unsupported: the bundle has no translate head, or none for this plan.
        InvalidRequest: no section is a cloud document, or the plan asks for more values than codes have.
    """
    _check_document(prompt)
    count = min(max_positions, most_positions(bundle, plan, SliceKind.EXCERPT), len(prompt.document))
    specs = slice_specs(bundle, SliceKind.EXCERPT, plan, count, "float32")
    return Cut(SliceKind.EXCERPT, specs, (), 0, prompt, prompt.document, count, 0, plan.runs, plan.fit)


def cut_draft(prompt: SharerPrompt, bundle: Bundle, plan: Plan, max_positions: int) -> Cut:
    """Codes of the Sharer's own short answer, behind those of an excerpt where the plan wants one too.

    Where not all may leave, the draft goes first.

    Raises:
        Unsupported: the bundle has no translate head, or none for this plan.
        InvalidRequest: the plan quotes and no section is a cloud document, or it asks for more values than codes have.
    """
    if plan.quoted:
        _check_document(prompt)
    drafting = min(max_positions, most_written(plan))
    quoted = min(max_positions - drafting, most_quoted(bundle, plan), len(prompt.document))
    specs = slice_specs(bundle, SliceKind.DRAFT, plan, quoted + drafting, "float32")
    return Cut(SliceKind.DRAFT, specs, (), 0, prompt, prompt.document, quoted, drafting, plan.runs, plan.fit)


def _check_document(prompt: SharerPrompt) -> None:
    if not any(s.visibility is Visibility.CLOUD and s.role is Role.DOCUMENT for s in prompt.sections):
        raise InvalidRequest("an excerpt needs a cloud document")
