"""What is fitted on training questions."""

import torch

from fuser.lab.evaluate.calibration import confidence, fit_bias, fit_threshold, masked


def test_a_letter_bias_is_found_and_undone() -> None:
    torch.manual_seed(0)
    answers = torch.randint(4, (2000,))
    truth = torch.nn.functional.one_hot(answers, 10) * 1.0
    planted = torch.tensor([3.0, 0.5, 0.0, -1.0, 0, 0, 0, 0, 0, 0])
    logits = masked(truth + planted, [4] * 2000)
    assert (logits.argmax(1) == answers).float().mean() < 0.4
    bias = fit_bias(logits, answers)
    assert abs(float(bias.mean())) < 1e-5
    assert torch.allclose((bias + planted)[:4] - (bias + planted)[0], torch.zeros(4), atol=0.2)
    assert ((logits + bias).argmax(1) == answers).all()


def test_a_bias_that_only_guesses_learns_the_most_frequent_letter() -> None:
    answers = torch.tensor([2] * 70 + [0] * 30)
    bias = fit_bias(masked(torch.zeros(100, 10), [3] * 100), answers)
    assert int(bias.argmax()) == 2
    shares = bias[:3].softmax(0)
    assert abs(float(shares[2]) - 0.7) < 0.05 and abs(float(shares[0]) - 0.3) < 0.05


def test_letters_that_no_question_has_stay_even() -> None:
    bias = fit_bias(masked(torch.randn(50, 10), [3] * 25 + [4] * 25), torch.zeros(50, dtype=torch.int64))
    assert torch.isfinite(bias).all()
    assert float(bias[4:].max() - bias[4:].min()) < 1e-6


def test_the_threshold_asks_the_sharer_where_the_receiver_is_unsure() -> None:
    sure = torch.tensor([0.3, 0.4, 0.5, 0.8, 0.9])
    threshold = fit_threshold(sure, torch.tensor([0.0, 0, 0, 1, 1]), torch.tensor([1.0, 1, 1, 0, 0]))
    assert 0.5 < threshold < 0.8


def test_the_threshold_never_splits_equal_confidences() -> None:
    sure = torch.tensor([0.5, 0.5, 0.5, 0.9])
    mine, theirs = torch.tensor([1.0, 0, 1, 1]), torch.tensor([0.0, 1, 0, 0])
    assert fit_threshold(sure, mine, theirs) == 0.0


def test_nobody_is_asked_where_it_never_pays_and_always_where_it_always_does() -> None:
    sure, right, wrong = torch.tensor([0.2, 0.7]), torch.ones(2), torch.zeros(2)
    assert fit_threshold(sure, right, wrong) == 0.0
    assert fit_threshold(sure, right, right) == 0.0
    assert fit_threshold(sure, wrong, right) > 1.0


def test_confidence_counts_the_letters_of_the_item_alone() -> None:
    logits = torch.tensor([[0.0, 0.0, 9.0], [0.0, 0.0, 0.0]])
    assert torch.allclose(confidence(masked(logits, [2, 3])), torch.tensor([0.5, 1 / 3]))
