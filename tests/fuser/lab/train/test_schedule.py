"""The schedule is a function of the step alone."""

from fuser.lab.train.run import learning_rate_factor, seed_of


def test_the_learning_rate_warms_up_and_falls_to_a_twentieth() -> None:
    factors = [learning_rate_factor(step, 10, 100) for step in range(100)]
    assert factors[0] == 0.1
    assert max(factors) == factors[9] == factors[10] == 1.0
    assert factors[11:] == sorted(factors[11:], reverse=True)
    assert 0.05 <= factors[-1] < 0.06


def test_no_two_steps_or_workers_draw_alike() -> None:
    seeds = {seed_of(seed, step, rank) for seed in (1, 2) for step in range(-1, 500) for rank in range(8)}
    assert len(seeds) == 2 * 501 * 8
