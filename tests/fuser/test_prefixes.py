"""A document that was read before is not read again, and nothing but the time it takes tells."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.kv.past import KV, PrefixCache
from fuser.kv.prefill import EXACT_FROM, prefill_together
from fuser.models.load import load_model
from fuser.sharer import Caller, Sharer
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind

DOCUMENT = Section(Role.DOCUMENT, Visibility.CLOUD, text="The spare key is under the third stone. " * 4)
QUESTIONS = ["Who keeps the key?", "Where is it?", "谁有钥匙？"]


def asking(text: str) -> tuple[Section, ...]:
    return (DOCUMENT, Section(Role.QUESTION, Visibility.SHARED, text=text))


@pytest.fixture(scope="module")
def forgetful(tiny_sharer: Path, tiny_bundle: Path) -> Sharer:
    return Sharer(*load_model(tiny_sharer), Bundle.load(tiny_bundle))


@pytest.fixture
def mindful(forgetful: Sharer) -> Sharer:
    sharer = Sharer(forgetful.model, forgetful.tokenizer, forgetful.bundle, PrefixCache(1 << 24))
    assert sharer.packs and forgetful.packs  # tried now, and not while tokens are counted
    return sharer


def run(
    sharer: Sharer, kind: SliceKind, text: str, owner: str = "acme", before: str = ""
) -> tuple[list[Tensor], int]:
    """The slice, and how many tokens the model was run over for it."""
    seen: list[int] = []
    embedding = sharer.model.get_input_embeddings()
    hook = embedding.register_forward_hook(lambda _, ids, __: seen.append(ids[0].shape[1]))
    parts: list[Tensor] = []
    document, question = asking(text)
    earlier = [Section(Role.DOCUMENT, Visibility.SHARED, text=before)] if before else []
    sharer.run(
        sharer.layout([document, *earlier, question], kind, 8),
        lambda _, tensor: parts.append(tensor),
        Caller(owner=owner),
    )
    hook.remove()
    return parts, sum(seen)


@pytest.mark.parametrize("kind", SliceKind)
def test_what_is_reused_changes_no_bit_of_any_slice(
    forgetful: Sharer, mindful: Sharer, kind: SliceKind
) -> None:
    run(mindful, SliceKind.EXCERPT, "Is there a key?")  # every layer of the document is kept now
    for text in QUESTIONS:
        fresh, all_tokens = run(forgetful, kind, text)
        reused, tokens = run(mindful, kind, text)
        assert tokens == all_tokens - mindful.layout(asking(text), kind, 8).prompt.prefix
        assert len(fresh) == len(reused) > 0
        assert all(torch.equal(a, b) for a, b in zip(fresh, reused, strict=True))


@pytest.mark.parametrize("kind", [SliceKind.EXCERPT, SliceKind.DRAFT])
def test_the_next_turn_of_a_conversation_reads_what_is_new_and_after_a_loss_all_to_the_same_bits(
    forgetful: Sharer, mindful: Sharer, kind: SliceKind
) -> None:
    _, first = run(mindful, kind, QUESTIONS[0])
    before = f"Question: {QUESTIONS[0]}\nAnswer: Ilse."
    kept, second = run(mindful, kind, QUESTIONS[1], before=before)
    anew, whole = run(
        forgetful, kind, QUESTIONS[1], before=before
    )  # as a replica in the place of one that was lost
    prefix = mindful.layout(asking(QUESTIONS[1]), kind, 8).prompt.prefix
    assert prefix > 30 and second == whole - prefix and second < first
    assert all(torch.equal(a, b) for a, b in zip(kept, anew, strict=True))


def test_what_one_tenant_asked_about_is_not_reused_for_another(mindful: Sharer) -> None:
    _, first = run(mindful, SliceKind.EXCERPT, QUESTIONS[0], "acme")
    _, other = run(mindful, SliceKind.EXCERPT, QUESTIONS[0], "other")
    _, again = run(mindful, SliceKind.EXCERPT, QUESTIONS[0], "acme")
    assert other == first > again


def test_a_prefix_that_stops_at_a_lower_layer_does_not_serve_a_slice_that_needs_more() -> None:
    cache, ids = PrefixCache(1 << 20), torch.arange(5)
    cache.put("acme", ids, kv(2, 5))
    assert cache.get("acme", ids, 2) is not None
    assert cache.get("acme", ids, 3) is None
    assert cache.get("acme", ids[:4], 1) is None


def kv(layers: int, positions: int) -> KV:
    """Each layer takes 32 bytes a position."""
    return [(torch.zeros(1, 1, positions, 4), torch.zeros(1, 1, positions, 4)) for _ in range(layers)]


def test_memory_is_bounded_and_what_was_used_last_stays() -> None:
    cache = PrefixCache(1000)
    first, second, third = (torch.full((3,), number) for number in range(3))
    cache.put("acme", first, kv(1, 15))
    cache.put("acme", second, kv(1, 15))
    assert cache.bytes == 960 and cache.get("acme", first, 1)
    cache.put("acme", third, kv(1, 15))
    assert cache.bytes == 960
    assert cache.get("acme", first, 1) and cache.get("acme", third, 1)
    assert cache.get("acme", second, 1) is None
    cache.put("acme", first, kv(1, 10))
    assert cache.bytes == 800
    cache.put("acme", second, kv(1, 100))  # alone over the bound
    assert cache.bytes == 800 and cache.get("acme", second, 1) is None
    nothing = PrefixCache(0)
    nothing.put("acme", first, kv(1, 1))
    assert nothing.bytes == 0


@pytest.mark.parametrize("kind", SliceKind)
def test_a_document_nobody_read_and_its_question_go_in_one_pass_to_the_bits_of_two(
    forgetful: Sharer, mindful: Sharer, kind: SliceKind
) -> None:
    passes: list[int] = []
    embedding = mindful.model.get_input_embeddings()
    run(mindful, SliceKind.EXCERPT, QUESTIONS[0])
    hook = embedding.register_forward_hook(lambda _, ids, __: passes.append(ids[0].shape[1]))
    at_once, _ = run(forgetful, kind, QUESTIONS[0])
    prompt = forgetful.layout(asking(QUESTIONS[0]), kind, 8).prompt
    assert len(prompt) - prompt.prefix >= EXACT_FROM and passes[0] == len(prompt)
    passes.clear()
    in_two, _ = run(mindful, kind, QUESTIONS[0])  # on top of what was read with another slice
    assert passes[0] == len(prompt) - prompt.prefix
    hook.remove()
    assert all(torch.equal(a, b) for a, b in zip(at_once, in_two, strict=True))


def test_what_is_kept_of_one_pass_has_the_bits_of_a_document_that_is_read_for_itself(mindful: Sharer) -> None:
    run(mindful, SliceKind.EXCERPT, QUESTIONS[0])
    prompt = mindful.prompt(asking(QUESTIONS[0]))
    kept = mindful._prefixes.get("acme", prompt.tokens.ids[: prompt.prefix], 4)
    work = next(mindful.reading_ahead(prompt, Caller(owner="acme")))
    read: list[tuple[Tensor, Tensor]] = []
    work.on_layer = lambda _, keys, values: read.append((keys, values))
    prefill_together(mindful.model, [work])
    assert kept is not None and len(kept) == len(read) == 4
    assert all(torch.equal(a, b) for x, y in zip(kept, read, strict=True) for a, b in zip(x, y, strict=True))
