"""What is fitted on training questions."""

import torch

from fuser.lab.evaluate.letters import fit_bias, masked


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
