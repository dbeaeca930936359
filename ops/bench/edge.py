"""What the edge's own code costs: its generation beside `transformers.generate`, a slice beside a prefill."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import torch
from torch import Tensor

from fuser import Receiver
from fuser.kv.generate import token_ids
from fuser.kv.past import Past
from fuser.kv.turns import ModelTurns
from fuser.prompts.prompt import withheld
from kvwire.segment import SliceKind
from ops.bench.ratio import ratio_of, told

_NONE: Final[frozenset[int]] = frozenset()
AT_ONCE: Final = 4


def measure(
    receiver: Receiver, model: Any, questions: Sequence[str], positions: int, tokens: int
) -> dict[str, Any]:
    """Ratios over questions, both sides of each in turns.

    Args:
        model: the Receiver's model, as transformers loaded it.
        positions: codes of the slice that is taken in.
        tokens: that are generated for each question, whatever they are.

    Returns:
        "generation": seconds of so many tokens, ours to transformers'; "at_once": of `AT_ONCE` answers of as many
        tokens each, made at once, to those of one; "intake": seconds of taking codes in, to those
        of the Receiver's prefill of the question's whole prompt. Each as `ratio_of`.
    """
    rows: list[dict[str, float]] = []
    turns = ModelTurns(model)
    turns.prepare()
    for number, question in enumerate([questions[0], *questions]):  # the first warms up
        begun = receiver.begin(withheld(question))
        ids = begun.prompts[0].tokens.ids.to(model.device)
        prefilled = begun.prefill(SliceKind.EXCERPT)
        codes = torch.zeros(1, positions, receiver.bundle.require_translate().code_dim)
        ways: list[tuple[str, Callable[[], object]]] = [
            ("ours", partial(_ours, turns, ids, tokens)),
            ("at_once", partial(_at_once, turns, ids, tokens)),
            ("theirs", partial(_theirs, model, ids, tokens)),
            ("prefill", partial(_prefill, model, ids)),
            ("intake", partial(prefilled.put_codes, codes)),
        ]
        rows.append({name: _seconds(work) for name, work in (ways if number % 2 else ways[::-1])})
    return {
        "tokens": tokens,
        "positions": positions,
        "generation": ratio_of([(row["ours"], row["theirs"]) for row in rows[1:]]),
        "at_once": ratio_of([(row["at_once"], row["ours"]) for row in rows[1:]]),
        "intake": ratio_of([(row["intake"], row["prefill"]) for row in rows[1:]]),
    }


def markdown(found: Mapping[str, Any]) -> str:
    """A line of each ratio."""
    generation, at_once, intake = (found[name] for name in ("generation", "at_once", "intake"))
    return "\n".join(
        (
            "| at the edge | ms | ratio (95 %) |",
            "|---|---|---|",
            f"| {found['tokens']} tokens, beside `transformers.generate` | {generation['ours_s'] * 1e3:.1f} beside "
            f"{generation['theirs_s'] * 1e3:.1f} | {told(generation)} |",
            f"| {AT_ONCE} answers at once, beside one | {at_once['ours_s'] * 1e3:.1f} beside "
            f"{at_once['theirs_s'] * 1e3:.1f} | {told(at_once)} |",
            f"| {found['positions']} codes taken in, beside the Receiver's prefill of the question | "
            f"{intake['ours_s'] * 1e3:.2f} beside {intake['theirs_s'] * 1e3:.1f} | {told(intake)} |",
        )
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.monotonic()
    with torch.inference_mode():
        work()
    return time.monotonic() - began


def _ours(turns: ModelTurns, ids: Tensor, tokens: int) -> None:
    said = token_ids(turns, ids, Past.empty(1, turns.model.device), _NONE, tokens)
    assert sum(1 for _ in itertools.islice(said, tokens)) == tokens


def _at_once(turns: ModelTurns, ids: Tensor, tokens: int) -> None:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for done in [threads.submit(_ours, turns, ids, tokens) for _ in range(AT_ONCE)]:
            done.result()


def _theirs(model: Any, ids: Tensor, tokens: int) -> None:
    row = ids[None]
    mask = torch.ones_like(row)
    model.generate(
        row,
        attention_mask=mask,
        max_new_tokens=tokens,
        min_new_tokens=tokens,
        do_sample=False,
        pad_token_id=0,
    )


def _prefill(model: Any, ids: Tensor) -> None:
    Past.empty(1, model.device).run(model, [ids])
