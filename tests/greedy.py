"""Greedy answers of a model alone, from the same loop as those of the Receiver."""

from typing import Any

from torch import Tensor

from fuser.kv.generate import pieces, stop_tokens, token_ids
from fuser.kv.past import Past
from fuser.kv.turns import ModelTurns


def greedy(model: Any, tokenizer: Any, ids: Tensor, max_new_tokens: int) -> str:
    """The text that a model says after a prompt (positions,) int64."""
    past = Past.empty(1, model.device)
    return "".join(
        pieces(
            tokenizer, token_ids(ModelTurns(model), ids, past, stop_tokens(model, tokenizer), max_new_tokens)
        )
    )
