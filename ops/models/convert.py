"""From one GGUF file to a directory that `transformers` loads, marked with `kvwire.json`."""

from __future__ import annotations

import json
import os
import shutil
import struct
from math import prod
from pathlib import Path
from typing import Any

from fuser.models.directory import MARK
from ops.models.errors import BadGguf
from ops.models.progress import Progress
from ops.models.registry import KnownModel

CONVERSION = 1  # raise it when a change here changes what is written


def is_converted(directory: Path, model: KnownModel) -> bool:
    """Whether `directory` holds this model, complete and as the present code writes it."""
    try:
        mark = json.loads((directory / MARK).read_text())
        return bool(
            mark["revision"] == model.sha256
            and mark["conversion"] == CONVERSION
            and all((directory / name).stat().st_size == size for name, size in mark["bytes"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def convert(source: Path, directory: Path, model: KnownModel, progress: Progress) -> None:
    """Write `model` from the GGUF file `source` to `directory`, which appears whole or not at all.

    Weights are dequantised to `model.dtype`. Raises `BadGguf` when the file is not what `model` says.
    """
    from ops.models.gguf import GgufFile
    from ops.models.store import write_safetensors
    from ops.models.tokenizer import build_tokenizer, tokenizer_config

    file = GgufFile(source)
    if file.architecture != model.architecture:
        raise BadGguf(f"{source.name} has architecture {file.architecture!r}, not {model.architecture!r}")
    shapes = file.shapes(model.tied)
    for left in directory.parent.glob(f".{directory.name}.*"):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        with progress.task(
            f"converting {model.name}", sum(prod(s) for s in shapes.values()), "numbers"
        ) as advance:
            write_safetensors(
                temporary / "model.safetensors", shapes, file.weights(model.tied), model.dtype, advance
            )
        _write_json(temporary / "config.json", _config(file, model))
        _write_json(temporary / "generation_config.json", _generation_config(file, model))
        with progress.step(f"writing the tokenizer of {model.name}"):
            build_tokenizer(file).save(str(temporary / "tokenizer.json"))
            _write_json(temporary / "tokenizer_config.json", tokenizer_config(file))
        mark = {
            "name": model.name,
            "revision": model.sha256,
            "conversion": CONVERSION,
            "licence": model.licence,
            "bytes": {path.name: path.stat().st_size for path in sorted(temporary.iterdir())},
        }
        _write_json(temporary / MARK, mark)
        shutil.rmtree(directory, ignore_errors=True)
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _config(file: Any, model: KnownModel) -> dict[str, Any]:
    from transformers import AutoConfig

    values: dict[str, Any] = {
        "hidden_size": file.required("$.embedding_length"),
        "intermediate_size": file.required("$.feed_forward_length"),
        "num_hidden_layers": file.required("$.block_count"),
        "num_attention_heads": file.required("$.attention.head_count"),
        "num_key_value_heads": file.required("$.attention.head_count_kv"),
        "max_position_embeddings": file.required("$.context_length"),
        "rms_norm_eps": _short(file.required("$.attention.layer_norm_rms_epsilon")),
        "rope_theta": _short(file.required("$.rope.freq_base")),
        "vocab_size": len(file.required("tokenizer.ggml.tokens")),
        "tie_word_embeddings": model.tied,
        "bos_token_id": file.metadata("tokenizer.ggml.bos_token_id"),
        "eos_token_id": file.metadata("tokenizer.ggml.eos_token_id"),
        "pad_token_id": file.metadata("tokenizer.ggml.padding_token_id"),
    }
    kind = {"llama": "llama", "qwen2": "qwen2", "gemma3": "gemma3_text"}[file.architecture]
    if file.architecture != "qwen2":
        values["head_dim"] = model.head_dim
    if file.architecture == "gemma3":
        values |= {
            "sliding_window": file.required("$.attention.sliding_window"),
            "query_pre_attn_scalar": model.head_dim,
        }
    config = AutoConfig.for_model(kind, **values)
    name = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "gemma3": "Gemma3ForCausalLM"}
    config.architectures = [name[file.architecture]]
    config.dtype = model.dtype
    written: dict[str, Any] = config.to_diff_dict()
    return written


def _generation_config(file: Any, model: KnownModel) -> dict[str, Any]:
    stop = [file.metadata("tokenizer.ggml.eos_token_id"), *model.stop_ids]
    values = {
        "bos_token_id": file.metadata("tokenizer.ggml.bos_token_id"),
        "eos_token_id": stop if len(stop) > 1 else stop[0],
        "pad_token_id": file.metadata("tokenizer.ggml.padding_token_id"),
    }
    return {key: value for key, value in values.items() if value is not None}


def _short(value: float) -> float:
    """The shortest decimal that is the same float32: 1e-05 for 9.999999747378752e-06."""
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if _float32(short) == _float32(value):
            return short
    return value


def _float32(value: float) -> bytes:
    return struct.pack("<f", value)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
