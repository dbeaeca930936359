"""A random bundle for the tiny pair: heads of noise, some gates closed, so that no path is an identity."""

from pathlib import Path

SHARER_PROMPT = {
    "opening": "<|im_start|>system\nAnswer the question.<|im_end|>\n",
    "wraps": {
        "system": ["<|im_start|>system\n", "<|im_end|>\n"],
        "document": ["<|im_start|>user\n", "\n"],
        "question": ["<|im_start|>user\n", "<|im_end|>\n"],
    },
    "closing": "<|im_start|>assistant\n",
}
RECEIVER_PROMPT = SHARER_PROMPT | {"opening": "<|im_start|>system\nBe brief.<|im_end|>\n"}


def save_tiny_bundle(directory: Path, sharer: Path, receiver: Path, seed: int = 22) -> Path:
    """Save a bundle for the models at the two paths, with a head for each kind of slice."""
    import torch
    from transformers import AutoConfig

    from fuser.bundle.bundle import Bundle, BundleConfig
    from fuser.heads.compact import CompactConfig
    from fuser.heads.selection import SelectionConfig
    from fuser.heads.translate import TranslateConfig
    from fuser.kv.geometry import Geometry, LayerMap
    from fuser.models.directory import model_ref
    from fuser.prompts.prompt import PromptStyle

    theirs, ours = (Geometry.of(AutoConfig.from_pretrained(path)) for path in (sharer, receiver))
    config = BundleConfig(
        sharer=model_ref(sharer),
        receiver=model_ref(receiver),
        sharer_geometry=theirs,
        receiver_geometry=ours,
        sharer_prompt=PromptStyle.from_dict(SHARER_PROMPT),
        receiver_prompt=PromptStyle.from_dict(RECEIVER_PROMPT),
        fuse=CompactConfig(LayerMap.terminal(ours.layers, theirs.layers), rank=8, inner=12),
        translate=TranslateConfig(code_dim=24, prefix_positions=2),
        selection=SelectionConfig(positions=12),
    )
    generator = torch.Generator().manual_seed(seed)
    fuse, translate = config.new_fuse(), config.new_translate()
    assert fuse is not None and translate is not None
    with torch.no_grad():
        for head in (fuse, translate):
            for parameter in head.parameters():
                parameter.normal_(0.0, 0.3, generator=generator)
        gates = fuse.get_parameter("gate_logit")
        gates.fill_(1.0)
        gates[-1] = -1.0  # the last layer sends nothing
        gates[-2, 0] = -1.0  # the one before it sends values only
    Bundle(config, fuse, translate).save(directory)
    return directory
