"""The two models of an evaluation, each loaded when a row first needs it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from fuser.kv.geometry import window
from fuser.kv.prefill import adopt
from fuser.models.directory import find_model, model_ref
from fuser.models.load import DeviceName, find_device, load_config, load_model, load_tokenizer
from kvwire.identity import ModelRef

Dtype = Literal["float32", "bfloat16"]


class Model:
    """A model that is loaded on first use; until then only its config and tokenizer are.

    Attributes:
        dtype: what it computes in. bfloat16 is about three times faster on processors that multiply it.
        device: where it computes.

    Raises:
        NoSuchDevice: the device is not there.
    """

    def __init__(self, name: str, dtype: Dtype = "float32", device: DeviceName = "auto") -> None:
        self.device = find_device(device)
        self.path: Path = find_model(name)
        self.dtype = dtype

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
        return load_tokenizer(self.path)

    @cached_property
    def network(self) -> Any:
        """The model, frozen, with the attention that the excerpt's choice is read from."""
        model, _ = load_model(self.path, device=str(self.device), dtype=getattr(torch, self.dtype))
        adopt(model)
        return model

    @cached_property
    def window(self) -> int:
        """Positions that the model was made for."""
        return window(load_config(self.path))
