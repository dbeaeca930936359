"""What stands beside the positions of a slice."""

import torch

from fuser.lab.leakage.held import NOTHING, Held


def test_neighbours_are_those_in_the_document_and_a_draft_has_none() -> None:
    document = torch.tensor([10, 11, 12, 13, 14])
    at, said = torch.tensor([0, 1, 4]), torch.tensor([99, 98])
    held = Held(torch.zeros(5, 2), torch.cat((document[at], said)), at, 0, 0, 7)
    before, sent = held.beside(document, -1)
    assert before.tolist() == [NOTHING, 10, 13, NOTHING, NOTHING]
    assert sent.tolist() == [False, True, False, False, False]
    after, sent = held.beside(document, 1)
    assert after.tolist() == [11, 12, NOTHING, NOTHING, NOTHING]
    assert sent.tolist() == [True, False, False, False, False]
