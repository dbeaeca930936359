"""The Sharer: every rule and kind cuts what it says, and nothing of a document leaves with a shared slice."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fuser.bundle import Bundle
from fuser.models.load import load_model
from fuser.prefill import prefill
from fuser.scorer import Scorer
from fuser.select import SelectionConfig, choose
from fuser.sharer import Sharer
from kvwire.errors import InvalidRequest, Unsupported
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind

TEXT = "Ilse Brandvik keeps the spare key of the boat house under the third stone from the door."
DOCUMENT = Section(Role.DOCUMENT, Visibility.CLOUD, text=TEXT)
QUESTION = Section(Role.QUESTION, Visibility.SHARED, text="Where is the spare key?")


@pytest.fixture(scope="module")
def model(tiny_sharer: Path) -> tuple[Any, Any]:
    return load_model(tiny_sharer)


@pytest.fixture(scope="module")
def sharer(model: tuple[Any, Any], tiny_bundle: Path) -> Sharer:
    return Sharer(*model, Bundle.load(tiny_bundle))


def choosing(sharer: Sharer, selection: SelectionConfig, scorer: Scorer | None = None) -> Sharer:
    """The same Sharer with another selection rule."""
    bundle = sharer.bundle
    config = dataclasses.replace(bundle.config, selection=selection)
    heads = (bundle.fuse, bundle.translate, scorer)
    return Sharer(sharer.model, sharer.tokenizer, Bundle(config, *heads))


def cut(sharer: Sharer, kind: SliceKind, *sections: Section, most: int = 32) -> Tensor:
    """The one segment of an excerpt."""
    found: list[Tensor] = []
    sharer.run(sharer.plan(sections, kind, most), lambda _, tensor: found.append(tensor))
    (codes,) = found
    return codes


def chosen(sharer: Sharer, asking: Tensor, selection: SelectionConfig) -> Tensor:
    """The excerpt's positions by full attention: the rows of `asking`, max over heads, mean, summed over layers."""
    plan = sharer.plan((DOCUMENT, QUESTION), SliceKind.EXCERPT, 32)
    sharer.model.set_attn_implementation("eager")
    with torch.inference_mode():
        layers = sharer.model(input_ids=plan.tokens.ids[None], output_attentions=True).attentions
    sharer.model.set_attn_implementation("kvwire_sdpa")
    upper = layers[selection.first_query_layer(len(layers)) :]
    scores = torch.stack([layer[0].amax(0)[asking].mean(0) for layer in upper]).sum(0)
    return choose(scores, plan.exported, selection, 32)


@pytest.mark.parametrize(
    "selection",
    [
        SelectionConfig(positions=6),
        SelectionConfig(positions=6, rows=4),
        SelectionConfig(positions=6, rule="question"),
        SelectionConfig(positions=6, rule="pooled", rows=8, pool=5),
    ],
)
def test_an_excerpt_is_the_code_of_the_positions_that_its_rule_chooses(
    sharer: Sharer, selection: SelectionConfig
) -> None:
    with_rule = choosing(sharer, selection)
    plan = with_rule.plan((DOCUMENT, QUESTION), SliceKind.EXCERPT, 32)
    read = plan.tokens.offsets[plan.asking]
    if selection.rule == "question":
        prompt = sharer.bundle.config.sharer_prompt
        start = (
            len(prompt.head)
            + len(TEXT)
            + sum(map(len, prompt.wraps["document"]))
            + len(prompt.wraps["question"][0])
        )
        assert (int(read[0, 0]), int(read[-1, 1])) == (start, start + len(QUESTION.text or ""))
    else:
        assert plan.asking.tolist() == list(range(len(plan.tokens.ids)))[-selection.rows :]
    expected = chosen(sharer, plan.asking, selection)
    whole = choosing(sharer, SelectionConfig(positions=1000))
    every = cut(whole, SliceKind.EXCERPT, DOCUMENT, QUESTION, most=1000)
    assert len(every) == len(plan.exported)
    among = torch.searchsorted(plan.exported, expected)
    excerpt = cut(with_rule, SliceKind.EXCERPT, DOCUMENT, QUESTION)
    assert torch.allclose(excerpt, every[among], atol=1e-5)


def test_a_scorer_says_which_heads_choose(sharer: Sharer) -> None:
    heads, layers = sharer.model.config.num_attention_heads, sharer.geometry.layers
    learnt = SelectionConfig(positions=5, rule="learnt", heads=heads)
    scorer = Scorer((layers - learnt.first_query_layer(layers)) * heads)
    torch.manual_seed(4)
    slices = []
    for _ in range(4):
        scorer.weight.data.normal_()
        slices.append(cut(choosing(sharer, learnt, scorer), SliceKind.EXCERPT, DOCUMENT, QUESTION))
    assert len({tuple(codes.shape) for codes in slices}) == 1
    assert any(not torch.equal(slices[0], other) for other in slices[1:])


@pytest.mark.parametrize(
    "sections", [(QUESTION, DOCUMENT), (QUESTION, DOCUMENT, QUESTION), (DOCUMENT, QUESTION, DOCUMENT)]
)
def test_no_document_position_leaves_with_a_shared_slice_wherever_the_document_stands(
    sharer: Sharer, sections: tuple[Section, ...]
) -> None:
    plan = sharer.plan(sections, SliceKind.SHARED, 0)
    document = sharer.plan(sections, SliceKind.EXCERPT, 32).exported
    assert len(plan.spans) > 0 and plan.tail > 0
    assert not torch.isin(document, plan.exported).any()


def test_what_reads_a_document_needs_one(sharer: Sharer) -> None:
    with pytest.raises(InvalidRequest, match="needs a cloud document"):
        sharer.plan((QUESTION,), SliceKind.EXCERPT, 8)


def test_a_kind_without_a_head_is_refused(sharer: Sharer) -> None:
    config = dataclasses.replace(sharer.bundle.config, translate=None)
    poor = Sharer(sharer.model, sharer.tokenizer, Bundle(config, sharer.bundle.fuse))
    with pytest.raises(Unsupported):
        poor.plan((DOCUMENT, QUESTION), SliceKind.EXCERPT, 8)


def test_asking_rows_may_be_read_on_top_of_a_prefix(sharer: Sharer) -> None:
    """What training does for a second question over the same document."""
    plan = choosing(sharer, SelectionConfig(rule="question")).plan((DOCUMENT, QUESTION), SliceKind.EXCERPT, 8)
    ids, known = plan.tokens.ids[None], int(plan.asking[0]) - 3
    past: list[tuple[Tensor, Tensor]] = []
    rest: dict[str, Any] = {"last_layer": 3, "first_query_layer": 1}

    def ignored(*_: Any) -> None:
        pass

    whole = prefill(sharer.model, ids, on_layer=ignored, query_rows=plan.asking, **rest)
    prefill(sharer.model, ids[:, :known], on_layer=lambda _, k, v: past.append((k, v)), last_layer=3)
    later = prefill(
        sharer.model, ids[:, known:], on_layer=ignored, query_rows=plan.asking - known, past=past, **rest
    )
    assert whole is not None and later is not None
    assert torch.allclose(whole, later, atol=1e-5)
