"""Greedy answers of a model alone, from the same loop as those of the Receiver."""

from typing import Any

from torch import Tensor

from fuser.kv.generate import greedy_ids, pieces, stop_tokens
from fuser.kv.past import Past


def greedy(model: Any, tokenizer: Any, ids: Tensor, max_new_tokens: int) -> str:
    """The text that a model says after a prompt (positions,) int64."""
    past = Past.empty(1, model.device)
    return "".join(
        pieces(tokenizer, greedy_ids(model, ids, past, stop_tokens(model, tokenizer), max_new_tokens))
    )
