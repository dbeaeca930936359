"""Alignment by characters: whatever the text and the tokenizers, matched tokens read the same characters."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fuser.prompts.shared import align, align_positions, align_tail, read_as
from tests.fuser.byte_level import ascii_tokenizer, bytes_tokenizer, trimming_tokenizer, unicode_tokenizer

TOKENIZERS = {
    "ascii": ascii_tokenizer,
    "bytes": bytes_tokenizer,
    "trimming": trimming_tokenizer,
    "unicode": unicode_tokenizer,
}
NAMES = st.sampled_from(sorted(TOKENIZERS))
PIECES = st.one_of(
    st.sampled_from(
        [
            "the ",
            " quick",
            "😀",
            "👩‍👩‍👧",
            "🇫🇷",
            "中文字符",
            "한글",
            "e\u0301\u0327",
            "q\u0301",
            "\u0301",
            "\u200b",
            "  ",
            "\r\n",
            "\t",
        ]
    ),
    st.text(max_size=6),
)
TEXTS = st.lists(PIECES, max_size=12).map("".join)
SPANS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4)), max_size=12)


def spans_of(tokenizer: str, text: str) -> Tensor:
    return torch.tensor(TOKENIZERS[tokenizer]().encode(text).offsets, dtype=torch.int64).reshape(-1, 2)


def tensor(*spans: tuple[int, ...]) -> Tensor:
    return torch.tensor(spans, dtype=torch.int64).reshape(len(spans), -1 if spans else 2)


def overlap(one: list[int], other: list[int]) -> int:
    return min(one[1], other[1]) - max(one[0], other[0])


@given(TEXTS, NAMES, NAMES)
@example("a 😀👩‍👩‍👧 x", "ascii", "unicode")
@example("  中文 e\u0301\u0327  ", "trimming", "unicode")
@settings(max_examples=150, database=None)
def test_every_receiver_token_is_matched_to_the_sharer_token_that_overlaps_it_most(
    text: str, receiver: str, sharer: str
) -> None:
    mine, theirs = spans_of(receiver, text), spans_of(sharer, text)
    if len(theirs) == 0 or torch.equal(mine, theirs):
        return
    matched = align(mine, theirs)
    assert matched.shape == (len(mine),)
    for span, index in zip(mine.tolist(), matched.tolist(), strict=True):
        overlaps = [overlap(span, other) for other in theirs.tolist()]
        if span[0] < span[1] and max(overlaps) > 0:
            best = [i for i, shared in enumerate(overlaps) if shared == max(overlaps)]
            shortest = min(end - start for start, end in theirs[best].tolist())
            assert index == [i for i in best if theirs[i, 1] - theirs[i, 0] == shortest][-1]


@given(TEXTS)
@settings(max_examples=60, database=None)
def test_two_tokenizers_that_keep_every_character_always_overlap(text: str) -> None:
    coarse, fine = spans_of("ascii", text), spans_of("bytes", text)
    for mine, theirs in ((coarse, fine), (fine, coarse)):
        for span, index in zip(mine.tolist(), align(mine, theirs).tolist() if len(mine) else [], strict=True):
            assert overlap(span, theirs[index].tolist()) > 0


@given(TEXTS, NAMES)
@settings(max_examples=60, database=None)
def test_a_tokenizer_aligned_with_itself_keeps_every_token(text: str, tokenizer: str) -> None:
    spans = spans_of(tokenizer, text)
    assert torch.equal(align(spans, spans.clone()), torch.arange(len(spans)))


@given(SPANS, SPANS.filter(len))
@settings(max_examples=200, database=None)
def test_spans_in_any_order_and_of_any_width_are_aligned(
    receiver: list[tuple[int, int]], sharer: list[tuple[int, int]]
) -> None:
    mine = tensor(*((start, start + width) for start, width in receiver))
    theirs = tensor(*((start, start + width) for start, width in sharer))
    for span, index in zip(mine.tolist(), align(mine, theirs).tolist(), strict=True):
        overlaps = [overlap(span, other) for other in theirs.tolist()]
        assert 0 <= index < len(theirs)
        if (span[0] < span[1] and max(overlaps) > 0) or span[0] < span[1]:
            assert overlaps[index] == max(overlaps)


def test_byte_pieces_of_one_character_go_to_the_piece_that_completes_it() -> None:
    pieces_of_three, pieces_of_two = tensor((0, 1), (0, 1), (0, 1), (1, 2)), tensor((0, 1), (0, 1), (1, 2))
    assert align(pieces_of_three, pieces_of_two).tolist() == [1, 1, 1, 2]


def test_a_blank_trimmed_to_zero_width_is_matched_to_the_blank() -> None:
    assert align(tensor((0, 1), (2, 2), (2, 3)), tensor((0, 1), (1, 2), (2, 3))).tolist() == [0, 1, 2]
    assert align(tensor((0, 1), (2, 2), (2, 3)), tensor((0, 1), (2, 2), (2, 3))).tolist() == [0, 1, 2]


def test_a_gap_goes_to_the_nearest_token_and_the_later_on_a_tie() -> None:
    assert align(tensor((3, 4), (4, 5), (5, 6)), tensor((0, 3), (7, 9))).tolist() == [0, 0, 1]
    assert align(
        tensor(
            (4, 6),
        ),
        tensor((0, 3), (7, 9)),
    ).tolist() == [1]


def test_sections_are_never_mixed() -> None:
    receiver = tensor((0, 5, 9), (1, 0, 2), (1, 2, 2), (3, 0, 4))
    sharer = tensor((0, 0, 1), (1, 30, 31), (3, 0, 1), (3, 1, 4))
    assert align(receiver, sharer).tolist() == [0, 1, 1, 3]


def test_no_receiver_tokens_give_an_empty_index() -> None:
    assert align(tensor(), tensor((0, 1))).tolist() == []


@pytest.mark.parametrize(
    ("receiver", "sharer"),
    [
        (tensor((0, 1)), tensor()),
        (tensor((2, 1)), tensor((0, 1))),
        (tensor((0, 1)), tensor((-1, 1))),
        (tensor((0, 1)), tensor((0, 0, 1))),
        (tensor((0, 1)), tensor((0, 1 << 40))),
        (tensor((0, 1)).float(), tensor((0, 1))),
        (torch.zeros(3, dtype=torch.int64), tensor((0, 1))),
    ],
)
def test_spans_that_make_no_sense_are_refused(receiver: Tensor, sharer: Tensor) -> None:
    with pytest.raises(ValueError, match=r"span|token|column"):
        align(receiver, sharer)


def test_template_tails_meet_at_the_end() -> None:
    assert align_tail(3, 3, 10).tolist() == [10, 11, 12]
    assert align_tail(2, 4, 10).tolist() == [12, 13]


def test_a_longer_receiver_tail_repeats_the_first_sharer_tail_token() -> None:
    assert align_tail(4, 2, 10).tolist() == [10, 10, 10, 11]


def test_without_a_sharer_tail_the_last_spanned_token_stands_for_it() -> None:
    assert align_tail(2, 0, 10).tolist() == [9, 9]


def test_spans_and_tail_make_one_index() -> None:
    index = align_positions(tensor((0, 2), (2, 3)), 2, tensor((0, 1), (1, 2), (2, 3)), 1)
    assert index.tolist() == [1, 2, 3, 3]
    assert align_positions(tensor((0, 1)), 1, tensor(), 2).tolist() == [0, 1]
    with pytest.raises(ValueError, match="no Sharer token"):
        align_positions(tensor((0, 1)), 0, tensor(), 0)


def test_two_thousand_positions_need_no_loop() -> None:
    count = 2000
    start = torch.arange(count)
    spans = torch.stack([start, start + 1], 1)
    assert torch.equal(align(spans, spans), start)


def test_a_sharer_token_is_read_as_the_receiver_tokens_at_its_ends() -> None:
    sharer = torch.tensor([[0, 2], [2, 9], [9, 9], [9, 12], [14, 20]])
    receiver = torch.tensor([[0, 2], [2, 4], [4, 6], [6, 9], [9, 14], [14, 18], [18, 20]])
    assert read_as(sharer, receiver, 1).tolist() == [[0], [3], [3], [4], [5]]
    assert read_as(sharer, receiver, 2).tolist() == [[0, 0], [1, 3], [3, 3], [4, 4], [5, 6]]
