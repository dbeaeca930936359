"""What is read of a batch of prompts: the service's bits, each document once, nothing on a device by accident."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fuser.bundle.bundle import Bundle
from fuser.heads.selection import choose
from fuser.kv.prefill import Prefill
from fuser.lab.data.document import Item, Question
from fuser.lab.train.cached import Cached
from fuser.lab.train.sharer_reading import SharerReading, document_sections
from fuser.models.load import load_model
from fuser.reader import Reader
from fuser.sharer import Cut, Reading, Sharer
from kvwire.plan import WHOLE, Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind

TEXT = "Ilse Brandvik keeps the spare key of the boat house under the third stone from the door. " * 3
QUESTIONS = (
    "Where is the spare key?",
    "Who keeps the key of the boat house, and under which stone is it?",
    "Why?",
)
PLANS = [
    (SliceKind.SHARED, WHOLE),
    (SliceKind.SHARED, Plan(codec="raw", last=5)),
    (SliceKind.EXCERPT, WHOLE),
    (SliceKind.EXCERPT, Plan(codec="raw", positions=8, fit=True)),
    (SliceKind.DRAFT, WHOLE),
    (SliceKind.DRAFT, Plan(codec="raw", positions=4, quoted=3)),
    (SliceKind.DRAFT, Plan(codec="raw", positions=4, quoted=8, fit=True)),
]


@pytest.fixture(scope="module")
def model(tiny_sharer: Path) -> tuple[Any, Any]:
    return load_model(tiny_sharer)


@pytest.fixture(scope="module")
def sharer(model: tuple[Any, Any], tiny_bundle: Path) -> Sharer:
    return Sharer(*model, Bundle.load(tiny_bundle))


def prompts() -> list[tuple[Section, ...]]:
    """Questions over one document, over another, and a long and a short one over none."""
    alone = (f"{TEXT}\n{QUESTIONS[1]}", QUESTIONS[2])
    return [
        *(document_sections(TEXT, question) for question in QUESTIONS),
        document_sections(TEXT[40:], QUESTIONS[0]),
        *((Section(Role.QUESTION, Visibility.SHARED, text=text),) for text in alone),
    ]


def served(sharer: Sharer, sections: tuple[Section, ...], kind: SliceKind, plan: Plan) -> list[Tensor]:
    """The segments as the service has them."""
    found: list[Tensor] = []
    sharer.run(sharer.layout(sections, kind, 12, plan), lambda _, tensor: found.append(tensor))
    return found


def read(sharer: Sharer, layouts: list[Cut]) -> list[Reading]:
    """What the slices of one kind and plan are cut from."""
    first = layouts[0]
    return sharer.read([layout.prompt for layout in layouts], asking=first.quoted > 0, draft=first.drafting)


@pytest.mark.parametrize(("kind", "plan"), PLANS)
def test_a_slice_cut_from_a_batch_has_the_bits_of_the_service(
    sharer: Sharer, kind: SliceKind, plan: Plan
) -> None:
    asked = [s for s in prompts() if kind is SliceKind.SHARED or len(s) > 1]
    layouts = [sharer.layout(sections, kind, 12, plan) for sections in asked]
    readings = read(sharer, layouts)
    for sections, layout, reading in zip(asked, layouts, readings, strict=True):
        cut = sharer.cut(reading, layout)
        expected = served(sharer, sections, kind, plan)
        assert [segment.spec.shape for segment in cut] == [tuple(tensor.shape) for tensor in expected]
        if not (layout.drafting or layout.fit):
            assert tuple(segment.spec for segment in cut) == layout.specs
        assert all(torch.equal(s.tensor, e) for s, e in zip(cut, expected, strict=True))


def test_training_reads_the_bits_that_the_service_sends(sharer: Sharer, model: tuple[Any, Any]) -> None:
    item = Item("key", TEXT, tuple(Question(text, ("stone",)) for text in QUESTIONS))
    reader = SharerReading(*model, sharer.style, sharer.selection)
    features, cached = reader.read_item(item)
    assert isinstance(cached, Cached) and len(features) == cached.count + len(QUESTIONS) == reader.rows(item)
    head = sharer.bundle.require_translate()
    for question in cached.questions:
        (codes,) = served(sharer, document_sections(TEXT, question.text), SliceKind.EXCERPT, WHOLE)
        chosen = choose(question.scores, torch.arange(cached.count), sharer.selection, len(codes))
        geometry = sharer.geometry
        read = features[chosen].unflatten(1, (geometry.layers, -1))[:, list(head.layers)].flatten(1)
        assert torch.equal(head.encode(read), codes)


def test_a_document_is_read_once_for_all_its_questions(
    sharer: Sharer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    run = Reader._prefill

    def counted(reader: Reader, works: list[Prefill]) -> None:
        read.extend(part.positions for work in works for part in work.parts)
        run(reader, works)

    monkeypatch.setattr(Reader, "_prefill", counted)
    asked = [sharer.prompt(document_sections(TEXT, question)) for question in QUESTIONS]
    sharer.read(asked, asking=True)
    (prefix,) = {prompt.prefix for prompt in asked}
    assert sum(read) == sum(map(len, asked)) - (len(asked) - 1) * prefix


def test_positions_that_were_not_kept_are_not_taken(sharer: Sharer) -> None:
    prompt = sharer.prompt(document_sections(TEXT, QUESTIONS[0]))
    (reading,) = sharer.read([prompt], at=[torch.tensor([2, 5, 9])])
    assert reading.among(torch.tensor([2, 9])).tolist() == [0, 2]
    for missing in ([3], [2, 11]):
        with pytest.raises(ValueError, match="were not kept"):
            reading.among(torch.tensor(missing))


@pytest.mark.parametrize(("kind", "plan"), PLANS)
def test_no_tensor_is_made_on_the_default_device(sharer: Sharer, kind: SliceKind, plan: Plan) -> None:
    """Were one, it could not be computed with: the default device here is one that holds no numbers."""
    sections = document_sections(TEXT, QUESTIONS[0])
    expected = served(sharer, sections, kind, plan)
    with torch.device("meta"):
        layout = sharer.layout(sections, kind, 12, plan)
        (reading,) = read(sharer, [layout])
        cut = sharer.cut(reading, layout)
        again = served(sharer, sections, kind, plan)
    for found in ([segment.tensor for segment in cut], again):
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
