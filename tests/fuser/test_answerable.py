"""Whether documents hold an answer: told beside every slice, by the cloud alone, from what is read anyway."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fuser.bundle.bundle import ANSWERABLE_FILE, BadBundle, Bundle
from fuser.heads.answerable import Answerable, AnswerableConfig
from fuser.kv.past import PrefixCache
from fuser.lab.data.cases import without_answers
from fuser.lab.data.document import Item, Question
from fuser.lab.train.answerable import _fitted
from fuser.models.load import load_model
from fuser.sharer import Cut, Sharer
from kvwire.plan import Plan
from kvwire.section import Role, Section, Visibility
from kvwire.segment import SliceKind

QUESTION = Section(Role.QUESTION, Visibility.SHARED, text="Where is it?")
DOCUMENT = Section(
    Role.DOCUMENT, Visibility.CLOUD, text="The spare key is under the third stone from the door."
)


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """The tiny bundle with a random head of layers 1 and 3."""
    made = Bundle.load(tiny_bundle)
    head = Answerable(AnswerableConfig((1, 3)), 2 * made.config.sharer_geometry.layer_width)
    torch.nn.init.normal_(head.weight)
    assert made.with_answerable(head).save(tmp_path / "bundle") == made.hash
    return tmp_path / "bundle"


def test_slices_of_both_kinds_tell_it_and_a_prompt_without_documents_does_not(
    bundle: Path, tiny_sharer: Path
) -> None:
    loaded = Bundle.load(bundle)
    sharer = Sharer(*load_model(tiny_sharer), loaded, PrefixCache(1 << 30))
    prompt = sharer.prompt((DOCUMENT, QUESTION))
    (read,) = sharer.read([prompt])
    assert loaded.answerable is not None
    wanted = float(loaded.answerable(read.features((1, 3))[-1:]))
    told: list[float | None] = []
    for kind in (SliceKind.EXCERPT, SliceKind.DRAFT, SliceKind.DRAFT):  # the last over a document read before
        cuts: list[Cut] = []
        sharer.run(sharer.layout(prompt, kind, 8, Plan(codec="raw")), lambda *_: None, announce=cuts.append)
        told.append(cuts[0].certainty.answerable)
    assert told == pytest.approx([wanted] * 3, abs=1e-3)
    (alone,) = sharer.read([sharer.prompt((QUESTION,))], draft=4)
    assert alone.draft and alone.certainty.answerable is None


def test_the_bundle_keeps_its_hash_and_a_file_that_does_not_fit_is_refused_by_name(
    bundle: Path, tiny_bundle: Path
) -> None:
    assert Bundle.load(bundle).hash == Bundle.load(tiny_bundle).hash
    path = bundle / ANSWERABLE_FILE
    stored = load_file(path)
    for change in (
        {"weight": stored["weight"][:-1]},
        {"weight": stored["weight"] / 0},
        {"more": stored["bias"] + 1},
    ):
        save_file(stored | change, path)
        with pytest.raises(BadBundle, match=ANSWERABLE_FILE):
            Bundle.load(bundle)
    path.unlink()
    with pytest.raises(BadBundle, match=ANSWERABLE_FILE):
        Bundle.load(bundle)


@pytest.mark.parametrize("layers", ["[]", "[3, 1]", "[1, 99]"])
def test_layers_that_the_sharer_does_not_have_are_refused(bundle: Path, layers: str) -> None:
    config = json.loads((bundle / "config.json").read_text())
    config["answerable"]["layers"] = json.loads(layers)
    (bundle / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadBundle, match=r"answerable\.layers"):
        Bundle.load(bundle)


def test_a_fit_parts_what_a_line_parts() -> None:
    torch.manual_seed(1)
    features = 40 + torch.randn(300, 8) * torch.tensor([1.0, 9.0] * 4)
    wanted = (features[:, 2] + features[:, 5] / 9 > 44.4).float()
    head = _fitted(features[:200], wanted[:200], (0, 1))
    odds = head(features[200:])
    assert float(((odds > 0).float() == wanted[200:]).float().mean()) > 0.85


def test_near_misses_stand_over_the_nearest_document_that_does_not_hold_the_answer() -> None:
    asked = Item("s", "Otto keeps the boat key.", (Question("Who keeps the boat key?", ("Otto",)),))
    pool = [
        asked,
        Item("s", "The boat key is lost.", ()),
        Item("s", "Nothing.", ()),
        Item("s", "A boat key of Otto", ()),
    ]
    (near,) = without_answers([asked], pool, "not stated")
    assert near.document == "The boat key is lost." and near.origin == asked.document
    assert near.questions == (Question("Who keeps the boat key?", ("not stated",)),)
