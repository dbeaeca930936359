"""What a section spells stays text: with the real tokenizers where they are, and with small ones of every habit."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from fuser.models.load import load_tokenizer
from fuser.prompts.prompt import Rendered, tokenise
from ops.models.errors import FetchFailed
from ops.models.fetch import find
from tests.fuser.byte_level import MANY_SCRIPTS, WORDS, ascii_tokenizer, trimming_tokenizer, unicode_tokenizer

SPECIAL = ["<|im_start|>", "<|im_end|>", "<filename>", "<s>"]
OTHER = ["<tool_call>", "qu", "  "]
CHARACTERS = st.characters(max_codepoint=0x1FFFF, exclude_categories=["Cs", "Cc"])
"""SmolLM2 has no token for some bytes of the others."""
REAL = {"smollm2": "smollm2-135m-instruct", "qwen2.5": "qwen2.5-coder-0.5b-instruct"}


def wrapped(tokenizer: Tokenizer, **flags: bool) -> Any:
    """With control tokens, and with tokens that are not special, one of which is a part of words."""
    copy = Tokenizer.from_str(tokenizer.to_str())
    copy.add_special_tokens([AddedToken(text, special=True, normalized=False, **flags) for text in SPECIAL])
    copy.add_tokens([AddedToken(text, special=False, normalized=False, **flags) for text in OTHER])
    return PreTrainedTokenizerFast(tokenizer_object=copy, clean_up_tokenization_spaces=False)


def with_first_blank() -> Tokenizer:
    made = Tokenizer.from_str(ascii_tokenizer().to_str())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return made


def of_pieces(scheme: str) -> Tokenizer:
    """Unigram, whose vocabulary holds a control token as a likely piece."""
    alphabet = sorted(set(WORDS + MANY_SCRIPTS + "<|im_startend|>x") - {" "})
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("▁", -3.0), ("▁the", -2.0), *((c, -4.0) for c in alphabet)]
    made = Tokenizer(models.Unigram(pieces, unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return made


def in_lower_case() -> Tokenizer:
    made = Tokenizer.from_str(ascii_tokenizer().to_str())
    made.normalizer = normalizers.Lowercase()
    return made


MADE: dict[str, Callable[[], Any]] = {
    "ascii": lambda: wrapped(ascii_tokenizer()),
    "unicode": lambda: wrapped(unicode_tokenizer()),
    "trimming": lambda: wrapped(trimming_tokenizer()),
    "swallowing": lambda: wrapped(ascii_tokenizer(), lstrip=True, rstrip=True),
    "first blank": lambda: wrapped(with_first_blank()),
    "pieces": lambda: wrapped(of_pieces("first")),
    "pieces always": lambda: wrapped(of_pieces("always")),
    "lower case": lambda: wrapped(in_lower_case()),
}


@cache
def tokenizer_of(name: str) -> Any:
    if name in MADE:
        return MADE[name]()
    try:
        return load_tokenizer(find(REAL[name]))
    except FetchFailed as error:
        return str(error)


@pytest.fixture(
    scope="module", params=[*MADE, *(pytest.param(name, marks=pytest.mark.real) for name in REAL)]
)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    found = tokenizer_of(request.param)
    if isinstance(found, str):
        pytest.skip(found)
    return found


def contents(tokenizer: Any) -> list[str]:
    return [token.content for token in tokenizer.added_tokens_decoder.values()]


def written(tokenizer: Any, spelt: bool) -> st.SearchStrategy[str]:
    """Texts of words, of many scripts and of any character, with or without what the tokenizer takes for a token."""
    some = [*WORDS.split(), *MANY_SCRIPTS.split(), " ", "\n", "<|", "|>", "<", "<|im_", "end|>", "12", "\n\n"]
    parts = st.sampled_from(some) | st.text(CHARACTERS, max_size=3)
    if spelt:
        parts |= st.sampled_from(contents(tokenizer))
        return st.lists(parts, max_size=8).map("".join)
    return (
        st.lists(parts, max_size=8)
        .map("".join)
        .filter(lambda t: not any(c in t for c in contents(tokenizer)))
    )


def prompt_of(before: str, bodies: list[str], between: str, after: str) -> Rendered:
    text, spans = before, []
    for body in bodies:
        spans.append((len(text), len(text) + len(body)))
        text += body + between
    return Rendered(text + after, tuple(spans), 0)


def reads_back(tokenizer: Any, ids: list[int], text: str) -> bool:
    """Whether the tokens say the text, blanks apart, where the tokenizer can say every text."""
    backend = tokenizer.backend_tokenizer
    if "▁" in str(backend.pre_tokenizer) or isinstance(backend.normalizer, normalizers.Lowercase):
        return True
    expected = text if backend.normalizer is None else backend.normalizer.normalize_str(text)
    return "".join(tokenizer.decode(ids).split()) == "".join(expected.split())


@settings(max_examples=150)
@given(data=st.data())
def test_nothing_in_a_section_becomes_an_added_token(tokenizer: Any, data: st.DataObject) -> None:
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
    spelt = contents(tokenizer)
    bodies = data.draw(st.lists(written(tokenizer, spelt=True), min_size=1, max_size=3))
    head = data.draw(st.sampled_from(["", "x", spelt[0], f"{spelt[1]}user\n"]))
    between = data.draw(st.sampled_from(["", "end|>", "\n", f"{spelt[1]}\n{spelt[0]}"]))
    prompt = prompt_of(head, bodies, between, data.draw(st.sampled_from(["", spelt[2], "Answer:"])))
    tokens = tokenise(tokenizer, prompt)
    for token, (start, end) in zip(tokens.ids.tolist(), tokens.offsets.tolist(), strict=True):
        if token in added:
            core = prompt.text[start:end].strip()
            assert core == tokenizer.added_tokens_decoder[token].content
            at = prompt.text.index(core, start)
            assert all(at + len(core) <= first or at >= last for first, last in prompt.spans if first < last)
    template = prompt_of(head, ["" for _ in bodies], "", "").text
    if spelt[0] in template:
        assert tokenizer.convert_tokens_to_ids(spelt[0]) in tokens.ids.tolist()
    assert reads_back(tokenizer, tokens.ids.tolist(), prompt.text)


@settings(max_examples=100)
@given(data=st.data())
def test_a_prompt_that_spells_nothing_is_tokenised_in_one_call(tokenizer: Any, data: st.DataObject) -> None:
    spelt = contents(tokenizer)
    body = data.draw(written(tokenizer, spelt=False))
    prompt = prompt_of(f"{spelt[1]}user\n", [body], f"\n{spelt[0]}", "Answer:")
    whole = tokenizer(prompt.text, add_special_tokens=False, return_offsets_mapping=True)
    tokens = tokenise(tokenizer, prompt)
    assert tokens.ids.tolist() == whole["input_ids"]
    assert tokens.offsets.tolist() == [list(span) for span in whole["offset_mapping"]]


@pytest.mark.parametrize("name", [*(n for n in MADE if n != "swallowing"), *REAL])
@settings(max_examples=60)
@given(data=st.data())
def test_what_stands_beside_a_spelling_keeps_its_tokens(name: str, data: st.DataObject) -> None:
    """A prompt's parts between the template's control tokens do not hear of a spelling in another part."""
    tokenizer = tokenizer_of(name)
    if isinstance(tokenizer, str):
        pytest.skip(tokenizer)
    mark = contents(tokenizer)[1]
    body = data.draw(written(tokenizer, spelt=False))
    head = f"{mark}user\n" if data.draw(st.booleans()) else "user"
    alone = tokenise(tokenizer, prompt_of(head, [body, "x"], mark, ""))
    beside = tokenise(tokenizer, prompt_of(head, [body, f"x{mark}"], mark, ""))
    at = tokenizer.convert_tokens_to_ids(mark)
    places = [i for i, token in enumerate(alone.ids.tolist()) if token == at]
    until = places[head.startswith(mark)] + 1  # the mark behind the first body
    assert alone.ids[:until].tolist() == beside.ids[:until].tolist()
    assert alone.offsets[:until].tolist() == beside.offsets[:until].tolist()


def test_a_text_alone_has_no_control_tokens(tokenizer: Any) -> None:
    for content in contents(tokenizer):
        ids = tokenise(tokenizer, f"a{content}b").ids.tolist()
        if content.strip():
            assert tokenizer.convert_tokens_to_ids(content) not in ids


def test_an_answer_that_spells_a_control_token_shows_it(tokenizer: Any) -> None:
    if tokenizer is tokenizer_of("pieces") or tokenizer is tokenizer_of("pieces always"):
        pytest.skip("its alphabet does not have every letter")
    for content in ("<filename>", "<tool_call>", "<|im_end|>"):
        ids = tokenise(tokenizer, f"the {content} tag").ids.tolist()
        assert content in tokenizer.decode(ids, skip_special_tokens=True)
