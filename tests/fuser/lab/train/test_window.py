"""Windows: consecutive positions and the whole words in them."""

import pytest
import torch

from fuser.lab.train.cached import Cached
from fuser.lab.train.excerpt import window_of

TEXT = "The violet casket stood, locked, in bay 14."
ENDS = [3, 7, 10, 13, 17, 23, 24, 31, 32, 35, 39, 40, 42, 43]  # "The", " vio", "let", " ca", "sket", ...


def document(text: str, ends: list[int]) -> Cached:
    spans = torch.tensor(list(zip([0, *ends[:-1]], ends, strict=True)))
    return Cached("here", text, 0, len(ends), spans, ())


@pytest.mark.parametrize(
    ("positions", "at", "first", "held"),
    [
        (5, 0.0, 0, "The violet casket"),
        (4, 0.0, 0, "The violet"),  # " ca" is no whole word
        (3, 0.25, 3, "casket stood"),
        (4, 0.2, 1, "violet casket"),  # " let" would begin within one
        (3, 1.0, 11, " 14."),
        (14, 0.7, 0, TEXT),
        (1, 0.12, 1, "vio"),  # nothing whole
    ],
)
def test_a_window_begins_at_a_word_and_its_text_ends_with_one(
    positions: int, at: float, first: int, held: str
) -> None:
    window = window_of(document(TEXT, ENDS), positions, at)
    assert window.positions.tolist() == list(range(first, first + positions))
    assert window.text == held.strip()


def test_a_window_of_control_tokens_is_spelt_as_in_the_document() -> None:
    window = window_of(document("Use <|end|> here", [3, 6, 9, 11, 16]), 5, 0.0)
    assert window.text == "Use <|end|> here"


def test_a_window_longer_than_its_document_is_refused() -> None:
    with pytest.raises(ValueError, match="15 positions does not fit"):
        window_of(document(TEXT, ENDS), 15, 0.0)
