"""From a public Cache-to-Cache checkpoint and its two models to a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fuser.bundle.bundle import Bundle
from fuser.bundle.config import BundleConfig
from fuser.bundle.tensors import BadBundle
from fuser.heads.c2c import TokenAlignment
from fuser.kv.geometry import Geometry
from fuser.lab.c2c.checkpoint import alignment_of, import_public
from fuser.models.directory import model_ref
from fuser.models.load import has_tokenizer, load_config, load_tokenizer
from fuser.prompts.prompt import PromptStyle

_QUESTION = "What stands here?"
_PLAIN = PromptStyle("", {"document": ("", "\n\n"), "question": ("", "\n")}, "")


def bundle_of_public(
    directory: Path, receiver: Path, sharer: Path, alignment: TokenAlignment | None = None
) -> Bundle:
    """Read a public checkpoint into a bundle of one fuse head, with rotated keys.

    Prompts are written as the models' chat templates write one user turn, plainly where a model has none; with the
    alignment `same` the Sharer reads the Receiver's prompt, as it did in training.

    Args:
        directory: the checkpoint, see `import_public`.
        receiver: directory of the Receiver it was trained for.
        sharer: directory of its Sharer.
        alignment: of tokens; None takes what the checkpoint's training config says.

    Raises:
        BadBundle: naming the file and the key or tensor that is wrong.
    """
    ours, theirs = (Geometry.of(load_config(path)) for path in (receiver, sharer))
    aligned = alignment or alignment_of(directory)
    head = import_public(directory, theirs, ours, aligned)
    prompt = chat_style(receiver)
    config = BundleConfig(
        sharer=model_ref(sharer),
        receiver=model_ref(receiver),
        sharer_geometry=theirs,
        receiver_geometry=ours,
        sharer_prompt=prompt if aligned == "same" else chat_style(sharer),
        receiver_prompt=prompt,
        fuse=head.config,
    )
    return Bundle(config, head)


def save_exactly(bundle: Bundle, directory: Path) -> str:
    """Save a bundle in half the size where that loses nothing: most public weights are bfloat16. Returns the hash."""
    head = bundle.require_fuse()
    exact = all(torch.equal(p.to(torch.bfloat16).to(p.dtype), p) for p in head.parameters())
    return bundle.save(directory, torch.bfloat16 if exact else None)


def chat_style(model: Path) -> PromptStyle:
    """How a model's chat template writes one user turn, without thinking; plain text where it has none.

    Raises:
        BadBundle: the template does not write the question exactly once.
    """
    tokenizer: Any = load_tokenizer(model) if has_tokenizer(model) else None
    if tokenizer is None or not tokenizer.chat_template:
        return _PLAIN
    written = tokenizer.apply_chat_template(
        [{"role": "user", "content": _QUESTION}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    parts = written.split(_QUESTION)
    if len(parts) != 2:
        raise BadBundle(f"{model}: the chat template writes a question {len(parts) - 1} times")
    return PromptStyle(parts[0], {"document": ("", "\n\n"), "question": ("", "")}, parts[1])
