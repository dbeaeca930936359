"""Examples in batches: of like length, in a fixed order, each with a stranger."""

import pytest

from fuser.train.batch import Examples, evenly_spaced

WORDS = [f"{'abc'[i % 3]}{'x' * (i * 7 % 23)}" for i in range(50)]


def examples() -> Examples[str]:
    return Examples(WORDS, length=len, subject=lambda word: word[0], where="here")


def test_every_example_is_once_in_an_epoch_but_those_that_fill_no_batch() -> None:
    batches = examples().shuffled(8, seed=1)
    assert [len(batch) for batch in batches] == [8] * 6
    picked = [word for batch in batches for word in batch.own]
    assert len(set(picked)) == len(picked) == 48


def test_an_epoch_is_fixed_by_its_seed_and_has_the_same_number_of_batches_for_every_seed() -> None:
    same, again, other = (examples().shuffled(8, seed) for seed in (1, 1, 2))
    assert same == again
    assert same != other
    assert len(same) == len(other)


def test_lengths_in_a_batch_are_alike() -> None:
    widths = [max(map(len, b.own)) - min(map(len, b.own)) for b in examples().shuffled(5, seed=3)]
    assert sum(widths) / len(widths) < 5  # of 22 without buckets


def test_a_stranger_is_about_something_else() -> None:
    for batch in [*examples().shuffled(8, seed=1), *examples().sorted(8)]:
        assert all(own[0] != other[0] for own, other in zip(batch.own, batch.other, strict=True))


def test_sorted_batches_hold_all_examples_and_the_last_may_be_shorter() -> None:
    batches = examples().sorted(16)
    assert [len(batch) for batch in batches] == [16, 16, 16, 2]
    assert sorted(word for batch in batches for word in batch.own) == sorted(WORDS)


def test_shards_are_equal_keep_their_strangers_and_together_are_the_batch() -> None:
    batch = examples().shuffled(8, seed=1)[0]
    shards = [batch.shard(rank, 4) for rank in range(4)]
    pairs = {pair for shard in shards for pair in zip(shard.own, shard.other, strict=True)}
    assert [len(shard) for shard in shards] == [2] * 4
    assert pairs == set(zip(batch.own, batch.other, strict=True))
    with pytest.raises(ValueError, match="batch of 8 cannot be cut into 3"):
        batch.shard(0, 3)


def test_examples_about_one_thing_are_refused() -> None:
    with pytest.raises(ValueError, match="here: a mismatched slice needs at least two"):
        Examples(["a", "ab"], length=len, subject=lambda word: word[0], where="here")


def test_no_examples_make_no_batches() -> None:
    nothing: Examples[str] = Examples([], length=len, subject=len, where="here")
    assert nothing.shuffled(4, 0) == nothing.sorted(4) == []


def test_spread_takes_from_all_over() -> None:
    assert list(evenly_spaced(range(100), 4)) == [0, 25, 50, 75]
    assert list(evenly_spaced(range(3), 4)) == [0, 1, 2]
