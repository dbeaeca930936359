"""The schedule: order, company, overtaking, ends. The model is a function that says what it was given."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from cloud_node.scheduler import CancelToken, PrefillScheduler, Steps, Ticket
from fuser.kv.prefill import Prefill
from kvwire.errors import Cancelled, DeadlineExceeded

LAYERS = 3


class Model:
    """Runs nothing: notes sizes of prompts run together, layer by layer, and waits at a gate before the first."""

    def __init__(self) -> None:
        self.ran: list[tuple[int, ...]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.at_layer: Callable[[int], None] = lambda layer: None

    def run(self, works: list[Prefill], between: Callable[[], None]) -> None:
        self.entered.set()
        assert self.gate.wait(5)
        for layer in range(LAYERS):
            self.at_layer(layer)
            between()
        self.ran.append(tuple(work.positions for work in works))


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def schedule(model: Model) -> PrefillScheduler:
    return PrefillScheduler(model.run, max_batch=3, max_batch_positions=100, least=16)


def steps(*sizes: int, told: list[str] | None = None) -> Steps:
    for size in sizes:
        yield Prefill(torch.zeros(1, size, dtype=torch.int64), 0, lambda *_: None)
    if told is not None:
        told.append("through")


class Calls:
    """Calls in one schedule; `wait` until all have ended."""

    def __init__(self, schedule: PrefillScheduler) -> None:
        self.schedule = schedule
        self.ends: list[threading.Event] = []

    def enter(self, work: Steps, positions: int, stop: CancelToken | None = None) -> Ticket:
        ended = threading.Event()
        self.ends.append(ended)
        return self.schedule.enter(work, positions, stop or CancelToken(30), ended.set)

    def wait(self) -> None:
        assert all(end.wait(5) for end in self.ends)


@pytest.fixture
def calls(schedule: PrefillScheduler) -> Calls:
    return Calls(schedule)


def test_short_prompts_run_together_and_long_or_tiny_ones_alone(
    calls: Calls, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "cloud_node.scheduler._HEADSTART_S", 10.0
    )  # the order is that of lengths, however slow we are
    calls.enter(steps(17), 17)
    assert model.entered.wait(5)
    for size in (20, 21, 22, 23, 15, 300):
        calls.enter(steps(size), size)
    model.gate.set()
    calls.wait()
    assert model.ran == [(15,), (17,), (20, 21, 22), (23,), (300,)]


def test_those_together_have_no_more_positions_than_allowed(calls: Calls, model: Model) -> None:
    calls.enter(steps(16), 16)
    assert model.entered.wait(5)
    for size in (60, 61, 30):
        calls.enter(steps(size), size)
    model.gate.set()
    calls.wait()
    assert sorted(model.ran[1:]) == [(30, 60), (61,)]


def test_a_short_prompt_does_not_wait_for_a_long_one(calls: Calls, model: Model) -> None:
    late: list[int] = []

    def at_layer(layer: int) -> None:
        if not late:
            late.append(layer)
            calls.enter(steps(20), 20)

    model.at_layer = at_layer
    long = calls.enter(steps(5_000), 5_000)
    model.gate.set()
    calls.wait()
    assert model.ran == [(20,), (5_000,)]
    assert long.failure is None
    assert long._work is None, "K and V of its prompt would live on"


def test_a_long_prompt_is_not_overtaken_for_ever(calls: Calls, model: Model) -> None:
    calls.enter(steps(17), 17)
    assert model.entered.wait(5)
    old = calls.enter(steps(5_000), 5_000)
    old._rank -= 60.0  # it has waited for a minute
    calls.enter(steps(20), 20)
    model.gate.set()
    calls.wait()
    assert model.ran.index((5_000,)) < model.ran.index((20,))


def test_the_steps_of_a_call_run_one_after_another(calls: Calls, model: Model) -> None:
    told: list[str] = []
    model.gate.set()
    ticket = calls.enter(steps(200, 30, 31, told=told), 261)
    calls.wait()
    assert model.ran == [(200,), (30,), (31,)]
    assert told == ["through"] and ticket.failure is None
    assert ticket.waited_s >= 0 and ticket.ran_s > 0


def test_a_step_without_a_prefill_lets_others_go_first(calls: Calls, model: Model) -> None:
    seen: list[str] = []

    def talk() -> Iterator[None]:
        for i in range(3):
            seen.append(f"token {i}")
            if i == 0:
                calls.enter(shout(), 1)
            yield None

    def shout() -> Iterator[None]:
        seen.append("short one")
        yield None

    calls.enter(talk(), 10_000)  # type: ignore[arg-type]
    calls.wait()
    assert seen.index("short one") < seen.index("token 2")


def test_a_call_whose_time_is_over_is_not_run(calls: Calls, model: Model) -> None:
    calls.enter(steps(17), 17)
    assert model.entered.wait(5)
    gone, late = CancelToken(30), CancelToken(0.0)
    gone.set()
    left, expired = calls.enter(steps(20), 20, gone), calls.enter(steps(21), 21, late)
    model.gate.set()
    calls.wait()
    assert model.ran == [(17,)]
    assert isinstance(left.failure, Cancelled) and isinstance(expired.failure, DeadlineExceeded)


def test_what_breaks_in_one_call_ends_that_call_alone(calls: Calls, model: Model) -> None:
    def broken() -> Any:
        raise RuntimeError("broken")
        yield

    model.gate.set()
    bad = calls.enter(broken(), 20)
    good = calls.enter(steps(30), 30)
    calls.wait()
    assert isinstance(bad.failure, RuntimeError) and good.failure is None


def test_what_breaks_in_the_model_ends_all_who_were_in_it_and_the_next_call_works(
    calls: Calls, model: Model
) -> None:
    def out_of_memory(layer: int) -> None:
        model.at_layer = lambda layer: None
        raise MemoryError

    model.at_layer = out_of_memory
    model.gate.set()
    bad = calls.enter(steps(30), 30)
    calls.wait()
    assert isinstance(bad.failure, MemoryError)
    good = calls.enter(steps(30), 30)
    calls.wait()
    assert good.failure is None
