"""Shape of a model's KV cache, read from its Hugging Face config."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_ANY_WINDOW = 1 << 30


def window(config: Any) -> int:
    """Positions a model was made for; 2**30 where its Hugging Face config names none."""
    return int(getattr(config, "max_position_embeddings", 0) or _ANY_WINDOW)


@dataclass(frozen=True, slots=True)
class Geometry:
    """KV cache geometry: K and V of one layer are (kv_heads, positions, head_dim) each."""

    layers: int
    kv_heads: int
    head_dim: int

    @property
    def layer_width(self) -> int:
        """Numbers in one layer's K (or V) at one position."""
        return self.kv_heads * self.head_dim

    @property
    def width(self) -> int:
        """Numbers in K and V of all layers at one position."""
        return 2 * self.layers * self.layer_width

    @classmethod
    def of(cls, config: Any) -> Geometry:
        """Read from a text model's config (`num_key_value_heads` and `head_dim` have HF's usual defaults)."""
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        heads = text.num_attention_heads
        return cls(
            layers=text.num_hidden_layers,
            kv_heads=getattr(text, "num_key_value_heads", None) or heads,
            head_dim=getattr(text, "head_dim", None) or text.hidden_size // heads,
        )
