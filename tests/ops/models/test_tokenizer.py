"""The tokenizer built from a GGUF file equals the one that transformers makes of the same file."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unicodedata import combining, normalize

import gguf
import pytest
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoTokenizer

from fuser.models.load import load_tokenizer
from ops.chaos.tiny import TEXT
from ops.models.errors import BadGguf, FetchFailed
from ops.models.fetch import download_directory, find
from ops.models.gguf import GgufFile
from ops.models.registry import QWEN_CODER_0_5B, SMOLLM2_135M, KnownModel
from ops.models.tokenizer import build_tokenizer, tokenizer_config
from tests.ops.models.tiny_gguf import write_tiny_gguf

STRINGS = [
    "",
    " ",
    "a",
    "two  spaces   and    more",
    "\n\n \n\t\ttabs\r\nand\r\n\r\nlines \n",
    "I'm sure you'll say IT'S not what they'd want",
    "naïve café, crème brûlée; Šárka Street",
    "decomposed: e\u0301 a\u030a o\u0308",
    "图书馆在河边，星期三上午九点开门。",
    "日本語のテキスト カタカナ 한국어 العربية עברית ไทย",
    "😀 👩‍👩‍👧‍👦 🏳️‍🌈 ☀️ 🇨🇭",
    "def f(x):\n    return x**2  # comment\n\tif x: pass\n",
    "3.14159 1000000 12,345.67 x= 42  007  9",
    "½ Ⅳ ２３ ٣٤٥",
    "<|im_start|>system\nhi<|im_end|>\n<|endoftext|> <tool_call>{}</tool_call>",
    "\u200b\ufeffzero width \x00\x01\x7f",
    "a" * 300,
    TEXT,
]


def theirs(path: Path, digits: bool) -> Tokenizer:
    """What transformers makes of the file, with the digit splitting that its conversion of smollm drops."""
    loaded: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer: Tokenizer = loaded.backend_tokenizer
    if digits:
        steps = [pre_tokenizers.Digits(individual_digits=True), tokenizer.pre_tokenizer]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    return tokenizer


def assert_same(ours: Tokenizer, other: Tokenizer, nfc: bool) -> None:
    for text in STRINGS:
        mine = ours.encode(text, add_special_tokens=False)
        # The file does not say that qwen2 composes first; its own tokenizer class does.
        composed = ours.normalizer.normalize_str(text) if nfc else text
        its = other.encode(composed, add_special_tokens=False)
        assert mine.ids == its.ids, text
        assert ours.decode(mine.ids) == other.decode(its.ids)
        if composed == text:
            assert mine.offsets == its.offsets, text


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_it_equals_the_one_of_transformers(architecture: str, tmp_path: Path) -> None:
    tiny = write_tiny_gguf(tmp_path, architecture)
    ours = build_tokenizer(GgufFile(tiny.path))
    assert_same(ours, theirs(tiny.path, digits=architecture == "llama"), nfc=architecture == "qwen2")


# SHA-256 of what `theirs` makes of STRINGS with the real vocabularies (transformers 5.23).
GOLDEN = {
    "smollm2-135m-instruct": "1081e4e3ccafb8d2a8f0bb46e639995b51b636a185f9f3e04f8687bde5537f57",
    "qwen2.5-coder-0.5b-instruct": "19dad4f6bfe627c1c44c3772bfb1f0e44d2caaa04ff0f1ae0fb2b919c8309cf7",
}


def fingerprint(encode: Callable[[str], list[int]], nfc: bool) -> str:
    texts = [normalize("NFC", text) if nfc else text for text in STRINGS]
    return hashlib.sha256(json.dumps([encode(text) for text in texts]).encode()).hexdigest()


@pytest.mark.real
@pytest.mark.parametrize("name", GOLDEN)
def test_the_demo_pair_encodes_as_it_always_did(name: str, real_cache: None) -> None:
    try:
        tokenizer = load_tokenizer(find(name))
    except FetchFailed as error:
        pytest.skip(str(error))
    assert fingerprint(lambda text: tokenizer.encode(text), nfc=False) == GOLDEN[name]


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("KVWIRE_TEST_REAL"), reason="half a minute; set KVWIRE_TEST_REAL=1")
@pytest.mark.parametrize("known", [SMOLLM2_135M, QWEN_CODER_0_5B], ids=lambda known: known.name)
def test_it_equals_the_one_of_transformers_for_the_demo_pair(known: KnownModel, real_cache: None) -> None:
    path = download_directory() / known.filename
    if not path.exists():
        pytest.skip(f"{known.filename} is not on this machine")
    ours = build_tokenizer(GgufFile(path))
    digits = known is SMOLLM2_135M
    other = theirs(path, digits)
    assert_same(ours, other, nfc=not digits)
    assert fingerprint(lambda text: other.encode(text).ids, nfc=not digits) == GOLDEN[known.name]


def test_text_survives_the_round_trip(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(GgufFile(write_tiny_gguf(tmp_path, "llama").path))
    for text in STRINGS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_every_digit_of_smollm_is_a_token(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(GgufFile(write_tiny_gguf(tmp_path, "llama").path))
    assert tokenizer.encode("  1204", add_special_tokens=False).tokens[-4:] == ["1", "2", "0", "4"]


def test_offsets_cover_the_whole_text(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(GgufFile(write_tiny_gguf(tmp_path, "qwen2").path))
    for text in STRINGS:
        covered = {at for start, end in tokenizer.encode(text).offsets for at in range(start, end)}
        assert covered >= {
            at for at in range(len(text)) if not combining(text[at])
        }  # composed ones have none


def test_special_tokens_are_whole_and_named(tmp_path: Path) -> None:
    file = GgufFile(write_tiny_gguf(tmp_path, "llama").path)
    tokenizer = build_tokenizer(file)
    assert tokenizer.encode("<|im_start|>x<|im_end|>").ids[0::2] == [1, 2]
    assert tokenizer.decode([1, 2]) == ""
    assert tokenizer.encode("<tool_call>").tokens == ["<tool_call>"]
    config = tokenizer_config(file)
    assert (config["bos_token"], config["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert config["pad_token"] == "<|endoftext|>"
    assert "unk_token" not in config
    assert "<|im_start|>assistant" in config["chat_template"]


def test_an_unknown_pre_tokenizer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("surprise")
    writer.add_token_list(["a", "aa"])
    writer.add_token_types([1, 1])
    writer.add_token_merges(["a a"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BadGguf, match="pre-tokenizer 'surprise'; this loader knows qwen2 and smollm"):
        build_tokenizer(GgufFile(path))


def test_a_file_without_a_tokenizer_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BadGguf, match=r"has no tokenizer\.ggml\.model; the file is incomplete"):
        build_tokenizer(GgufFile(path))
