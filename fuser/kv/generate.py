"""What a frozen model says on top of a past: greedy or sampled generation, and the loss of the right replies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from fuser.kv.past import Past
from fuser.kv.turns import AnswerRow, ModelTurns
from kvwire.errors import Unsupported
from kvwire.segment import UNTOLD


@dataclass(frozen=True, slots=True)
class Step:
    """One new token in each row that is still answered.

    rows: which of the prompts these are. tokens: the chosen one of each, a stop token included. logits: (rows,
    vocabulary), without what some models do to them after the head, which keeps their order.
    """

    rows: list[int]
    tokens: list[int]
    logits: Tensor


@dataclass(frozen=True, slots=True)
class Generated:
    """Answers to a batch of prompts.

    tokens: of each, without the stop token. first: (batch, vocabulary) logits at each one's first position. signals: of
    each, by the names of `SIGNALS`.
    """

    tokens: list[list[int]]
    first: Tensor
    signals: list[dict[str, float]]


SIGNALS: Final = ("mean", "least", "first", "abstain", "sharer", "answerable")
"""What the models' own probabilities say of an answer, in nats. Of the Receiver's: the mean and the least
log-probability of its tokens, the end's too; that of the first token; and how much likelier than it the first token of
the abstention was. Of the Sharer's: the log-probability of the least likely token of its draft, and the log-odds that
the documents hold the answer, as they travel (`kvwire.segment.Certainty`)."""


class Signals:
    """The signals of one answer, gathered from the steps that make it. No further pass is run for them.

    Args:
        abstain: the first token of what the model says in place of an answer; None where it was taught nothing.

    Attributes:
        sharer: how sure the Sharer is of its own.
    """

    def __init__(self, abstain: int | None = None) -> None:
        self.sharer = UNTOLD
        self._abstain, self._each, self._instead = abstain, list[float](), 0.0

    def see(self, logits: Tensor, token: int) -> None:
        """Take in a step: (vocabulary,) logits and the token that was chosen."""
        logits = logits.float()
        if not self._each and self._abstain is not None:
            self._instead = float(logits[self._abstain] - logits[token])
        self._each.append(float(logits[token] - logits.logsumexp(0)))

    @property
    def values(self) -> dict[str, float]:
        """By the names of `SIGNALS`, as far as they are told; none before the first step."""
        if not self._each:
            return {}
        values = (fmean(self._each), min(self._each), self._each[0], self._instead)
        return dict(zip(SIGNALS, values, strict=False)) | self.sharer.signals


Choose = Callable[[Tensor], Tensor]
"""One token a row, (rows,) int64, of logits (rows, vocabulary)."""
_AFTER_THE_HEAD: Final = {"final_logit_softcapping": None, "logits_scaling": 1, "logit_scale": 1}
"""What models do to their logits after the head, with the value that does nothing."""
_GREEDY: Final = 1e-6
"""Under this temperature no other token than the most likely one is drawn, and float32 may run over."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen. A temperature under 1e-6 takes the most likely one, whatever else is said.

    top_p: only the fewest tokens that together have this probability are drawn from (nucleus sampling). seed: the same
    one draws the same tokens of the same logits; None draws others each time.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (0 <= self.temperature <= 2 and 0 < self.top_p <= 1):
            raise ValueError("temperature is 0 to 2, top_p above 0 and at most 1")
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise ValueError("seed is a number of 64 bits")

    def chooser(self, model: Any) -> Choose:
        """Chooses the tokens of one answer, on the CPU in float32.

        Raises:
            Unsupported: the model changes its logits after the head, so that these are not its probabilities.
        """
        if self.temperature < _GREEDY:
            return most_likely
        require_probabilities(model, "a temperature")
        draws = torch.Generator("cpu")
        draws.seed() if self.seed is None else draws.manual_seed(self.seed)

        def drawn(logits: Tensor) -> Tensor:
            logits_here = logits.float().cpu()
            shares = ((logits_here - logits_here.amax(1, keepdim=True)) / self.temperature).softmax(1)
            ordered, ids = shares.sort(stable=True, dim=1, descending=True)
            dropped = ordered.cumsum(1) - ordered >= self.top_p
            dropped[:, 0] = False  # also where top_p is 0 in float32
            ordered[dropped] = 0.0
            return ids.gather(1, torch.multinomial(ordered, 1, generator=draws))[:, 0].to(logits.device)

        return drawn


def require_probabilities(model: Any, what: str) -> None:
    """Refuse `what` where a model's logits here are not those of its probabilities.

    Raises:
        Unsupported: the model changes its logits after the head.
    """
    for name, nothing in _AFTER_THE_HEAD.items():
        if getattr(model.config, name, None) not in (None, nothing):
            raise Unsupported(f"{what}, for a model with {name}")


def most_likely(logits: Tensor) -> Tensor:
    """The most likely token of each row."""
    return logits.argmax(1)


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
    """Run a prompt on top of each row of a past, then generate token after token until a stop token or the limit.

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
            best = most_likely(logits)
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
    abstain: int | None = None,
) -> Generated:
    """Whole answers, as `steps` gives them.

    Args:
        max_new_tokens: at least 1. abstain: as in `Signals`.
    """
    tokens: list[list[int]] = [[] for _ in prompts]
    signals = [Signals(abstain) for _ in prompts]
    first: Tensor | None = None
    for step in steps(model, past, prompts, stops, max_new_tokens, ended):
        first = step.logits if first is None else first
        for row, token in zip(step.rows, step.tokens, strict=True):
            if token not in stops:
                tokens[row].append(token)
        for row, logits, token in zip(step.rows, step.logits, step.tokens, strict=True):
            signals[row].see(logits, token)
    if first is None:
        raise ValueError(f"max_new_tokens {max_new_tokens}: expected at least 1")
    return Generated(tokens, first, [one.values for one in signals])


def token_ids(
    turns: ModelTurns,
    ids: Tensor,
    past: Past,
    stops: frozenset[int],
    max_new_tokens: int,
    choose: Choose = most_likely,
    signals: Signals | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Iterator[int]:
    """The tokens of one answer as they come, a stop token left out; `ids` (positions,) int64 run on top of the past.

    Answers of one model may be made at once, by threads of their own; none depends on another.

    Args:
        turns: of the model. past: of one row; used up.
        signals: are shown each step. cancelled: polled before each step, and while one waits or runs.

    Raises:
        Cancelled: `cancelled()` became true.
    """
    row = AnswerRow(past, cancelled)
    try:
        for _ in range(max_new_tokens):
            logits = turns.read(row, ids)
            ids = choose(logits[None])
            token = int(ids)
            if signals is not None:
                signals.see(logits, token)
            if token in stops:
                return
            yield token
    finally:
        turns.leave(row)


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
