"""Token-by-token re-encoding keeps the length and follows the public code's two strategies."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from fuser.lab.c2c.reencode import Reencoder, Strategy
from tests.fuser.byte_level import ascii_tokenizer, unicode_tokenizer


def receiver(**special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=unicode_tokenizer(), **special)


def sharer(**special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=ascii_tokenizer(), **special)


@given(st.text(max_size=20), st.sampled_from(["first", "longest"]))
@settings(max_examples=50, database=None)
def test_every_receiver_token_becomes_one_sharer_token(text: str, strategy: Strategy) -> None:
    mine, theirs = receiver(), sharer()
    ids = mine.encode(text, add_special_tokens=False)
    out = Reencoder(mine, theirs, strategy)(ids)
    assert len(out) == len(ids)
    assert all(0 <= one < len(theirs) for one in out)


def test_a_shared_token_is_kept() -> None:
    ids = receiver().encode("in", add_special_tokens=False)
    assert Reencoder(receiver(), sharer(), "first")(ids) == sharer().encode("in", add_special_tokens=False)


def test_of_several_tokens_the_first_or_the_longest_is_taken() -> None:
    mine, theirs = sharer(), receiver()  # " coffee" is one token here
    (token,) = mine.encode(" coffee", add_special_tokens=False)
    pieces = theirs.encode(" coffee", add_special_tokens=False)
    lengths = [len(theirs.decode([piece])) for piece in pieces]
    assert len(pieces) > 1
    assert Reencoder(mine, theirs, "first")([token]) == [pieces[0]]
    assert Reencoder(mine, theirs, "longest")([token]) == [pieces[lengths.index(max(lengths))]]


def test_a_special_token_goes_by_role_then_by_spelling_then_to_unknown() -> None:
    mine = receiver(eos_token="<end>", bos_token="<go>", additional_special_tokens=["<tool>", "<odd>"])
    theirs = sharer(eos_token="</s>", unk_token="<unk>", additional_special_tokens=["<tool>"])
    ids = mine.convert_tokens_to_ids(["<end>", "<tool>", "<odd>"])
    expected = theirs.convert_tokens_to_ids(["</s>", "<tool>", "<unk>"])
    assert Reencoder(mine, theirs, "first")(ids) == expected


def test_without_an_unknown_token_it_is_0() -> None:
    mine = receiver(additional_special_tokens=["<odd>"])
    assert Reencoder(mine, sharer(), "first")([mine.convert_tokens_to_ids("<odd>")]) == [0]


def test_another_strategy_is_refused() -> None:
    with pytest.raises(ValueError, match="prefix"):
        Reencoder(receiver(), sharer(), "prefix")  # type: ignore[arg-type]
