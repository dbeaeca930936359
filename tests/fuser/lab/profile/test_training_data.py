"""Data that is kept from training is refused by its mark."""

import pytest

from fuser.lab.profile.grid import check_training


@pytest.mark.parametrize(
    "source",
    [
        "records:train",
        "notes:train",
        "notes:unanswerable",
        "data/squad/train_subset.jsonl.gz",
        "train.jsonl",
        "contest/latest.jsonl",
        "data/devices/manuals.jsonl",
        "hf:rajpurkar/squad",
        "hf:rajpurkar/squad:train",
        "hf:allenai/ai2_arc/ARC-Easy:train[:10%]",
    ],
)
def test_training_data_is_taken(source: str) -> None:
    check_training(source)


@pytest.mark.parametrize(
    ("source", "mark"),
    [
        ("records:heldout", "heldout"),
        ("records:heldout_attributes", "heldout_attributes"),
        ("notes:heldout_unanswerable", "heldout_unanswerable"),
        ("notes:heldout_kinds", "heldout_kinds"),
        ("data/squad/dev.jsonl.gz", "dev"),
        ("data/squad/dev-v1.1.json", "dev"),
        ("squad_dev_subset.jsonl", "dev"),
        ("data/test/questions.jsonl", "test"),
        ("arc-validation.jsonl", "validation"),
        ("c_eval_val.jsonl", "eval"),
        ("mine.held_out.jsonl", "held_out"),
        ("mine-held-out.jsonl", "held_out"),
        ("devset.jsonl", "devset"),
        ("squad-dev-out.jsonl", "dev"),
        ("test_output.jsonl", "test"),
        ("heldout.jsonl", "heldout"),
        ("hf:rajpurkar/squad:validation", "validation"),
        ("hf:allenai/ai2_arc/ARC-Easy:test", "test"),
    ],
)
def test_what_is_kept_from_training_is_refused(source: str, mark: str) -> None:
    with pytest.raises(ValueError, match=f"is marked '{mark}'.*records:train"):
        check_training(source)
