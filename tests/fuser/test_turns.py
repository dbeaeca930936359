"""Several answers of one model at once: each has the bits that it has alone, and a pass is shared."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fuser.kv import turns as module
from fuser.kv.generate import Choose, Sampling, most_likely, token_ids
from fuser.kv.past import Past
from fuser.kv.prefill import prefill_together
from fuser.kv.turns import WIDTH, ModelTurns
from fuser.models.load import load_weights
from kvwire.errors import Cancelled
from tests.edge_node.sharer_server import wait_until

TOKENS = 9


@pytest.fixture(scope="module", params=["tiny_sharer", "tiny_receiver", "windowed"])
def network(request: pytest.FixtureRequest) -> Any:
    """In bfloat16, as a pass of float32 has one row on a CPU."""
    if request.param != "windowed":
        return load_weights(request.getfixturevalue(request.param), dtype=torch.bfloat16)
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(3)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "sliding_window": 8}
    return MistralForCausalLM(MistralConfig(vocab_size=300, **shape, **heads)).eval().bfloat16()


@pytest.fixture
def turns(network: Any, monkeypatch: pytest.MonkeyPatch) -> ModelTurns:
    """ModelTurns whose passes wait for all answers of the one before, however busy this machine is."""
    monkeypatch.setattr(module, "_COMING_S", 20.0)
    made = ModelTurns(network)
    made.prepare()
    assert made.width == WIDTH
    return made


class Asked:
    """A prompt, and what an answer to it consists of, bit by bit."""

    def __init__(self, turns: ModelTurns, number: int, sampled: bool = False) -> None:
        self.turns, self.logits = turns, list[Tensor]()
        self.cancelled = threading.Event()
        torch.manual_seed(number)
        self.ids = torch.randint(10, 290, (1 + 5 * number,))
        self.past = Past.empty(1, self.ids.device)
        with torch.inference_mode():
            self.past.run(turns.model, [self.ids])
        sampling = Sampling(1.5, seed=number) if sampled else Sampling()
        self._choose: Choose = sampling.chooser(turns.model)

    def answer(self, most: int = TOKENS) -> list[int]:
        """Its tokens."""
        self.logits, past, cancelled = [], self.past.copy(), self.cancelled.is_set

        def choose(logits: Tensor) -> Tensor:
            self.logits.append(logits.clone())
            return self._choose(logits)

        said = token_ids(self.turns, self.ids[-1:], past, frozenset(), most, choose, cancelled=cancelled)
        return list(said)


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """What each gives in a thread of its own; errors are given too."""

    def caught(work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(caught, works))


@pytest.mark.parametrize("sampled", [False, True])
def test_an_answer_has_the_bits_that_it_has_alone_whoever_is_answered_beside_it(
    turns: ModelTurns, sampled: bool
) -> None:
    """Six answers for passes of four; one of them ends early, so that the others change places."""
    most = [TOKENS, 3, TOKENS, TOKENS, 5, TOKENS]
    alone = [Asked(turns, number, sampled) for number in range(len(most))]
    said = [asked.answer(tokens) for asked, tokens in zip(alone, most, strict=True)]
    beside = [Asked(turns, number, sampled) for number in range(len(most))]
    works = [lambda one=one, n=n: one.answer(n) for one, n in zip(beside, most, strict=True)]
    assert at_once(*works) == said
    for one, other in zip(alone, beside, strict=True):
        assert all(map(torch.equal, one.logits, other.logits)) and len(one.logits) == len(other.logits)


def test_four_answers_take_the_passes_of_one(turns: ModelTurns, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def counted(model: Any, works: Any) -> None:
        passes.append(sum(work.whole for work in works))
        prefill_together(model, works)

    monkeypatch.setattr(module, "prefill_together", counted)
    asked = [Asked(turns, number) for number in range(WIDTH)]
    with ThreadPoolExecutor(WIDTH) as pool:
        with turns.taken():
            answering = [pool.submit(one.answer) for one in asked]
            wait_until(lambda: len(turns._waiting) == WIDTH)
        assert all(len(one.result()) == TOKENS for one in answering)
    assert passes == [WIDTH] * TOKENS


def test_every_matrix_product_of_a_pass_has_as_many_rows_whoever_is_in_it(turns: ModelTurns) -> None:
    """What the bits rest on: models as small as these have the same for any number of rows."""
    asked, rows = [Asked(turns, number) for number in range(3)], set()
    hooks = [
        layer.register_forward_pre_hook(lambda _, given: rows.add(given[0].numel() // given[0].shape[-1]))
        for layer in turns.model.modules()
        if isinstance(layer, torch.nn.Linear)
    ]
    asked[0].answer(2)
    at_once(*(one.answer for one in asked))
    for hook in hooks:
        hook.remove()
    assert rows == {WIDTH}


def test_an_answer_that_is_given_up_is_in_nobodys_way(turns: ModelTurns) -> None:
    asked = [Asked(turns, number) for number in range(3)]
    said = [one.answer() for one in asked]
    asked[1]._choose = lambda logits: (asked[1].cancelled.set(), most_likely(logits))[1]
    first, given_up, last = at_once(*(one.answer for one in asked))
    assert [first, last] == [said[0], said[2]]
    assert isinstance(given_up, Cancelled) and len(asked[1].logits) == 1


def test_a_pass_that_fails_is_told_to_all_in_it_and_the_next_one_runs(
    turns: ModelTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise MemoryError("no room")

    asked = [Asked(turns, number) for number in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(module, "prefill_together", fails)
        told = at_once(*(one.answer for one in asked))
    assert [type(error) for error in told] == [MemoryError] * 2
    assert len(asked[0].answer()) == TOKENS


def test_in_float32_a_cpu_passes_one_row_at_a_time_on_each_of_its_threads(
    tiny_receiver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first two passes end only beside each other; a third waits, and turns wait for all."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    turns, met = ModelTurns(load_weights(tiny_receiver)), threading.Event()
    asked = [Asked(turns, number) for number in range(4)]
    said = [one.answer() for one in asked]
    assert (turns.width, turns.lanes) == (1, 2)
    alone, running, most = turns._alone, list[int](), [0]

    def together(row: Any, ids: Tensor) -> Tensor:
        running.append(1)
        most[0] = max(most[0], len(running))
        if len(running) == 2:
            met.set()
        assert met.wait(20)
        try:
            return alone(row, ids)
        finally:
            running.pop()

    monkeypatch.setattr(turns, "_alone", together)

    def beside_turns() -> list[int]:
        assert met.wait(20)
        found = []
        for _ in range(5):
            with turns.taken():
                found.append(len(running))
        return found

    *found, beside = at_once(*(one.answer for one in asked), beside_turns)
    assert (found, beside, most) == (said, [0] * 5, [2])


def test_who_has_run_anothers_row_waits_while_that_one_runs_theirs(
    tiny_receiver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    turns, logits = ModelTurns(load_weights(tiny_receiver)), torch.zeros(1)
    turns.prepare()
    mine, theirs = (module.AnswerRow(Past.empty(1, torch.device("cpu"))) for _ in range(2))
    turns._waiting += [mine, theirs]
    assert (turns._next(theirs), turns._next(mine)) == ([mine], [theirs])
    with ThreadPoolExecutor(1) as pool:
        turns._give_back([theirs], [logits])
        waiting = pool.submit(turns._next, mine)
        time.sleep(10 * module._COMING_S)
        assert not waiting.done() and turns._running == 1
        turns._give_back([mine], [logits])
        assert waiting.result(20) == () and turns._running == 0


def test_on_one_thread_a_cpu_passes_answers_of_float32_one_by_one(tiny_receiver: Path) -> None:
    turns = ModelTurns(load_weights(tiny_receiver))
    asked = [Asked(turns, number) for number in range(3)]
    said = [one.answer() for one in asked]
    assert (turns.width, turns.lanes) == (1, 1)
    assert at_once(*(one.answer for one in asked)) == said


def test_turns_and_passes_alternate_so_that_long_answers_hold_up_no_question(
    tiny_receiver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns, passes = ModelTurns(load_weights(tiny_receiver)), [0]
    alone = turns._alone

    def counted(row: Any, ids: Tensor) -> Tensor:
        passes[0] += len(ids) == 1
        time.sleep(0.005)
        return alone(row, ids)

    monkeypatch.setattr(turns, "_alone", counted)
    asked = [Asked(turns, number) for number in range(3)]
    with ThreadPoolExecutor(len(asked)) as pool:
        answering = [pool.submit(one.answer, 60) for one in asked]
        wait_until(lambda: passes[0] > 3)
        waited = []
        for _ in range(10):
            before = passes[0]
            with turns.taken():
                waited.append(passes[0] - before)
        assert passes[0] < 180, "the answers ended before the turns"
        assert max(waited) <= 2
        assert all(len(one.result()) == 60 for one in answering)
