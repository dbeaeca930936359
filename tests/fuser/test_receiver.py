"""The Receiver: its own tokens where nothing is fused, the same tokens as transformers, in any batch."""

import dataclasses
from pathlib import Path

import pytest
import torch

from fuser.bundle.bundle import Bundle
from fuser.heads.translate import TranslateConfig
from fuser.kv.generate import Outcome
from fuser.models.load import load_model
from fuser.prompts.prompt import reply_ids
from fuser.receiver import Prefilled, Receiver
from fuser.sharer import Sharer
from fuser.slice_specs import SliceLayout
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.chaos.in_one_process import answer_in_one_process, cache_of

QUESTIONS = ["Who keeps the key?", "何时开门？", "What is 12 + 345? 👩‍🔬", "x", "Is f <| x, or <|im_end|>\n?"]


def asked(text: str) -> tuple[Section, ...]:
    return (
        Section(Role.DOCUMENT, Visibility.CLOUD, document_id="note"),
        Section(Role.QUESTION, Visibility.SHARED, text=text),
    )


@pytest.fixture(scope="module")
def plain(tiny_bundle: Path, tiny_receiver: Path) -> Receiver:
    """A Receiver whose bundle has no learnt prefix."""
    bundle = Bundle.load(tiny_bundle)
    config = dataclasses.replace(bundle.config, translate=TranslateConfig(code_dim=24))
    return Receiver(*load_model(tiny_receiver), Bundle(config, bundle.fuse, config.new_translate()))


@pytest.fixture(scope="module")
def receiver(tiny_bundle: Path, tiny_receiver: Path) -> Receiver:
    return Receiver(*load_model(tiny_receiver), Bundle.load(tiny_bundle))


def own_tokens(receiver: Receiver, text: str, count: int) -> list[int]:
    """Greedy tokens of transformers' own `generate` on the prompt that the Receiver renders."""
    ids = receiver.begin(asked(text)).prompts[0].tokens.ids
    out = receiver.model.generate(ids[None], max_new_tokens=count, do_sample=False, pad_token_id=0)
    return [token for token in out[0, len(ids) :].tolist() if token not in receiver.stops]


@pytest.mark.parametrize("text", QUESTIONS)
def test_the_receiver_alone_gives_the_tokens_of_transformers_greedy_generate(
    plain: Receiver, text: str
) -> None:
    prefilled = plain.begin(asked(text)).prefill(None)
    list(prefilled.generate(24))
    assert prefilled.tokens == own_tokens(plain, text, 24)


@pytest.mark.parametrize("text", QUESTIONS)
def test_closed_gates_send_nothing_and_leave_the_receivers_own_tokens(
    plain: Receiver, tiny_sharer: Path, text: str
) -> None:
    closed = Bundle(plain.bundle.config, plain.bundle.config.new_fuse(), plain.bundle.translate)
    closed.require_fuse().get_parameter("gate_logit").data.fill_(-1.0)
    receiver = Receiver(plain.model, plain.tokenizer, closed)
    sharer = Sharer(*load_model(tiny_sharer), closed)
    local = answer_in_one_process(
        sharer, receiver, asked(text), {"note": "It is red."}, SliceKind.SHARED, 12, 24
    )
    assert local.segments == []
    assert local.prefilled.tokens == own_tokens(plain, text, 24)


def test_pieces_join_to_the_decoded_tokens(plain: Receiver) -> None:
    prefilled = plain.begin(asked("图书馆 🌧️")).prefill(None)
    text = "".join(prefilled.generate(40))
    assert text == plain.tokenizer.decode(prefilled.tokens, skip_special_tokens=True)


@pytest.mark.parametrize("kind", [SliceKind.EXCERPT, None])
def test_what_stands_before_a_slice_is_run_once_and_changes_no_bit(
    tiny_bundle: Path, tiny_receiver: Path, kind: SliceKind | None
) -> None:
    receiver = Receiver(*load_model(tiny_receiver), Bundle.load(tiny_bundle))
    ran: list[int] = []
    receiver.model.get_input_embeddings().register_forward_hook(
        lambda _, ids, __: ran.append(ids[0].shape[1])
    )
    caches = []
    for text in QUESTIONS:
        prefilled = receiver.begin(asked(text)).prefill(kind)
        caches.append(cache_of(prefilled))
        assert list(prefilled.generate(5))  # what is written behind it is nobody else's
    assert len(ran) == 1 + 5 * len(QUESTIONS)
    for keys, values in caches[1:]:
        assert all(torch.equal(a, b) for a, b in zip(keys + values, caches[0][0] + caches[0][1], strict=True))


NOTES = Section(Role.DOCUMENT, Visibility.EDGE, text="The key hangs behind the clock.")


def test_how_likely_each_of_some_replies_is_leaves_the_row_as_it_was(
    tiny_bundle: Path, tiny_receiver: Path
) -> None:
    receiver = Receiver(*load_model(tiny_receiver), Bundle.load(tiny_bundle))
    replies = ["seven", "on the table", "in a tower of the old harbour"]

    def begun() -> Prefilled:
        return receiver.begin(asked(QUESTIONS[0])).prefill(SliceKind.EXCERPT)

    row = begun()
    found = row.likelihoods(replies)
    end = int(receiver.tokenizer.eos_token_id)
    for reply, likelihood in zip(replies, found, strict=True):
        ids = reply_ids(receiver.tokenizer, row.prompts[0].rendered, reply, end)
        assert likelihood == pytest.approx(float(begun().loss([ids]).loss.neg().exp()), rel=1e-4)
    assert row.answers(8).tokens == begun().answers(8).tokens


@pytest.mark.parametrize("kind", [SliceKind.EXCERPT, SliceKind.SHARED, None])
def test_prompts_of_any_lengths_together_give_what_each_gives_alone(
    tiny_bundle: Path, tiny_receiver: Path, kind: SliceKind | None
) -> None:
    """Rows begin apart too: notes of the edge stand before some documents."""
    receiver = Receiver(*load_model(tiny_receiver), Bundle.load(tiny_bundle))
    question = Section(Role.QUESTION, Visibility.EDGE, text="Well?")
    prompts = [
        (*((question,) if number % 2 else ()), *asked(text), *((NOTES,) if number == 2 else ()))
        for number, text in enumerate(QUESTIONS)
    ]
    generator = torch.Generator().manual_seed(4)
    flat = torch.randn(len(prompts), 3, receiver.geometry.width, generator=generator, requires_grad=True)
    replies = [torch.randint(5, 90, (count,), generator=generator) for count in (1, 4, 2, 7, 3)]

    def begun(rows: list[int]) -> Prefilled:
        prefilled = receiver.begin(*(prompts[row] for row in rows)).prefill(kind)
        if kind is not SliceKind.SHARED:
            prefilled.put(flat[rows])
        return prefilled

    def learnt(outcome: Outcome) -> torch.Tensor:
        if kind is SliceKind.SHARED:
            return torch.zeros(0)
        return torch.autograd.grad(outcome.loss, flat)[0]

    every = list(range(len(prompts)))
    together = begun(every)
    lengths = together.past.lengths.tolist()
    assert lengths == [begun([row]).past.slots for row in every] and len(set(lengths)) > 1
    alone = [begun([row]).answers(12).tokens[0] for row in every]
    assert together.copy().answers(12).tokens == alone
    outcome, singles = together.loss(replies), [begun([row]).loss([replies[row]]) for row in every]
    mean = torch.stack([one.loss for one in singles]).mean()
    torch.testing.assert_close(outcome.loss, mean, atol=1e-5, rtol=1e-5)
    assert outcome.exact.tolist() == [bool(one.exact) for one in singles]
    torch.testing.assert_close(
        learnt(outcome) * len(every), sum(map(learnt, singles), torch.zeros(())), atol=1e-5, rtol=1e-4
    )


def test_a_slice_is_whole_before_it_is_used(receiver: Receiver, tiny_sharer: Path) -> None:
    sharer = Sharer(*load_model(tiny_sharer), receiver.bundle)
    asks = (sharer, receiver, asked("Who keeps the key?"), {"note": "It is red."})
    local = answer_in_one_process(*asks, SliceKind.SHARED, 12, 4)
    first, second, *_ = local.segments
    spans = tuple((1, start, end) for _, start, end in local.cut.spans)
    layout = SliceLayout(SliceKind.SHARED, local.cut.specs, spans, local.cut.tail)
    intake = receiver.begin(asked("Who keeps the key?")).prefill(SliceKind.SHARED).take(layout)
    with pytest.raises(ValueError, match="prefilled for None take no slice of kind shared"):
        receiver.begin(asked("Who keeps the key?")).prefill(None).take(layout)
    intake.add(first)
    with pytest.raises(ValueError, match="segment 0 is not due"):
        intake.add(first)
    with pytest.raises(ValueError, match=f"{len(local.segments) - 1} segments"):
        intake.done()
    for segment in (second, *local.segments[2:]):
        intake.add(segment)
    assert "".join(intake.done().generate(4)) == local.text


def test_notes_of_the_edge_are_not_kept(plain: Receiver) -> None:
    before = plain.prefix_cache.bytes
    prefilled = plain.begin((NOTES, *asked("Who keeps the key?"))).prefill(None)
    assert prefilled.past.slots > 0
    assert plain.prefix_cache.bytes == before
