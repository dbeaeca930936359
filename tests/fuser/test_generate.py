"""Generation: greedy gives the tokens of the library, whatever else is in the batch; draws follow the shares."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.kv.generate import Generated, Sampling, Signals, generate, steps, token_ids
from fuser.kv.past import Past
from fuser.kv.turns import ModelTurns
from fuser.lab.evaluate.models import Model
from fuser.models.load import load_model
from fuser.prompts.prompt import withheld
from fuser.receiver import Receiver
from kvwire.errors import Unsupported
from kvwire.segment import SliceKind

TEXTS = [
    "Who keeps the key?",
    "何时开门？",
    "What is 12 + 345? 👩‍🔬",
    "x",
    "The harbour master wrote the tide. " * 6,
]
TOKENS = 14


def prompts(model: Model) -> list[Tensor]:
    """16 prompts of 1 to about 150 tokens."""
    texts = [text * times for times in (1, 2, 4) for text in TEXTS] + ["The bridge"]
    return [model.tokenizer(text, return_tensors="pt").input_ids[0] for text in texts]


def answers(model: Any, asked: list[Tensor], stops: frozenset[int], tokens: int, **options: Any) -> Generated:
    """Answers to prompts behind nothing."""
    return generate(model, Past.empty(len(asked), model.device), asked, stops, tokens, **options)


@pytest.mark.parametrize("which", ["tiny_sharer", "tiny_receiver"])
def test_sixteen_prompts_together_give_the_tokens_of_each_alone(
    which: str, request: pytest.FixtureRequest
) -> None:
    model = Model(str(request.getfixturevalue(which)))
    asked = prompts(model)
    endless = answers(model.network, asked, frozenset(), TOKENS).tokens
    stops = frozenset(
        ids[2 * i % TOKENS] for i, ids in enumerate(endless[::3])
    )  # random models never stop else
    together = answers(model.network, asked, stops, TOKENS)
    alone = [answers(model.network, [ids], stops, TOKENS) for ids in asked]
    device = model.network.device
    greedy = [
        list(token_ids(ModelTurns(model.network), ids, Past.empty(1, device), stops, TOKENS)) for ids in asked
    ]
    assert together.tokens == [one.tokens[0] for one in alone] == greedy
    for one, other in zip(together.signals, alone, strict=True):
        assert one == pytest.approx(other.signals[0], abs=1e-4)
    assert len({len(ids) for ids in together.tokens}) > 1, (
        "all answers have one length: leaving the batch is not tested"
    )


def test_prompts_behind_given_kv_give_the_tokens_of_each_alone(
    tiny_receiver: Path, tiny_bundle: Path
) -> None:
    model = Model(str(tiny_receiver))
    receiver = Receiver(model.network, model.tokenizer, Bundle.load(tiny_bundle))
    asked = [withheld(text * times) for times in (1, 2, 4) for text in TEXTS]
    generator = torch.Generator().manual_seed(3)
    flat = torch.randn(len(asked), 5, receiver.geometry.width, generator=generator)

    def behind_it(rows: range) -> list[list[int]]:
        prefilled = receiver.begin(*(asked[row] for row in rows)).prefill(SliceKind.EXCERPT)
        prefilled.put(flat[list(rows)])
        return prefilled.answers(TOKENS).tokens

    together = behind_it(range(len(asked)))
    assert together == [behind_it(range(row, row + 1))[0] for row in range(len(asked))]


def test_an_answer_that_has_ended_leaves_the_others_as_they_are(tiny_sharer: Path) -> None:
    model = Model(str(tiny_sharer))
    asked = prompts(model)
    whole = answers(model.network, asked, frozenset(), TOKENS).tokens
    ends = {tuple(whole[i][: 1 + i % 5]) for i in range(0, 16, 2)}
    cut = answers(model.network, asked, frozenset(), TOKENS, ended=lambda ids: tuple(ids) in ends).tokens
    for long, short in zip(whole, cut, strict=True):
        assert short == long[: len(short)]
        assert len(short) == TOKENS or tuple(short) in ends
    assert sum(len(short) < TOKENS for short in cut) >= 8


def test_a_model_without_doubt_is_confident(tiny_receiver: Path) -> None:
    model = Model(str(tiny_receiver))
    said = answers(model.network, prompts(model), frozenset(), 3)
    assert all(one["least"] <= one["mean"] < 0 for one in said.signals)


LENGTHS = (2, 3, 9, 40, 17, 40, 5, 64)


@pytest.fixture(scope="module", params=["tiny_sharer", "tiny_receiver", "windowed"])
def network(request: pytest.FixtureRequest) -> Any:
    if request.param != "windowed":
        return load_model(request.getfixturevalue(request.param))[0]
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(3)
    config = MistralConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=8,
        initializer_range=0.2,
    )
    return MistralForCausalLM(config).eval()


@pytest.fixture(scope="module")
def drawn() -> list[Tensor]:
    torch.manual_seed(4)
    return [torch.randint(10, 290, (length,)) for length in LENGTHS]


def behind(network: Any, asked: list[Tensor], stops: frozenset[int], tokens: int) -> Generated:
    """Answers to prompts that are prefilled up to their last token."""
    return generate(network, read(network, asked), [ids[-1:] for ids in asked], stops, tokens)


def read(network: Any, asked: list[Tensor]) -> Past:
    """What prompts become, up to their last token."""
    past = Past.empty(len(asked), network.device)
    with torch.inference_mode():
        past.run(network, [ids[:-1] for ids in asked])
    return past


def test_a_batch_gives_the_tokens_of_one_at_a_time(network: Any, drawn: list[Tensor]) -> None:
    together = behind(network, drawn, frozenset(), 12)
    for row, prompt in enumerate(drawn):
        alone = behind(network, [prompt], frozenset(), 12)
        assert alone.tokens[0] == together.tokens[row]
        assert torch.allclose(alone.first[0], together.first[row], atol=1e-4)


def test_the_tokens_are_those_of_the_library(network: Any, drawn: list[Tensor]) -> None:
    together = behind(network, drawn, frozenset(), 8)
    for prompt, tokens in zip(drawn, together.tokens, strict=True):
        out = network.generate(
            prompt[None],
            attention_mask=torch.ones_like(prompt)[None],
            max_new_tokens=8,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert out[0, len(prompt) :].tolist() == tokens


def test_an_answer_that_ends_leaves_the_batch_and_changes_no_other(network: Any, drawn: list[Tensor]) -> None:
    free = behind(network, drawn, frozenset(), 12).tokens
    stops = frozenset({free[0][3], free[4][6]})
    stopped = behind(network, drawn, stops, 12).tokens
    for full, cut in zip(free, stopped, strict=True):
        end = next((at for at, token in enumerate(full) if token in stops), len(full))
        assert cut == full[:end]
    assert len({len(cut) for cut in stopped}) > 1


def test_prefilled_prompts_can_be_answered_again(network: Any, drawn: list[Tensor]) -> None:
    past, last = read(network, drawn), [ids[-1:] for ids in drawn]
    first, again = (generate(network, past.copy(), last, frozenset(), 6) for _ in range(2))
    assert first.tokens == again.tokens and torch.equal(first.first, again.first)
    assert past.slots + 1 == max(LENGTHS)
    assert (past.lengths + 1).tolist() == list(LENGTHS)


def test_a_row_without_a_token_to_run_is_refused(network: Any) -> None:
    with pytest.raises(ValueError, match="row 1 has no token"):
        Past.empty(2, network.device).run(network, [torch.tensor([1, 2, 3]), torch.tensor([])])


class Config:
    """Of a model that changes nothing behind its head, unless it says so."""


class Network:
    def __init__(self) -> None:
        self.config = Config()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (2.0, 1.0), (1.0, 0.7)])
def test_tokens_are_drawn_by_their_shares_at_a_temperature_and_within_the_nucleus(
    temperature: float, top_p: float
) -> None:
    shares = torch.tensor([0.05, 0.5, 0.15, 0.3])
    expected = shares ** (1 / temperature)
    if top_p < 1:
        expected[[0, 2]] = 0.0  # 0.5 and 0.3 are the fewest that reach 0.7
    choose = Sampling(temperature, top_p, seed=11).chooser(Network())
    drawn = choose(shares.log().expand(20_000, 4)).bincount(minlength=4) / 20_000
    assert torch.allclose(drawn, expected / expected.sum(), atol=0.015)
    assert not drawn[expected == 0].any()


def test_a_nucleus_that_is_nothing_in_single_precision_holds_the_most_likely_token() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0]])
    assert Sampling(1.0, 1e-320).chooser(Network())(logits).tolist() == [1]


def test_a_seed_draws_the_same_tokens_again_and_none_draws_others(tiny_receiver: Path) -> None:
    model = Model(str(tiny_receiver))
    ids = model.tokenizer("Who keeps the key?", return_tensors="pt").input_ids[0]

    def said(sampling: Sampling) -> list[int]:
        past, choose = Past.empty(1, model.network.device), sampling.chooser(model.network)
        return list(token_ids(ModelTurns(model.network), ids, past, frozenset(), TOKENS, choose))

    greedy = list(
        token_ids(ModelTurns(model.network), ids, Past.empty(1, model.network.device), frozenset(), TOKENS)
    )
    assert said(Sampling()) == said(Sampling(0.0, 0.1, 7)) == greedy
    assert said(Sampling(2.0, seed=7)) == said(Sampling(2.0, seed=7)) != greedy
    assert len({tuple(said(Sampling(2.0))) for _ in range(3)}) == 3


@pytest.mark.parametrize(
    "wrong", [(-0.1,), (2.1,), (float("nan"),), (1.0, 0.0), (1.0, 1.1), (1.0, 1.0, 2**64)]
)
def test_a_sampling_that_means_nothing_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError):
        Sampling(*wrong)


@pytest.mark.parametrize("temperature", [1e-300, 1e-38, 1e-7, 1e-6, 1e-3])
def test_however_low_the_temperature_there_is_a_most_likely_token(temperature: float) -> None:
    choose = Sampling(temperature, seed=3).chooser(Network())
    logits = torch.tensor([[1e4, -1e4, 9_000.0], [-3e38, 3e38, 0.0], [5.0, 4.0, 6.0]])
    assert choose(logits).tolist() == [0, 1, 2]


def test_a_model_that_changes_its_logits_after_the_head_is_not_drawn_from() -> None:
    network = Network()
    network.config.final_logit_softcapping = 30.0  # type: ignore[attr-defined]
    Sampling().chooser(network)
    with pytest.raises(Unsupported, match="final_logit_softcapping"):
        Sampling(1.0).chooser(network)


def test_the_signals_of_an_answer_are_the_log_probabilities_of_the_steps_that_make_it(
    tiny_receiver: Path,
) -> None:
    model = Model(str(tiny_receiver))
    (ids, *_), device = prompts(model), model.network.device
    made = list(steps(model.network, Past.empty(1, device), [ids], frozenset(), 6))
    stops, abstain = frozenset(made[-1].tokens), 7
    likely = [step.logits[0].float().log_softmax(0) for step in made]
    until = next(at for at, step in enumerate(made, 1) if step.tokens[0] in stops)
    each = [float(one[step.tokens[0]]) for one, step in zip(likely[:until], made, strict=False)]
    signals = Signals(abstain)
    assert signals.values == {}
    list(token_ids(ModelTurns(model.network), ids, Past.empty(1, device), stops, 6, signals=signals))
    instead = float(likely[0][abstain]) - each[0]
    wanted = {"mean": sum(each) / len(each), "least": min(each), "first": each[0], "abstain": instead}
    assert signals.values == pytest.approx(wanted, abs=1e-5)
