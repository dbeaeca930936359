"""A random checkpoint in the public Cache-to-Cache layout, and a golden file computed one layer at a time.

The arithmetic is written down here a second time, straight from the method's description (arXiv 2510.03215,
section 3.3) and without any of the product's fuse code, so that the two can be compared.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROMPT = "Müller's café: who keeps the spare key? 12, 345 图书馆"


def save_public_checkpoint(
    directory: Path,
    pairs: Mapping[int, list[list[int]]],
    sides: Mapping[str, tuple[int, int]],
    blocks: int = 1,
) -> Path:
    """Save random projectors, every gate open; `sides` gives (kv heads, head_dim) of sharer and receiver."""
    import torch

    (source_heads, source_dim), (heads, dim) = sides["sharer"], sides["receiver"]
    width, inner = 24, 40
    joined, out = source_heads * source_dim + heads * dim, heads * dim
    shapes: dict[str, tuple[int, ...]] = {"in.weight": (width, joined), "in.bias": (width,), "gate_logit": ()}
    for name, count, hidden in (("mlp1", 1, inner), ("proj_mlp2", blocks, inner), ("scalar_mlp2", 1, width)):
        for block in range(count):
            at = f"{name}.blocks.{block}"
            shapes[f"{at}.norm.weight"] = (width,)
            shapes |= {f"{at}.w1.weight": (hidden, width), f"{at}.w2.weight": (width, hidden)}
    shapes |= {"proj_out.weight": (out, width), "proj_out.bias": (out,)}
    shapes |= {"scalar_head.weight": (heads, width), "scalar_head.bias": (heads,)}
    arguments = {
        "source_dim": source_dim,
        "target_dim": dim,
        "source_num_heads": source_heads,
        "target_num_heads": heads,
        "hidden_dim": width,
        "intermediate_dim": inner,
        "num_layers": blocks + 2,
        "dtype": {"__type__": "torch.dtype", "value": "float32"},
    }
    directory.mkdir(parents=True)
    generator = torch.Generator().manual_seed(5)
    for index in {index for listed in pairs.values() for _, index in listed}:
        state = {
            f"{half}_{name}": torch.randn(shape, generator=generator) * 0.3
            for half in ("key", "value")
            for name, shape in shapes.items()
        }
        for half in ("key", "value"):
            state[f"{half}_gate_logit"].abs_()
        state["gate_temperature"] = torch.tensor(0.001)
        torch.save(state, directory / f"projector_{index}.pt")
        described = {"class": "C2CProjector", "init_args": arguments}
        (directory / f"projector_{index}.json").write_text(json.dumps(described))
    (directory / "projector_config.json").write_text(json.dumps({"0": {"1": pairs}}))
    return directory


def save_golden(path: Path, checkpoint: Path, receiver: Path, sharer: Path, new_tokens: int) -> Path:
    """Run both models over a prompt, re-encoded by the longest piece, fuse, generate, and write it all down."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

    ours, theirs = (AutoModelForCausalLM.from_pretrained(side).eval() for side in (receiver, sharer))
    mine, other = (AutoTokenizer.from_pretrained(side) for side in (receiver, sharer))
    ids = mine.encode(PROMPT, add_special_tokens=False)
    pieces = [other.encode(mine.decode([token]), add_special_tokens=False) for token in ids]
    longest = [max(found, key=lambda piece: len(other.decode([piece]))) for found in pieces]
    assert longest != [found[0] for found in pieces]
    layers = json.loads((checkpoint / "projector_config.json").read_text())["0"]["1"]
    tensors: dict[str, Any] = {"input_ids": torch.tensor([ids])}

    def fused(count: int, keep: bool) -> DynamicCache:
        caches = DynamicCache(), DynamicCache()
        for model, tokens, cache in zip((theirs, ours), (longest, ids), caches, strict=True):
            model(input_ids=torch.tensor([tokens[:count]]), past_key_values=cache)
        for layer, listed in layers.items():
            source, index = listed[0]
            state = torch.load(checkpoint / f"projector_{index}.pt", weights_only=True)
            for half in ("key", "value"):
                read, into = caches[0].layers[source], caches[1].layers[int(layer)]
                before = getattr(into, f"{half}s")
                after = _project(state, half, getattr(read, f"{half}s"), before)
                if keep:
                    tensors[f"sharer.{layer}.{half}"] = getattr(read, f"{half}s").clone()
                    tensors[f"receiver.{layer}.{half}"] = before.clone()
                    tensors[f"fused.{layer}.{half}"] = after
                setattr(into, f"{half}s", after)
        return caches[1]

    with torch.inference_mode():
        fused(len(ids), keep=True)
        cache = fused(len(ids) - 1, keep=False)
        out, mask = list(ids), None
        for _ in range(new_tokens):
            step = ours(input_ids=torch.tensor([out[-1:]]), past_key_values=cache, attention_mask=mask)
            out.append(int(step.logits[0, -1].argmax()))
            mask = torch.ones(
                1, 1, dtype=torch.int64
            )  # what the public code gives, see fuser.lab.c2c.generate
    tensors["generated_fused"] = torch.tensor([out])
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path


def _project(state: Mapping[str, Any], half: str, source: Any, target: Any) -> Any:
    """target + weights * projection, with an open gate."""
    import torch
    from torch.nn import functional

    def linear(name: str, x: Any) -> Any:
        return functional.linear(x, state[f"{half}_{name}.weight"], state.get(f"{half}_{name}.bias"))

    def mlp(name: str, x: Any) -> Any:
        block = 0
        while f"{half}_{name}.blocks.{block}.w1.weight" in state:
            at = f"{name}.blocks.{block}"
            normed = x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * state[f"{half}_{at}.norm.weight"]
            x = x + linear(f"{at}.w2", functional.gelu(linear(f"{at}.w1", normed)))
            block += 1
        return x

    batch, heads, positions, dim = target.shape
    flat = [side.transpose(1, 2).reshape(batch, positions, -1) for side in (source, target)]
    h = mlp("mlp1", linear("in", torch.cat(flat, -1)))
    moved = linear("proj_out", mlp("proj_mlp2", h)).reshape(batch, positions, heads, dim).transpose(1, 2)
    weights = torch.sigmoid(linear("scalar_head", mlp("scalar_mlp2", h))).transpose(1, 2)[..., None]
    return target + weights * moved
