"""How many tokens a text has for a cloud's Sharer, and how many it can read"""

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from cloud_node import CloudConfig

ROOM = 64
"""Tokens that a prompt needs besides its document: the template and a short question."""


class SharerWindow:
    """The tokenizer of a Sharer on this machine, without its weights.

    longest: the most tokens that a document may have for any question to be asked about it.
    token_bytes: that K and V of a token have on disk at most; None where the model's shape is not of the usual names.
    """

    def __init__(self, tokenizer: "Tokenizer", longest: int, token_bytes: int | None = None) -> None:
        tokenizer.no_truncation()
        self._tokenizer = tokenizer
        self.longest, self.token_bytes = longest, token_bytes

    def tokens(self, text: str) -> int:
        """Of a text by itself."""
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)


def sharer_window(config: "CloudConfig") -> SharerWindow | None:
    """Of the configured Sharer; None where it is not on this machine, or has no tokenizer.json.

    Raises:
        BadModelDirectory: what is there is no model.
    """
    from tokenizers import Tokenizer

    from fuser.kv.geometry import Geometry
    from fuser.models.directory import NotFetched, UnknownModel, find_model

    try:
        directory = find_model(config.sharer.model)
    except (NotFetched, UnknownModel):
        return None
    file = directory / "tokenizer.json"
    if not file.is_file():
        return None
    model = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    window = config.sharer.max_prompt_tokens or int(model.get("max_position_embeddings") or 32_768)
    own = SimpleNamespace(**(model.get("text_config") or model))
    shaped = hasattr(own, "num_attention_heads") and hasattr(own, "num_hidden_layers")
    size = 2 if config.sharer.dtype in ("bfloat16", "float16") else 4
    token_bytes = Geometry.of(own).width * size if shaped else None
    return SharerWindow(Tokenizer.from_file(str(file)), window - ROOM, token_bytes)
