"""What a frozen model says on top of a past: greedy generation, and the loss of the right replies."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from fuser.kv.past import Past


@dataclass(frozen=True, slots=True)
class Step:
    """One new token in each row that is still answered.

    rows: which of the prompts these are. tokens: the most likely one of each, a stop token included. logits: (rows,
    vocabulary), without what some models do to them after the head, which keeps their order.
    """

    rows: list[int]
    tokens: list[int]
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Generated:
    """Answers to a batch of prompts.

    tokens: of each, without the stop token. first: (batch, vocabulary) logits at each one's first position.
    confidence: the geometric mean probability of each one's tokens, the stop token's too; empty if not asked for.
    """

    tokens: list[list[int]]
    first: Tensor
    confidence: list[float]


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Token ids that end an answer: the model's end tokens and the tokenizer's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*listed, tokenizer.eos_token_id) if i is not None)


def never(tokens: list[int]) -> bool:
    """No answer has ended before a stop token or the limit."""
    return False


def steps(
    model: Any,
    past: Past,
    prompts: Sequence[Tensor],
    stops: frozenset[int],
    max_new_tokens: int,
    ended: Callable[[list[int]], bool] = never,
) -> Iterator[Step]:
    """Run a prompt on top of each row of a past, then generate the most likely token until a stop token or the limit.

    No row depends on its neighbours. Rows that have ended leave the batch.

    Args:
        model: a causal LM.
        past: a row for each prompt; used up.
        prompts: (tokens,) int64 each, of at least one token. Their positions go on where the row ends.
        stops: tokens that end an answer.
        ended: whether an answer's tokens so far are all that is wanted of it.
    """
    rows, pending = list(range(len(prompts))), prompts
    said: list[list[int]] = [[] for _ in prompts]
    for _ in range(max_new_tokens):
        with torch.inference_mode():
            # Two dimensions: a slice of three (`logits_to_keep`) makes torch copy the whole head first, on CPUs.
            logits = model.get_output_embeddings()(past.run(model, pending))
            best = logits.argmax(1)
        tokens = best.tolist()
        yield Step(rows, tokens, logits)
        going = []
        for place, (row, token) in enumerate(zip(rows, tokens, strict=True)):
            if token not in stops:
                said[row].append(token)
                if not ended(said[row]):
                    going.append(place)
        if not going:
            return
        if len(going) < len(rows):
            past.keep(going)
            rows, best = [rows[place] for place in going], best[going]
        pending = best.split(1)


def generate(
    model: Any,
    past: Past,
    prompts: Sequence[Tensor],
    stops: frozenset[int],
    max_new_tokens: int,
    ended: Callable[[list[int]], bool] = never,
    confident: bool = False,
) -> Generated:
    """Whole answers, as `steps` gives them. confident: their confidence too.

    max_new_tokens: at least 1.
    """
    tokens: list[list[int]] = [[] for _ in prompts]
    surprise: list[list[float]] = [[] for _ in prompts]
    first: Tensor | None = None
    for step in steps(model, past, prompts, stops, max_new_tokens, ended):
        first = step.logits if first is None else first
        for row, token in zip(step.rows, step.tokens, strict=True):
            if token not in stops:
                tokens[row].append(token)
        if confident:
            each = -step.logits.float().log_softmax(1).amax(1)
            for row, one in zip(step.rows, each.tolist(), strict=True):
                surprise[row].append(one)
    if first is None:
        raise ValueError(f"max_new_tokens {max_new_tokens}: expected at least 1")
    confidence = [math.exp(-fmean(losses)) for losses in surprise] if confident else []
    return Generated(tokens, first, confidence)


def greedy_ids(
    model: Any, ids: Tensor, past: Past, stops: frozenset[int], max_new_tokens: int
) -> Iterator[int]:
    """The tokens of one row as they come, a stop token left out; `ids` (positions,) int64 run on top of the past."""
    for step in steps(model, past, [ids], stops, max_new_tokens):
        if step.tokens[0] not in stops:
            yield step.tokens[0]


def pieces(tokenizer: Any, tokens: Iterator[int], seen: list[int] | None = None) -> Iterator[str]:
    """Decode a stream of tokens into text pieces; bytes of an unfinished character wait for the rest.

    `seen` collects the token ids.
    """
    collected = [] if seen is None else seen
    given = ""
    text = ""
    for token in tokens:
        collected.append(token)
        text = tokenizer.decode(collected, skip_special_tokens=True)
        if text.endswith("\ufffd"):
            continue
        yield text[len(given) :]
        given = text
    if len(text) > len(given):
        yield text[len(given) :]


@dataclass(frozen=True, slots=True)
class Outcome:
    """losses: (batch,) float32, minus the mean log probability of each reply's tokens. exact: (batch,) bool, greedy
    generation would give the reply and stop."""

    losses: Tensor
    exact: Tensor

    @property
    def loss(self) -> Tensor:
        """Scalar, mean over examples."""
        return self.losses.mean()


def answer_loss(model: Any, past: Past, prompts: Sequence[Tensor], replies: Sequence[Tensor]) -> Outcome:
    """How unlikely a reply is behind each row; differentiable in the past.

    Args:
        past: a row for each example; used up.
        prompts: what is read on top of each row before its reply, (tokens,) int64, at least one token.
        replies: (tokens,) int64, at least one token.
    """
    device = past.pads.device
    ids = pad_sequence([torch.cat(pair) for pair in zip(prompts, replies, strict=True)], batch_first=True)
    hidden = past.read(model, ids)
    counts = torch.tensor([len(reply) for reply in replies], device=device)
    row = torch.arange(len(replies), device=device).repeat_interleave(counts)
    starts = torch.tensor([len(prompt) - 1 for prompt in prompts], device=device)
    within = torch.arange(len(row), device=device) - (counts.cumsum(0) - counts)[row]
    target = torch.cat(list(replies)).to(device)
    logits = model.get_output_embeddings()(hidden[row, starts[row] + within]).float()
    each = functional.cross_entropy(logits, target, reduction="none")
    zeros = torch.zeros(len(replies), device=device)
    losses = zeros.index_add(0, row, each) / counts
    wrong = zeros.index_add(0, row, (logits.argmax(1) != target).float())
    return Outcome(losses, wrong == 0)
