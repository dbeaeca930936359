"""Any two models as a pair: refused from their configs alone where they cannot be one, and how each is prompted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fuser.heads.translate import TranslateConfig
from fuser.kv.geometry import Geometry, window
from fuser.kv.prefill import adopt
from fuser.kv.rope import Rope
from fuser.lab.c2c.bundle import chat_style
from fuser.models.directory import ModelError
from fuser.models.load import has_tokenizer, load_config, load_tokenizer
from fuser.prompts.prompt import PromptStyle, Rendered, tokenise
from kvwire.errors import KvwireError, Unsupported

WINDOW = 1024
"""Positions that a model must have room for: a piece of text, a question, an answer, and in the Receiver a slice."""
LEAD = """
Answer each question from its note.

Note:
The large parcel arrived on Tuesday and was stored in bay 14 beside the loading dock.
Question: Where was the parcel stored?
Answer: bay 14

Note:
"""
"""What the learnt prefix starts from. No names: a Receiver that knows nothing else would answer with them."""


@dataclass(frozen=True, slots=True)
class PairModels:
    """Two models that passed. heads: attention heads in a layer of the Sharer. Styles say how each is prompted."""

    sharer: Path
    receiver: Path
    sharer_geometry: Geometry
    receiver_geometry: Geometry
    heads: int
    sharer_prompt: PromptStyle
    receiver_prompt: PromptStyle

    def layers(self, inputs: int) -> tuple[int, ...]:
        """The Sharer layers that are read: as many as have this many numbers at a position, at least one, evenly from
        its depth, the last among them."""
        depth, each = self.sharer_geometry.layers, 2 * self.sharer_geometry.layer_width
        count = max(1, min(depth, inputs // each))
        return tuple(sorted({depth - 1 - i * depth // count for i in range(count)}))

    def translate(self, texts: Sequence[str], layers: Sequence[int], most: int) -> TranslateConfig:
        """The shape of a translate head for texts like these.

        Where the Receiver has more tokens for the texts than the Sharer, a code becomes two of its positions.

        Args:
            layers: of the Sharer, that are read. most: values of a code, at most.
        """
        sharer, receiver = (load_tokenizer(path) for path in (self.sharer, self.receiver))
        read, said = (sum(len(tokenise(t, text).ids) for text in texts) for t in (sharer, receiver))
        inputs, opening = 2 * self.sharer_geometry.layer_width * len(layers), self.receiver_prompt.opening
        return TranslateConfig(
            code_dim=max(8, min(most, inputs, self.receiver_geometry.width) // 8 * 8),
            prefix_positions=_positions(receiver, opening + LEAD) - _positions(receiver, opening),
            sharer_layers=() if len(layers) == self.sharer_geometry.layers else tuple(layers),
            receiver_positions=2 if said > read else 1,
        )


def check_pair(sharer: Path, receiver: Path) -> PairModels:
    """Look at both models at once; no weights are read.

    Raises:
        Unsupported: one or both cannot be in a pair, each named with its reason.
    """
    reasons: list[str] = []
    for who, path in (("Sharer", sharer), ("Receiver", receiver)):
        try:
            check_model(path)
            if who == "Receiver" and load_tokenizer(path).eos_token_id is None:
                raise Unsupported("its tokenizer has no end token (eos_token), so no answer would end")
        except (KvwireError, ModelError) as error:
            reasons.append(f"{path} cannot be the {who}: {error}")
    if reasons:
        raise Unsupported("; ".join(reasons))
    theirs, ours = (load_config(path).get_text_config() for path in (sharer, receiver))
    return PairModels(
        sharer,
        receiver,
        Geometry.of(theirs),
        Geometry.of(ours),
        int(theirs.num_attention_heads),
        sharer_style(sharer),
        receiver_style(receiver),
    )


def check_model(path: Path) -> None:
    """Whether a model can be read for its KV: rotary positions that do not depend on what else is read, attention that
    transformers computes for it, K and V of one shape in every layer, and a window. Its config says so: the passes
    that show it run without weights.

    Raises:
        Unsupported: it cannot; the reason is told.
        BadModelDirectory: it is no model that needs no code of its own.
    """
    from transformers import AutoModelForCausalLM

    config = load_config(path)
    kind = config.model_type
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False, dtype=torch.bfloat16)
    except ValueError as error:
        raise Unsupported(f"models of type {kind} are no causal language models") from error
    Rope(model.eval())
    with torch.device("meta"):
        adopt(model)
    if (most := window(config.get_text_config())) < WINDOW:
        raise Unsupported(f"it was made for {most} positions, and {WINDOW} are needed")
    if not has_tokenizer(path):
        raise Unsupported("it has no tokenizer.json")


def sharer_style(path: Path) -> PromptStyle:
    """One user turn of the model's chat template with a document and a question, and the first word of the reply
    ("Answer:"), so that the answer that follows is a short one; plainly where there is no template."""
    chat = chat_style(path)
    opening = chat.opening or _control(load_tokenizer(path), ("bos_token",))
    wraps = {"document": ("", "\n\n"), "question": ("Question: ", "\nAnswer with a few words from the text.")}
    return PromptStyle(opening, wraps, f"{chat.closing}Answer:" if chat.closing else "\nAnswer:")


def receiver_style(path: Path) -> PromptStyle:
    """Plain text behind the model's first token, which a slice needs to stand behind."""
    opening = _control(load_tokenizer(path), ("bos_token", "pad_token", "eos_token")) or "\n"
    return PromptStyle(opening, {"document": ("", ""), "question": ("\nQuestion: ", "\nAnswer:")}, "")


def _control(tokenizer: Any, names: Sequence[str]) -> str:
    return next((str(token) for name in names if (token := getattr(tokenizer, name)) is not None), "")


def _positions(tokenizer: Any, text: str) -> int:
    return len(tokenise(tokenizer, Rendered(text, (), 0)).ids)
