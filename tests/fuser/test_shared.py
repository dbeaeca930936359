"""The last positions of the shared part, and which of the other side's they reach."""

import pytest
import torch

from fuser.prompts.shared import SharedPositions

SPANS = torch.tensor([[0, 0, 3], [0, 3, 4], [2, 0, 5], [2, 5, 6]])
WHOLE = SharedPositions(torch.arange(10, 17), SPANS, 3)


def test_positions_are_left_out_from_the_front() -> None:
    for count in range(1, 8):
        last = WHOLE.last(count)
        assert last.at.tolist() == list(range(17 - count, 17))
        assert len(last.spans) + last.tail == count
        assert last.tail == min(3, count)
        assert torch.equal(last.spans, SPANS[len(SPANS) - len(last.spans) :])
    assert WHOLE.last(0) is WHOLE and WHOLE.last(99) is WHOLE


def test_the_same_positions_are_reached_on_a_side_that_reads_the_same_tokens() -> None:
    for count in range(1, 8):
        last = WHOLE.last(count)
        reached = WHOLE.reached(last.spans, last.tail)
        assert reached.tolist() == [False] * (7 - count) + [True] * count


def test_a_token_is_reached_from_the_first_character_that_was_sent() -> None:
    sent = torch.tensor([[1, 4, 6], [1, 6, 9]])
    mine = torch.tensor([[0, 0, 99], [1, 0, 4], [1, 2, 5], [1, 4, 4], [1, 6, 7], [2, 0, 1]])
    reached = SharedPositions(torch.arange(8), mine, 2).reached(sent, 1)
    assert reached.tolist() == [False, False, True, True, True, True, True, True]


def test_without_a_span_only_the_template_counts_from_the_end() -> None:
    none = torch.zeros(0, 3, dtype=torch.int64)
    assert WHOLE.reached(none, 2).tolist() == [False] * 5 + [True] * 2
    assert WHOLE.reached(none, 9).tolist() == [False] * 4 + [True] * 3


@pytest.mark.parametrize("spanned", [0, 3])
@pytest.mark.parametrize("mine", [0, 1, 2, 5])
@pytest.mark.parametrize("theirs", [0, 1, 2, 3, 7])
def test_what_is_left_out_is_never_read(spanned: int, mine: int, theirs: int) -> None:
    spans = torch.tensor([[0, i, i + 1] for i in range(spanned)], dtype=torch.int64).reshape(-1, 3)
    receiver = SharedPositions(torch.arange(spanned + mine), spans, mine)
    sharer = SharedPositions(torch.arange(spanned + theirs), spans, theirs)
    fused, sent = receiver.fused(spanned + mine), sharer.sent()
    if not len(sharer.at) or not len(receiver.at):
        assert not len(fused.at) or not len(sent.at)
        return
    assert fused.at.tolist() == list(range(spanned + mine - 1))
    whole = receiver.sources(sharer.spans, sharer.tail)[:-1]
    assert sent.at[fused.sources(sent.spans, sent.tail)].tolist() == sharer.at[whole].tolist()
    if theirs > 1:  # only the prompt's last token would have read it
        assert len(sent.at) == len(sharer.at) - 1
        assert spanned + theirs - 1 not in sharer.at[whole].tolist()


def test_a_prompt_that_ends_in_something_else_is_fused_to_its_end() -> None:
    shared = SharedPositions(torch.arange(4), torch.tensor([[0, i, i + 1] for i in range(4)]), 0)
    assert shared.fused(9) is shared
