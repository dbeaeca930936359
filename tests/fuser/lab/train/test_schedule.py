"""The schedule is a function of the step alone."""

from collections import Counter

import pytest

from fuser.lab.train.schedule import learning_rate_factor, seed_of, turns


def test_every_prefix_of_the_schedule_is_near_the_shares() -> None:
    order = turns(("document", "shared"), {"document": 7, "shared": 3}, 1000)
    for steps in (10, 100, 1000):
        count = Counter(turn.task for turn in order[:steps])
        assert abs(count["document"] - 0.7 * steps) <= 1


def test_a_longer_run_begins_as_the_shorter_one() -> None:
    tasks = ("a", "b", "c")
    mix = {"a": 0.5, "b": 0.3, "c": 0.2}
    assert turns(tasks, mix, 200)[:50] == turns(tasks, mix, 50)


def test_a_task_counts_its_own_steps() -> None:
    order = turns(("a", "b"), {}, 6)
    assert [turn.own for turn in order if turn.task == "b"] == [0, 1, 2]


def test_a_share_that_is_not_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        turns(("a", "b"), {"a": 1.0, "b": 0.0}, 5)


def test_the_learning_rate_warms_up_and_falls_to_a_twentieth() -> None:
    factors = [learning_rate_factor(step, 10, 100) for step in range(100)]
    assert factors[0] == 0.1
    assert max(factors) == factors[9] == factors[10] == 1.0
    assert factors[11:] == sorted(factors[11:], reverse=True)
    assert 0.05 <= factors[-1] < 0.06


def test_no_two_steps_or_workers_draw_alike() -> None:
    seeds = {seed_of(seed, step, rank) for seed in (1, 2) for step in range(-1, 500) for rank in range(8)}
    assert len(seeds) == 2 * 501 * 8
