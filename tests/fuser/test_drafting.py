"""A draft holds the tokens of greedy decoding, and the same bits whatever runs beside it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fuser.bundle.bundle import Bundle
from fuser.kv.drafting import WIDTH, looked_up
from fuser.kv.generate import generate
from fuser.kv.past import Past
from fuser.kv.prefill import Prefill
from fuser.models.load import load_model
from fuser.sharer import Cut, Reading, Sharer
from fuser.slice_specs import MAX_WRITTEN
from kvwire.errors import InvalidRequest
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind
from tests.greedy import greedy as plain

TEXTS = (
    "Ilse Brandvik keeps the spare key of the boat house under the third stone from the door.",
    "The invoice 2024-117 over 1,250.40 euros is due on 3 May; it is paid by Brandvik and Sons.",
    "one two three one two three one two three one two three one two three",
)


def sections(text: str) -> tuple[Section, Section]:
    return (
        Section(Role.DOCUMENT, Visibility.CLOUD, text=text),
        Section(
            Role.QUESTION, Visibility.SHARED, text="Where is it, and who keeps the rest of what there is?"
        ),
    )


@pytest.fixture(scope="module")
def sharer(tiny_sharer: Path, tiny_bundle: Path) -> Sharer:
    model, tokenizer = load_model(tiny_sharer)
    return Sharer(model, tokenizer, Bundle.load(tiny_bundle))


@pytest.fixture(scope="module")
def drafts(sharer: Sharer) -> list[Reading]:
    prompts = [sharer.prompt(sections(text)) for text in TEXTS]
    return sharer.read(prompts, at=[p.document for p in prompts], asking=True, draft=MAX_WRITTEN)


def greedy(sharer: Sharer, text: str, most: int) -> list[int]:
    """One token after another, without guesses, up to the end of the first line."""
    ids = sharer.prompt(sections(text)).tokens.ids
    stops = frozenset({sharer.tokenizer.eos_token_id})
    (said,) = generate(sharer.model, Past.empty(1, ids.device), [ids], stops, most).tokens
    lines = [n for n in range(len(said)) if "\n" in sharer.tokenizer.decode(said[: n + 1])]
    return said[: min(lines, default=len(said))]


def test_a_draft_is_what_greedy_decoding_says(sharer: Sharer, drafts: list[Reading]) -> None:
    for text, reading in zip(TEXTS, drafts, strict=True):
        assert list(reading.draft) == greedy(sharer, text, MAX_WRITTEN)
    assert any(len(reading.draft) > 3 for reading in drafts)


def test_it_says_how_likely_its_tokens_are_and_an_excerpt_says_nothing(
    sharer: Sharer, drafts: list[Reading]
) -> None:
    for text, reading in zip(TEXTS, drafts, strict=True):
        ids = torch.cat((reading.prompt.tokens.ids, torch.tensor(reading.draft)))
        with torch.inference_mode():
            likely = sharer.model(ids[None]).logits[0, -len(reading.draft) - 1 : -1].log_softmax(-1)
        wanted = likely.gather(1, torch.tensor(reading.draft)[:, None])[:, 0].tolist()
        assert list(reading.likely) == pytest.approx(wanted, abs=1e-4)
        cuts: list[Cut] = []
        for kind in (SliceKind.DRAFT, SliceKind.EXCERPT):
            layout = sharer.layout(sections(text), kind, 32, Plan(codec="raw"))
            sharer.run(layout, lambda *_: None, announce=cuts.append)
        assert [cut.certainty.likely for cut in cuts] == [pytest.approx(min(wanted), abs=1e-4), None]


def test_its_keys_and_values_are_those_of_the_prompt_with_the_draft_behind_it(
    sharer: Sharer, drafts: list[Reading]
) -> None:
    for reading in drafts:
        ids = torch.cat((reading.prompt.tokens.ids, torch.tensor(reading.draft)))
        past = Past.empty(1, ids.device)
        past.run(sharer.model, [ids])
        for layer, (keys, values) in enumerate(past.layers):
            found = [half[:, reading.among(reading.drafted)] for half in reading.kv[layer]]
            for one, other in zip(found, (keys, values), strict=True):
                assert torch.allclose(one, other[0][:, reading.drafted], atol=1e-5)


def test_drafts_side_by_side_have_the_bits_that_each_has_alone(sharer: Sharer, drafts: list[Reading]) -> None:
    for text, beside in zip(TEXTS, drafts, strict=True):
        prompt = sharer.prompt(sections(text))
        (alone,) = sharer.read([prompt], at=[prompt.document], asking=True, draft=MAX_WRITTEN)
        assert alone.draft == beside.draft
        assert torch.equal(alone.at, beside.at)
        assert all(
            torch.equal(a, b) for n in alone.kv for a, b in zip(alone.kv[n], beside.kv[n], strict=True)
        )


def test_a_right_guess_saves_a_pass_and_changes_nothing(
    sharer: Sharer, drafts: list[Reading], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    together: Callable[..., None] = sharer._prefill

    def counting(works: list[Prefill]) -> None:
        passes.extend(work.positions for work in works if work.whole and work.positions == WIDTH)
        together(works)

    monkeypatch.setattr(sharer, "_prefill", counting)
    prompt = sharer.prompt(sections(TEXTS[0]))
    told = list(prompt.tokens.ids[-1:]) + list(drafts[0].draft)
    monkeypatch.setattr(
        "fuser.kv.drafting.looked_up",
        lambda ids, count: told[len(ids) - len(prompt) + 1 :][:count],
    )
    (reading,) = sharer.read([prompt], at=[prompt.document], asking=True, draft=MAX_WRITTEN)
    assert reading.draft == drafts[0].draft
    assert len(passes) == -(-len(reading.draft) // WIDTH)
    # Another pass, other last bits: that is why guesses come from the prompt alone.
    both = zip(reading.kv.values(), drafts[0].kv.values(), strict=True)
    assert all(
        torch.allclose(a, b, atol=1e-5) for one, other in both for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(
    ("ids", "count", "expected"),
    [
        ([1, 2, 3, 4, 1, 2], 3, [3, 4, 1]),
        ([5, 2, 9, 1, 2, 8, 1, 2], 1, [8]),  # the longer match wins
        ([1, 7, 1, 8, 1], 1, [7]),  # of equal ones the first
        ([1, 2, 3], 4, []),
        ([1], 4, []),
        ([], 4, []),
    ],
)
def test_guesses_are_what_followed_before(ids: list[int], count: int, expected: list[int]) -> None:
    assert looked_up(ids, count) == expected


def segment(sharer: Sharer, plan: Plan, most: int, *prompt: Section) -> Any:
    reading_of = sharer.prompt(prompt)
    layout = sharer.layout(reading_of, SliceKind.DRAFT, most, plan)
    announced: list[Any] = []
    found: list[Any] = []
    sharer.run(layout, lambda spec, tensor: found.append((spec, tensor)), announce=announced.append)
    ((spec, tensor),) = found
    (cut,) = announced
    assert cut.specs == (spec,) and tensor.shape == spec.shape
    return tensor


def test_a_draft_slice_is_the_codes_of_the_draft_behind_those_of_an_excerpt(
    sharer: Sharer, drafts: list[Reading]
) -> None:
    count = len(drafts[0].draft)
    alone = segment(sharer, Plan(codec="raw"), 32, *sections(TEXTS[0]))
    both = segment(sharer, Plan(codec="raw", quoted=5), 32, *sections(TEXTS[0]))
    assert len(alone) == count and len(both) == count + 5
    assert torch.equal(both[5:], alone)
    excerpt: list[Any] = []
    layout = sharer.layout(sections(TEXTS[0]), SliceKind.EXCERPT, 5, Plan(codec="raw"))
    sharer.run(layout, lambda _, tensor: excerpt.append(tensor))
    assert torch.equal(both[:5], excerpt[0])


def test_where_not_all_may_leave_the_draft_goes_first(sharer: Sharer, drafts: list[Reading]) -> None:
    most = len(drafts[0].draft)
    assert len(segment(sharer, Plan(codec="raw", quoted=5), 2, *sections(TEXTS[0]))) == 2
    assert (
        len(segment(sharer, Plan(codec="raw", positions=3, quoted=5), 6, *sections(TEXTS[0])))
        == min(3, most) + 3
    )


def test_a_prompt_that_both_sides_hold_can_be_drafted_upon_and_not_quoted(sharer: Sharer) -> None:
    shared = Section(Role.QUESTION, Visibility.SHARED, text="Which of these is a river, and why is that so?")
    assert len(segment(sharer, Plan(codec="raw"), 32, shared))
    with pytest.raises(InvalidRequest, match="needs a cloud document"):
        sharer.layout((shared,), SliceKind.DRAFT, 32, Plan(codec="raw", quoted=1))


def test_an_excerpt_has_no_quotes_of_its_own() -> None:
    with pytest.raises(InvalidRequest, match="no quoted"):
        Plan(codec="raw", quoted=3).check(SliceKind.EXCERPT)
    assert Plan.parse("raw:m6:quoted3") == Plan(codec="raw", positions=6, quoted=3)


def test_the_sharers_own_answer_is_what_greedy_decoding_says_over_lines_and_up_to_its_cap(
    sharer: Sharer,
) -> None:
    for text in TEXTS:
        ids = sharer.prompt(sections(text)).tokens.ids
        whole = plain(sharer.model, sharer.tokenizer, ids, 24)
        assert sharer.answer(sections(text), 24) == whole.rstrip("\ufffd")


def test_a_draft_stops_where_the_models_window_does(sharer: Sharer, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = sharer.prompt(sections(TEXTS[0]))
    for room in (0, 3):
        monkeypatch.setattr(sharer, "window", len(prompt) + room)
        (reading,) = sharer.read([prompt], at=[prompt.document], draft=MAX_WRITTEN)
        assert len(reading.draft) == room
        assert len(reading.at) == len(prompt.document) + room
