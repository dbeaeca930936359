"""What the Sharer has read of a prompt, and what of it a slice is cut from: its header and positions, before they are
computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.heads.translate import features_of
from fuser.kv.rope import Rope
from fuser.prompts.prompt import SHARER_HOLDS, PromptStyle, Tokens, positions_within, render, tokenise
from fuser.prompts.shared import SharedPositions, shared_positions
from fuser.slice_specs import SliceLayout, most_positions, most_quoted, most_written, slice_specs
from kvwire.errors import InvalidRequest
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import UNTOLD, Certainty, SegmentSpec, SliceKind


@dataclass(frozen=True, slots=True)
class SharerPrompt:
    """A prompt as the Sharer reads it. Positions are indices of its tokens, int64.

    sections: with their texts. spans: for each section the characters of its body in the prompt, None where the Sharer
    does not hold it. document: positions within cloud documents, ascending. prefix: how many positions, up to the last
    document's end, are read for themselves: what they hold does not depend on what comes after. 0 where there is no
    document.
    """

    sections: tuple[Section, ...]
    tokens: Tokens
    spans: tuple[tuple[int, int] | None, ...]
    document: Tensor
    prefix: int

    @property
    def shared(self) -> SharedPositions:
        """Where the shared sections lie.

        Raises:
            InvalidRequest: no section is shared.
        """
        return shared_positions(self.tokens.offsets, self.sections, self.spans)

    def __len__(self) -> int:
        return len(self.tokens.ids)


def prompt_of(tokenizer: Any, style: PromptStyle, sections: Sequence[Section]) -> SharerPrompt:
    """Render and tokenise what the Sharer holds of some sections; documents already resolved."""
    rendered = render(sections, style, SHARER_HOLDS)
    tokens = tokenise(tokenizer, rendered)
    held = [
        positions_within(tokens.offsets, span)
        for section, span in zip(sections, rendered.spans, strict=True)
        if section.visibility is Visibility.CLOUD and section.role is Role.DOCUMENT and span is not None
    ]
    document = torch.cat(held).unique() if held else torch.zeros(0, dtype=torch.int64, device="cpu")
    # At least the last token comes after it: it chooses the excerpt.
    prefix = min(int(document[-1]) + 1, len(tokens.ids) - 1) if len(document) else 0
    return SharerPrompt(tuple(sections), tokens, rendered.spans, document, prefix)


@dataclass(frozen=True, slots=True)
class Reading:
    """What the Sharer read of one prompt.

    at: positions that were kept, ascending int64; those of a draft come last, after all of the prompt's. kv: by layer,
    K and V at those, each (kv_heads, positions, head_dim), keys rotated. scores: (prompt positions,) float32 by which
    an excerpt is chosen, (layers read * heads, prompt positions) where attention heads were kept apart, None where
    nothing asked. rope: of the Sharer. draft: tokens of its short answer, none where it was to write none. likely: the
    log-probability of each of these. answerable: log-odds that the documents hold the answer; None where nothing tells.
    """

    prompt: SharerPrompt
    at: Tensor
    kv: Mapping[int, tuple[Tensor, Tensor]]
    scores: Tensor | None
    rope: Rope
    draft: tuple[int, ...] = ()
    likely: tuple[float, ...] = ()
    answerable: float | None = None

    @property
    def certainty(self) -> Certainty:
        """How sure the Sharer is of its answer."""
        return Certainty(min(self.likely, default=None), self.answerable)

    @property
    def drafted(self) -> Tensor:
        """Positions of the draft, int64."""
        return torch.arange(len(self.draft), device=self.at.device) + len(self.prompt)

    def among(self, at: Tensor) -> Tensor:
        """Indices of positions among those kept, int64.

        Raises:
            ValueError: some were not kept.
        """
        at = at.to(self.at.device)
        found = torch.searchsorted(self.at, at)
        inside = found.clamp(max=max(0, len(self.at) - 1))
        if len(at) and not (len(self.at) and torch.equal(self.at[inside], at)):
            raise ValueError("K and V of these positions were not kept")
        return found

    def features(self, layers: Sequence[int], among: Tensor | None = None) -> Tensor:
        """Keys, re-based, and values of some layers at kept positions: (positions, layers * 2 * layer width).

        Args:
            among: indices of those positions among the kept ones; all of them by default.
        """
        picked = slice(None) if among is None else among
        at, kept = self.at[picked], [self.kv[layer] for layer in layers]
        bare = [
            self.rope.unrotate(keys[:, picked], at, layer)
            for layer, (keys, _) in zip(layers, kept, strict=True)
        ]
        return features_of(torch.stack(bare), torch.stack([values[:, picked] for _, values in kept]))


@dataclass(frozen=True, slots=True)
class Cut:
    """A slice before it is computed.

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
