"""Build a model's tokenizer from the vocabulary and merges in its GGUF file.

Byte-level BPE (llama.cpp's "gpt2") is built here with the `tokenizers` library. The pre-tokenizer is what the
model's authors ship: qwen2 splits by its regular expression after NFC, smollm splits digits one by one
and then by GPT-2's expression. Other kinds (gemma's) go through transformers' slower conversion.
"""

from __future__ import annotations

from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from ops.models.errors import BadGguf
from ops.models.gguf import GgufFile

_CONTROL, _USER_DEFINED = 3, 4  # gguf.TokenType
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_tokenizer(file: GgufFile) -> Tokenizer:
    """The tokenizer of a GGUF file. Raises `BadGguf` for a kind it does not know."""
    if file.required("tokenizer.ggml.model") != "gpt2":
        return _through_transformers(file)
    return _byte_level(file)


def tokenizer_config(file: GgufFile) -> dict[str, Any]:
    """What `tokenizer_config.json` says: special tokens by text, chat template, length."""
    tokens = file.required("tokenizer.ggml.tokens")
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(file.required("$.context_length")),
    }
    for kind, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        if (index := file.metadata(f"tokenizer.ggml.{key}_token_id")) is not None:
            config[f"{kind}_token"] = tokens[index]
    if (template := file.metadata("tokenizer.chat_template")) is not None:
        config["chat_template"] = template
    return config


def _byte_level(file: GgufFile) -> Tokenizer:
    tokens: list[str] = file.required("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in file.required("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.decoder = decoders.ByteLevel()
    kind = file.metadata("tokenizer.ggml.pre")
    if kind == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
        first: Any = pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    elif kind == "smollm":
        first = pre_tokenizers.Digits(individual_digits=True)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    else:
        raise BadGguf(f"{file.path.name} has pre-tokenizer {kind!r}; this loader knows qwen2 and smollm")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, byte_level])
    _add_whole_tokens(tokenizer, tokens, file.required("tokenizer.ggml.token_type"))
    return tokenizer


def _add_whole_tokens(tokenizer: Tokenizer, tokens: list[str], kinds: list[int]) -> None:
    """Tokens that text never splits: control tokens (special) and user-defined ones (not special)."""
    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    for token, kind in zip(tokens, kinds, strict=True):
        if kind == _USER_DEFINED or (kind == _CONTROL and set(token) <= alphabet):
            added = AddedToken(token, normalized=False, special=kind == _CONTROL)
            if kind == _CONTROL:
                tokenizer.add_special_tokens([added])
            else:
                tokenizer.add_tokens([added])


def _through_transformers(file: GgufFile) -> Tokenizer:
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(
        str(file.path.parent), gguf_file=file.path.name, local_files_only=True, trust_remote_code=False
    )
    tokenizer: Tokenizer = loaded.backend_tokenizer
    return tokenizer
