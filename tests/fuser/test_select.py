"""The excerpt: what the question attends to most, in reading order, never more than allowed."""

import pytest
import torch

from fuser.heads.selection import SelectionConfig, attention_row, choose

SCORES = torch.tensor([9.0, 0.1, 0.9, 0.2, 0.0, 0.8, 0.3, 9.0])
DOCUMENT = torch.arange(1, 7)


def test_as_many_runs_as_positions_are_the_highest_scores_within_the_document_in_order() -> None:
    chosen = choose(SCORES, DOCUMENT, SelectionConfig(positions=3), limit=8, runs=8)
    assert chosen.tolist() == [2, 5, 6]


def test_the_export_limit_lowers_the_count() -> None:
    assert choose(SCORES, DOCUMENT, SelectionConfig(positions=3), limit=1).tolist() == [2]
    assert choose(SCORES, DOCUMENT, SelectionConfig(positions=3), limit=0).tolist() == []


def test_a_short_document_gives_all_it_has() -> None:
    assert choose(SCORES, DOCUMENT, SelectionConfig(positions=16), limit=16).tolist() == DOCUMENT.tolist()
    assert choose(SCORES, DOCUMENT[:0], SelectionConfig(positions=16), limit=16).tolist() == []


@pytest.mark.parametrize(
    "bad",
    [
        {"positions": 0},
        {"first_layer": 1.0},
        {"rule": "learnt"},
        {"heads": 2},
    ],
)
def test_settings_without_meaning_are_refused(bad: dict) -> None:
    with pytest.raises(ValueError, match="selection"):
        SelectionConfig(**bad)


def test_the_last_token_attends_to_what_its_mask_lets_it_see() -> None:
    torch.manual_seed(2)
    query, keys = torch.randn(1, 4, 7, 8), torch.randn(1, 2, 12, 8)  # five positions were prefilled before
    per_head = attention_row(query, keys, 0.4, per_head=True)
    expected = (query[0, :, -1:] @ keys[0].repeat_interleave(2, 0).mT * 0.4).softmax(-1)[:, 0]
    torch.testing.assert_close(per_head[0], expected)
    assert torch.equal(attention_row(query, keys, 0.4), per_head.amax(1))
    mask = torch.ones(1, 1, 7, 12, dtype=torch.bool)
    mask[..., -1, :9] = False
    seen = attention_row(query, keys, 0.4, mask=mask)
    assert seen[:, :9].eq(0).all() and seen[:, 9:].gt(0).all()


def test_a_fitted_run_is_halved_as_long_as_most_of_its_probability_stays() -> None:
    scores = torch.zeros(40)
    document = torch.arange(40)
    config = SelectionConfig(positions=32)

    def chosen(limit: int = 32) -> list[int]:
        return choose(scores, document, config, limit, fit=True).tolist()

    assert len(chosen()) == 32  # nothing stands out
    scores[10:26] = 8.0
    assert chosen() == list(range(10, 26)) and chosen(20) == choose_plain(scores, 20)
    scores[12:15] = 20.0
    assert set(range(12, 15)) < set(chosen()) and len(chosen()) == 4  # never shorter: it would tell more
    assert len(chosen(6)) == 6 and len(chosen(3)) == 3


def choose_plain(scores: torch.Tensor, limit: int) -> list[int]:
    return choose(scores, torch.arange(len(scores)), SelectionConfig(positions=32), limit).tolist()


SPREAD = torch.tensor([0.0, 4.0, 0.0, 0.0, 3.5, 3.6, 0.0, 9.0, 1.0, 3.0])
"""Scores of ten positions, of which the last nine are a document's."""
NINE = torch.arange(1, 10)


@pytest.mark.parametrize(
    ("limit", "runs", "expected"),
    [
        (1, 1, [7]),
        (3, 1, [5, 6, 7]),
        (4, 1, [4, 5, 6, 7]),
        (9, 1, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (4, 2, [4, 5, 7, 8]),  # 7 with a neighbour, then the best pair of what is left
        (2, 2, [1, 7]),
        (2, 5, [1, 7]),
        (3, 0, [5, 6, 7]),
        (3, 9, [1, 5, 7]),
        (0, 1, []),
    ],
)
def test_runs_are_the_windows_of_most_probability(limit: int, runs: int, expected: list[int]) -> None:
    assert choose(SPREAD, NINE, SelectionConfig(positions=9), limit, runs).tolist() == expected


def test_a_document_shorter_than_its_runs_is_taken_whole() -> None:
    assert choose(SPREAD, NINE[:3], SelectionConfig(positions=9), 8, 2).tolist() == [1, 2, 3]
