"""Write a model's own short answer on top of a prefill, a few tokens a pass.

Each pass runs `WIDTH` tokens: the next one, and guesses at those after it, taken from what follows the same words
earlier in the prompt (prompt-lookup decoding, arXiv 2304.04487): an answer mostly stands in its document. A guess that
is not what the model says is dropped with its K and V, so the tokens are those of greedy decoding one by one. As a pass
is never narrower than `EXACT_FROM`, drafts of several callers run together with the bits that each has alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from fuser.kv.prefill import EXACT_FROM, Prefill

KV = list[tuple[Tensor, Tensor]]

WIDTH: Final = EXACT_FROM
"""Tokens of a pass. More guesses cost more than they win: an answer is short."""
_LONGEST_MATCH: Final = 3


def write(
    model: Any,
    ids: Sequence[int],
    hidden: Tensor,
    past: KV,
    most: int,
    ended: Callable[[list[int]], bool],
    cancelled: Callable[[], bool],
) -> Generator[Prefill, None, tuple[list[int], KV, list[float]]]:
    """What is to be prefilled to write a draft.

    Args:
        ids: of the prompt.
        hidden: (hidden,) of the prompt's last token.
        past: K, rotated, and V of every layer for the prompt, each (1, kv_heads, positions, head_dim); used up.
        most: tokens of the draft at most.
        ended: whether a draft is over before the last of these tokens, which is then no part of it.
        cancelled: polled before each layer.

    Returns:
        The draft's tokens, K and V of every layer for these, (1, kv_heads, tokens, head_dim), and the log-probability
        of each.
    """
    start, known, said = past[0][0].shape[2], list(ids), list[int]()
    likely = list[float]()
    ((following, its),) = best(model, hidden[None])
    while len(said) < most and not ended([*said, following]):
        guesses = looked_up([*known, following], WIDTH - 1)
        tokens = [following, *guesses, *[following] * (WIDTH - 1 - len(guesses))]
        new: KV = []

        def take(_: int, keys: Tensor, values: Tensor, new: KV = new) -> None:
            new.append((keys, values))

        ids_now = torch.tensor([tokens], device=hidden.device)
        work = Prefill(ids_now, len(past) - 1, take, cancelled, whole=True, past=past)
        yield work
        assert work.hidden is not None
        found = best(model, work.hidden[0])
        said.append(following)
        likely.append(its)
        kept = 1
        while True:
            following, its = found[kept - 1]
            guessed = guesses[kept - 1 : kept] == [following]
            if not guessed or len(said) == most or ended([*said, following]):
                break
            said.append(following)
            likely.append(its)
            kept += 1
        known += said[len(said) - kept :]
        for layer, (a, b) in enumerate(new):  # layer by layer, so that no second copy of all of it is held
            k, v = past[layer]
            past[layer] = torch.cat((k, a[:, :, :kept]), dim=2), torch.cat((v, b[:, :, :kept]), dim=2)
    return said, [(keys[:, :, start:], values[:, :, start:]) for keys, values in past], likely


def looked_up(ids: Sequence[int], count: int) -> list[int]:
    """What followed the last tokens of `ids` where they stood before: up to `count` tokens, none if they did not.

    The longest match wins, of equally long ones the first: a document's facts come before what is said about them.
    """
    for length in range(min(_LONGEST_MATCH, len(ids) - 1), 0, -1):
        last = list(ids[-length:])
        for start in range(len(ids) - length):
            if list(ids[start : start + length]) == last:
                return list(ids[start + length : start + length + count])
    return []


def best(model: Any, hidden: Tensor) -> list[tuple[int, float]]:
    """The most likely next token behind each of some hidden states (positions, hidden), and its log-probability."""
    with torch.inference_mode():
        logits = model.get_output_embeddings()(hidden)
        ids = logits.argmax(-1)
        logits = logits.float()
        likely = logits.gather(-1, ids[:, None])[:, 0] - logits.logsumexp(-1)
    return list(zip(ids.tolist(), likely.tolist(), strict=True))
