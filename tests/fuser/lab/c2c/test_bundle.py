"""An imported bundle in the service, against the public code's way of running a checkpoint."""

import json
import shutil
from pathlib import Path

import pytest

from fuser.lab.c2c.bundle import bundle_of_public
from fuser.lab.c2c.generate import generate_public
from fuser.models.load import load_model
from fuser.prompts.prompt import RECEIVER_HOLDS, render, tokenise
from fuser.receiver import Receiver
from fuser.sharer import Sharer
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from ops.chaos.in_one_process import answer_in_one_process
from tests.public_checkpoint import save_public_checkpoint

PAIRS = {layer: [[max(0, layer - 1), layer % 2]] for layer in range(6)}


@pytest.fixture
def plain(tiny_receiver: Path, tmp_path: Path) -> Path:
    """A model without a chat template, to be both sides."""
    model = shutil.copytree(tiny_receiver, tmp_path / "plain")
    (model / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((model / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (model / "tokenizer_config.json").write_text(json.dumps(config))
    return model


def test_of_one_vocabulary_and_without_a_template_the_service_generates_as_the_public_code_does(
    plain: Path, tmp_path: Path
) -> None:
    checkpoint = save_public_checkpoint(tmp_path / "final", PAIRS, {"sharer": (1, 16), "receiver": (1, 16)})
    bundle = bundle_of_public(checkpoint, plain, plain)
    sharer, receiver = Sharer(*load_model(plain), bundle), Receiver(*load_model(plain), bundle)
    text = "Who keeps Müller's key? 图书馆, 🌧️"  # characters of several tokens each
    sections = (Section(Role.QUESTION, Visibility.SHARED, text=text),)

    local = answer_in_one_process(sharer, receiver, sections, {}, SliceKind.SHARED, 0, 10)
    ids = tokenise(receiver.tokenizer, render(sections, bundle.config.receiver_prompt, RECEIVER_HOLDS)).ids
    public = generate_public(receiver.model, sharer.model, bundle.require_fuse(), ids[None], ids[None], 10)
    assert local.prefilled.tokens == public[0, len(ids) :].tolist()
    alone = receiver.begin(sections).prefill(None)
    list(alone.generate(10))
    assert alone.tokens != local.prefilled.tokens
