"""Every step of the Receiver makes its tensors where the model is, whatever torch would choose by itself.

On the device `meta` nothing can be computed with a tensor that is on the model's: one made there by accident fails.
"""

from pathlib import Path

import pytest
import torch

from fuser.bundle.bundle import Bundle
from fuser.kv.generate import Outcome
from fuser.models.load import load_model
from fuser.prompts.prompt import withheld
from fuser.receiver import Receiver
from kvwire.codec import CodecRegistry, roundtrip
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SegmentKind, SegmentSpec, SliceKind
from tests.greedy import greedy

QUESTIONS = ("Who keeps the key?", "何时开门？", "What is 12 + 345? 👩‍🔬")
ELSEWHERE = torch.device("meta")


@pytest.fixture(scope="module")
def receiver(tiny_bundle: Path, tiny_receiver: Path) -> Receiver:
    return Receiver(*load_model(tiny_receiver), Bundle.load(tiny_bundle))


def shared(text: str) -> tuple[Section, ...]:
    return (Section(Role.QUESTION, Visibility.SHARED, text=text),)


@pytest.mark.parametrize("kind", [SliceKind.EXCERPT, SliceKind.SHARED])
def test_a_batch_is_answered_and_scored_where_the_model_is(receiver: Receiver, kind: SliceKind) -> None:
    prompts = [withheld(q) if kind is SliceKind.EXCERPT else shared(q) for q in QUESTIONS]
    flat = torch.randn(3, 4, receiver.geometry.width, generator=torch.Generator().manual_seed(1))

    def run() -> tuple[list[list[int]], Outcome]:
        prefilled = receiver.begin(*prompts).prefill(kind)
        if kind is SliceKind.EXCERPT:
            prefilled.put(flat)
        tokens = prefilled.copy().answers(6).tokens
        return tokens, prefilled.loss([flat.new_tensor([7, 8, 9], dtype=torch.int64)] * 3)

    expected, outcome = run()
    with ELSEWHERE:
        found, again = run()
    assert found == expected
    assert torch.equal(again.loss, outcome.loss) and torch.equal(again.exact, outcome.exact)


def test_text_is_generated_where_the_model_is(receiver: Receiver) -> None:
    ids = receiver.begin(shared(QUESTIONS[0])).prompts[0].tokens.ids
    expected = greedy(receiver.model, receiver.tokenizer, ids, max_new_tokens=5)
    with ELSEWHERE:
        assert greedy(receiver.model, receiver.tokenizer, ids, max_new_tokens=5) == expected


@pytest.mark.parametrize("name", CodecRegistry().names())
def test_codes_arrive_where_they_left(name: str) -> None:
    codes = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(1))
    spec, codec = SegmentSpec(0, SegmentKind.CODE, -1, (5, 64), "float32"), CodecRegistry().get(name)
    expected, sizes = roundtrip(codec, codes, spec)
    with ELSEWHERE:
        arrived, again = roundtrip(codec, codes, spec)
    assert again == sizes and torch.equal(arrived, expected)
