"""Greedy generation on top of a cache, as text pieces; the same tokens as transformers' own greedy `generate`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Token ids that end an answer: the model's end tokens and the tokenizer's."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(i for i in (*listed, tokenizer.eos_token_id) if i is not None)


def greedy_ids(
    model: Any, ids: Tensor, cache: DynamicCache, stops: frozenset[int], max_new_tokens: int
) -> Iterator[int]:
    """Run `ids` (positions,) on top of the cache, then yield the most likely token until a stop token or the limit.

    The positions continue the cache's length. A stop token is not yielded.
    """
    pending = ids[None]
    for _ in range(max_new_tokens):
        start = cache.get_seq_length()
        position = torch.arange(start, start + pending.shape[1], device=pending.device)[None]
        with torch.inference_mode():
            run = model.get_decoder()(
                input_ids=pending, past_key_values=cache, position_ids=position, use_cache=True
            )
            # Two dimensions: a slice of three (`logits_to_keep`) makes torch copy the whole head first, on CPUs. What
            # some models do to logits after the head keeps their order.
            logits = model.get_output_embeddings()(run.last_hidden_state[:, -1])
        token = int(logits[0].argmax())
        if token in stops:
            return
        yield token
        pending = torch.tensor([[token]], device=ids.device)


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


def greedy(
    model: Any, tokenizer: Any, ids: Tensor, *, max_new_tokens: int, seen: list[int] | None = None
) -> Iterator[str]:
    """Text pieces of the model's greedy answer to a prompt (positions,) int64. `seen` collects the token ids."""
    stream = greedy_ids(model, ids, DynamicCache(), stop_tokens(model, tokenizer), max_new_tokens)
    return pieces(tokenizer, stream, seen)
