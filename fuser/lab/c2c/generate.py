"""Greedy generation as the public Cache-to-Cache code does it, for its checkpoints.

Both models read the whole prompt but its last token; every one of those positions is fused, template tokens too.
The Receiver's last prompt token then runs on the fused cache, and so does every new token: none of them is fused,
and positions go on counting (arXiv 2510.03215; commit d03cc7b of the authors' repository).

One thing depends on the library beneath. For a new token that code cuts the attention mask to the token itself, a
mask of one entry. transformers up to 4.52, which the code pins, takes a mask without zeros for none; later versions
fill what is missing with zeros, so that each new token sees position 0 and nothing else, not even itself.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from transformers import DynamicCache

from fuser.heads.fuse import FuseHead

Library = Literal["transformers <= 4.52", "transformers > 4.52"]
PINNED: Library = "transformers <= 4.52"
LATER: Library = "transformers > 4.52"


def fused_cache(receiver: Any, sharer: Any, head: FuseHead, ids: Tensor, sharer_ids: Tensor) -> DynamicCache:
    """The Receiver's cache of a prompt (batch, positions), every position fused with the Sharer's cache of its own.

    Args:
        receiver: the Receiver, a causal LM, with `sharer` on one device.
        head: of rotated keys; in evaluation mode.
        ids: (batch, positions) int64; no padding.
        sharer_ids: of the same shape: one Sharer token for each of the Receiver's.
    """
    if not head.rotated_keys:
        raise ValueError("the public code fuses rotated keys; this head reads re-based ones")
    if ids.shape != sharer_ids.shape:
        raise ValueError(
            f"ids are {tuple(ids.shape)} and {tuple(sharer_ids.shape)}; expected as many on both sides"
        )
    ours, theirs = DynamicCache(), DynamicCache()
    receiver.get_decoder()(input_ids=ids, past_key_values=ours, use_cache=True)
    sharer.get_decoder()(input_ids=sharer_ids, past_key_values=theirs, use_cache=True)
    for layer, source in head.layer_map.mapped:
        mine, other = ours.layers[layer], theirs.layers[source]
        mine.keys, mine.values = head.fuse_layer(layer, other.keys, other.values, mine.keys, mine.values)
    return ours


@torch.inference_mode()
def generate_public(
    receiver: Any,
    sharer: Any,
    head: FuseHead,
    ids: Tensor,
    sharer_ids: Tensor,
    new_tokens: int,
    library: Library = PINNED,
) -> Tensor:
    """Prompt and `new_tokens` greedy tokens, (batch, positions + new_tokens) int64; stop tokens stop nothing.

    Args:
        ids: (batch, positions) int64, at least two positions.
        sharer_ids: as in `fused_cache`.
        library: which version of transformers to be like; the pinned one is what the authors measured.
    """
    if ids.shape[1] < 2:
        raise ValueError(f"a prompt of {ids.shape[1]} tokens has no position to fuse")
    cache = fused_cache(receiver, sharer, head, ids[:, :-1], sharer_ids[:, :-1])
    out = ids
    for number in range(new_tokens):
        mask = torch.ones_like(out)
        if library == LATER and number > 0:
            mask[:, 1:] = 0
        logits = receiver(
            input_ids=out[:, -1:],
            attention_mask=mask,
            position_ids=torch.full_like(out[:, -1:], cache.get_seq_length()),
            past_key_values=cache,
            use_cache=True,
        ).logits
        out = torch.cat((out, logits[:, -1:].argmax(-1)), dim=1)
    return out
