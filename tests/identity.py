"""A bundle that translates nothing: Sharer and Receiver are one model, so its own KV is the right answer."""

from pathlib import Path

LEAD = """
Answer each question from its note.

Note:
The parcel for Dana Whitlock arrived on Tuesday. It was stored in bay 14 beside the loading dock.
Question: Where was the parcel stored?
Answer: bay 14

Note:
"""


def save_identity_bundle(directory: Path, model: Path, positions: int = 1024) -> Path:
    """Save a bundle whose translate head is an exact identity.

    Its prefix is the model's own KV of `LEAD`, and the Sharer reads the document behind the same text: so an excerpt of
    the whole document is, up to rounding, what the Receiver would have read itself.

    Args:
        model: directory of the model on both sides.
        positions: of an excerpt, at most.
    """
    import torch

    from fuser.bundle.bundle import Bundle, BundleConfig
    from fuser.heads.selection import SelectionConfig
    from fuser.heads.translate import TranslateConfig
    from fuser.kv.geometry import Geometry
    from fuser.lab.train.reading import FrozenReceiver
    from fuser.models.directory import model_ref
    from fuser.models.load import load_model
    from fuser.prompts.prompt import PromptStyle

    network, tokenizer = load_model(model)
    wraps = {"document": ("", ""), "question": ("\nQuestion: ", "\nAnswer:")}
    style = PromptStyle(opening="<|im_start|>", wraps=wraps, closing="")
    reading = FrozenReceiver(network, tokenizer, style, LEAD)
    geometry = Geometry.of(network.config)
    config = BundleConfig(
        sharer=model_ref(model),
        receiver=model_ref(model),
        sharer_geometry=geometry,
        receiver_geometry=geometry,
        sharer_prompt=PromptStyle(opening=style.opening + LEAD, wraps=wraps, closing=""),
        receiver_prompt=style,
        translate=TranslateConfig(code_dim=geometry.width, prefix_positions=reading.prefix_positions),
        selection=SelectionConfig(positions=positions),
    )
    head = config.new_translate()
    assert head is not None
    with torch.no_grad():
        for name in ("squeeze.weight", "widen.weight"):
            head.get_parameter(name).copy_(torch.eye(geometry.width))
        head.get_parameter("prefix").copy_(reading.prefix_kv())
    Bundle(config, translate=head).save(directory)
    return directory
