"""The excerpt: what the question attends to most, in reading order, never more than allowed."""

import pytest
import torch

from fuser.select import SelectionConfig, attention_row, choose

SCORES = torch.tensor([9.0, 0.1, 0.9, 0.2, 0.0, 0.8, 0.3, 9.0])
DOCUMENT = torch.arange(1, 7)


def test_the_highest_scores_within_the_document_are_chosen_in_order() -> None:
    chosen = choose(SCORES, DOCUMENT, SelectionConfig(positions=3), limit=8)
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


def test_rows_are_those_asked_for_whatever_their_number() -> None:
    torch.manual_seed(2)
    query, keys = torch.randn(1, 4, 70, 8), torch.randn(1, 2, 75, 8)  # five positions were prefilled before
    rows = torch.arange(3, 70)
    singles = [attention_row(query, keys, 0.4, row[None]) for row in rows]
    assert torch.allclose(attention_row(query, keys, 0.4, rows), torch.stack(singles).mean(0), atol=1e-6)
    assert singles[0][0, 9:].eq(0).all() and singles[0][0, :9].gt(0).all()  # row 3 stands at position 8
    assert torch.equal(attention_row(query, keys, 0.4, 2), attention_row(query, keys, 0.4, rows[-2:]))
