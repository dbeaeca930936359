"""Which two models can be a pair: told from their configs, before any weight is read."""

from pathlib import Path

import pytest
from transformers import LlamaConfig

from fuser.kv.geometry import Geometry
from fuser.lab.pair.models import LEAD, check_pair
from fuser.models.load import load_tokenizer
from fuser.prompts.prompt import Rendered, tokenise
from kvwire.errors import Unsupported
from tests.fuser.lab.pair.families import BAD, GOOD, SIZE, save_config


@pytest.mark.parametrize("family", GOOD)
def test_a_model_with_steady_rotary_positions_may_be_on_both_sides(family: str, tmp_path: Path) -> None:
    path = save_config(tmp_path / "model", GOOD[family]())
    found = check_pair(path, path)
    assert found.sharer_geometry == found.receiver_geometry == Geometry.of(GOOD[family]())
    assert found.heads == 4


@pytest.mark.parametrize("family", BAD)
def test_a_model_that_cannot_be_in_a_pair_is_refused_by_its_name_and_the_reason(
    family: str, tmp_path: Path
) -> None:
    config, reason = BAD[family]
    good = save_config(tmp_path / "good", GOOD["llama"]())
    bad = save_config(tmp_path / family, config())
    for pair, who in (((bad, good), "Sharer"), ((good, bad), "Receiver")):
        with pytest.raises(Unsupported, match=reason) as caught:
            check_pair(*pair)
        assert str(caught.value).startswith(f"{bad} cannot be the {who}: ")


def test_both_models_are_looked_at_before_either_is_refused(tmp_path: Path) -> None:
    first = save_config(tmp_path / "first", BAD["gpt2"][0]())
    second = save_config(tmp_path / "second", BAD["dynamic"][0]())
    with pytest.raises(Unsupported) as caught:
        check_pair(first, second)
    assert f"{first} cannot be the Sharer" in str(caught.value)
    assert f"{second} cannot be the Receiver" in str(caught.value)


def test_the_sharer_is_asked_as_its_template_asks_and_begins_its_reply_with_answer(
    tiny_sharer: Path, tiny_receiver: Path
) -> None:
    found = check_pair(tiny_sharer, tiny_receiver)
    assert found.sharer_prompt.opening == "<|im_start|>user\n"
    assert found.sharer_prompt.closing == "<|im_end|>\n<|im_start|>assistant\nAnswer:"
    # no bos token: the first that there is stands before a slice
    assert found.receiver_prompt.opening == "<|endoftext|>"
    assert found.receiver_prompt.wraps["question"] == ("\nQuestion: ", "\nAnswer:")


def test_a_sharer_without_a_template_is_asked_plainly(tmp_path: Path) -> None:
    path = save_config(tmp_path / "model", GOOD["llama"]())
    (path / "chat_template.jinja").unlink()
    style = check_pair(path, path).sharer_prompt
    assert (style.opening, style.closing) == ("", "\nAnswer:")


def test_the_translate_head_has_the_lead_as_prefix_and_as_many_layers_as_can_be_solved_for(
    tmp_path: Path,
) -> None:
    small = save_config(tmp_path / "small", GOOD["llama"]())
    wide = {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8}
    large = save_config(tmp_path / "large", LlamaConfig(**SIZE | wide))
    texts = ["The ledger lies in the box."]
    models = check_pair(small, small)
    head = models.translate(texts, models.layers(10_000), 384)
    tokenizer = load_tokenizer(small)
    assert head.prefix_positions == len(tokenise(tokenizer, Rendered(LEAD, (), 0)).ids)
    assert (head.code_dim, head.sharer_layers, head.receiver_positions) == (128, (), 1)
    assert models.translate(texts, models.layers(10_000), 20).code_dim == 16
    models = check_pair(large, small)
    assert models.layers(8192) == (7, 15, 23, 31)
    assert models.layers(1) == (31,)
    assert models.translate(texts, models.layers(8192), 384).sharer_layers == (7, 15, 23, 31)
