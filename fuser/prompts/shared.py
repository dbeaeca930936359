"""Where the shared sections lie in a prompt: the positions that are cut on one side and fused on the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fuser.prompts.alignment import align_positions
from fuser.prompts.prompt import positions_within, tail_positions
from kvwire.errors import InvalidRequest
from kvwire.section import Section, Visibility


@dataclass(frozen=True, slots=True)
class SharedPositions:
    """The shared part of one side's prompt.

    at: (spanned + tail,) int64, positions in the prompt: those within shared sections, then the template at the
    prompt's end, after whatever section stands last. spans: (spanned, 3) int64: section, and the characters within its
    text that each position read.
    tail: template positions.
    """

    at: Tensor
    spans: Tensor
    tail: int

    def sent(self) -> SharedPositions:
        """The Sharer's, as far as they are ever read: tails meet from the end, and what the prompt's last token would
        meet is never fused. A tail of one stays: it stands for every template position of the other side."""
        return self if self.tail < 2 else SharedPositions(self.at[:-1], self.spans, self.tail - 1)

    def fused(self, length: int) -> SharedPositions:
        """The Receiver's, in a prompt of `length` tokens, without the last one: it runs on top of the fused cache."""
        if not len(self.at) or int(self.at[-1]) < length - 1:
            return self
        spans = self.spans if self.tail else self.spans[:-1]
        return SharedPositions(self.at[:-1], spans, max(0, self.tail - 1))

    def last(self, count: int) -> SharedPositions:
        """The last `count` positions alone; 0 leaves all."""
        if not 0 < count < len(self.at):
            return self
        tail = min(self.tail, count)
        spanned = count - tail
        return SharedPositions(self.at[-count:], self.spans[len(self.spans) - spanned :], tail)

    def reached(self, spans: Tensor, tail: int) -> Tensor:
        """Which of our positions the other side's last ones read too, (spanned + tail,) bool.

        Args:
            spans, tail: of the other side's last positions, as `last` leaves them; template positions are all there
                where any span is.
        """
        mine, end = self.spans, torch.arange(self.tail, device=self.spans.device)
        if not len(spans):
            return torch.cat((mine.new_zeros(len(mine), dtype=torch.bool), end >= self.tail - tail))
        section, start = spans[0, :2].tolist()
        within = (mine[:, 0] == section) & ((mine[:, 1] >= start) | (mine[:, 2] > start))
        return torch.cat(((mine[:, 0] > section) | within, end >= 0))

    def fed(self, spans: Tensor, tail: int, partial: bool) -> tuple[Tensor, Tensor]:
        """Our positions that a slice feeds, and for each the index among the slice's that feeds it, both int64.

        partial: the slice has the last positions alone, so ours that did not read those are left out.
        """
        at, source = self.at, self.sources(spans, tail)
        if partial:
            kept = self.reached(spans, tail)
            at, source = at[kept], source[kept]
        return at, source

    def sources(self, spans: Tensor, tail: int) -> Tensor:
        """For each of our positions the index among the other side's that read the same, (spanned + tail,) int64.

        Raises:
            ValueError: spans of a wrong shape, or none at all to align to.
        """
        return align_positions(self.spans, self.tail, spans, tail)


def shared_positions(
    offsets: Tensor, sections: Sequence[Section], spans: Sequence[tuple[int, int] | None]
) -> SharedPositions:
    """Find the shared part of a prompt.

    Args:
        offsets: (positions, 2) int64, characters of the prompt's tokens.
        sections: as they were rendered; spans: where each lies in the prompt, None where this side does not hold it.

    Raises:
        InvalidRequest: no section is shared.
    """
    at: list[Tensor] = []
    named: list[Tensor] = []
    last_end = -1
    for index, (section, span) in enumerate(zip(sections, spans, strict=True)):
        if section.visibility is not Visibility.SHARED or span is None:
            continue
        found = positions_within(offsets, span)
        within = (offsets[found] - span[0]).clamp(0, span[1] - span[0])
        at.append(found)
        named.append(torch.cat((found.new_full((len(found), 1), index), within), dim=1))
        last_end = span[1]
    if last_end < 0:
        raise InvalidRequest("a shared slice needs a shared section")
    spanned = torch.cat(at)
    tail = tail_positions(offsets, spanned, last_end)
    others = max(span[1] for span in spans if span is not None)
    if others > last_end:  # what one side alone holds is no template
        tail = tail[offsets[tail, 0] >= others]
    return SharedPositions(torch.cat((spanned, tail)), torch.cat(named), len(tail))
