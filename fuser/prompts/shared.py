"""Where the shared sections lie in a prompt: the positions that are cut on one side and fused on the other.

Both models read their own natural tokens of the same text; spans of characters say which tokens belong together
(docs/design.md, "The life of an answer"). Alignment is vectorised and works for any spans: several byte-level tokens
may share the span of one character, spans may be of zero width, leave gaps or come out of order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

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


_LARGEST = 1 << 30  # of a character or section number, so that sections laid end to end fit into int64


def align(receiver_spans: Tensor, sharer_spans: Tensor) -> Tensor:
    """Index of the Sharer token for each Receiver token, (receiver tokens,) int64.

    The Sharer token whose span overlaps most is taken; on a tie the one that reaches least beyond, then the
    later one: of the byte pieces of one character the last has read the whole of it. Where both read the very same
    tokens, each gets its own twin, byte pieces too. A Receiver token of zero
    width gets a Sharer token of zero width at the same character, or else counts as the character before it.
    Where nothing overlaps (a gap in the Sharer's spans), the nearest one is taken, the later on a tie.

    Args:
        receiver_spans: (tokens, 2) start and end characters, or (tokens, 3) with the section first; int64.
        sharer_spans: the same for the Sharer, same number of columns.

    Raises:
        ValueError: spans of a wrong shape, negative or backwards, or no Sharer token to align to.
    """
    receiver, sharer = _on_one_line(receiver_spans, sharer_spans)
    if receiver.shape[0] == 0:
        return torch.empty(0, dtype=torch.int64, device=receiver.device)
    if sharer.shape[0] == 0:
        raise ValueError(f"{receiver.shape[0]} Receiver tokens and no Sharer token to align them to")
    if torch.equal(receiver, sharer):
        return torch.arange(len(receiver), device=receiver.device)

    # Stable order by (start, end): the original order wherever a tokenizer's spans already ascend.
    order = torch.argsort(sharer[:, 1], stable=True)
    order = order[torch.argsort(sharer[order, 0], stable=True)]
    starts, ends = sharer[order].unbind(1)
    starts, ends = starts.contiguous(), ends.contiguous()
    reach, reaching = torch.cummax(ends, dim=0)  # the furthest end so far, and whose it is

    # A tokenizer that trims its offsets leaves a blank with zero width at its end: read the character before.
    point = receiver[:, 1].contiguous()
    narrow = receiver[:, 0] == point
    begin = torch.where(narrow, point - 1, receiver[:, 0])
    first = torch.searchsorted(reach, begin, right=True)  # ends after our start
    last = torch.searchsorted(starts, point) - 1  # starts before our end
    overlaps, best = _largest_overlap(torch.stack([begin, point], 1), starts, ends, first, last)

    before, after = last.clamp(min=0), (last + 1).clamp(max=len(order) - 1)
    distance_before = (begin - reach[before]).clamp(min=0)
    distance_after = (starts[after] - point).clamp(min=0)
    take_after = (last < 0) | ((distance_after <= distance_before) & (last + 1 < len(order)))
    chosen = torch.where(overlaps, best, torch.where(take_after, after, reaching[before]))

    # Unless the Sharer's offsets are trimmed too: zero width at the same character is the same blank.
    marks = 2 * starts + (ends > starts).long()  # ascends, zero width first
    twin = torch.searchsorted(marks, 2 * point, right=True) - 1
    same = narrow & (twin >= 0) & (marks[twin.clamp(min=0)] == 2 * point)
    return order[torch.where(same, twin, chosen)]


def read_as(sharer_spans: Tensor, receiver_spans: Tensor, receiver_positions: int) -> Tensor:
    """Indices of the Receiver tokens that stand for each Sharer token, (Sharer tokens, receiver_positions) int64.

    Args:
        sharer_spans, receiver_spans: (tokens, 2) characters, int64.
        receiver_positions: 1 takes the one that overlaps most; 2 those at the first and at the last character, which
            are one and the same where the Receiver has no more.
    """
    if receiver_positions == 1:
        return align(sharer_spans, receiver_spans)[:, None]
    starts, ends = sharer_spans.unbind(1)
    edges = ((starts, torch.minimum(starts + 1, ends)), (torch.maximum(ends - 1, starts), ends))
    return torch.stack([align(torch.stack(edge, 1), receiver_spans) for edge in edges], 1)


def align_tail(
    receiver_tail: int, sharer_tail: int, sharer_tokens: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Align the template tokens after the last shared section from the end, (receiver_tail,) int64.

    The last Receiver token gets the last Sharer token and so on; where the Receiver has more, the rest get
    the first Sharer tail token, or the last token before the tail if the Sharer has no tail at all.

    Args:
        receiver_tail, sharer_tail: tokens after the last shared section.
        sharer_tokens: the Sharer's tokens inside shared sections; the tail is counted on after them.
        device: of the result.
    """
    total = sharer_tokens + sharer_tail
    if receiver_tail == 0:
        return torch.empty(0, dtype=torch.int64, device=device)
    if total == 0:
        raise ValueError(f"{receiver_tail} Receiver template tokens and no Sharer token to align them to")
    lowest = sharer_tokens if sharer_tail else sharer_tokens - 1
    return torch.arange(total - receiver_tail, total, device=device).clamp(min=lowest)


def align_positions(
    receiver_spans: Tensor, receiver_tail: int, sharer_spans: Tensor, sharer_tail: int
) -> Tensor:
    """Gather index into a shared slice for all fused Receiver positions: spanned ones, then template tail.

    Shapes as in `align`; the result is (receiver spans + receiver_tail,) int64, each below sharer spans +
    sharer_tail.
    """
    if receiver_spans.shape[0] and sharer_spans.shape[0]:
        spanned = align(receiver_spans, sharer_spans)
    else:  # nothing spanned on one side: the first tail position stands for it
        if receiver_spans.shape[0] and not sharer_tail:
            raise ValueError(
                f"{receiver_spans.shape[0]} Receiver tokens and no Sharer token to align them to"
            )
        spanned = torch.zeros(receiver_spans.shape[0], dtype=torch.int64, device=receiver_spans.device)
    return torch.cat([spanned, align_tail(receiver_tail, sharer_tail, len(sharer_spans), spanned.device)])


def _largest_overlap(
    receiver: Tensor, starts: Tensor, ends: Tensor, first: Tensor, last: Tensor
) -> tuple[Tensor, Tensor]:
    """Per Receiver token, whether one of the Sharer tokens first..last overlaps it, and which is the best."""
    candidates = (last - first + 1).clamp(min=0)
    rows = torch.repeat_interleave(torch.arange(len(receiver), device=receiver.device), candidates)
    offset = torch.cumsum(candidates, 0) - candidates
    columns = first[rows] + torch.arange(len(rows), device=receiver.device) - offset[rows]
    shared = torch.minimum(receiver[rows, 1], ends[columns]) - torch.maximum(
        receiver[rows, 0], starts[columns]
    )
    score = shared.clamp(min=0) * (2 * _LARGEST) - (ends - starts)[columns]
    top = torch.full((len(receiver),), -1, dtype=torch.int64, device=receiver.device)
    top = top.scatter_reduce(0, rows, score, "amax")  # negative where nothing overlaps
    best = torch.zeros_like(top).scatter_reduce(0, rows, torch.where(score == top[rows], columns, 0), "amax")
    return top > 0, best


def _on_one_line(receiver: Tensor, sharer: Tensor) -> tuple[Tensor, Tensor]:
    """Check both and lay sections end to end, so far apart that no other section is ever nearer."""
    for name, spans in (("Receiver", receiver), ("Sharer", sharer)):
        if spans.dim() != 2 or spans.shape[1] not in (2, 3) or spans.dtype != torch.int64:
            raise ValueError(
                f"{name} spans are {tuple(spans.shape)} {spans.dtype}; expected (tokens, 2 or 3) int64"
            )
        if bool((spans < 0).any()) or bool((spans[:, -1] < spans[:, -2]).any()):
            raise ValueError(f"{name} spans must have 0 <= start <= end")
        if bool((spans > _LARGEST).any()):
            raise ValueError(f"{name} spans are too large")
    if receiver.shape[1] != sharer.shape[1]:
        raise ValueError(f"Receiver spans have {receiver.shape[1]} columns, Sharer spans {sharer.shape[1]}")
    if receiver.shape[1] == 2:
        return receiver, sharer
    longest = max((int(spans[:, 2].max()) for spans in (receiver, sharer) if len(spans)), default=0)
    stride = 2 * longest + 2
    return receiver[:, 1:] + receiver[:, :1] * stride, sharer[:, 1:] + sharer[:, :1] * stride
