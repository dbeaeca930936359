"""Linear attacks on codes that are known to hold something, or nothing."""

import torch

from fuser.lab.leakage.readout import TokenReadout, exposure, likeliest_beside

CODES, WIDTH, VOCABULARY = 600, 32, 200


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def held(tokens: torch.Tensor, embeddings: torch.Tensor, noise: float, seed: int) -> torch.Tensor:
    """Codes that are a fixed linear map of the tokens' embeddings, and noise."""
    mixing = torch.randn(embeddings.shape[1], WIDTH, generator=drawn(1))
    return embeddings[tokens] @ mixing + noise * torch.randn(len(tokens), WIDTH, generator=drawn(seed))


def test_tokens_are_read_out_of_codes_that_hold_them_also_those_never_seen() -> None:
    embeddings = torch.randn(VOCABULARY, 24, generator=drawn(2))
    known = torch.randint(VOCABULARY // 2, (CODES,), generator=drawn(3))
    asked = torch.randint(VOCABULARY // 2, VOCABULARY, (50,), generator=drawn(4))
    readout = TokenReadout(held(known, embeddings, 0.1, 5), known, embeddings)
    guesses = readout.guesses(held(asked, embeddings, 0.1, 6), 3)
    assert guesses.shape == (50, 3)
    assert (guesses[:, 0] == asked).float().mean() > 0.95


def test_nothing_is_read_out_of_codes_that_hold_nothing() -> None:
    embeddings = torch.randn(VOCABULARY, 24, generator=drawn(2))
    known, asked = (torch.randint(VOCABULARY, (CODES,), generator=drawn(seed)) for seed in (3, 4))
    noise = torch.randn(2, CODES, WIDTH, generator=drawn(5))
    guesses = TokenReadout(noise[0], known, embeddings).guesses(noise[1], 1)[:, 0]
    assert (guesses == asked).float().mean() < 0.05


def test_the_bigram_is_what_stood_most_often_beside_a_token() -> None:
    tokens, beside = torch.tensor([1, 1, 1, 2, 3, 3]), torch.tensor([7, 8, 7, 9, 7, 7])
    assert likeliest_beside(tokens, beside)(torch.tensor([1, 2, 3, 4])).tolist() == [7, 9, 7, 7]


def test_exposure_is_all_bits_for_the_nearest_and_that_of_the_middle_rank_among_ties() -> None:
    distances = torch.tensor([3.0, 0.5, 2.0, 1.0, 4.0, 5.0, 6.0, 7.0])
    assert exposure(distances, 1) == 3.0
    assert exposure(distances, 7) == 0.0
    assert abs(exposure(torch.ones(8), 0) - 0.830) < 1e-3  # log2(8 / 4.5): ties tell nothing
