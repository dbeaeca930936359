"""The Sharer: every rule and kind cuts what it says, and nothing of a document leaves with a shared slice."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.heads.selection import Scorer, SelectionConfig, choose
from fuser.models.load import load_model
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
    sharer.run(sharer.layout(sections, kind, most), lambda _, tensor: found.append(tensor))
    (codes,) = found
    return codes


def chosen(sharer: Sharer, selection: SelectionConfig) -> Tensor:
    """The excerpt's positions by full attention: the last row, max over heads, summed over layers."""
    layout = sharer.layout((DOCUMENT, QUESTION), SliceKind.EXCERPT, 32)
    sharer.model.set_attn_implementation("eager")
    with torch.inference_mode():
        layers = sharer.model(input_ids=layout.prompt.tokens.ids[None], output_attentions=True).attentions
    sharer.model.set_attn_implementation("kvwire_sdpa")
    upper = layers[selection.first_query_layer(len(layers)) :]
    scores = torch.stack([layer[0].amax(0)[-1] for layer in upper]).sum(0)
    return choose(scores, layout.exported, selection, 32)


def test_an_excerpt_is_the_code_of_the_positions_that_the_last_token_attends_to(sharer: Sharer) -> None:
    selection = SelectionConfig(positions=6)
    with_rule = choosing(sharer, selection)
    layout = with_rule.layout((DOCUMENT, QUESTION), SliceKind.EXCERPT, 32)
    expected = chosen(sharer, selection)
    whole = choosing(sharer, SelectionConfig(positions=1000))
    every = cut(whole, SliceKind.EXCERPT, DOCUMENT, QUESTION, most=1000)
    assert len(every) == len(layout.exported)
    among = torch.searchsorted(layout.exported, expected)
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
    layout = sharer.layout(sections, SliceKind.SHARED, 0)
    document = sharer.layout(sections, SliceKind.EXCERPT, 32).exported
    assert len(layout.spans) > 0 and layout.tail > 0
    assert not torch.isin(document, layout.exported).any()


def test_what_reads_a_document_needs_one(sharer: Sharer) -> None:
    with pytest.raises(InvalidRequest, match="needs a cloud document"):
        sharer.layout((QUESTION,), SliceKind.EXCERPT, 8)


def test_a_kind_without_a_head_is_refused(sharer: Sharer) -> None:
    config = dataclasses.replace(sharer.bundle.config, translate=None)
    poor = Sharer(sharer.model, sharer.tokenizer, Bundle(config, sharer.bundle.fuse))
    with pytest.raises(Unsupported):
        poor.layout((DOCUMENT, QUESTION), SliceKind.EXCERPT, 8)
