"""The two models of an evaluation, each loaded when a row first needs it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from fuser.geometry import window
from fuser.models.load import load_model, load_tokenizer, model_ref, resolve
from fuser.prefill import ATTENTION
from fuser.train.lora import load_lora
from kvwire.identity import ModelRef


class Model:
    """A model that is loaded on first use; until then only its config and tokenizer are."""

    def __init__(self, name: str) -> None:
        self.path: Path = resolve(name)

    def require(self, wanted: ModelRef, who: str) -> None:
        """Check that this is the model that a bundle was made for, by its weights.

        Raises:
            ValueError: it is another one; both are named.
        """
        found = model_ref(self.path)
        if found.revision != wanted.revision:
            raise ValueError(f"{who} is {wanted}, but {self.path} holds {found}")

    @cached_property
    def tokenizer(self) -> Any:
        """The fast tokenizer."""
        return load_tokenizer(self.path)

    @cached_property
    def network(self) -> Any:
        """The model, frozen, single precision, with the attention that the excerpt's choice is read from."""
        model, _ = load_model(self.path)
        model.set_attn_implementation(ATTENTION)
        return model

    def adapted(self, adapter: Path) -> Any:
        """A model of its own with a LoRA adapter in it."""
        return load_lora(load_model(self.path)[0], adapter)

    @cached_property
    def window(self) -> int:
        """Positions that the model was made for."""
        from transformers import AutoConfig

        return window(AutoConfig.from_pretrained(self.path))
