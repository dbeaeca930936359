"""Tiny random models written as GGUF files and as wheels that carry them, so that no test needs a network."""

import base64
import hashlib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from fuser.models.directory import sha256_of
from ops.chaos.tiny import CHAT_TEMPLATE, SPECIAL_TOKENS, TEXT
from ops.models.registry import KnownModel, Wheel

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
PRE_TOKENIZER = {"llama": "smollm", "qwen2": "qwen2", "gemma3": "qwen2"}


@dataclass(frozen=True)
class TinyGguf:
    """A GGUF file and the model that it was written from."""

    path: Path
    known: KnownModel
    model: Any


def write_tiny_gguf(
    directory: Path,
    architecture: str = "llama",
    *,
    quantisation: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    own_head: bool = False,
    wheels: tuple[Wheel, ...] = (),
    dtype: str = "float32",
) -> TinyGguf:
    """Write a random model of `architecture`; `own_head` adds a head that differs from the embedding."""
    tokens, kinds, merges = _vocabulary()
    model = _model(architecture, len(tokens), tied=not own_head)
    path = directory / f"tiny-{architecture}.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(SHAPE["max_position_embeddings"])
    writer.add_embedding_length(SHAPE["hidden_size"])
    writer.add_block_count(SHAPE["num_hidden_layers"])
    writer.add_feed_forward_length(SHAPE["intermediate_size"])
    writer.add_head_count(SHAPE["num_attention_heads"])
    writer.add_head_count_kv(SHAPE["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(SHAPE["rms_norm_eps"])
    writer.add_rope_freq_base(1_000_000.0 if architecture == "gemma3" else 100_000.0)
    writer.add_key_length(SHAPE["head_dim"])
    if architecture == "llama":
        writer.add_rope_dimension_count(SHAPE["head_dim"])
        writer.add_vocab_size(len(tokens))
    if architecture == "gemma3":
        writer.add_sliding_window(32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(PRE_TOKENIZER[architecture])
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, tensor in _gguf_tensors(model, architecture).items():
        values = tensor.detach().contiguous().numpy()
        kind = quantisation if tensor.ndim == 2 else gguf.GGMLQuantizationType.F32
        if name == "output.weight":
            kind = gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    known = KnownModel(
        name=f"tiny-{architecture}",
        sha256=sha256_of(path),
        filename=path.name,
        bytes=path.stat().st_size,
        hub=None,
        wheels=wheels,
        architecture=architecture,
        parameters=model.num_parameters(),
        layers=SHAPE["num_hidden_layers"],
        kv_heads=SHAPE["num_key_value_heads"],
        head_dim=SHAPE["head_dim"],
        dtype=dtype,
        tied=True,
        instruct=True,
        licence="Apache-2.0",
    )
    return TinyGguf(path, known, model)


def write_wheel(directory: Path, project: str, member: str, part: bytes) -> Wheel:
    """A real wheel of `project` 1.0 whose `member` is `part`, and whose code must never run."""
    module = project.replace("-", "_")
    files = {
        f"{module}/__init__.py": b"raise SystemExit('a wheel that carries data was imported')\n",
        f"{module}/{member}": part,
        f"{module}-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: %b\nVersion: 1.0\n"
        % project.encode(),
        f"{module}-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = f"{module}-1.0.dist-info/RECORD"
    lines = [f"{name},sha256={_record_hash(data)},{len(data)}" for name, data in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    path = directory / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return Wheel(f"{project}==1.0", path.name, sha256_of(path), f"{module}/{member}")


def _record_hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _vocabulary() -> tuple[list[str], list[int], list[str]]:
    """(tokens, token types, merges) of a byte-level BPE trained on the tests' text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(trained["vocab"], key=trained["vocab"].__getitem__)
    tokens.append("<tool_call>")
    kinds = [gguf.TokenType.CONTROL if token in SPECIAL_TOKENS else gguf.TokenType.NORMAL for token in tokens]
    kinds[-1] = gguf.TokenType.USER_DEFINED
    return tokens, [int(kind) for kind in kinds], [" ".join(merge) for merge in trained["merges"]]


def _model(architecture: str, vocabulary: int, tied: bool) -> Any:
    torch.manual_seed(7)
    shape = {**SHAPE, "vocab_size": vocabulary, "tie_word_embeddings": tied, "initializer_range": 0.2}
    if architecture == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(**shape, rope_theta=100_000.0))
    elif architecture == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape, rope_theta=100_000.0))
    else:
        rest = {"sliding_window": 32, "query_pre_attn_scalar": 16, "rope_theta": 1_000_000.0}
        model = Gemma3ForCausalLM(Gemma3TextConfig(**shape, **rest))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # norms and biases start as all the same number, which would hide mistakes
            torch.nn.init.normal_(parameter, mean=1.0 if name.endswith("norm.weight") else 0.0, std=0.1)
    return model.eval().requires_grad_(False)


def _gguf_tensors(model: Any, architecture: str) -> dict[str, Tensor]:
    """llama.cpp's names and layouts for a Hugging Face model, by the `gguf` package's table."""
    kind = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(kind, SHAPE["num_hidden_layers"])
    written: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        stem, _, suffix = name.rpartition(".")
        values = tensor
        if architecture == "llama" and stem.endswith(("q_proj", "k_proj")):
            heads = SHAPE["num_attention_heads" if stem.endswith("q_proj") else "num_key_value_heads"]
            values = tensor.reshape(heads, 2, -1, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)
        if architecture == "gemma3" and stem.endswith("norm"):
            values = tensor + 1
        written[f"{names.get_name(stem)}.{suffix}"] = values
    return written
