"""Read a GGUF file directly: header with the `gguf` package, tensors dequantised one at a time.

Names follow llama.cpp's `convert_hf_to_gguf.py` read backwards; `weights` undoes what that script does to the
values: the query/key permutation of llama and the `1 +` in gemma 3's norms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import torch
from torch import Tensor

from ops.models.errors import BadGguf

ARCHITECTURES = ("llama", "qwen2", "gemma3")

_TOP = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_BLOCK = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_GEMMA_BLOCK = {
    **_BLOCK,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
# Tensors that hold no weights: tables llama.cpp computes for itself.
_IGNORED = ("rope_freqs.weight",)


class GgufFile:
    """One open GGUF file (memory-mapped). Raises `BadGguf` when it is none or of an unknown architecture."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError, IndexError, KeyError) as error:
            raise BadGguf(
                f"{path.name} is not a readable GGUF file ({error}); delete it and fetch again"
            ) from error
        self.architecture = str(self.metadata("general.architecture"))
        if self.architecture not in ARCHITECTURES:
            raise BadGguf(
                f"{path.name} has architecture {self.architecture!r}; "
                f"this loader knows {', '.join(ARCHITECTURES)}"
            )
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}

    def metadata(self, key: str, default: Any = None) -> Any:
        """The value under `key`; `$` stands for the architecture ("$.block_count")."""
        field = self._reader.fields.get(key.replace("$", self.architecture) if "$" in key else key)
        return default if field is None else field.contents()

    def required(self, key: str) -> Any:
        """As `metadata`, but raises `BadGguf` when the key is absent."""
        value = self.metadata(key)
        if value is None:
            raise BadGguf(
                f"{self.path.name} has no {key.replace('$', self.architecture)}; the file is incomplete"
            )
        return value

    def shapes(self, tied: bool) -> dict[str, tuple[int, ...]]:
        """Hugging Face tensor name -> shape, of everything `weight` can give."""
        return {name: self._shape(source) for name, source in self._sources(tied).items()}

    def weights(self, tied: bool) -> Iterator[tuple[str, Tensor]]:
        """Every tensor under its Hugging Face name, float32, in the order of `shapes`.

        With `tied` there is no `lm_head`, and the embedding comes from the head where the file has one: the
        two are one matrix at two precisions, and the head is the better one.
        """
        for name, source in self._sources(tied).items():
            yield name, self._weight(source)

    def _sources(self, tied: bool) -> dict[str, str]:
        named = {
            _hugging_face_name(source, self.architecture): source
            for source in self._tensors
            if source not in _IGNORED
        }
        if tied and (head := named.pop("lm_head.weight", None)) is not None:
            named["model.embed_tokens.weight"] = head
        return named

    def _shape(self, source: str) -> tuple[int, ...]:
        return tuple(int(size) for size in reversed(self._tensors[source].shape))

    def _weight(self, source: str) -> Tensor:
        tensor = self._tensors[source]
        try:
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise BadGguf(f"{self.path.name}: tensor {source}: {error}") from error
        weight = torch.tensor(values, dtype=torch.float32, device="cpu").reshape(self._shape(source))
        if self.architecture == "llama" and source.endswith(("attn_q.weight", "attn_k.weight")):
            heads = "$.attention.head_count" if "attn_q" in source else "$.attention.head_count_kv"
            return _halves_from_pairs(weight, int(self.required(heads)))
        if self.architecture == "gemma3" and source.endswith("norm.weight"):
            return weight - 1
        return weight


def _hugging_face_name(source: str, architecture: str) -> str:
    block = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", source)
    if block is not None:
        names = _GEMMA_BLOCK if architecture == "gemma3" else _BLOCK
        if (name := names.get(block[2])) is not None:
            return f"model.layers.{block[1]}.{name}.{block[3]}"
    stem, _, suffix = source.rpartition(".")
    if block is None and stem in _TOP and suffix in ("weight", "bias"):
        return f"{_TOP[stem]}.{suffix}"
    raise BadGguf(f"tensor {source!r} has no place in a {architecture} model; this loader does not know it")


def _halves_from_pairs(weight: Tensor, heads: int) -> Tensor:
    """(heads * dim, in): the rows of each head, from rotary pairs side by side to two halves."""
    rows, *rest = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, *rest)
    return pairs.transpose(1, 2).reshape(weight.shape)
