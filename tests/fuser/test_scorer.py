"""The learnt selection rule: at its start all heads weigh the same; it learns which of them point at answers."""

import torch

from fuser.heads.selection import Scorer


def test_at_its_start_all_heads_weigh_the_same() -> None:
    one = torch.tensor([0.5, 0.0, 0.9, 0.1])
    two = torch.tensor([0.1, 0.2, 0.3, 0.8])
    scores = Scorer(2)(torch.stack((one, two)))
    torch.testing.assert_close(scores, (one.clamp(min=1e-5).log() + two.log()) / 2)
    torch.testing.assert_close(scores, Scorer(2)(torch.stack((two, one))))


def test_it_learns_which_heads_point_at_answers() -> None:
    generator = torch.Generator().manual_seed(3)
    attention = torch.rand(200, 6, 20, generator=generator).softmax(-1)
    wanted = torch.zeros(200, 20, dtype=torch.bool)
    best = attention[:, 4].argmax(1)  # only head 4 retrieves
    wanted[torch.arange(200), best] = True
    real = torch.ones_like(wanted)
    scorer = Scorer(6)
    optimizer = torch.optim.Adam(scorer.parameters(), lr=0.1)
    for _ in range(400):
        optimizer.zero_grad()
        scorer.loss(attention[:150], wanted[:150], real[:150]).backward()
        optimizer.step()
    assert (scorer(attention[150:]).argmax(1) == best[150:]).float().mean() > 0.9
    assert (Scorer(6)(attention[150:]).argmax(1) == best[150:]).float().mean() < 0.5


def test_padding_changes_no_loss() -> None:
    scorer = Scorer(3)
    attention, wanted = torch.rand(2, 3, 5), torch.tensor([[1, 0, 0, 0, 0], [0, 1, 1, 0, 0]]).bool()
    alone = [
        scorer.loss(attention[i : i + 1], wanted[i : i + 1], torch.ones(1, 5, dtype=torch.bool))
        for i in (0, 1)
    ]
    longer = torch.nn.functional.pad(attention, (0, 2), value=9.0)
    padded = scorer.loss(
        longer, torch.nn.functional.pad(wanted, (0, 2)), torch.tensor([[True] * 5 + [False] * 2] * 2)
    )
    torch.testing.assert_close(padded, torch.stack(alone).mean())
